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
	next  *ack // in the queue, or in the list of spare ones
}

// ackPool keeps what a message would otherwise allocate: the place and its
// callback. Each connection has some spare ones of its own before it.
var ackPool sync.Pool

// keepSpare is how many a connection keeps: enough for what a client has on its
// way in one packet of the network.
const keepSpare = 64

// newAck returns one of the connection. Caller holds mu.
func (c *conn) newAck() *ack {
	a := c.spare
	if a != nil {
		c.spare, a.next = a.next, nil
		c.spares--
		a.conn = c
		return a
	}
	if a, _ = ackPool.Get().(*ack); a == nil {
		a = &ack{}
		a.done = a.settle
	}
	a.conn = c
	return a
}

// release takes back one that was answered. Caller holds mu.
func (c *conn) release(a *ack) {
	a.conn = nil
	if c.spares == keepSpare {
		ackPool.Put(a)
		return
	}
	c.spare, a.next = a, c.spare
	c.spares++
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
	first, last *ack
	n           int
}

func (q *ackQueue) len() int { return q.n }

// front is the oldest, nil when there is none.
func (q *ackQueue) front() *ack { return q.first }

func (q *ackQueue) push(a *ack) {
	if q.n++; q.n == 1 {
		q.first, q.last = a, a
		return
	}
	q.last.next, q.last = a, a
}

func (q *ackQueue) pop() {
	a := q.first
	q.first, a.next = a.next, nil
	if q.n--; q.n == 0 {
		q.last = nil
	}
}

// expect takes the next place in the order. It waits while the queue is full
// or the client does not take its answers; nil means that the connection ends.
func (c *conn) expect(kind wire.Type, id uint16) *ack {
	c.mu.Lock()
	for c.acks.len() >= c.srv.maxAcks && !c.ending {
		c.cond.Wait()
		c.arrived = 0
	}
	if c.ending {
		c.mu.Unlock()
		return nil
	}
	a := c.newAck()
	a.kind, a.id, a.ready = kind, id, false
	c.acks.push(a)
	c.mu.Unlock() // not deferred: it runs once per message
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
		c.release(a)
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
