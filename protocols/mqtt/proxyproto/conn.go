package proxyproto

import (
	"net"
)

// Conn is a connection behind its header.
type Conn struct {
	net.Conn
	rest   []byte // what came with the header
	remote net.Addr
}

func newConn(nc net.Conn, h header, rest []byte) *Conn {
	c := &Conn{Conn: nc, remote: net.TCPAddrFromAddrPort(h.source)}
	if h.own {
		c.remote = nc.RemoteAddr()
	}
	if len(rest) > 0 {
		c.rest = rest
	}
	return c
}

// RemoteAddr is the address of the client, one without IP where the proxy does
// not know it.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read reads what follows the header. One goroutine at a time may call it.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

// WriteBuffers writes several buffers with one call of the system.
func (c *Conn) WriteBuffers(b net.Buffers) (int64, error) { return b.WriteTo(c.Conn) }

// CloseWrite ends what is sent, if the connection underneath can, else all of it.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
