package standin

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are taken from below the range that systems hand out for outgoing
// connections. A server that is down for a moment therefore cannot lose its
// port to somebody's dial, nor can a client that keeps dialing it end up
// connected to itself.
const (
	firstPort = 20000
	lastPort  = 31999
)

// given holds the ports that this process has handed out already.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePort returns a loopback TCP port that nothing listens on and that this
// process has not been given before.
func FreePort() (int, error) {
	given.Lock()
	defer given.Unlock()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if given.ports[port] {
			continue
		}
		ln, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("give back port %d: %w", port, err)
		}
		given.ports[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// Loopback returns the address of a port on this machine.
func Loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
