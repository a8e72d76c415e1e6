//go:build unix && race

package e2e

// With the race detector in the tests there is one in the program too.
var buildFlags = []string{"-race"}
