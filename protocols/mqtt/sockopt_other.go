//go:build !linux

package mqtt

import "syscall"

// setUserTimeout: the option exists on Linux only; elsewhere write timeout and
// keep-alive probes must do.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
