//go:build unix && !linux

package servers

import "syscall"

// dieWithParent has nothing to ask for: only Linux ties a child to its parent.
func dieWithParent() *syscall.SysProcAttr { return nil }
