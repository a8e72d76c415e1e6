package embedded

import (
	"syscall"

	"gantry/persist/seglog"
)

// spacer is a file system that knows its size; the operating system's on Linux is one.
type spacer interface {
	Space(dir string) (size, free int64, err error)
}

// Small partitions: a segment is at most this part of the file system, and never smaller than that.
const (
	segmentShare = 64
	minSegment   = 256 << 10
)

// fitDisk makes segments and reserve smaller on a small file system, where those of the configuration would be most of it.
func (c *Config) fitDisk() {
	fs, ok := c.fs().(spacer)
	if !ok {
		return
	}
	size, _, err := fs.Space(c.Dir)
	if err != nil {
		return // the folder does not exist yet, or the file system does not say
	}
	for c.SegmentBytes > minSegment && c.SegmentBytes > size/segmentShare {
		c.SegmentBytes /= 2
		c.Reserve /= 2
	}
}

func (c *Config) fs() seglog.FS {
	if c.FS != nil {
		return c.FS
	}
	return seglog.OS()
}

// room returns how many bytes have to be written to make the reserve, or ENOSPC. There must be as much again beside it, for others: the
// bridges' queues, and so that giving the reserve up is not taken for room to have it again. A file system that says what is free spares
// writing for nothing; for one that does not, both are written, and the second half is cut off.
func (r *reserve) room() (write int64, err error) {
	fs, ok := r.fs.(spacer)
	if !ok {
		return 2 * r.size, nil
	}
	_, free, err := fs.Space(r.dir)
	switch {
	case err != nil:
		return 2 * r.size, nil //nolint:nilerr // writing tells
	case free < 2*r.size:
		return 0, syscall.ENOSPC
	}
	return r.size, nil
}
