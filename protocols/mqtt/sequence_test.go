package mqtt

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/broker/auth"
	"gantry/protocols/mqtt/wire"
)

// What the sequences are made of.
const (
	seqWindow = 8   // the server's own limit of a session's window
	seqQuota  = 4   // the server's Receive Maximum
	seqLarge  = 300 // bytes of a large payload
	seqSmall  = 128 // Maximum Packet Size of a client that takes none of those
	seqSteps  = 150 // most steps of one input
	seqRandom = 60  // inputs to begin with that are made up, always the same
)

var (
	seqTopics = []string{"a", "a/b", "a/temperature", "b/temperature", "b"}
	// connect, time, pieces, garbage, stop reading, disconnect, subscribe,
	// unsubscribe, messages, messages while the disk is slow, acknowledge, other
	// acknowledgements, fault
	seqOps     = "ctpgzdsssssuummmmmmhhaaaaaooof"
	seqFilters = []string{
		"a", "a/+", "a/#", "#", "+/temperature", "b/temperature", "+",
		"$share/g/a/#", "$share/g/+/temperature", "$share/h/#", "$share/h/a/b",
	}
)

// sequence runs the steps that an input describes, one at a time: after each
// the server has come to rest, and what came is judged. The clock is that of
// synctest, so an input always does the same.
type sequence struct {
	t        *testing.T
	data     []byte
	ln       *memoryListener
	srv      *Server
	broker   *broker.Broker
	chunk    int // in which pieces packets are sent
	clients  [4]*seqPeer
	leaving  []*seqPeer // connections that the server is to end
	sessions map[string]*seqSession
	messages map[int]*seqMessage
	number   int                    // of the next message
	values   map[string]*seqMessage // retained, by topic
	store    *fakeStore
	loose    map[string]bool // shared filters with a member of QoS 0 at some time
}

// FuzzSequence lets several clients do legal and illegal things in every order.
// Whatever they do: nothing panics, no session gets a message that no
// subscription of it asked for, or one twice, no window is exceeded, order is
// kept, every request is answered in its turn, what is acknowledged is not
// lost, and a fault ends the connection that made it and no other.
func FuzzSequence(f *testing.F) {
	for i := range uint64(seqRandom) {
		r := rand.New(rand.NewPCG(i, 0))
		b := make([]byte, 20+r.IntN(4*seqSteps))
		for k := range b {
			b[k] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) { runSequence(t, data) })
	})
}

func runSequence(t *testing.T, data []byte) {
	q := &sequence{
		t: t, data: data, ln: newMemoryListener(), sessions: map[string]*seqSession{},
		messages: map[int]*seqMessage{}, values: map[string]*seqMessage{},
		number: 1, store: &fakeStore{}, loose: map[string]bool{},
	}
	var err error
	bc := broker.Config{Authenticate: auth.Always}
	bc.Session.Inflight = seqWindow
	q.broker, err = broker.New(context.Background(), bc, q.store, nil, nil)
	require.NoError(t, err)
	q.srv, err = NewOn(q.ln, Config{MaxPacketSize: minPacketSize, ReceiveMaximum: seqQuota}, q.broker, nil, nil)
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- q.srv.Run(context.Background()) }()
	defer func() { // also when the test fails: synctest waits for all goroutines
		for _, c := range slices.Concat(q.clients[:], q.leaving) {
			if c != nil {
				c.stall(false)
				_ = c.nc.Close()
			}
		}
		require.NoError(t, q.srv.Close())
		require.NoError(t, <-ran)
		require.NoError(t, q.broker.Close())
	}()
	for range seqSteps {
		if len(q.data) == 0 {
			break
		}
		q.step()
		q.settle()
	}
	q.finish()
	require.Zero(t, value(t, q.srv.metrics.panics))
}

// next takes a number below n from the input; 0 when it is used up.
func (q *sequence) next(n int) int {
	if len(q.data) == 0 {
		return 0
	}
	b := q.data[0]
	q.data = q.data[1:]
	return int(b) % n
}

// step does the next thing. What needs a connection connects if there is none.
func (q *sequence) step() {
	op, i := seqOps[q.next(len(seqOps))], q.next(len(q.clients))
	switch op {
	case 'c':
		q.connect(i, q.next(256), q.next(256))
		return
	case 't':
		q.wait([]time.Duration{1001, 3001, 11003}[q.next(3)] * time.Millisecond)
		return
	case 'p':
		q.chunk = q.next(4)
		return
	case 'g':
		q.stranger()
		return
	}
	if q.clients[i] == nil {
		q.connect(i, q.next(256), 0)
		q.settle()
	}
	c := q.clients[i]
	if op != 'z' && c.stalled {
		c.stall(false) // it must read what it asks for
		q.settle()
	}
	switch op {
	case 'z':
		q.t.Logf("%s stops reading", c.id)
		c.stall(true)
	case 'd':
		q.leave(i, q.next(4))
	case 's':
		q.subscribe(c)
	case 'u':
		q.unsubscribe(c)
	case 'm':
		q.burst(i, 1+q.next(6))
	case 'h':
		q.slowly(i, 1+q.next(6))
	case 'a':
		for range 1 + q.next(4) {
			q.acknowledge(c)
		}
	case 'o':
		q.acknowledgeOwn(i)
	case 'f':
		q.fault(i)
	}
}

