package storetest

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// Model is what a store must hold, in maps: the contract without a disk.
type Model struct {
	Sessions map[string]*Session
	Retained map[string]*broker.Message
	Delayed  map[uint64]broker.Delayed
}

// Session is one session of a Model.
type Session struct {
	Record  broker.SessionRecord
	Subs    map[string]broker.Subscription
	Inbound map[uint16]bool
	Sent    uint64
	Queue   map[uint64]broker.Queued
}

// NewModel returns an empty model.
func NewModel() *Model {
	return &Model{Sessions: map[string]*Session{}, Retained: map[string]*broker.Message{}, Delayed: map[uint64]broker.Delayed{}}
}

// Apply makes ops take effect. It keeps what they point to.
func (m *Model) Apply(ops ...broker.Op) {
	for i := range ops {
		m.apply(&ops[i])
	}
}

func (m *Model) apply(op *broker.Op) {
	switch op.Kind {
	case broker.OpRetain:
		m.Retained[op.Message.Topic] = op.Message
		return
	case broker.OpUnretain:
		delete(m.Retained, op.Topic)
		return
	case broker.OpDelay:
		m.Delayed[op.Seq] = broker.Delayed{Seq: op.Seq, Due: op.Due, Message: op.Message}
		return
	case broker.OpDelayDone:
		delete(m.Delayed, op.Seq)
		return
	case broker.OpDeleteSession:
		delete(m.Sessions, op.ClientID)
		return
	case broker.OpEnqueue:
		for _, t := range op.Targets {
			if s := m.Sessions[t.ClientID]; s != nil {
				s.Queue[t.Seq] = broker.Queued{
					Seq: t.Seq, QoS: t.QoS, Retain: t.Retain, SubscriptionIDs: t.SubscriptionIDs, Share: t.Share, Message: op.Message,
				}
			}
		}
		return
	}
	s := m.Sessions[op.ClientID]
	if s == nil {
		if op.Kind != broker.OpPutSession {
			return
		}
		s = &Session{Subs: map[string]broker.Subscription{}, Inbound: map[uint16]bool{}, Queue: map[uint64]broker.Queued{}}
		m.Sessions[op.ClientID] = s
	}
	s.apply(op)
}

func (s *Session) apply(op *broker.Op) {
	switch op.Kind {
	case broker.OpPutSession:
		s.Record = *op.Session
	case broker.OpSubscribe:
		s.Subs[op.Subscription.Filter] = *op.Subscription
	case broker.OpUnsubscribe:
		delete(s.Subs, op.Topic)
	case broker.OpDequeue:
		delete(s.Queue, op.Seq)
	case broker.OpReleased:
		if q, ok := s.Queue[op.Seq]; ok {
			q.Released = true
			s.Queue[op.Seq] = q
		}
	case broker.OpSent:
		s.Sent = max(s.Sent, op.Seq)
	case broker.OpInbound:
		s.Inbound[op.PacketID] = true
	case broker.OpInboundDone:
		delete(s.Inbound, op.PacketID)
	}
}

