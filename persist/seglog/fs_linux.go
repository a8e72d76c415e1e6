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

// Space returns the size of the file system that holds dir, and what of it is free for this process, in bytes.
func (osFS) Space(dir string) (size, free int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, os.NewSyscallError("statfs", err)
	}
	block := int64(st.Bsize) //nolint:unconvert // 32 bits on 32-bit machines
	return int64(st.Blocks) * block, int64(st.Bavail) * block, nil
}
