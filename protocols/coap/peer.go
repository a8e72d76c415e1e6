package coap

import (
	"container/list"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// peer is one remote address. It belongs to the mutex of its loop.
type peer struct {
	addr  netip.AddrPort
	udp   *net.UDPAddr
	local *local        // where its last request was sent to
	seen  time.Duration // its last request
	heard time.Duration // the last sign of life, acknowledgements included
	place *list.Element // in the loop's list of peers that may be forgotten; nil for an observer

	trusted     bool          // need not prove its address
	provenUntil time.Duration // it did prove it

	mid     uint16 // the last message id used towards it
	dedup   dedup
	bucket  bucket
	pending int // requests that wait for the broker

	sessions     []*session
	observations int
	out          []*transmission
	recent       recentNotifications
	check        timer // asks a silent observer for a sign of life

	uploads []*upload
	bodies  []*body
}

// proven reports whether the peer is known to receive what is sent to it.
func (p *peer) proven(now time.Duration) bool { return p.trusted || now < p.provenUntil }

// nextMID returns a message id that no outstanding confirmable message has.
func (p *peer) nextMID() uint16 {
	for {
		p.mid++
		if p.transmission(p.mid) == nil {
			return p.mid
		}
	}
}

func (p *peer) transmission(mid uint16) *transmission {
	for _, t := range p.out {
		if t.mid == mid {
			return t
		}
	}
	return nil
}

// peerFor finds or makes the peer of a request. nil means that the table is
// full of peers that must not be forgotten.
func (l *loop) peerFor(d *datagram) *peer {
	p := l.peers[d.from]
	if p == nil {
		if !l.roomForPeer() {
			return nil
		}
		p = &peer{
			addr: d.from, udp: d.addr, trusted: l.echo.trusts(d.from.Addr()),
			mid: uint16(rand.Uint32()), bucket: bucket{tokens: l.cfg.Burst, at: l.now},
		}
		p.check.fire = func() { l.checkObserver(p) }
		l.peers[d.from] = p
		p.place = l.lru.PushFront(p)
		l.metrics.peers.Inc()
		if l.sweep.slot == 0 {
			l.timers.set(&l.sweep, l.now+l.peerIdle)
		}
	} else if p.place != nil {
		l.lru.MoveToFront(p.place)
	}
	p.local, p.seen, p.heard = d.to, l.now, l.now
	return p
}

// roomForPeer forgets the peer that was silent for longest if the table is at
// its cap. Observers and peers with a request under way stay.
func (l *loop) roomForPeer() bool {
	if len(l.peers) < l.maxPeers {
		return true
	}
	const tries = 8
	for range tries {
		last := l.lru.Back()
		if last == nil {
			return false
		}
		p := last.Value.(*peer)
		if p.pending == 0 {
			l.forgetPeer(p)
			return true
		}
		l.lru.MoveToFront(last)
	}
	return false
}

// sweepPeers forgets the peers that were silent for too long.
func (l *loop) sweepPeers() {
	for last := l.lru.Back(); last != nil; last = l.lru.Back() {
		p := last.Value.(*peer)
		if p.pending > 0 {
			p.seen = l.now
			l.lru.MoveToFront(last)
			continue
		}
		if due := p.seen + l.peerIdle; due > l.now {
			l.timers.set(&l.sweep, max(due, l.now+time.Second))
			return
		}
		l.forgetPeer(p)
	}
}

// forgetPeer drops all state of a peer and ends its sessions.
func (l *loop) forgetPeer(p *peer) {
	for len(p.sessions) > 0 {
		l.endSession(p.sessions[0], closeIdle)
	}
	for len(p.out) > 0 {
		l.stopTransmission(p.out[0])
	}
	for len(p.uploads) > 0 {
		l.dropUpload(p.uploads[0])
	}
	for len(p.bodies) > 0 {
		l.dropBody(p, p.bodies[0])
	}
	l.timers.stop(&p.check)
	if p.place != nil {
		l.lru.Remove(p.place)
		p.place = nil
	}
	if l.peers[p.addr] == p {
		delete(l.peers, p.addr)
		l.metrics.peers.Dec()
	}
}

// pin keeps an observer from being forgotten, release undoes that.
func (l *loop) pin(p *peer) {
	if p.place != nil {
		l.lru.Remove(p.place)
		p.place = nil
	}
	if p.check.slot == 0 {
		l.timers.set(&p.check, l.now+l.cfg.ObserverCheck)
	}
}

func (l *loop) release(p *peer) {
	l.timers.stop(&p.check)
	if p.place == nil && l.peers[p.addr] == p {
		p.seen = l.now
		p.place = l.lru.PushFront(p)
		if l.sweep.slot == 0 {
			l.timers.set(&l.sweep, l.now+l.peerIdle)
		}
	}
}

// bucket is a token bucket: one token per request.
type bucket struct {
	tokens float64
	at     time.Duration
}

// take takes a token if there is one.
func (b *bucket) take(now time.Duration, rate, burst float64) bool {
	if rate < 0 {
		return true
	}
	b.tokens = min(burst, b.tokens+rate*(now-b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
