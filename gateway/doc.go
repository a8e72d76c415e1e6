// Package gateway is the composition root: it builds the parts in order, runs
// them, and stops them in reverse so that nothing acknowledged is lost.
package gateway

// Version of the program, set at link time.
var Version = "unknown"
