package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// memStore is a Store in memory whose commits can be held back and made to
// fail.
type memStore struct {
	mu      sync.Mutex
	held    bool
	err     error // of the next commits, by done
	busy    bool  // Commit with NoWait answers ErrBusy
	pending []pendingCommit
	state   map[string]*memSession
	kept    map[string]*Message
	delayed map[uint64]Delayed
	ops     []OpKind

	fail     func(*Batch) error         // decides for each batch, if set
	onCommit func(b *Batch, taken bool) // before and after a batch is taken, without mu
	onQueued func(reading bool) error   // before and after Queued looks, without mu
}

type pendingCommit struct {
	batch Batch
	done  func(error)
}

type memSession struct {
	record  SessionRecord
	subs    map[string]Subscription
	inbound map[uint16]bool
	queue   []Queued
	sent    uint64
}

func newMemStore() *memStore {
	return &memStore{state: map[string]*memSession{}, kept: map[string]*Message{}, delayed: map[uint64]Delayed{}}
}

func (m *memStore) Load(context.Context) (*State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &State{}
	for _, k := range m.kept {
		s.Retained = append(s.Retained, k)
	}
	for _, d := range m.delayed {
		s.Delayed = append(s.Delayed, d)
	}
	for _, ms := range m.state {
		st := StoredSession{Record: ms.record, Sent: ms.sent, Count: len(ms.queue)}
		for _, sub := range ms.subs {
			st.Subscriptions = append(st.Subscriptions, sub)
		}
		for id := range ms.inbound {
			st.Inbound = append(st.Inbound, id)
		}
		if st.Count > 0 {
			st.First, st.Last = ms.queue[0].Seq, ms.queue[st.Count-1].Seq
		}
		for _, q := range ms.queue {
			st.Bytes += q.Message.StoredSize()
		}
		s.Sessions = append(s.Sessions, st)
	}
	return s, nil
}

func (m *memStore) Commit(ctx context.Context, b *Batch, done func(error)) error {
	if hook := m.onCommit; hook != nil {
		hook(b, false)
		defer hook(b, true)
	}
	m.mu.Lock()
	if m.busy && ctx == nil {
		m.mu.Unlock()
		return ErrBusy
	}
	copied := Batch{Ops: slices.Clone(b.Ops)}
	m.pending = append(m.pending, pendingCommit{copied, done})
	held := m.held
	m.mu.Unlock()
	if !held {
		m.flush()
	}
	return nil
}

// hold makes commits wait until flush.
func (m *memStore) hold(on bool) {
	m.mu.Lock()
	m.held = on
	m.mu.Unlock()
	if !on {
		m.flush()
	}
}

func (m *memStore) flush() {
	for {
		m.mu.Lock()
		if len(m.pending) == 0 {
			m.mu.Unlock()
			return
		}
		p := m.pending[0]
		m.pending = m.pending[1:]
		err := m.err
		if m.fail != nil && err == nil {
			err = m.fail(&p.batch)
		}
		if err == nil {
			for i := range p.batch.Ops {
				m.apply(&p.batch.Ops[i])
			}
		}
		m.mu.Unlock()
		if p.done != nil {
			p.done(err)
		}
	}
}

func (m *memStore) session(id string) *memSession {
	s := m.state[id]
	if s == nil {
		s = &memSession{subs: map[string]Subscription{}, inbound: map[uint16]bool{}}
		s.record.ClientID = id
		m.state[id] = s
	}
	return s
}

func (m *memStore) apply(op *Op) {
	m.ops = append(m.ops, op.Kind)
	switch op.Kind {
	case OpPutSession:
		m.session(op.ClientID).record = *op.Session
	case OpDeleteSession:
		delete(m.state, op.ClientID)
	case OpSubscribe:
		m.session(op.ClientID).subs[op.Subscription.Filter] = *op.Subscription
	case OpUnsubscribe:
		delete(m.session(op.ClientID).subs, op.Topic)
	case OpRetain:
		m.kept[op.Message.Topic] = op.Message
	case OpUnretain:
		delete(m.kept, op.Topic)
	case OpDelay:
		m.delayed[op.Seq] = Delayed{Seq: op.Seq, Due: op.Due, Message: op.Message}
	case OpDelayDone:
		delete(m.delayed, op.Seq)
	case OpEnqueue:
		for _, t := range op.Targets {
			s := m.session(t.ClientID)
			q := Queued{Seq: t.Seq, QoS: t.QoS, Retain: t.Retain, SubscriptionIDs: t.SubscriptionIDs, Share: t.Share, Message: op.Message}
			i, _ := slices.BinarySearchFunc(s.queue, t.Seq, func(q Queued, seq uint64) int { return int(q.Seq) - int(seq) })
			s.queue = slices.Insert(s.queue, i, q)
		}
	case OpDequeue:
		s := m.session(op.ClientID)
		s.queue = slices.DeleteFunc(s.queue, func(q Queued) bool { return q.Seq == op.Seq })
	case OpReleased:
		s := m.session(op.ClientID)
		for i := range s.queue {
			if s.queue[i].Seq == op.Seq {
				s.queue[i].Released = true
			}
		}
	case OpSent:
		s := m.session(op.ClientID)
		s.sent = max(s.sent, op.Seq)
	case OpInbound:
		m.session(op.ClientID).inbound[op.PacketID] = true
	case OpInboundDone:
		delete(m.session(op.ClientID).inbound, op.PacketID)
	}
}

