package standin

import (
	"fmt"
	"net"
	"sync"
)

// gate is a listener that can be taken off the network and put back on the same
// port while its user waits in Accept and notices nothing.
type gate struct {
	addr net.Addr

	mu     sync.Mutex // covers the rest
	moved  sync.Cond  // ln was set or closed was
	ln     net.Listener
	conns  map[net.Conn]struct{}
	closed bool
}

var _ net.Listener = (*gate)(nil)

func newGate(addr string) (*gate, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	g := &gate{addr: ln.Addr(), ln: ln, conns: map[net.Conn]struct{}{}}
	g.moved.L = &g.mu
	return g, nil
}

// Addr stays the same while the gate is cut.
func (g *gate) Addr() net.Addr { return g.addr }

// Accept waits through a cut, and ends with net.ErrClosed after Close.
func (g *gate) Accept() (net.Conn, error) {
	for {
		ln, err := g.listener()
		if err != nil {
			return nil, err
		}
		conn, err := ln.Accept()
		if err == nil && g.keep(ln, conn) {
			return &gatedConn{Conn: conn, gate: g}, nil
		}
		if err != nil && g.listensOn(ln) {
			return nil, err
		}
	}
}

// Cut stops listening and drops every connection.
func (g *gate) Cut() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln == nil {
		return nil
	}
	err := g.ln.Close()
	g.ln = nil
	for conn := range g.conns {
		_ = conn.Close()
	}
	clear(g.conns)
	return err
}

// Restore listens on the same port again.
func (g *gate) Restore() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != nil || g.closed {
		return nil
	}
	ln, err := net.Listen("tcp", g.addr.String())
	if err != nil {
		return fmt.Errorf("listen again: %w", err)
	}
	g.ln = ln
	g.moved.Broadcast()
	return nil
}

// Close ends Accept for good and drops every connection.
func (g *gate) Close() error {
	err := g.Cut()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.moved.Broadcast()
	return err
}

// listener waits until there is one.
func (g *gate) listener() (net.Listener, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.ln == nil && !g.closed {
		g.moved.Wait()
	}
	if g.closed {
		return nil, net.ErrClosed
	}
	return g.ln, nil
}

func (g *gate) listensOn(ln net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ln == ln
}

// keep remembers conn for the next cut, or drops it when the cut has come
// between its accept and now.
func (g *gate) keep(ln net.Listener, conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != ln {
		_ = conn.Close()
		return false
	}
	g.conns[conn] = struct{}{}
	return true
}

func (g *gate) forget(conn net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, conn)
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Close() error {
	c.gate.forget(c.Conn)
	return c.Conn.Close()
}
