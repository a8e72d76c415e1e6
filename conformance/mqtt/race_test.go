//go:build unix && race

package mqtt

// With the race detector in the tests there is one in the program too.
var buildFlags = []string{"-race"}
