package mqtt

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// socketMode lets the owner and the group of a Unix socket connect.
const socketMode = 0o660

// unixListener removes its socket when it is closed, but not one that somebody
// else has put in its place.
type unixListener struct {
	net.Listener
	path string
	own  os.FileInfo
	once sync.Once
}

// Close removes the socket and stops listening. It is safe to call more than once.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.own) {
			_ = os.Remove(l.path) // a socket that stays is replaced at the next start
		}
	})
	return l.Listener.Close()
}

func listenUnix(path string) (net.Listener, error) {
	l, err := openUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen for MQTT on %s%s: %w", unixPrefix, path, err)
	}
	return l, nil
}

func openUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The umask allows others to read at most, which does not let them connect.
	err = os.Chmod(path, socketMode)
	own, statErr := os.Lstat(path)
	if err = errors.Join(err, statErr); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	return &unixListener{Listener: ln, path: path, own: own}, nil
}

// removeStale removes a socket that nobody listens on. What is no socket stays.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("the file is there and is no socket")
	}
	nc, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = nc.Close()
		return errors.New("somebody listens there already")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
