package quic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

var errFull = errors.New("a limit is reached")

// gate decides who may begin a handshake. It counts connections from their
// first packet to their end, whoever ends them.
type gate struct {
	cfg     *Config
	metrics *metrics

	mu     sync.Mutex // covers everything below
	all    int
	half   int                // in the handshake
	halfOf map[netip.Addr]int // those of proved addresses
}

func newGate(cfg *Config, m *metrics) *gate {
	return &gate{cfg: cfg, metrics: m, halfOf: make(map[netip.Addr]int)}
}

// place is what a connection takes of the limits.
type place struct {
	g      *gate
	addr   netip.Addr // zero: not proved
	shaken bool       // the handshake is over; covered by g.mu
}

type placeKey struct{}

// mustProve reports whether a client must prove its address first. That is
// asked for each first packet, so it costs little.
func (g *gate) mustProve(net.Addr) bool {
	g.mu.Lock()
	prove := g.half >= max(g.cfg.RetryAbove, 0)
	g.mu.Unlock()
	if prove {
		g.metrics.retries.Inc()
	}
	return prove
}

// enter gives a new connection its place, or refuses it. The place is free when
// ctx, which is that of the connection, ends.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	p := &place{g: g}
	if info.AddrVerified {
		p.addr = addrPort(info.RemoteAddr).Addr()
	}
	if err := g.take(p); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, p.leave)
	return context.WithValue(ctx, placeKey{}, p), nil
}

func (g *gate) take(p *place) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.all >= g.cfg.MaxConnections:
		g.metrics.overLimit.Inc()
		return errFull
	case g.half >= g.cfg.MaxHandshakes, p.addr.IsValid() && g.halfOf[p.addr] >= g.cfg.MaxHandshakesPerAddress:
		g.metrics.halfOpen.Inc()
		return errFull
	}
	g.all++
	g.half++
	g.metrics.handshaking.Inc()
	if p.addr.IsValid() {
		g.halfOf[p.addr]++
	}
	return nil
}

// shake ends the handshake of a connection that is alive.
func (p *place) shake() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.shakeLocked()
}

func (p *place) shakeLocked() (first bool) {
	if p.shaken {
		return false
	}
	p.shaken = true
	p.g.half--
	p.g.metrics.handshaking.Dec()
	if p.g.halfOf[p.addr]--; p.g.halfOf[p.addr] <= 0 {
		delete(p.g.halfOf, p.addr)
	}
	return true
}

func (p *place) leave() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.all--
	if p.shakeLocked() {
		p.g.metrics.failed.Inc()
	}
}

// addrPort is a UDP address as package netip has it.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
