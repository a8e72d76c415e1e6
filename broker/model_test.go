package broker

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestDurableSessionsAgainstAModel does at random what clients, the disk and
// the power supply do to durable sessions, and checks every delivery: nothing
// acknowledged is lost, DUP exactly where it must be, nothing twice that was
// completed, order per publisher, window within its limit.
func TestDurableSessionsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{t: t, store: newMemStore()}
		m.store.err = nil
		m.memory = rapid.SampledFrom([]int{1, 700, 1 << 20}).Draw(t, "memory")
		m.boot()
		for i := range m.subs {
			m.subs[i] = &modelSub{id: fmt.Sprint("sub", i), sent: map[string]bool{}, done: map[string]bool{}}
			m.connect(m.subs[i], 0)
			m.subs[i].session.Subscribe([]Subscription{{Filter: "t/+", QoS: 2, ID: uint32(i + 1)}}, func(r []Reason, _ []QoS) {
				require.Equal(t, []Reason{Success}, r)
			})
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "publish more": m.publish, "deliver": m.deliver, "complete": m.complete,
			"takeover": m.takeover, "disconnect": m.disconnect, "kill": m.kill, "hold": m.hold,
		})
		m.finish()
	})
}

type machine struct {
	t      *rapid.T
	store  *memStore
	broker *Broker
	memory int
	subs   [2]*modelSub
	pubs   [2]*Session
	next   [2]int
	// Of all messages, in the order of publishing.
	messages []*modelMessage
}

type modelMessage struct {
	payload   string
	publisher int
	number    int
	answered  bool
	accepted  bool
}

// modelSub is what a subscriber knows of its deliveries.
type modelSub struct {
	id       string
	session  *Session
	limit    int
	window   []Delivery
	sent     map[string]bool // handed out at least once
	done     map[string]bool // completed
	newest   [2]int          // highest number seen of each publisher, plus one
	received []string        // QoS 2: PUBREC sent, so PUBLISH must not come again
	loose    bool            // a kill lost what the store was not told yet: DUP and completion may be forgotten
}

func (m *machine) boot() {
	cfg := Config{Authenticate: admitAll{}}
	cfg.Session.MemoryBytes = m.memory
	b, err := New(context.Background(), cfg, m.store, nil, nil)
	require.NoError(m.t, err)
	m.broker = b
	m.pubs = [2]*Session{}
}

func (m *machine) connect(s *modelSub, limit int) {
	s.limit = limit
	h, _, err := m.broker.Connect(context.Background(), &ConnectRequest{ClientID: s.id, Expiry: NeverExpires, ReceiveMaximum: uint16(limit)})
	require.NoError(m.t, err)
	if s.limit == 0 {
		s.limit = m.broker.cfg.Session.Inflight
	}
	h.Start()
	s.session, s.window = h, nil
}

func (m *machine) pick(t *rapid.T) *modelSub { return m.subs[rapid.IntRange(0, 1).Draw(t, "sub")] }

func (m *machine) publish(t *rapid.T) {
	p := rapid.IntRange(0, 1).Draw(t, "publisher")
	for range rapid.IntRange(1, 40).Draw(t, "messages") {
		m.publishOne(t, p)
	}
}

func (m *machine) publishOne(t *rapid.T, p int) {
	if m.pubs[p] == nil {
		h, _, err := m.broker.Connect(context.Background(), &ConnectRequest{ClientID: fmt.Sprint("pub", p)})
		require.NoError(t, err)
		m.pubs[p] = h
	}
	msg := &modelMessage{payload: fmt.Sprint(p, ":", m.next[p]), publisher: p, number: m.next[p]}
	m.next[p]++
	m.messages = append(m.messages, msg)
	qos := QoS(rapid.IntRange(1, 2).Draw(t, "qos"))
	if rapid.IntRange(0, 9).Draw(t, "disk") == 0 && !m.store.held {
		m.store.err = errDisk
	}
	m.pubs[p].Publish(context.Background(), &Message{Topic: fmt.Sprint("t/", p), Payload: []byte(msg.payload), QoS: qos}, 0, func(r Reason) {
		msg.answered, msg.accepted = true, r.OK()
	})
	m.store.err = nil
	require.True(t, msg.answered || m.store.held)
	require.False(t, msg.answered && m.store.held, "acknowledged before the commit")
}

