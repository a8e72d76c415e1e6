package faultfs

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
)

type file struct {
	d      *Disk
	ino    *inode
	closed atomic.Bool
}

func (f *file) ask(op Op) error {
	if f.closed.Load() {
		return os.ErrClosed
	}
	f.d.mu.Lock()
	name := f.ino.name
	f.d.mu.Unlock()
	return f.d.ask(op, name)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.ask(OpRead); err != nil {
		return 0, err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off >= int64(len(f.ino.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.ino.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.ask(OpWrite); err != nil {
		return 0, err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	var err error
	if grow := off + int64(len(p)) - int64(len(f.ino.data)); f.d.capacity > 0 && grow > 0 {
		if free := max(f.d.capacity-f.d.used(""), 0); grow > free {
			p, err = p[:max(int64(len(p))-(grow-free), 0)], syscall.ENOSPC
		}
	}
	f.ino.write(p, int(off))
	f.d.peak = max(f.d.peak, f.d.used(""))
	return len(p), err
}

func (f *file) Truncate(size int64) error {
	if err := f.ask(OpTruncate); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.ino.truncate(int(size))
	return nil
}

// Sync makes the content durable. When the hook fails it, the content stays unsynced but counts as clean: the next Sync of the file
// succeeds without writing it.
func (f *file) Sync() error {
	err := f.ask(OpSync)
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err != nil {
		f.ino.lo, f.ino.hi = 0, 0
		return err
	}
	f.ino.sync()
	return nil
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.ino.data)), nil
}

func (f *file) Close() error {
	if f.closed.Swap(true) {
		return os.ErrClosed
	}
	return nil
}

func (i *inode) touch(lo, hi int) {
	if i.lo == i.hi {
		i.lo, i.hi = lo, hi
		return
	}
	i.lo, i.hi = min(i.lo, lo), max(i.hi, hi)
}

func (i *inode) write(p []byte, off int) {
	if len(p) == 0 {
		return
	}
	if old := len(i.data); off+len(p) > old {
		i.data = append(i.data, make([]byte, off+len(p)-old)...)
		i.touch(min(old, off), len(i.data))
	}
	copy(i.data[off:], p)
	i.touch(off, off+len(p))
}

func (i *inode) truncate(size int) {
	if size >= len(i.data) {
		return
	}
	i.data = i.data[:size:size]
	i.hi = min(i.hi, size)
	i.lo = min(i.lo, i.hi)
}

func (i *inode) sync() {
	if len(i.stable) > len(i.data) {
		i.stable = i.stable[:len(i.data):len(i.data)]
	}
	if i.lo == i.hi {
		return
	}
	if n := len(i.data) - len(i.stable); n > 0 {
		i.stable = append(i.stable, make([]byte, n)...)
	}
	copy(i.stable[i.lo:i.hi], i.data[i.lo:i.hi])
	i.lo, i.hi = 0, 0
}
