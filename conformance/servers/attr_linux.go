package servers

import "syscall"

// dieWithParent has the kernel kill the server when the test program dies
// without running its cleanups, as it does after a panic or a timeout.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