func (m *machine) deliver(t *rapid.T) {
	s := m.pick(t)
	if s.session == nil {
		t.Skip("away")
	}
	for _, d := range s.session.Next(make([]Delivery, 0, rapid.IntRange(1, 80).Draw(t, "room"))) {
		m.check(s, d)
		s.window = append(s.window, d)
	}
	publishes := 0
	for _, d := range s.window {
		if !d.Release {
			publishes++
		}
	}
	require.LessOrEqual(t, publishes, s.limit)
}

// check judges one delivery against what the subscriber saw before.
func (m *machine) check(s *modelSub, d Delivery) {
	t := m.t
	for _, open := range s.window {
		require.NotEqual(t, open.PacketID, d.PacketID, "identifier in use")
	}
	if d.Release {
		return
	}
	var p, n int
	payload := string(d.Message.Payload)
	_, err := fmt.Sscanf(payload, "%d:%d", &p, &n)
	require.NoError(t, err)
	if !s.loose {
		require.Equal(t, s.sent[payload], d.Dup, "DUP of %s", payload)
		require.False(t, s.done[payload], "%s was completed", payload)
		require.NotContains(t, s.received, payload, "PUBREC came for it")
	}
	if !s.sent[payload] {
		require.GreaterOrEqual(t, n, s.newest[p], "order of publisher %d", p)
		s.newest[p] = n + 1
	}
	s.sent[payload] = true
}

func (m *machine) complete(t *rapid.T) {
	s := m.pick(t)
	if s.session == nil || len(s.window) == 0 {
		t.Skip("nothing outstanding")
	}
	for range rapid.IntRange(1, len(s.window)).Draw(t, "deliveries") {
		m.completeOne(t, s)
	}
}

// completeOne acknowledges one delivery of the window, or takes the first of
// the two steps of QoS 2.
func (m *machine) completeOne(t *rapid.T, s *modelSub) {
	i := rapid.IntRange(0, len(s.window)-1).Draw(t, "which")
	d := &s.window[i]
	if d.QoS == 2 && !d.Release {
		payload := string(d.Message.Payload)
		s.session.Received(d.PacketID, false, func(r Reason) { s.received = append(s.received, payload) })
		d.Release = true
		return
	}
	require.Equal(t, Success, s.session.Acked(d.PacketID))
	if d.Message != nil {
		s.done[string(d.Message.Payload)] = true
	}
	s.window = append(s.window[:i], s.window[i+1:]...)
}

func (m *machine) takeover(t *rapid.T) {
	if m.store.held {
		t.Skip("connect waits for the disk")
	}
	s := m.pick(t)
	old := s.session
	m.connect(s, rapid.SampledFrom([]int{0, 1, 5}).Draw(t, "receive maximum"))
	if old != nil {
		require.Equal(t, Closed, old.Acked(1))
	}
}

func (m *machine) disconnect(t *rapid.T) {
	s := m.pick(t)
	if s.session == nil {
		t.Skip("away")
	}
	s.session.Close(Closing{})
	s.session, s.window = nil, nil
}

// hold makes the disk slow, or quick again.
func (m *machine) hold(*rapid.T) { m.store.hold(!m.store.held) }

// kill ends the process without a word; what the store was still waiting for
// is gone, its publishers never had an answer.
func (m *machine) kill(*rapid.T) {
	lost := len(m.store.pending) > 0
	m.store.pending, m.store.held = nil, false
	for _, s := range m.subs {
		s.session, s.window = nil, nil
		s.loose = s.loose || lost
	}
	require.NoError(m.t, m.broker.Close())
	m.boot()
}

func (m *machine) finish() {
	m.store.hold(false)
	for _, s := range m.subs {
		m.connect(s, 0)
		for {
			ds := s.session.Next(make([]Delivery, 0, 10))
			if len(ds) == 0 {
				break
			}
			for _, d := range ds {
				m.check(s, d)
				if d.QoS == 2 && !d.Release {
					s.session.Received(d.PacketID, false, nil)
				}
				require.Equal(m.t, Success, s.session.Acked(d.PacketID))
			}
		}
		for _, msg := range m.messages {
			if msg.accepted {
				require.True(m.t, s.sent[msg.payload], "%s was acknowledged and is lost for %s", msg.payload, s.id)
			}
		}
		require.Zero(m.t, m.store.queued(s.id))
		info, _ := m.broker.Session(s.id)
		require.Zero(m.t, info.QueuedBytes)
		require.Zero(m.t, info.Queued)
	}
	require.NoError(m.t, m.broker.Close())
}
