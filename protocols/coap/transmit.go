package coap

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
)

// outcome is how a confirmable message ended.
type outcome uint8

const (
	outcomeAcked outcome = iota
	outcomeReset
	outcomeTimeout
)

// transmission is a confirmable message of ours that its peer has not
// acknowledged yet (RFC 7252 section 4.2).
type transmission struct {
	peer    *peer
	mid     uint16
	data    []byte
	retries int
	timeout time.Duration
	timer   timer
	done    func(outcome) // called once, unless the transmission is stopped
}

// transmit sends a confirmable message and repeats it until it is acknowledged
// or MAX_RETRANSMIT is reached. data is kept.
func (l *loop) transmit(p *peer, mid uint16, data []byte, done func(outcome)) *transmission {
	spread := 1 + rand.Float64()*(l.cfg.RandomFactor-1)
	t := &transmission{
		peer: p, mid: mid, data: data, done: done,
		timeout: time.Duration(float64(l.cfg.AckTimeout) * spread),
	}
	t.timer.fire = func() { l.retransmit(t) }
	p.out = append(p.out, t)
	l.timers.set(&t.timer, l.now+t.timeout)
	l.send(p, data)
	return t
}

func (l *loop) retransmit(t *transmission) {
	if t.retries >= l.cfg.MaxRetransmit {
		l.metrics.timeouts.Inc()
		l.finishTransmission(t, outcomeTimeout)
		return
	}
	t.retries++
	t.timeout *= 2
	l.timers.set(&t.timer, l.now+t.timeout)
	l.metrics.retransmits.Inc()
	l.send(t.peer, t.data)
}

func (l *loop) finishTransmission(t *transmission, o outcome) {
	l.stopTransmission(t)
	t.done(o)
}

// stopTransmission gives a message up without telling anybody.
func (l *loop) stopTransmission(t *transmission) {
	l.timers.stop(&t.timer)
	p := t.peer
	if i := slices.Index(p.out, t); i >= 0 {
		p.out = slices.Delete(p.out, i, i+1)
	}
}

// acknowledged handles an ACK or RST. Neither is ever answered.
func (l *loop) acknowledged(d *datagram, pkt *packet) {
	p := l.peers[d.from]
	if p == nil {
		l.metrics.drop(dropUnmatched)
		return
	}
	if t := p.transmission(pkt.mid); t != nil {
		p.heard = l.now
		o := outcomeAcked
		if pkt.typ == message.Reset {
			o = outcomeReset
		}
		l.finishTransmission(t, o)
		return
	}
	if pkt.typ == message.Reset {
		if o := p.recent.take(pkt.mid); o != nil {
			p.heard = l.now
			l.removeObservation(o)
			return
		}
	}
	l.metrics.drop(dropUnmatched)
}

// send puts a datagram for a peer into the batch.
func (l *loop) send(p *peer, data []byte) {
	l.metrics.sent.Inc()
	l.out.put(p.udp, p.local, data)
}

// sendEmpty sends an ACK or RST, to a peer or to nobody we know.
func (l *loop) sendEmpty(d *datagram, typ message.Type, mid uint16) {
	m := emptyMessage(typ, mid)
	l.metrics.sent.Inc()
	l.out.put(d.addr, d.to, m[:])
}

func (l *loop) acknowledge(ex *exchange) {
	m := emptyMessage(message.Acknowledgement, ex.mid)
	l.send(ex.peer, m[:])
}
