package coap

import "golang.org/x/sys/unix"

// forceReceiveBuffer exceeds the limit of the system, where the process may.
func forceReceiveBuffer(fd, size int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
}
