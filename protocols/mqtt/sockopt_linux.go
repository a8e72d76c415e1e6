package mqtt

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is how long sent bytes may stay unacknowledged by the peer's
// kernel: without it a client that vanished is noticed after a quarter of an
// hour of retransmissions, and keep-alive probes do not run meanwhile.
const userTimeout = 2 * time.Minute

// setUserTimeout sets TCP_USER_TIMEOUT on the listening socket; accepted ones
// inherit it.
func setUserTimeout(_, _ string, rc syscall.RawConn) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	}); cerr != nil {
		return cerr
	}
	return err
}
