package mqtt

import (
	"fmt"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// drop takes a connection from its client; the server is to end it.
func (q *sequence) drop(i int, code byte) {
	c := q.clients[i]
	c.ends, c.code = true, code
	q.clients[i], q.leaving = nil, append(q.leaving, c)
}

// connect opens a connection, and ends another one of the same client. Bits of
// how: version 5, clean start, expiry (2), Receive Maximum (2), small packets,
// topic aliases.
func (q *sequence) connect(i, how, keep int) {
	id := fmt.Sprint("c", i)
	v, clean := wire.V311, how&2 != 0
	if how&1 != 0 {
		v = wire.V5
	}
	s := q.sessions[id]
	if old := q.clients[i]; old != nil {
		s.blurred = s.blurred || old.stalled
		q.drop(i, 0x8e)
	}
	present := s != nil && s.expiry > 0 && !clean
	if s != nil && !present {
		q.end(s)
	}
	if !present {
		s = newSeqSession(id)
		q.sessions[id] = s
	}
	c := q.ln.dial(q.t, id, v)
	q.clients[i] = c
	c.limit, s.expiry = seqWindow, 24*time.Hour
	if clean {
		s.expiry = 0
	}
	var parts []any
	limited := false
	if v == wire.V5 {
		seconds := [4]int{0, 10, 0xFFFFFFFF, 10}[how>>2&3]
		s.expiry = min(time.Duration(seconds)*time.Second, 24*time.Hour)
		parts = append(parts, 0x11, seconds>>24, seconds>>16, seconds>>8, seconds)
		if window := [4]int{0, 1, 2, 5}[how>>4&3]; window > 0 {
			c.limit = window
			parts = append(parts, 0x21, uint16(window))
		}
		if limited = how&64 != 0; limited {
			parts = append(parts, 0x27, uint16(0), uint16(seqSmall))
		}
		if how&128 != 0 {
			parts = append(parts, 0x22, uint16(2))
		}
	}
	s.durable = s.durable || !present && s.expiry > 0
	s.attach(c, limited)
	flags := 0
	if clean {
		flags = 2
	}
	c.write(seqPacket(0x10, "MQTT", int(v), flags, uint16(keep%2*600), c.props(parts...), id), q.chunk)
	synctest.Wait()
	q.welcomed(c, present)
}

// welcomed judges CONNACK, which comes before everything else.
func (q *sequence) welcomed(c *seqPeer, present bool) {
	c.mu.Lock()
	in := c.in
	c.mu.Unlock()
	h, ok, err := wire.ParseHeader(in, 0)
	require.NoError(q.t, err)
	require.True(q.t, ok && h.Type == wire.CONNACK, "CONNACK must come first: % x", in)
	require.Zero(q.t, in[h.Size+1], "code of CONNACK")
	require.Equal(q.t, present, in[h.Size] == 1, "session present")
	c.mu.Lock()
	c.in = c.in[h.Total():]
	c.mu.Unlock()
}

// leave ends a connection: by DISCONNECT, one that ends the session too, or
// without a word.
func (q *sequence) leave(i, how int) {
	c := q.clients[i]
	s := c.session
	q.clients[i] = nil
	switch {
	case how == 1:
		c.write(seqPacket(0xe0), q.chunk)
	case how == 2 && c.v == wire.V5:
		c.write(seqPacket(0xe0, 0, c.props(0x11, uint16(0), uint16(0))), q.chunk)
		s.expiry = 0
	case how == 3:
		c.write(seqPacket(0x30, "a", c.props(), []byte("cut off"))[:5], q.chunk)
	}
	synctest.Wait()
	_ = c.nc.Close()
	q.t.Logf("%s closes", c.id)
	synctest.Wait()
	q.detach(s)
}

func (q *sequence) subscribe(c *seqPeer) {
	filter := seqFilters[q.next(len(seqFilters))]
	how := q.next(64)
	sub := &seqSub{qos: broker.QoS(how % 3)}
	inner, shared := seqInner(filter)
	options, handling := int(sub.qos), 0
	if c.v == wire.V5 {
		if sub.noLocal = how&4 != 0 && !shared; sub.noLocal {
			options |= 4
		}
		handling = how >> 3 % 3
		options |= handling << 4
	}
	s := c.session
	before, existed := s.subs[filter]
	if existed {
		*before = *sub
		sub = before
	}
	s.subs[filter] = sub
	if shared {
		s.shared[filter] = true
		q.loose[filter] = q.loose[filter] || sub.qos == 0
	}
	for _, topic := range seqTopics {
		if shared && seqMatches(inner, topic) {
			s.topics[topic] = true // what another member leaves
		}
		m := q.values[topic]
		if m == nil || shared || !seqMatches(inner, topic) || sub.noLocal && m.from == s.id {
			continue
		}
		if handling == 0 || handling == 1 && !existed {
			s.topics[topic] = true
			s.retained[m] = append(s.retained[m], min(sub.qos, m.qos))
		}
	}
	c.nextSub++
	c.replies = append(c.replies, seqAck{wire.SUBACK, c.nextSub, int(sub.qos)})
	c.write(seqPacket(0x82, c.nextSub, c.props(), filter, options), q.chunk)
}

func (q *sequence) unsubscribe(c *seqPeer) {
	filter := seqFilters[q.next(len(seqFilters))]
	c.nextSub++
	answer := seqAck{wire.UNSUBACK, c.nextSub, 0}
	if _, had := c.session.subs[filter]; !had && c.v == wire.V5 {
		answer.code = 0x11
	}
	if c.v != wire.V5 {
		answer.code = int(c.nextSub & 0xff) // the last byte is that of the identifier
	}
	delete(c.session.subs, filter)
	c.replies = append(c.replies, answer)
	c.write(seqPacket(0xa2, c.nextSub, c.props(), filter), q.chunk)
}

// acknowledge does the next step for one of the deliveries that wait for it, in
// any order.
func (q *sequence) acknowledge(c *seqPeer) {
	which, refuse := q.next(64), false
	if c.v == wire.V5 {
		refuse = which&32 != 0
	}
	var waiting []*seqEntry
	for _, e := range c.session.window {
		if e.seen && (!e.received || e.released) {
			waiting = append(waiting, e)
		}
	}
	if len(waiting) > 0 {
		q.complete(c, waiting[which%32%len(waiting)], refuse)
	}
}

func (q *sequence) complete(c *seqPeer, e *seqEntry, refuse bool) {
	s := c.session
	switch {
	case e.qos == 1:
		c.write(seqPacket(0x40, e.id), q.chunk)
		s.completed(e)
	case !e.received && refuse:
		c.write(seqPacket(0x50, e.id, 0x80), q.chunk)
		s.completed(e)
	case !e.received:
		e.received = true
		c.acks = append(c.acks, seqAck{wire.PUBREL, e.id, 0})
		c.write(seqPacket(0x50, e.id), q.chunk)
	case e.released:
		c.write(seqPacket(0x70, e.id), q.chunk)
		s.completed(e)
	}
}

// acknowledgeOwn ends a QoS 2 publish, or speaks of identifiers that nobody
// uses.
func (q *sequence) acknowledgeOwn(i int) {
	c := q.clients[i]
	const unknown = uint16(60000)
	code := 0
	if c.v == wire.V5 {
		code = wire.CodePacketNotFound
	}
	switch q.next(8) {
	case 0:
		c.write(seqPacket(0x40, unknown), q.chunk)
	case 1:
		c.acks = append(c.acks, seqAck{wire.PUBREL, unknown, code})
		c.write(seqPacket(0x50, unknown), q.chunk)
	case 2:
		c.acks = append(c.acks, seqAck{wire.PUBCOMP, unknown, code})
		c.write(seqPacket(0x62, unknown), q.chunk)
	case 3:
		c.write(seqPacket(0x70, unknown), q.chunk)
	case 4:
		c.replies = append(c.replies, seqAck{wire.PINGRESP, 0, 0})
		c.write(seqPacket(0xc0), q.chunk)
	default:
		if id := q.oldest(c.session.received); id != 0 {
			delete(c.session.received, id)
			delete(c.open, id)
			c.acks = append(c.acks, seqAck{wire.PUBCOMP, id, 0})
			c.write(seqPacket(0x62, id), q.chunk)
		}
	}
}

// fault breaks the protocol, which ends the connection.
func (q *sequence) fault(i int) {
	c := q.clients[i]
	faults := [][]byte{
		{0xc1, 0},                            // flags
		seqPacket(0x36, "a", uint16(1)),      // QoS 3
		{0x20, 2, 0, 0},                      // CONNACK
		{0x00, 0},                            // no type
		{0x30, 0xff, 0xff, 0x7f},             // larger than the maximum
		{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, // length of five bytes
		{0x40, 1, 0},                         // cut
		{0xa0, 2, 0, 1},                      // flags of UNSUBSCRIBE
		seqPacket(0x30, "a/#", c.props()),
		seqPacket(0x32, "a", uint16(0), c.props()),
		seqPacket(0x30, "\xff", c.props()),
		seqPacket(0x82, uint16(1), c.props()),
		seqPacket(0x82, uint16(1), c.props(), "a", 3),
		seqPacket(0x82, uint16(1), c.props(), "a", 0x40),
		seqPacket(0x10, "MQTT", int(c.v), 2, uint16(0), c.props(), "other"),
		seqPacket(0xf0, 0x19, []byte{0}),
	}
	c.write(faults[q.next(len(faults))], q.chunk)
	synctest.Wait()
	q.drop(i, 0)
	q.detach(c.session)
}

// stranger is a connection that does not begin with CONNECT: it gets no answer.
func (q *sequence) stranger() {
	n := q.next(32) + 1
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(q.next(256))
	}
	if b[0]>>4 == byte(wire.CONNECT) {
		b[0] ^= 0xf0
	}
	p := q.ln.dial(q.t, "stranger", wire.V311)
	p.write(b, q.chunk)
	synctest.Wait()
	require.True(q.t, p.closed(), "a stranger is served")
	require.Empty(q.t, p.in, "a stranger gets an answer")
}
