package storetest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// The caller may reuse everything as soon as Commit has returned.
func testBatchIsCopied(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	m := message("topic", "payload")
	m.Properties = &broker.Properties{CorrelationData: []byte("cd"), User: []broker.UserProperty{{Key: "k", Value: "v"}}}
	targets := []broker.Target{{ClientID: "a", Seq: 1, QoS: 1, SubscriptionIDs: []uint32{7}}}
	sub := broker.Subscription{Filter: "f", QoS: 1}
	session := *put("a").Session
	batch := &broker.Batch{Ops: []broker.Op{
		enqueue(m, targets...), subscribe("a", sub), {Kind: broker.OpPutSession, ClientID: "a", Session: &session},
	}}
	done := make(chan error, 1)
	require.NoError(t, b.store.Commit(t.Context(), batch, func(err error) { done <- err }))
	copy(m.Payload, "PAYLOAD")
	copy(m.Properties.CorrelationData, "CD")
	m.Properties.User[0].Value = "w"
	batch.Ops[0].Targets[0] = broker.Target{ClientID: "b", Seq: 2, SubscriptionIDs: []uint32{8}}
	batch.Ops[1].Subscription.Filter = "g"
	session.Username = "other"
	clear(batch.Ops)
	require.NoError(t, <-done)

	want := message("topic", "payload")
	want.Properties = &broker.Properties{CorrelationData: []byte("cd"), User: []broker.UserProperty{{Key: "k", Value: "v"}}}
	b.model.Apply(enqueue(want, broker.Target{ClientID: "a", Seq: 1, QoS: 1, SubscriptionIDs: []uint32{7}}), subscribe("a", sub), put("a"))
	b.check()
}

