package seglog

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// FS is the part of a file system that the log needs: small, so that tests can make every call fail.
// Errors satisfy errors.Is with fs.ErrNotExist and syscall.ENOSPC as those of package os do.
type FS interface {
	// MkdirAll creates the folder and its parents.
	MkdirAll(dir string) error
	// List returns the entries of a folder in any order.
	List(dir string) ([]FileInfo, error)
	// Open opens a file with os.O_* flags.
	Open(path string, flag int) (File, error)
	// Rename moves a file within the file system, replacing the target.
	Rename(from, to string) error
	// Remove unlinks a file. Open files stay readable.
	Remove(path string) error
	// SyncDir makes creations, renames and removals in the folder durable.
	SyncDir(dir string) error
	// Lock takes the folder exclusively until the returned closer is closed; ErrLocked when somebody has it.
	Lock(dir string) (io.Closer, error)
}

// FileInfo is one entry of a folder.
type FileInfo struct {
	Name string
	Size int64
	Dir  bool
}

// File is an open file. ReadAt may run concurrently with WriteAt beyond the bytes being read.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes the file's data, and its size as far as reading it needs that, durable.
	Sync() error
	Size() (int64, error)
}

// OS returns the operating system's file system.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o750) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(path string) error     { return os.Remove(path) }

func (osFS) List(dir string) ([]FileInfo, error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]FileInfo, 0, len(ents))
	for _, e := range ents {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) { // removed since the folder was read
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, FileInfo{Name: e.Name(), Size: info.Size(), Dir: e.IsDir()})
	}
	return out, nil
}

func (osFS) Open(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Lock uses flock on the folder itself: it needs no file (so it works on a full disk) and ends with the process, however that dies.
func (osFS) Lock(dir string) (io.Closer, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, err
}

type osFile struct{ *os.File }

func (f osFile) Sync() error { return dataSync(f.File) }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
