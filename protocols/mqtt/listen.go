package mqtt

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// unixPrefix marks the address of a Unix socket: unix: and its path.
const unixPrefix = "unix:"

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
