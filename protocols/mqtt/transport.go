package mqtt

import (
	"net"
	"net/netip"
	"time"
)

// identified is a connection whose transport may have proved who the client is.
type identified interface {
	// Identity returns the user that the client was proved to be, and false if
	// it was not. It is called once the first bytes were read.
	Identity() (user string, ok bool)
}

// mobile is a connection whose client may go on from another address.
type mobile interface {
	// Moved returns the address of the client when it has changed since the last
	// call. It is called by the reader, often.
	Moved() (netip.AddrPort, bool)
}

// lively is a connection of which Read returns nothing while a packet is under
// way, though bytes of it arrive.
type lively interface {
	// Alive returns when the client was last seen alive that way; the zero time
	// if it was not. The reader calls it before it gives a silent client up.
	Alive() time.Time
}

// gatherer is a connection for which one write is more than a matter of speed:
// what is written together travels as one frame or record.
type gatherer interface {
	WriteBuffers(b net.Buffers) (int64, error)
}

// identity is what the transport says about who the client is.
func identity(nc net.Conn) (user string, ok bool) {
	if i, can := nc.(identified); can {
		return i.Identity()
	}
	return "", false
}

// writeBoth writes two buffers together.
func writeBoth(nc net.Conn, first, second []byte) error {
	both := net.Buffers{first, second}
	var err error
	if g, ok := nc.(gatherer); ok {
		_, err = g.WriteBuffers(both)
	} else {
		_, err = both.WriteTo(nc)
	}
	return err
}

// isLocal reports whether a connection is one of a Unix socket.
func isLocal(nc net.Conn) bool {
	_, ok := nc.RemoteAddr().(*net.UnixAddr)
	return ok
}

// remoteOf is the address of the peer; zero for transports that have none.
func remoteOf(nc net.Conn) netip.AddrPort {
	if a, ok := nc.RemoteAddr().(interface{ AddrPort() netip.AddrPort }); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	p, err := netip.ParseAddrPort(nc.RemoteAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