func (m *memStore) Queued(id string, from uint64, limit int) ([]Queued, error) {
	if hook := m.onQueued; hook != nil {
		if err := hook(true); err != nil {
			return nil, err
		}
		defer func() { _ = hook(false) }()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state[id]
	if s == nil {
		return nil, nil
	}
	var out []Queued
	for _, q := range s.queue {
		if q.Seq >= from && len(out) < limit {
			out = append(out, q)
		}
	}
	return out, nil
}

func (m *memStore) Close() error { return nil }

func (m *memStore) queued(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.state[id]; s != nil {
		return len(s.queue)
	}
	return 0
}

func (m *memStore) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state[id] != nil
}

var errDisk = errors.New("no space left on device")

type admitAll struct{}

func (admitAll) Authenticate(context.Context, *ConnectRequest) error { return nil }

func newBroker(t testing.TB, store Store, change ...func(*Config)) *Broker {
	t.Helper()
	cfg := Config{Authenticate: admitAll{}}
	for _, f := range change {
		f(&cfg)
	}
	b, err := New(context.Background(), cfg, store, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// client is a connection for tests: it records what it gets.
type client struct {
	*Session
	t      testing.TB
	woken  chan struct{}
	kicked chan Reason
}

func connect(t testing.TB, b *Broker, id string, change ...func(*ConnectRequest)) *client {
	t.Helper()
	c, _ := reconnect(t, b, id, change...)
	return c
}

func reconnect(t testing.TB, b *Broker, id string, change ...func(*ConnectRequest)) (*client, bool) {
	t.Helper()
	c := &client{t: t, woken: make(chan struct{}, 1), kicked: make(chan Reason, 8)}
	r := &ConnectRequest{
		ClientID: id, Protocol: "mqtt",
		Wake: func() {
			select {
			case c.woken <- struct{}{}:
			default:
			}
		},
		Kick: func(r Reason) { c.kicked <- r },
	}
	for _, f := range change {
		f(r)
	}
	s, present, err := b.Connect(context.Background(), r)
	require.NoError(t, err)
	c.Session = s
	s.Start()
	return c, present
}

func durable(r *ConnectRequest) { r.Expiry = NeverExpires }

func (c *client) subscribe(filter string, qos QoS) {
	c.t.Helper()
	c.subscribeWith(Subscription{Filter: filter, QoS: qos})
}

func (c *client) subscribeWith(sub Subscription) {
	c.t.Helper()
	var got []Reason
	c.Subscribe([]Subscription{sub}, func(r []Reason, _ []QoS) { got = r })
	require.Equal(c.t, []Reason{Success}, got)
}

// publish waits for the outcome.
func (c *client) publish(topic, payload string, qos QoS) Reason {
	c.t.Helper()
	return c.publishMessage(&Message{Topic: topic, Payload: []byte(payload), QoS: qos}, 0)
}

func (c *client) publishMessage(m *Message, id uint16) Reason {
	c.t.Helper()
	select {
	case r := <-c.send(context.Background(), m, id):
		return r
	case <-time.After(10 * time.Second):
		c.t.Error("done was not called")
		return Closed
	}
}

// take returns what the outbox gives now.
func (c *client) take() []Delivery { return c.Next(make([]Delivery, 0, 1000)) }

// payloads returns the payloads of what the outbox gives now and completes them.
func (c *client) payloads() []string {
	var out []string
	for {
		ds := c.take()
		if len(ds) == 0 {
			return out
		}
		for _, d := range ds {
			out = append(out, string(d.Message.Payload))
			c.complete(d)
		}
	}
}

func (c *client) complete(d Delivery) {
	switch d.QoS {
	case 1:
		require.Equal(c.t, Success, c.Acked(d.PacketID))
	case 2:
		c.Received(d.PacketID, false, func(r Reason) { require.Equal(c.t, Success, r) })
		require.Equal(c.t, Success, c.Acked(d.PacketID))
	}
}
