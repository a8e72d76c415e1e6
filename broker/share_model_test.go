package broker

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSharedSubscriptionAgainstAModel does at random what members of a shared
// subscription, the disk and the power supply do. Each message goes to one
// member at a time; nothing that was acknowledged is lost, except what went
// with the memory of the process, and QoS 2 that was begun with a session that
// has ended; nothing comes again that was completed, or that another member
// still has; DUP exactly where the same session got it before.
func TestSharedSubscriptionAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &shareMachine{t: t, store: newMemStore()}
		m.strategy = rapid.SampledFrom(ShareStrategies()).Draw(t, "strategy")
		m.memory = rapid.SampledFrom([]int{1500, 1 << 20}).Draw(t, "memory")
		m.boot()
		for i := range m.members {
			m.members[i] = &shareModelMember{id: fmt.Sprint("m", i), durable: i < 3}
			m.connect(m.members[i], false)
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "publish more": m.publish, "deliver": m.deliver, "complete": m.complete, "disconnect": m.disconnect,
			"reconnect": m.reconnect, "clean start": m.cleanStart, "leave": m.leave, "join": m.join, "kill": m.kill, "hold": m.hold,
		})
		m.finish()
	})
}

type shareMachine struct {
	t        *rapid.T
	store    *memStore
	broker   *Broker
	strategy ShareStrategy
	memory   int
	// The first is durable and stays a member; two more are durable.
	members  [4]*shareModelMember
	messages []*shareModelMessage
}

type shareModelMessage struct {
	payload  string
	accepted bool
	done     bool
	excused  bool              // may be lost, or come again
	over     bool              // QoS 2 begun with a session that has ended: nobody may get it [MQTT-4.8.2-5]
	holder   *shareModelMember // has it and has not completed it
	seen     map[*sessionState]bool
	received bool // PUBREC sent
}

type shareModelMember struct {
	id      string
	durable bool
	session *Session
	window  []Delivery
}

const modelShare = "$share/g/t/+"

func (m *shareMachine) boot() {
	cfg := Config{Authenticate: admitAll{}, ShareStrategy: m.strategy}
	cfg.Session.MemoryBytes = m.memory
	b, err := New(context.Background(), cfg, m.store, nil, nil)
	require.NoError(m.t, err)
	m.broker = b
}

func (m *shareMachine) connect(s *shareModelMember, clean bool) {
	r := &ConnectRequest{ClientID: s.id, CleanStart: clean, ReceiveMaximum: uint16(rapid.IntRange(1, 8).Draw(m.t, "receive maximum"))}
	if s.durable {
		r.Expiry = NeverExpires
	}
	ended := !s.durable || clean
	h, present, err := m.broker.Connect(context.Background(), r)
	require.NoError(m.t, err)
	m.lost(s, ended)
	s.session = h
	h.Start()
	if !present {
		m.subscribe(s)
	}
}

// lost notes that the connection of a member is gone, and perhaps its session.
func (m *shareMachine) lost(s *shareModelMember, ended bool) {
	for _, msg := range m.messages {
		if msg.holder != s || !ended {
			continue
		}
		msg.holder = nil
		msg.over = msg.begun()
	}
	s.session, s.window = nil, nil
}

// begun reports whether a QoS 2 delivery of it was begun.
func (msg *shareModelMessage) begun() bool {
	return msg.received || msg.payload[0] == '2' && len(msg.seen) > 0
}

func (m *shareMachine) subscribe(s *shareModelMember) {
	s.session.Subscribe([]Subscription{{Filter: modelShare, QoS: 2, ID: 1}}, func(r []Reason, _ []QoS) {
		require.Equal(m.t, []Reason{Success}, r)
	})
}

// pick draws a member; some things only those do that need not stay.
func (m *shareMachine) pick(t *rapid.T, first int, connected bool) *shareModelMember {
	s := m.members[rapid.IntRange(first, len(m.members)-1).Draw(t, "member")]
	if (s.session != nil) != connected {
		t.Skip("not so now")
	}
	return s
}

func (m *shareMachine) publish(t *rapid.T) {
	h, _, err := m.broker.Connect(context.Background(), &ConnectRequest{ClientID: "pub"})
	require.NoError(t, err)
	for range rapid.IntRange(1, 20).Draw(t, "messages") {
		qos := QoS(rapid.IntRange(1, 2).Draw(t, "qos"))
		msg := &shareModelMessage{payload: fmt.Sprint(qos, ":", len(m.messages)), seen: map[*sessionState]bool{}}
		m.messages = append(m.messages, msg)
		h.Publish(context.Background(), &Message{Topic: fmt.Sprint("t/", len(m.messages)%3), Payload: []byte(msg.payload), QoS: qos}, 0, func(r Reason) {
			require.Equal(t, Success, r)
			msg.accepted = true
		})
	}
	if !m.store.held {
		h.Close(Closing{})
	}
}

func (m *shareMachine) message(d Delivery) *shareModelMessage {
	var qos, n int
	_, err := fmt.Sscanf(string(d.Message.Payload), "%d:%d", &qos, &n)
	require.NoError(m.t, err)
	return m.messages[n]
}

