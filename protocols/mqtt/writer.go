package mqtt

import (
	"sync"
	"time"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

const (
	// flushAt is how full the output buffer gets before it is written: large
	// enough that the cost of a write disappears in its packets.
	flushAt = 60 << 10
	// gatherAbove is the payload that is written from where it is instead of
	// being copied to the output buffer.
	gatherAbove = 16 << 10
	// keepOut is the largest output buffer that goes back to the pool.
	keepOut = 96 << 10
	// batchSize is how many deliveries are taken from the session at once.
	batchSize = 64
)

// writeBuffer is what a writer needs while it runs.
type writeBuffer struct {
	out   []byte
	batch []broker.Delivery
	sent  tally
}

var writeBuffers = sync.Pool{New: func() any {
	return &writeBuffer{out: make([]byte, 0, 2048), batch: make([]broker.Delivery, 0, batchSize)}
}}

// wake is the core's word that the outbox has something. It does not block.
func (c *conn) wake() {
	c.mu.Lock()
	c.wakened = true
	if !c.ending {
		c.startWriter()
	}
	c.mu.Unlock()
}

// startWriter runs a writer unless one runs. Caller holds mu. Nothing is
// written before CONNACK; close waits for the writer.
func (c *conn) startWriter() {
	if c.writing || !c.greeted {
		return
	}
	c.writing = true
	go c.write()
}

// send queues packets that go out before acknowledgements and deliveries.
func (c *conn) send(t wire.Type, add func(out []byte) []byte) {
	c.mu.Lock()
	if !c.ending {
		c.out = add(c.out)
		c.outSent[t]++
		c.startWriter()
	}
	c.mu.Unlock()
}

// write writes until there is nothing left to write.
func (c *conn) write() {
	running := true // false once collect has given the writer's place free
	defer func() {
		if running {
			c.writerDone()
		}
	}()
	defer c.recovered()
	w := writeBuffers.Get().(*writeBuffer)
	defer w.release()
	for more := false; ; {
		deliver, last, idle := c.collect(w, more)
		if idle {
			running = false
			return
		}
		var err error
		if deliver {
			more, err = c.deliver(w)
		}
		if err == nil && (!more || last || len(w.out) >= flushAt) {
			err = c.flush(w, nil)
		}
		if err != nil {
			c.writeFailed(err)
			return
		}
		if last {
			return
		}
	}
}

// collect moves the queued packets and the ready acknowledgements to w. more
// says that the outbox was not empty when the last round left it. idle means
// that this writer has nothing to do; it is then taken to have ended.
func (c *conn) collect(w *writeBuffer, more bool) (deliver, last, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w.out = append(w.out, c.out...)
	for t, n := range c.outSent {
		w.sent[t] += n
	}
	c.out, c.outSent = recycle(c.out), tally{}
	c.takeAcks(w)
	c.cond.Broadcast()
	if c.ending {
		if c.end.tell && !c.told {
			c.farewell(w)
			c.told = true
			return false, true, false
		}
		c.writing = false
		return false, false, true
	}
	deliver = more || c.wakened
	c.wakened = false
	if len(w.out) == 0 && !deliver {
		c.writing = false
		return false, false, true
	}
	return deliver, false, false
}

// recycle empties a buffer and keeps its memory if that is little.
func recycle(b []byte) []byte {
	if cap(b) > 256 {
		return nil
	}
	return b[:0]
}

// farewell appends the last packet. Caller holds mu.
func (c *conn) farewell(w *writeBuffer) {
	if c.version != wire.V5 || c.session == nil {
		return // before version 5 a server cannot say why
	}
	w.out = wire.AppendDisconnect(w.out, rows[c.end.reason].disconnect, c.explain(c.end.err, disconnectSize))
	w.sent[wire.DISCONNECT]++
}

// disconnectSize is the length of a DISCONNECT without its reason string.
const disconnectSize = 10

// explain is the reason string for an error that the client made, empty when
// it does not want one or could not take it [MQTT-3.14.2-3].
func (c *conn) explain(err error, overhead int) string {
	if err == nil || !c.problems {
		return ""
	}
	text := err.Error()
	if len(text) > maxReasonString || c.maxPacket != 0 && len(text)+overhead > c.maxPacket {
		return ""
	}
	return text
}

const maxReasonString = 200

// deliver moves one batch from the outbox to w and reports whether the outbox
// may have more. Acknowledgements get their turn between batches.
func (c *conn) deliver(w *writeBuffer) (more bool, err error) {
	w.batch = c.session.Next(w.batch[:0])
	if len(w.batch) == 0 {
		return false, nil
	}
	now := time.Now().UnixMilli()
	for i := range w.batch {
		if err := c.encode(w, &w.batch[i], now); err != nil {
			return false, err
		}
	}
	clear(w.batch)
	return true, nil
}

// encode appends one delivery to w, and writes when w is full.
func (c *conn) encode(w *writeBuffer, d *broker.Delivery, now int64) error {
	if d.Release {
		w.out = wire.AppendAck(w.out, wire.PUBREL, d.PacketID, wire.CodeSuccess, c.version)
		w.sent[wire.PUBREL]++
		return nil
	}
	out := wire.Outgoing{
		Message: d.Message, Topic: c.session.LocalTopic(d.Message), Version: c.version, QoS: d.QoS, Retain: d.Retain, Dup: d.Dup,
		PacketID: d.PacketID, Now: now,
	}
	if c.version == wire.V5 {
		out.SubscriptionIDs = d.SubscriptionIDs
	}
	if size := out.Measure(); size == wire.TooLong || c.maxPacket != 0 && size > c.maxPacket {
		c.discard(d, size)
		return nil
	}
	c.aliases.apply(&out, c.maxPacket)
	w.sent[wire.PUBLISH]++
	if len(d.Message.Payload) > gatherAbove {
		w.out = out.AppendHead(w.out)
		return c.flush(w, d.Message.Payload)
	}
	w.out = out.Append(w.out)
	if len(w.out) < flushAt {
		return nil
	}
	return c.flush(w, nil)
}

// discard completes a delivery that the client cannot take [MQTT-3.1.2-25].
func (c *conn) discard(d *broker.Delivery, size int) {
	reason := broker.DropTooLarge
	if size == wire.TooLong {
		reason = broker.DropUnsendable
	}
	c.session.Discard(*d, reason)
}

// flush writes w and, behind it, a payload that is not to be copied.
func (c *conn) flush(w *writeBuffer, payload []byte) error {
	if len(w.out) == 0 {
		return nil
	}
	if err := c.armWrite(); err != nil {
		return err
	}
	n := int64(len(w.out) + len(payload))
	var err error
	if payload == nil {
		_, err = c.nc.Write(w.out)
	} else {
		err = writeBoth(c.nc, w.out, payload)
	}
	w.out = w.out[:0]
	if err != nil {
		return err
	}
	c.srv.metrics.bytesOut.Add(float64(n))
	w.sent.flush(&c.srv.metrics.packetsOut)
	return nil
}

// armWrite sets the deadline of the next write. It does so seldom: a write then
// has at least three quarters of the configured time.
func (c *conn) armWrite() error {
	timeout := c.srv.cfg.WriteTimeout
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		if c.end.tell {
			return nil // the farewell's deadline is set
		}
		return errEnding
	}
	now := time.Now()
	if c.writeBy.Sub(now) > timeout/4*3 {
		return nil
	}
	c.writeBy = now.Add(timeout)
	return c.nc.SetWriteDeadline(c.writeBy)
}

// writeFailed ends a connection that cannot be written to.
func (c *conn) writeFailed(err error) {
	if timedOut(err) {
		c.srv.metrics.writeTimeouts.Inc()
	}
	c.finish(ending{reason: broker.Unspecified, err: err})
	_ = c.nc.Close()
}

// writerDone frees the writer's place after an error, a panic or the farewell.
func (c *conn) writerDone() {
	c.mu.Lock()
	c.writing = false
	c.cond.Broadcast()
	c.mu.Unlock()
}

func (w *writeBuffer) release() {
	if cap(w.out) > keepOut {
		return
	}
	clear(w.batch[:cap(w.batch)])
	w.out, w.batch, w.sent = w.out[:0], w.batch[:0], tally{}
	writeBuffers.Put(w)
}