// queue returns the entries with numbers >= from, ascending.
func (s *Session) queue(from uint64) []broker.Queued {
	out := []broker.Queued{}
	for _, q := range s.Queue {
		if q.Seq >= from {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, func(a, b broker.Queued) int { return cmp.Compare(a.Seq, b.Seq) })
	return out
}

func (m *Model) state() *broker.State {
	st := &broker.State{}
	for _, s := range m.Sessions {
		stored := broker.StoredSession{
			Record: s.Record, Subscriptions: slices.Collect(maps.Values(s.Subs)), Inbound: slices.Collect(maps.Keys(s.Inbound)),
			Sent: s.Sent, Count: len(s.Queue),
		}
		for _, q := range s.queue(0) {
			if stored.First == 0 {
				stored.First = q.Seq
			}
			stored.Last = q.Seq
			stored.Bytes += q.Message.StoredSize()
		}
		st.Sessions = append(st.Sessions, stored)
	}
	st.Retained = slices.Collect(maps.Values(m.Retained))
	st.Delayed = slices.Collect(maps.Values(m.Delayed))
	sortState(st)
	return st
}

// sortState gives a state the one order in which two of them can be compared, with nil for every empty list.
func sortState(st *broker.State) {
	slices.SortFunc(st.Sessions, func(a, b broker.StoredSession) int { return cmp.Compare(a.Record.ClientID, b.Record.ClientID) })
	slices.SortFunc(st.Retained, func(a, b *broker.Message) int { return cmp.Compare(a.Topic, b.Topic) })
	slices.SortFunc(st.Delayed, func(a, b broker.Delayed) int { return cmp.Compare(a.Seq, b.Seq) })
	if len(st.Delayed) == 0 {
		st.Delayed = nil
	}
	if len(st.Sessions) == 0 {
		st.Sessions = nil
	}
	if len(st.Retained) == 0 {
		st.Retained = nil
	}
	for i := range st.Sessions {
		s := &st.Sessions[i]
		slices.SortFunc(s.Subscriptions, func(a, b broker.Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
		slices.Sort(s.Inbound)
		if len(s.Subscriptions) == 0 {
			s.Subscriptions = nil
		}
		if len(s.Inbound) == 0 {
			s.Inbound = nil
		}
	}
}

// Clone returns a copy that later changes leave alone. Messages are shared.
func (m *Model) Clone() *Model {
	c := &Model{Sessions: make(map[string]*Session, len(m.Sessions)), Retained: maps.Clone(m.Retained), Delayed: maps.Clone(m.Delayed)}
	for id, s := range m.Sessions {
		c.Sessions[id] = &Session{
			Record: s.Record, Subs: maps.Clone(s.Subs), Inbound: maps.Clone(s.Inbound), Sent: s.Sent, Queue: maps.Clone(s.Queue),
		}
	}
	return c
}

// Snapshot is everything that a store holds, in a form that require.Equal and reflect.DeepEqual compare.
type Snapshot struct {
	State  *broker.State
	Queues map[string][]broker.Queued // of sessions with a queue
}

// Snapshot returns what a store with this content holds.
func (m *Model) Snapshot() Snapshot {
	out := Snapshot{State: m.state(), Queues: map[string][]broker.Queued{}}
	for id, s := range m.Sessions {
		if len(s.Queue) > 0 {
			out.Queues[id] = s.queue(0)
		}
	}
	return out
}

// Read loads a freshly opened store and reads all queues.
func Read(s broker.Store) (Snapshot, error) {
	st, err := s.Load(context.Background())
	if err != nil {
		return Snapshot{}, err
	}
	sortState(st)
	out := Snapshot{State: st, Queues: map[string][]broker.Queued{}}
	for i := range st.Sessions {
		id := st.Sessions[i].Record.ClientID
		q, err := s.Queued(id, 0, math.MaxInt)
		if err != nil {
			return Snapshot{}, err
		}
		if len(q) > 0 {
			out.Queues[id] = q
		}
	}
	return out, nil
}

// Check loads a freshly opened store and compares everything in it with the model.
func Check(t require.TestingT, s broker.Store, m *Model) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	got, err := Read(s)
	require.NoError(t, err)
	Same(t, m.Snapshot(), got)
}

// Same compares two snapshots and shows the first difference.
func Same(t require.TestingT, want, got Snapshot) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	require.Equal(t, want.State, got.State)
	for id, q := range want.Queues {
		sameQueue(t, q, got.Queues[id], id)
	}
	require.Equal(t, len(want.Queues), len(got.Queues), "sessions with a queue")
}

// CheckQueues compares the queues of an open store with the model.
func CheckQueues(t require.TestingT, s broker.Store, m *Model) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
	for id, want := range m.Sessions {
		got, err := s.Queued(id, 0, math.MaxInt)
		require.NoError(t, err)
		sameQueue(t, want.queue(0), got, id)
	}
}

func sameQueue(t require.TestingT, want, got []broker.Queued, id string) {
	for i := range min(len(want), len(got)) {
		require.Equal(t, want[i], got[i], "entry %d of %s", i, id)
	}
	require.Equal(t, len(want), len(got), "entries of %s", id)
}
