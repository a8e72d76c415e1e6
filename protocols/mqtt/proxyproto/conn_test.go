package proxyproto

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// from is a connection of a proxy with an address of choice.
type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr)) }

// A client on the proxy's machine has a loopback address there, which is not one
// of this machine: what is open to clients on this machine must stay shut.
func TestLoopbackOfAnotherMachine(t *testing.T) {
	for _, tc := range []struct{ proxy, source, want string }{
		{"192.0.2.7:1", "127.0.0.1:40000", ""},
		{"192.0.2.7:1", "[::1]:40000", ""},
		{"192.0.2.7:1", "[::ffff:127.0.0.1]:40000", ""},
		{"192.0.2.7:1", "198.51.100.1:40000", "198.51.100.1:40000"},
		{"127.0.0.1:1", "127.0.0.2:40000", "127.0.0.2:40000"},
		{"[::1]:1", "127.0.0.1:40000", "127.0.0.1:40000"},
	} {
		c := newConn(from{addr: tc.proxy}, header{source: netip.MustParseAddrPort(tc.source)}, nil)
		got := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		require.Equal(t, tc.want != "", got.Addr().IsValid(), tc)
		if tc.want != "" {
			require.Equal(t, tc.want, got.String())
		}
	}
}
