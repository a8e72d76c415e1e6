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
	switch {
	case h.own:
		c.remote = nc.RemoteAddr()
	case h.source.Addr().Unmap().IsLoopback() && !onThisMachine(nc):
		c.remote = &net.TCPAddr{} // of another machine's: to take it for ours would open what is only for this one
	}
	if len(rest) > 0 {
		c.rest = rest
	}
	return c
}

// onThisMachine reports whether the proxy runs here.
func onThisMachine(nc net.Conn) bool {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// RemoteAddr is the address of the client, one without IP where the proxy does
// not know it, or says that it is a loopback address of another machine.
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
