package seglog

import (
	"os"
	"syscall"
)

// dataSync is fdatasync: it saves the journal commit for time stamps that a full fsync makes.
func dataSync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
