// Package storetest is the suite that every broker.Store passes: what the contract in package broker says, told as tests.
package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// patience is how long a test waits for a commit before it fails.
const patience = 30 * time.Second

// Open opens the store that is kept in a folder, which exists, or under that name for a store that lives elsewhere. Opening the same
// folder again, after Close, must give a store with the same content. It fails the test when it cannot.
type Open func(t testing.TB, dir string) broker.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	cases := []struct {
		name string
		run  func(t *testing.T, open Open)
	}{
		{"Empty", testEmpty},
		{"SessionRecord", testSessionRecord},
		{"Subscriptions", testSubscriptions},
		{"Retained", testRetained},
		{"Queue", testQueue},
		{"QueuedPages", testQueuedPages},
		{"OutOfOrder", testOutOfOrder},
		{"EnqueueTwice", testEnqueueTwice},
		{"Targets", testTargets},
		{"MessageProperties", testMessageProperties},
		{"Released", testReleased},
		{"Sent", testSent},
		{"Inbound", testInbound},
		{"Delayed", testDelayed},
		{"DeleteSession", testDeleteSession},
		{"UnknownSession", testUnknownSession},
		{"UnknownThings", testUnknownThings},
		{"EffectsFollowOrder", testEffectsFollowOrder},
		{"BatchIsCopied", testBatchIsCopied},
		{"BatchIsSeenWhole", testBatchIsSeenWhole},
		{"DoneInOrder", testDoneInOrder},
		{"DoneMayCommit", testDoneMayCommit},
		{"ConcurrentCommitters", testConcurrentCommitters},
		{"Busy", testBusy},
		{"LargeMessage", testLargeMessage},
		{"ManyEntries", testManyEntries},
		{"Close", testClose},
		{"Machine", testMachine},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

// box is a store under test, with its model.
type box struct {
	t     testing.TB
	open  Open
	dir   string
	store broker.Store
	model *Model
}

func newBox(t testing.TB, open Open) *box {
	t.Helper()
	b := &box{t: t, open: open, dir: t.TempDir(), model: NewModel()}
	b.store = open(t, b.dir)
	t.Cleanup(func() { _ = b.store.Close() })
	_, err := b.store.Load(context.Background())
	require.NoError(t, err)
	return b
}

// commit commits, waits and keeps the model in step.
func (b *box) commit(ops ...broker.Op) {
	b.t.Helper()
	require.NoError(b.t, commit(b.store, ops...))
	b.model.Apply(ops...)
}

// commit commits a batch and waits until it is durable.
func commit(s broker.Store, ops ...broker.Op) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan error, 1)
	if err := s.Commit(ctx, &broker.Batch{Ops: ops}, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("done was not called: %w", ctx.Err())
	}
}

// check compares the queues now, then everything after a restart.
func (b *box) check() {
	b.t.Helper()
	CheckQueues(b.t, b.store, b.model)
	b.reopen()
}

// reopen closes and opens the store and compares everything.
func (b *box) reopen() {
	b.t.Helper()
	require.NoError(b.t, b.store.Close())
	b.store = b.open(b.t, b.dir)
	Check(b.t, b.store, b.model)
}

func message(topic, payload string) *broker.Message {
	m := &broker.Message{Topic: topic, QoS: 1, ClientID: "publisher", Username: "u", Protocol: "mqtt", Time: 1_790_000_000_000}
	if payload != "" {
		m.Payload = []byte(payload)
	}
	return m
}

func put(id string) broker.Op {
	return broker.Op{
		Kind: broker.OpPutSession, ClientID: id,
		Session: &broker.SessionRecord{ClientID: id, Username: "user-" + id, Protocol: "mqtt", Expiry: time.Hour, NextSeq: 1},
	}
}

func subscribe(id string, sub broker.Subscription) broker.Op {
	return broker.Op{Kind: broker.OpSubscribe, ClientID: id, Subscription: &sub}
}

func enqueue(m *broker.Message, targets ...broker.Target) broker.Op {
	return broker.Op{Kind: broker.OpEnqueue, Message: m, Targets: targets}
}

func to(id string, seq uint64) broker.Target { return broker.Target{ClientID: id, Seq: seq, QoS: 1} }

func seqOp(kind broker.OpKind, id string, seq uint64) broker.Op {
	return broker.Op{Kind: kind, ClientID: id, Seq: seq}
}

func packetOp(kind broker.OpKind, id string, packet uint16) broker.Op {
	return broker.Op{Kind: kind, ClientID: id, PacketID: packet}
}

func randomPayload(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
