package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestDelayedAgainstAModel delays messages at random while the disk fails, the
// power goes and comes back, and a subscriber's queue fills. At the end every
// acknowledged message has arrived, none before its time, and those of one
// publisher and topic in the order of their times.
func TestDelayedAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		withHook := rapid.Bool().Draw(rt, "recorder")
		synctest.Test(t, func(t *testing.T) {
			m := &delayedModel{t: t, rand: rand.New(rand.NewPCG(seed, 1)), store: newMemStore(), withHook: withHook}
			m.boot()
			for range steps {
				m.step()
			}
			m.finish()
		})
	})
}

type delayedModel struct {
	t        *testing.T
	rand     *rand.Rand
	store    *memStore
	withHook bool
	hook     *countingHook
	broker   *Broker
	sub      *client
	pubs     [2]*client
	accepted []delayedFact
	got      []string // of the subscriber
	recorded []string // of the hook, in all lives
	sent     int
}

type delayedFact struct {
	name, lane string
	due        int64
}

func (m *delayedModel) boot() {
	m.hook = &countingHook{}
	m.broker = newBroker(m.t, m.store, func(c *Config) {
		c.Session.QueueBytes = 1500
		if m.withHook {
			c.Hooks = []Hook{m.hook}
		}
	})
	m.sub = connect(m.t, m.broker, "sub", durable)
	m.sub.subscribe("t/+", 2)
	for i := range m.pubs {
		m.pubs[i] = connect(m.t, m.broker, fmt.Sprint("pub", i), durable)
	}
}

func (m *delayedModel) step() {
	synctest.Wait() // a disk that fails in the middle of a round may change the order
	switch m.rand.IntN(10) {
	case 0:
		m.store.failWith(errDisk)
	case 1, 2:
		m.store.failWith(nil)
	case 3:
		later(time.Duration(m.rand.IntN(20_000)) * time.Millisecond)
	case 4:
		m.take()
	case 5:
		m.restart()
	default:
		m.publish()
	}
}

func (m *delayedModel) publish() {
	pub, topic, seconds := m.rand.IntN(2), m.rand.IntN(2), 1+m.rand.IntN(10)
	m.sent++
	f := delayedFact{name: fmt.Sprint(m.sent), lane: fmt.Sprint(pub, topic), due: nowMillis() + int64(seconds)*1000}
	payload := fmt.Sprintf("%s %d", f.name, f.due)
	if m.pubs[pub].publish(fmt.Sprintf("$delayed/%d/t/%d", seconds, topic), payload, 1+QoS(m.rand.IntN(2))) == Success {
		m.accepted = append(m.accepted, f)
	}
}

// take is the subscriber at work. What it completes while the disk fails may
// come again after a restart.
func (m *delayedModel) take() {
	m.store.failWith(nil)
	for _, payload := range m.sub.payloads() {
		name, due, _ := strings.Cut(payload, " ")
		require.LessOrEqual(m.t, due, fmt.Sprint(nowMillis()), "before its time")
		m.got = append(m.got, name)
	}
}

func (m *delayedModel) restart() {
	m.store.failWith(nil)
	require.NoError(m.t, m.broker.Close())
	m.recorded = append(m.recorded, m.hook.got...)
	later(time.Duration(m.rand.IntN(5)) * time.Second)
	m.boot()
}

func (m *delayedModel) finish() {
	m.store.failWith(nil)
	for m.broker.Stats().Delayed.Waiting > 0 {
		later(time.Minute)
		m.take()
	}
	m.take()
	require.Zero(m.t, m.store.waiting())
	require.NoError(m.t, m.broker.Close())
	m.compare(m.got, "subscriber")
	if m.withHook {
		m.compareRecorder()
	}
}

// compare wants exactly what was accepted, in the order of each lane.
func (m *delayedModel) compare(got []string, who string) {
	at := map[string]int{}
	for i, name := range got {
		_, twice := at[name]
		require.False(m.t, twice, "%s got %s twice", who, name)
		at[name] = i
	}
	require.Len(m.t, got, len(m.accepted), who)
	for i, f := range m.accepted {
		where, arrived := at[f.name]
		require.True(m.t, arrived, "%s has not got %s", who, f.name)
		for _, g := range m.accepted[:i] {
			if g.lane == f.lane {
				require.Equal(m.t, g.due <= f.due, at[g.name] < where, "order of %s and %s at the %s", g.name, f.name, who)
			}
		}
	}
}

// compareRecorder wants everything; after a restart something may come again.
func (m *delayedModel) compareRecorder() {
	have := map[string]bool{}
	for _, payload := range append(m.recorded, m.hook.got...) {
		name, _, _ := strings.Cut(payload, " ")
		have[name] = true
	}
	for _, f := range m.accepted {
		require.True(m.t, have[f.name], "the recorder has not got %s", f.name)
	}
}

// TestDelayedStress lets publishers, deletions, a slow disk that fails and a
// subscriber meet in real time. With QoS 2 even a failing disk makes no
// duplicates.
func TestDelayedStress(t *testing.T) {
	store := newAsyncStore(t, 16, 0.05)
	b := newBroker(t, store)
	sub := connect(t, b, "sub", durable)
	require.Equal(t, Success, sub.askWith(Subscription{Filter: "t/#", QoS: 2}))
	const publishers, each = 4, 150
	done := make(chan map[string]bool, publishers)
	for p := range publishers {
		c := connect(t, b, fmt.Sprint("pub", p))
		go func() {
			accepted := map[string]bool{}
			for i := range each {
				name := fmt.Sprint(p, " ", i)
				if (<-c.send(context.Background(), &Message{Topic: fmt.Sprint("$delayed/1/t/", p), Payload: []byte(name), QoS: 2}, 0)).OK() {
					accepted[name] = true
				}
			}
			done <- accepted
		}()
	}
	want := map[string]bool{}
	for range publishers {
		for name := range <-done {
			want[name] = true
		}
	}
	deleted := b.Delayed(0, 1)
	for _, d := range deleted {
		_, _ = b.DeleteDelayed(t.Context(), d.ID)
	}
	deadline := time.Now().Add(stressDeadline)
	for b.Stats().Delayed.Waiting > 0 || b.Stats().Queued > 0 {
		require.True(t, time.Now().Before(deadline), "%+v", b.Stats().Delayed)
		ds := sub.take()
		for _, d := range ds {
			require.True(t, want[string(d.Message.Payload)], "%s twice, or never accepted", d.Message.Payload)
			delete(want, string(d.Message.Payload))
			sub.complete(d)
		}
		if len(ds) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	require.LessOrEqual(t, len(want), len(deleted), "lost: %v", want)
}
