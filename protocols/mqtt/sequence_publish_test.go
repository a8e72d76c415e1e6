package mqtt

import (
	"maps"
	"slices"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// burst sends messages without waiting for an answer.
func (q *sequence) burst(i, n int) {
	c := q.clients[i]
	for k := 0; k < n && q.roomFor(i, k); k++ {
		if q.publish(i).qos == 1 {
			c.hurried++
		}
	}
	c.hurried = 0
}

// roomFor reports whether the k-th message of a burst may follow: behind the
// first one it is not known how many acknowledgements have been written, so
// those of version 5 stay within the Receive Maximum.
func (q *sequence) roomFor(i, k int) bool {
	c := q.clients[i]
	return c != nil && (k == 0 || c.v != wire.V5 || len(c.open)+c.hurried < seqQuota)
}

// slowly sends messages while the disk keeps the server waiting: none that a
// durable session must get is acknowledged, and none behind it.
func (q *sequence) slowly(i, n int) {
	c := q.clients[i]
	q.store.hold()
	waiting := 0 // how many acknowledgements may not have come
	for k := 0; k < n && q.roomFor(i, k); k++ {
		before := len(c.acks)
		m := q.publish(i)
		if m.qos == 1 {
			c.hurried++
		}
		if len(c.acks) > before && (waiting > 0 || m.number == q.number-1 && q.durable(m)) { // a duplicate may be on disk
			waiting++
		}
	}
	c.hurried = 0
	if q.clients[i] != nil {
		synctest.Wait()
		q.judge(c)
		require.GreaterOrEqual(q.t, len(c.acks), waiting, "acknowledged before it is on disk")
	}
	q.store.release()
}

// durable reports whether a message must be on disk somewhere.
func (q *sequence) durable(m *seqMessage) bool {
	for _, s := range q.sessions {
		if s.durable && slices.ContainsFunc(s.live[m], func(qos broker.QoS) bool { return qos > 0 }) {
			return true
		}
	}
	return false
}

// publish sends a message of any QoS; one of QoS 2 may be a duplicate.
func (q *sequence) publish(i int) *seqMessage {
	c := q.clients[i]
	topic, how := seqTopics[q.next(len(seqTopics))], q.next(256)
	m := &seqMessage{number: q.number, topic: topic, qos: broker.QoS(how & 3 % 3), from: c.session.id, large: how&4 != 0 && how&32 == 0}
	q.number++
	retain := how&24 == 8 || how&24 == 16
	m.empty = how&24 == 16
	if how&64 != 0 && c.v == wire.V5 {
		m.expires = time.Now().Add(2 * time.Second)
	}
	var id uint16
	again := q.oldest(c.session.received)
	dup := how&3 == 2 && how&32 != 0 && again != 0
	switch {
	case dup:
		id, m = again, c.session.received[again]
	case m.qos > 0:
		c.session.nextID++
		id = c.session.nextID
	}
	packet := c.publishPacket(m, id, dup, retain)
	if q.overQuota(c, m.qos, id) {
		c.write(packet, q.chunk)
		q.drop(i, 0x93)
		q.detach(c.session)
		return m
	}
	if !dup {
		q.take(m, retain)
	}
	q.answerTo(c, m, id)
	c.write(packet, q.chunk)
	return m
}

func (p *seqPeer) publishPacket(m *seqMessage, id uint16, dup, retain bool) []byte {
	first := 0x30 | int(m.qos)<<1
	if dup {
		first |= 8
	}
	if retain {
		first |= 1
	}
	head := []any{m.topic}
	if id != 0 {
		head = append(head, id)
	}
	var parts []any
	if !m.expires.IsZero() {
		parts = []any{0x02, uint16(0), uint16(2)}
	}
	return seqPacket(byte(first), append(head, p.props(parts...), []byte(m.payload()))...)
}

// overQuota reports whether a publish is one too many, and counts it.
func (q *sequence) overQuota(c *seqPeer, qos broker.QoS, id uint16) bool {
	if c.v != wire.V5 || qos == 0 || c.open[id] {
		return false
	}
	if len(c.open) == seqQuota {
		return true
	}
	if qos == 2 {
		c.open[id] = true
	}
	return false
}

// take notes a message that is published now.
func (q *sequence) take(m *seqMessage, retain bool) {
	q.published(m)
	if m.empty { // nobody can tell these apart
		for _, s := range q.sessions {
			delete(s.live, m)
		}
		delete(q.values, m.topic)
		return
	}
	q.messages[m.number] = m
	if retain {
		q.values[m.topic] = m
	}
}

func (q *sequence) answerTo(c *seqPeer, m *seqMessage, id uint16) {
	switch m.qos {
	case 1:
		c.acks = append(c.acks, seqAck{wire.PUBACK, id, -1})
	case 2:
		c.session.received[id] = m
		c.acks = append(c.acks, seqAck{wire.PUBREC, id, -1})
	}
}

func (q *sequence) oldest(ids map[uint16]*seqMessage) uint16 {
	if len(ids) == 0 {
		return 0
	}
	return slices.Min(slices.Collect(maps.Keys(ids)))
}