// settle waits until nothing moves any more, and judges what came.
func (q *sequence) settle() {
	synctest.Wait()
	for _, c := range q.clients {
		if c == nil {
			continue
		}
		q.judge(c)
		require.False(q.t, c.closed(), "the connection of %s has ended", c.session.id)
		if !c.stalled {
			require.Empty(q.t, c.acks, "acknowledgements are missing")
			require.Empty(q.t, c.replies, "answers are missing")
		}
	}
	for _, c := range q.leaving {
		c.stall(false)
	}
	synctest.Wait()
	for _, c := range q.leaving {
		c.acks, c.replies = nil, nil // what was on the way may be lost
		q.judgeEnd(c)
	}
	q.leaving = nil
	var ids []string
	for _, info := range q.broker.Sessions() {
		ids = append(ids, info.ClientID)
	}
	require.Equal(q.t, slices.Sorted(maps.Keys(q.sessions)), ids, "sessions")
}

// judge looks at what came on a connection that goes on.
func (q *sequence) judge(c *seqPeer) {
	c.packets(func(h wire.Header, body []byte) {
		switch h.Type {
		case wire.PUBLISH:
			var p wire.Publish
			require.NoError(q.t, p.Parse(h.Flags, body, c.v))
			q.delivered(c, &p)
		case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
			a, err := wire.ParseAck(h.Type, body, c.v)
			require.NoError(q.t, err)
			q.acknowledged(c, h.Type, a)
		case wire.SUBACK, wire.UNSUBACK:
			c.expected(&c.replies, h.Type, uint16(body[0])<<8|uint16(body[1]), int(body[len(body)-1]))
		case wire.PINGRESP:
			c.expected(&c.replies, h.Type, 0, 0)
		default:
			require.Fail(q.t, "unexpected packet", "%s: % x", h.Type, body)
		}
	})
}

// expected takes the packet that must come next from a list.
func (p *seqPeer) expected(list *[]seqAck, kind wire.Type, id uint16, code int) {
	require.NotEmpty(p.t, *list, "%s %d comes unasked", kind, id)
	want := (*list)[0]
	*list = (*list)[1:]
	if want.code < 0 {
		require.Less(p.t, code, 0x80)
		want.code = code
	}
	require.Equal(p.t, want, seqAck{kind, id, code}, "order of answers")
}

func (q *sequence) acknowledged(c *seqPeer, kind wire.Type, a wire.Ack) {
	if kind != wire.PUBREL {
		c.expected(&c.acks, kind, a.PacketID, int(a.Code))
		return
	}
	s := c.session
	i := slices.IndexFunc(s.window, func(e *seqEntry) bool { return e.id == a.PacketID })
	if i >= 0 {
		s.window[i].released = true
	}
	if len(c.acks) > 0 && c.acks[0].kind == wire.PUBREL && c.acks[0].id == a.PacketID {
		c.expected(&c.acks, kind, a.PacketID, int(a.Code))
		return
	}
	require.True(q.t, i > c.seen && s.window[i].received && !s.window[i].seen, "PUBREL %d comes unasked", a.PacketID)
	c.seen, s.window[i].seen = i, true // the first half came on an earlier connection
}

// judgeEnd looks at a connection that the server has ended: a DISCONNECT tells
// version 5 why. Deliveries were on the way, and nobody acknowledges them.
func (q *sequence) judgeEnd(c *seqPeer) {
	require.True(q.t, c.closed(), "a connection that must end goes on")
	var last []byte
	c.packets(func(h wire.Header, body []byte) { last = body })
	if c.v != wire.V5 || !c.ends {
		return
	}
	require.Equal(q.t, wire.DISCONNECT, c.last.Type, "the end comes without DISCONNECT")
	require.GreaterOrEqual(q.t, last[0], byte(0x80))
	if c.code != 0 {
		require.Equal(q.t, c.code, last[0])
	}
}

// wait lets time pass. Nobody is stalled meanwhile: that would end connections.
func (q *sequence) wait(d time.Duration) {
	for _, c := range q.clients {
		if c != nil {
			c.stall(false)
		}
	}
	q.settle()
	q.t.Logf("%s pass", d)
	time.Sleep(d)
	synctest.Wait()
	for _, s := range q.sessions {
		if s.conn == nil && time.Since(s.detached) >= s.expiry {
			q.end(s)
		}
	}
}

// finish brings every session that is left back, acknowledges everything, and
// looks for what has not come.
func (q *sequence) finish() {
	q.chunk = 0
	for i, c := range q.clients {
		if c != nil {
			c.stall(false)
			q.settle()
			q.leave(i, 0)
			q.settle()
		}
	}
	for i := range q.clients {
		id := fmt.Sprint("c", i)
		s := q.sessions[id]
		if s == nil {
			continue
		}
		q.connect(i, 0b0000_0101, 0)
		q.settle()
		for rounds := 0; q.gone(s) < len(s.window); rounds++ {
			require.Less(q.t, rounds, 10*seqSteps, "%s: the window is stuck", id)
			q.completeAll(q.clients[i])
		}
		for m, left := range s.live {
			large := m.large && s.limited
			require.True(q.t, len(left) == 0 || large || !m.expires.IsZero() || slices.Max(left) == 0, "%s: message %d is lost", id, m.number)
		}
		q.leave(i, 0)
		q.settle()
	}
	for _, s := range q.sessions {
		q.sharedCame(s)
	}
}

// gone counts the entries of the window that may never come again.
func (q *sequence) gone(s *seqSession) (n int) {
	for _, e := range s.window {
		if e.maybeGone && !e.seen {
			n++
		}
	}
	return n
}

// completeAll does the next step of every exchange.
func (q *sequence) completeAll(c *seqPeer) {
	for _, e := range slices.Clone(c.session.window) {
		if e.seen {
			q.complete(c, e, false)
		}
	}
	q.settle()
}
