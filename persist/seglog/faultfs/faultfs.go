// Package faultfs is a file system in memory for tests of what is built on seglog: any call can be made to fail or take time, the disk
// can be full, and the power can be cut, which loses any part of what was not fsynced.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"gantry/persist/seglog"
)

// Op names a call for Disk.Hook.
type Op string

// The calls that reach the hook.
const (
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpTruncate Op = "truncate"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpSyncDir  Op = "syncdir"
	OpMkdir    Op = "mkdir"
)

// ErrInjected is a convenient error for hooks.
var ErrInjected = fmt.Errorf("injected: %w", syscall.EIO)

// Disk is a file system in memory. It implements seglog.FS.
type Disk struct {
	mu       sync.Mutex // guards all below and the contents of all files
	hook     func(op Op, path string) error
	capacity int64 // 0: unlimited
	dirs     map[string]bool
	names    map[string]*inode // what programs see
	stable   map[string]*inode // what a power cut leaves for sure
	pending  []dirOp           // between the two, in order
	locked   map[string]bool
	dead     bool // power was cut: old handles fail
	peak     int64
}

var _ seglog.FS = (*Disk)(nil)

type dirOp struct {
	dir    string
	name   string
	ino    *inode // nil: the name was removed
	rename string // the old name, also removed
}

// inode is a file: data is what programs see, stable what was fsynced.
type inode struct {
	name   string // newest name, for the hook
	data   []byte
	stable []byte
	lo, hi int // dirty range of data
}

// New returns an empty disk.
func New() *Disk {
	return &Disk{
		dirs: map[string]bool{"/": true, ".": true}, names: map[string]*inode{}, stable: map[string]*inode{}, locked: map[string]bool{},
	}
}

// Hook makes f decide over every call before it happens: an error makes the call fail, and f may sleep to make it slow. A failing sync
// leaves the data unsynced and forgets that it was dirty, as kernels do. nil removes the hook.
func (d *Disk) Hook(f func(op Op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// SetCapacity sets how many bytes all files together may have; writes above it fail with ENOSPC after writing what fits. 0 removes the limit.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// Used returns the bytes of all files.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used("")
}

// UsedIn returns the bytes of all files below a folder.
func (d *Disk) UsedIn(dir string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used(dir + "/")
}

// Peak returns the most bytes that all files together ever had.
func (d *Disk) Peak() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peak
}

func (d *Disk) used(prefix string) (n int64) {
	for name, ino := range d.names {
		if strings.HasPrefix(name, prefix) {
			n += int64(len(ino.data))
		}
	}
	return n
}

// ReadFile returns a copy of a file's content.
func (d *Disk) ReadFile(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ino, ok := d.names[filepath.Clean(path)]
	if !ok {
		return nil, notExist("read", path)
	}
	return append([]byte(nil), ino.data...), nil
}

// WriteFile sets a file's content, durably and without asking the hook: to plant damage.
func (d *Disk) WriteFile(path string, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path = filepath.Clean(path)
	ino := &inode{name: path, data: append([]byte(nil), data...), stable: append([]byte(nil), data...)}
	d.names[path], d.stable[path] = ino, ino
	d.dirs[filepath.Dir(path)] = true
}

func notExist(op, path string) error { return &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist} }

var errPowerCut = errors.New("power was cut")

// ask runs the hook without holding mu.
func (d *Disk) ask(op Op, path string) error {
	d.mu.Lock()
	hook, dead := d.hook, d.dead
	d.mu.Unlock()
	if dead {
		return errPowerCut
	}
	if hook == nil {
		return nil
	}
	return hook(op, path)
}

// MkdirAll creates a folder. Folders survive a power cut.
func (d *Disk) MkdirAll(dir string) error {
	if err := d.ask(OpMkdir, dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for dir = filepath.Clean(dir); !d.dirs[dir]; dir = filepath.Dir(dir) {
		d.dirs[dir] = true
	}
	return nil
}

// List returns the entries of a folder.
func (d *Disk) List(dir string) ([]seglog.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir = filepath.Clean(dir)
	if !d.dirs[dir] {
		return nil, notExist("list", dir)
	}
	var out []seglog.FileInfo
	for name, ino := range d.names {
		if filepath.Dir(name) == dir {
			out = append(out, seglog.FileInfo{Name: filepath.Base(name), Size: int64(len(ino.data))})
		}
	}
	for name := range d.dirs {
		if name != dir && filepath.Dir(name) == dir {
			out = append(out, seglog.FileInfo{Name: filepath.Base(name), Dir: true})
		}
	}
	return out, nil
}

// Open opens a file.
func (d *Disk) Open(path string, flag int) (seglog.File, error) {
	path = filepath.Clean(path)
	if err := d.ask(OpOpen, path); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino, ok := d.names[path]
	if ok && flag&os.O_EXCL != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrExist}
	}
	if !ok {
		if flag&os.O_CREATE == 0 || !d.dirs[filepath.Dir(path)] {
			return nil, notExist("open", path)
		}
		ino = &inode{name: path}
		d.names[path] = ino
		d.pending = append(d.pending, dirOp{dir: filepath.Dir(path), name: path, ino: ino})
	}
	return &file{d: d, ino: ino}, nil
}

// Rename moves a file.
func (d *Disk) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := d.ask(OpRename, from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ino, ok := d.names[from]
	if !ok {
		return notExist("rename", from)
	}
	delete(d.names, from)
	d.names[to] = ino
	ino.name = to
	d.pending = append(d.pending, dirOp{dir: filepath.Dir(to), name: to, ino: ino, rename: from})
	return nil
}

// Remove unlinks a file.
func (d *Disk) Remove(path string) error {
	path = filepath.Clean(path)
	if err := d.ask(OpRemove, path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.names[path]; !ok {
		return notExist("remove", path)
	}
	delete(d.names, path)
	d.pending = append(d.pending, dirOp{dir: filepath.Dir(path), name: path})
	return nil
}

// SyncDir makes the folder's entries durable.
func (d *Disk) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	if err := d.ask(OpSyncDir, dir); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var rest []dirOp
	for _, op := range d.pending {
		if op.dir != dir && filepath.Dir(op.rename) != dir {
			rest = append(rest, op)
			continue
		}
		op.apply(d.stable)
	}
	d.pending = rest
	return nil
}

func (op dirOp) apply(names map[string]*inode) {
	if op.rename != "" {
		delete(names, op.rename)
	}
	if op.ino == nil {
		delete(names, op.name)
		return
	}
	names[op.name] = op.ino
}

// Lock takes a folder.
func (d *Disk) Lock(dir string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked[dir] {
		return nil, seglog.ErrLocked
	}
	d.locked[dir] = true
	return closer(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.locked, dir)
		return nil
	}), nil
}

type closer func() error

func (c closer) Close() error { return c() }