func (m *shareMachine) deliver(t *rapid.T) {
	s := m.pick(t, 0, true)
	for _, d := range s.session.Next(make([]Delivery, 0, rapid.IntRange(1, 30).Draw(t, "room"))) {
		m.check(s, d)
	}
}

func (m *shareMachine) check(s *shareModelMember, d Delivery) {
	s.window = append(s.window, d)
	if d.Release {
		return
	}
	msg, t := m.message(d), m.t
	require.Equal(t, []uint32{1}, d.SubscriptionIDs)
	if !msg.excused {
		require.False(t, msg.done || msg.over, "%s was completed", msg.payload)
		require.True(t, msg.holder == nil || msg.holder == s, "%s is with another member", msg.payload)
		require.Equal(t, msg.seen[s.session.state], d.Dup, "DUP of %s", msg.payload)
	}
	msg.holder = s
	msg.seen[s.session.state] = true
}

func (m *shareMachine) complete(t *rapid.T) {
	s := m.pick(t, 0, true)
	if len(s.window) == 0 {
		t.Skip("nothing outstanding")
	}
	for range rapid.IntRange(1, len(s.window)).Draw(t, "deliveries") {
		m.completeOne(s, rapid.IntRange(0, len(s.window)-1).Draw(t, "which"))
	}
}

func (m *shareMachine) completeOne(s *shareModelMember, i int) {
	d := &s.window[i]
	if d.QoS == 2 && !d.Release {
		s.session.Received(d.PacketID, false, nil)
		m.message(*d).received = true
		d.Release = true
		return
	}
	require.Equal(m.t, Success, s.session.Acked(d.PacketID))
	if d.Message != nil {
		msg := m.message(*d)
		msg.done, msg.holder = true, nil
	}
	s.window = append(s.window[:i], s.window[i+1:]...)
}

func (m *shareMachine) disconnect(t *rapid.T) {
	if m.store.held {
		t.Skip("the end of a session waits for the disk")
	}
	s := m.pick(t, 0, true)
	s.session.Close(Closing{})
	m.lost(s, !s.durable)
}

func (m *shareMachine) reconnect(t *rapid.T) {
	if m.store.held {
		t.Skip("connect waits for the disk")
	}
	m.connect(m.members[rapid.IntRange(0, 3).Draw(t, "member")], false)
}

func (m *shareMachine) cleanStart(t *rapid.T) {
	if m.store.held {
		t.Skip("connect waits for the disk")
	}
	m.connect(m.members[rapid.IntRange(1, 3).Draw(t, "member")], true)
}

func (m *shareMachine) leave(t *rapid.T) {
	s := m.pick(t, 1, true)
	s.session.Unsubscribe([]string{modelShare}, func([]Reason) {})
}

func (m *shareMachine) join(t *rapid.T) { m.subscribe(m.pick(t, 1, true)) }

func (m *shareMachine) hold(*rapid.T) { m.store.hold(!m.store.held) }

// kill ends the process without a word. What only memory had, or the store was
// not told yet, is excused.
func (m *shareMachine) kill(*rapid.T) {
	waiting := len(m.store.pending) > 0
	m.store.pending, m.store.held = nil, false
	for _, msg := range m.messages {
		msg.excused = msg.excused || waiting
	}
	for _, s := range m.members {
		if !s.durable && s.session != nil {
			for _, f := range []*fifo{&s.session.state.queue, &s.session.state.window} {
				for _, e := range f.entries() {
					if e.msg != nil {
						m.message(Delivery{Message: e.msg}).excused = true
					}
				}
			}
		}
	}
	old := m.broker
	require.NoError(m.t, old.Close())
	m.boot()
	for _, s := range m.members {
		m.adopt(s, old)
	}
}

// adopt makes the sessions of the new process those that the old one had.
func (m *shareMachine) adopt(s *shareModelMember, old *Broker) {
	before, after := old.find(s.id), m.broker.find(s.id)
	m.lost(s, !s.durable)
	for _, msg := range m.messages {
		if before != nil && msg.seen[before] {
			msg.seen[after] = true
		}
	}
}

func (m *shareMachine) finish() {
	m.store.hold(false)
	for _, s := range m.members {
		m.connect(s, false)
	}
	for again := true; again; {
		again = false
		for _, s := range m.members {
			for _, d := range s.session.Next(make([]Delivery, 0, 10)) {
				again = true
				m.check(s, d)
			}
			for len(s.window) > 0 {
				m.completeOne(s, 0)
			}
		}
	}
	for _, msg := range m.messages {
		require.True(m.t, msg.done || msg.received || msg.over || msg.excused || !msg.accepted, "%s was acknowledged and is lost", msg.payload)
	}
	for _, s := range m.members {
		require.Zero(m.t, m.store.queued(s.id))
		st := m.broker.find(s.id)
		require.Empty(m.t, st.reserved)
		require.Zero(m.t, st.bytes)
	}
	require.NoError(m.t, m.broker.Close())
}
