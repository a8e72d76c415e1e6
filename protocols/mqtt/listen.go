package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// unixPrefix marks the address of a Unix socket: unix: and its path.
const unixPrefix = "unix:"

// socketMode lets the owner and the group of a Unix socket connect.
const socketMode = 0o660

// Listen opens an address for NewOn: host:port, or unix:/path. Connections of
// the former are probed by the kernel, so that a peer that vanished is noticed.
// A Unix socket that a gateway left behind when it was killed is replaced; the
// socket is removed when the listener is closed.
func Listen(bind string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(bind, unixPrefix); ok {
		return listenUnix(path)
	}
	lc := net.ListenConfig{
		Control:         setUserTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4},
	}
	ln, err := lc.Listen(context.Background(), "tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("listen for MQTT on %s: %w", bind, err)
	}
	return ln, nil
}

func listenUnix(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen for MQTT on %s%s: %w", unixPrefix, path, err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for MQTT on %s%s: %w", unixPrefix, path, err)
	}
	// The umask allows others to read at most, which does not let them connect.
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("set mode of MQTT socket: %w", err), ln.Close())
	}
	return ln, nil
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