// What a batch gives to several queues appears in all of them at once.
func testBatchIsSeenWhole(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	count := func(id string) int {
		q, err := b.store.Queued(id, 0, math.MaxInt)
		require.NoError(t, err)
		return len(q)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		wg.Go(func() {
			for {
				first := count(order[0])
				if second := count(order[1]); second < first {
					t.Errorf("%s has %d entries when %s already had %d", order[1], second, order[0], first)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for seq := uint64(1); seq <= 150; seq++ {
		b.commit(enqueue(message("t", "1"), to("a", 2*seq), to("b", 2*seq)), enqueue(message("t", "2"), to("b", 2*seq+1)),
			enqueue(message("t", "3"), to("a", 2*seq+1)))
	}
	close(stop)
	wg.Wait()
	b.check()
}

func testDoneInOrder(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	const n = 2000
	var order []int // written by callbacks, which come one after the other
	var wg sync.WaitGroup
	wg.Add(n)
	for i := range n {
		ops := []broker.Op{enqueue(message("t", fmt.Sprint(i)), to("a", uint64(i+1)))}
		require.NoError(t, b.store.Commit(t.Context(), &broker.Batch{Ops: ops}, func(err error) {
			if err != nil {
				t.Errorf("batch %d: %v", i, err)
			}
			order = append(order, i)
			wg.Done()
		}))
		b.model.Apply(ops...)
	}
	wg.Wait()
	for i, got := range order {
		require.Equal(t, i, got)
	}
	b.check()
}

// A callback may commit itself, without blocking: an acknowledgement that causes the next change.
func testDoneMayCommit(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	finished := make(chan error, 1)
	var chain func(seq uint64) func(error)
	chain = func(seq uint64) func(error) {
		return func(err error) {
			if err != nil || seq == 100 {
				finished <- err
				return
			}
			next := &broker.Batch{Ops: []broker.Op{enqueue(message("t", "x"), to("a", seq+1)), seqOp(broker.OpDequeue, "a", seq)}}
			if err := b.store.Commit(nil, next, chain(seq+1)); err != nil { //nolint:staticcheck // nil: must not block
				finished <- err
			}
		}
	}
	chain(0)(nil)
	select {
	case err := <-finished:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("a commit from a callback does not end")
	}
	b.model.Apply(enqueue(message("t", "x"), to("a", 100)))
	b.check()
}

func testConcurrentCommitters(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("shared"))
	const committers, rounds = 16, 60
	models := make([]*Model, committers)
	var failed atomic.Int64
	var wg sync.WaitGroup
	for c := range committers {
		models[c] = NewModel()
		wg.Go(func() {
			id := fmt.Sprintf("client-%d", c)
			apply := func(ops ...broker.Op) {
				if err := commit(b.store, ops...); err != nil {
					t.Errorf("%s: %v", id, err)
					failed.Add(1)
				}
				models[c].Apply(ops...)
			}
			apply(put(id))
			for seq := uint64(1); seq <= rounds && failed.Load() == 0; seq++ {
				apply(enqueue(message(id, fmt.Sprint(seq)), to(id, seq), to("shared", seq*committers+uint64(c))))
				if seq%2 == 0 {
					apply(seqOp(broker.OpDequeue, id, seq/2), broker.Op{Kind: broker.OpRetain, Message: message(id, fmt.Sprint(seq))})
				}
				apply(seqOp(broker.OpSent, id, seq), subscribe(id, broker.Subscription{Filter: fmt.Sprint(seq % 5), ID: uint32(seq)}))
			}
		})
	}
	wg.Wait()
	for c, m := range models {
		maps.Copy(b.model.Sessions, m.Sessions)
		maps.Copy(b.model.Retained, m.Retained)
		for seq := uint64(1); seq <= rounds; seq++ {
			b.model.Apply(enqueue(message(fmt.Sprintf("client-%d", c), fmt.Sprint(seq)), to("shared", seq*committers+uint64(c))))
		}
	}
	b.check()
}

// Without a context Commit never waits: it says busy, and then nothing of the batch happens. With one it waits until that ends.
func testBusy(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	m := message("t", "")
	m.Payload = randomPayload(1 << 20)
	var wg sync.WaitGroup
	busy, expired := 0, 0
	for seq := uint64(1); seq <= 150 && (busy < 3 || expired < 3); seq++ {
		var ctx context.Context
		if seq%2 == 0 {
			c, cancel := context.WithCancel(t.Context())
			cancel()
			ctx = c
		}
		ops := []broker.Op{enqueue(m, to("a", seq)), seqOp(broker.OpDequeue, "a", seq-1)}
		wg.Add(1)
		start := time.Now()
		err := b.store.Commit(ctx, &broker.Batch{Ops: ops}, func(err error) {
			if err != nil {
				t.Errorf("batch %d: %v", seq, err)
			}
			wg.Done()
		})
		require.Less(t, time.Since(start), patience)
		switch {
		case err == nil:
			b.model.Apply(ops...)
			continue
		case ctx == nil:
			require.ErrorIs(t, err, broker.ErrBusy)
			busy++
		default:
			require.ErrorIs(t, err, context.Canceled)
			expired++
		}
		wg.Done()
	}
	t.Logf("busy %d, expired %d", busy, expired)
	b.commit(enqueue(message("t", "after"), to("a", 1000)))
	wg.Wait()
	b.check()
}

func testManyEntries(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	const n = 20_000
	var wg sync.WaitGroup
	for seq := uint64(1); seq <= n; seq += 50 {
		var ops []broker.Op
		for s := seq; s < seq+50; s++ {
			ops = append(ops, enqueue(message("t", fmt.Sprint(s)), to("a", s)))
			if s > 10_000 && s%3 != 0 {
				ops = append(ops, seqOp(broker.OpDequeue, "a", s-10_000))
			}
		}
		wg.Add(1)
		require.NoError(t, b.store.Commit(t.Context(), &broker.Batch{Ops: ops}, func(err error) {
			if err != nil {
				t.Errorf("batch at %d: %v", seq, err)
			}
			wg.Done()
		}))
		b.model.Apply(ops...)
	}
	wg.Wait()
	b.check()
}
