package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/broker"
)

// testMachine runs random batches against the store and the model, with restarts in between.
func testMachine(t *testing.T, open Open) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{dir: t.TempDir(), model: NewModel()}
		m.store = open(t, m.dir)
		defer func() { require.NoError(rt, m.store.Close()) }()
		_, err := m.store.Load(t.Context())
		require.NoError(rt, err)
		rt.Repeat(map[string]func(*rapid.T){
			"commit":  m.commit,
			"restart": func(rt *rapid.T) { m.restart(t, rt, open) },
			"page":    m.page,
			"":        func(rt *rapid.T) {},
		})
		m.restart(t, rt, open)
	})
}

type machine struct {
	dir   string
	store broker.Store
	model *Model
	gen   Generator
}

func (m *machine) restart(t *testing.T, rt *rapid.T, open Open) {
	require.NoError(rt, m.store.Close())
	m.store = open(t, m.dir)
	Check(rt, m.store, m.model)
}

func (m *machine) commit(rt *rapid.T) {
	ops := m.gen.Batch(rt)
	require.NoError(rt, commit(m.store, ops...))
	m.model.Apply(ops...)
}

func (m *machine) page(rt *rapid.T) {
	id := client(rt)
	from := seq(rt)
	limit := rapid.IntRange(0, 12).Draw(rt, "limit")
	got, err := m.store.Queued(id, from, limit)
	require.NoError(rt, err)
	want := []broker.Queued{}
	if s := m.model.Sessions[id]; s != nil {
		want = s.queue(from)
	}
	sameQueue(rt, want[:min(limit, len(want))], got, id)
}

func client(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(rt, "client")
}
func seq(rt *rapid.T) uint64 { return rapid.Uint64Range(1, 12).Draw(rt, "seq") }
func topic(rt *rapid.T) string {
	return rapid.SampledFrom([]string{"t", "u/v", "w/#"}).Draw(rt, "topic")
}

// Generator draws random batches about a few clients, topics and numbers, so that they meet. No two messages are equal.
type Generator struct{ step uint64 }

// Batch draws the ops of one batch.
func (g *Generator) Batch(rt *rapid.T) []broker.Op {
	ops := make([]broker.Op, rapid.IntRange(1, 8).Draw(rt, "ops"))
	for i := range ops {
		ops[i] = g.op(rt)
	}
	return ops
}

func (g *Generator) message(rt *rapid.T) *broker.Message {
	g.step++
	return message(topic(rt), fmt.Sprintf("%d %s", g.step, rapid.StringN(0, 40, 200).Draw(rt, "payload")))
}

func (g *Generator) op(rt *rapid.T) broker.Op {
	id := client(rt)
	kind := rapid.SampledFrom([]broker.OpKind{
		broker.OpPutSession, broker.OpPutSession, broker.OpDeleteSession, broker.OpSubscribe, broker.OpUnsubscribe, broker.OpRetain,
		broker.OpUnretain, broker.OpEnqueue, broker.OpEnqueue, broker.OpEnqueue, broker.OpDequeue, broker.OpDequeue, broker.OpReleased,
		broker.OpSent, broker.OpInbound, broker.OpInboundDone,
		broker.OpDelay, broker.OpDelay, broker.OpDelayDone,
	}).Draw(rt, "kind")
	switch kind {
	case broker.OpPutSession:
		op := put(id)
		op.Session.Expiry = time.Duration(rapid.IntRange(0, 3).Draw(rt, "expiry")) * time.Hour
		if rapid.Bool().Draw(rt, "will") {
			op.Session.Will = &broker.Will{Message: g.message(rt), Delay: time.Second}
		}
		return op
	case broker.OpSubscribe:
		return subscribe(id, broker.Subscription{
			Filter: topic(rt), QoS: broker.QoS(rapid.IntRange(0, 2).Draw(rt, "qos")), NoLocal: rapid.Bool().Draw(rt, "no local"),
			ID: rapid.Uint32Range(0, 300).Draw(rt, "id"),
		})
	case broker.OpEnqueue:
		return enqueue(g.message(rt), g.targets(rt)...)
	case broker.OpRetain:
		return broker.Op{Kind: kind, Message: g.message(rt)}
	case broker.OpDelay:
		return broker.Op{Kind: kind, Message: g.message(rt), Seq: seq(rt), Due: rapid.Int64().Draw(rt, "due")}
	case broker.OpDelayDone:
		return broker.Op{Kind: kind, Seq: seq(rt)}
	case broker.OpUnsubscribe, broker.OpUnretain:
		return broker.Op{Kind: kind, ClientID: id, Topic: topic(rt)}
	case broker.OpInbound, broker.OpInboundDone:
		return packetOp(kind, id, rapid.Uint16Range(1, 5).Draw(rt, "packet"))
	}
	return seqOp(kind, id, seq(rt))
}

func (g *Generator) targets(rt *rapid.T) []broker.Target {
	var targets []broker.Target
	for range rapid.IntRange(1, 4).Draw(rt, "targets") {
		t := broker.Target{ClientID: client(rt), Seq: seq(rt), QoS: broker.QoS(rapid.IntRange(1, 2).Draw(rt, "qos"))}
		if rapid.Bool().Draw(rt, "with id") {
			t.SubscriptionIDs = []uint32{rapid.Uint32Range(1, 1<<28-1).Draw(rt, "subscription")}
		}
		if rapid.Bool().Draw(rt, "shared") {
			t.Share = "$share/g/" + rapid.SampledFrom([]string{"#", "a/+"}).Draw(rt, "share")
		}
		targets = append(targets, t)
	}
	return targets
}
