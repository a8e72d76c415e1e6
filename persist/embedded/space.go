package embedded

import "gantry/persist/seglog"

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

// room reports whether the reserve fits with as much again left for others, as far as the file system says. It saves writing for nothing,
// and taking the last room from the queues of the bridges.
func (r *reserve) room() bool {
	fs, ok := r.fs.(spacer)
	if !ok {
		return true
	}
	_, free, err := fs.Space(r.dir)
	return err != nil || free >= 2*r.size
}
