package mqtt

import (
	"sync"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// ack is one acknowledgement that the client will get: its place in the order,
// and later its code. The core calls done from whatever goroutine it likes.
type ack struct {
	conn  *conn
	done  func(broker.Reason) // settle, bound once: it is handed out per message
	kind  wire.Type           // PUBACK, PUBREC, PUBREL or PUBCOMP
	id    uint16
	code  byte
	ready bool
}

// ackPool keeps what a message would otherwise allocate: the place and its
// callback.
var ackPool sync.Pool

func newAck() *ack {
	if a, ok := ackPool.Get().(*ack); ok {
		return a
	}
	a := &ack{}
	a.done = a.settle
	return a
}

// settle takes the outcome and lets the writer have the acknowledgements at
// the front that are ready.
func (a *ack) settle(r broker.Reason) {
	c := a.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || r == broker.Closed {
		return // Closed: the session has another owner, and Kick follows
	}
	code, ok := a.outcome(r, c.version)
	if !ok {
		c.endLocked(ending{reason: r, tell: true})
		return
	}
	a.code, a.ready = code, true
	if c.acks.front() == a {
		c.startWriter()
	}
}

// outcome is the code to send; ok is false when the connection must end
// instead of an acknowledgement.
func (a *ack) outcome(r broker.Reason, v wire.Version) (code byte, ok bool) {
	if a.kind == wire.PUBREL || a.kind == wire.PUBCOMP {
		if r == broker.PacketIDNotFound {
			return wire.CodePacketNotFound, true
		}
		return wire.CodeSuccess, r.OK() // not on disk: the exchange goes on after a reconnect
	}
	if v == wire.V5 {
		return rows[r].ack, true
	}
	return wire.CodeSuccess, !rows[r].resend && (r.OK() || !a.conn.srv.cfg.DisconnectDenied)
}

// ackQueue holds the acknowledgements in the order of the packets that they
// answer [MQTT-4.6.0-2, MQTT-4.6.0-3, MQTT-4.6.0-4].
type ackQueue struct {
	buf  []*ack
	head int
}

// keepAcks is the capacity that an empty queue keeps.
const keepAcks = 32

func (q *ackQueue) len() int { return len(q.buf) - q.head }

func (q *ackQueue) front() *ack {
	if q.len() == 0 {
		return nil
	}
	return q.buf[q.head]
}

func (q *ackQueue) push(a *ack) {
	if len(q.buf) == cap(q.buf) && q.head > len(q.buf)/2 {
		n := copy(q.buf, q.buf[q.head:])
		clear(q.buf[n:])
		q.buf, q.head = q.buf[:n], 0
	}
	q.buf = append(q.buf, a)
}

func (q *ackQueue) pop() {
	q.buf[q.head] = nil
	q.head++
	if q.head < len(q.buf) {
		return
	}
	q.buf, q.head = q.buf[:0], 0
	if cap(q.buf) > keepAcks {
		q.buf = nil
	}
}

// expect takes the next place in the order. It waits while the queue is full
// or the client does not take its answers; nil means that the connection ends.
func (c *conn) expect(kind wire.Type, id uint16) *ack {
	a := newAck()
	a.conn, a.kind, a.id, a.ready = c, kind, id, false
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.acks.len() >= c.srv.maxAcks && !c.ending {
		c.cond.Wait()
	}
	if c.ending {
		return nil
	}
	c.acks.push(a)
	return a
}

// takeAcks appends the acknowledgements that are ready. Caller holds mu.
func (c *conn) takeAcks(w *writeBuffer) {
	for len(w.out) < flushAt {
		a := c.acks.front()
		if a == nil || !a.ready {
			return
		}
		c.acks.pop()
		c.credit(a)
		w.out = wire.AppendAck(w.out, a.kind, a.id, a.code, c.version)
		w.sent[a.kind]++
		a.conn = nil
		ackPool.Put(a)
	}
}

// charge counts a QoS 1 or 2 publish against the Receive Maximum that the
// client was told and reports whether there was room. A QoS 2 publish that
// comes again is not counted again [MQTT-4.9.0-2].
func (c *conn) charge(p *wire.Publish) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.QoS == 2 {
		if _, again := c.open2[p.PacketID]; again {
			return true
		}
		if c.open2 == nil {
			c.open2 = make(map[uint16]struct{})
		}
		c.open2[p.PacketID] = struct{}{}
	}
	c.charged++
	return c.charged <= int(c.srv.cfg.ReceiveMaximum)
}

// credit gives the place back with the packet that ends the exchange. Caller
// holds mu.
func (c *conn) credit(a *ack) {
	switch {
	case c.version != wire.V5:
	case a.kind == wire.PUBACK:
		c.charged--
	case a.kind == wire.PUBCOMP, a.kind == wire.PUBREC && a.code >= 0x80:
		if _, known := c.open2[a.id]; known {
			delete(c.open2, a.id)
			c.charged--
		}
	}
}
