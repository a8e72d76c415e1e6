package kafka

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync makes written data durable without the file's times, which would
// cost a second write.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
