//go:build unix && !race

package mqtt

var buildFlags []string
