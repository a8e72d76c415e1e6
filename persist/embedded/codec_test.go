package embedded

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/broker"
	"gantry/persist/seglog"
)

// everyOp has an op of each kind.
func everyOp() *broker.Batch {
	m := &broker.Message{Topic: "t", Payload: []byte("payload"), QoS: 1}
	return &broker.Batch{Ops: []broker.Op{
		{Kind: broker.OpPutSession, Session: &broker.SessionRecord{
			ClientID: "a", Username: "u", Protocol: "mqtt", Expiry: time.Hour, DetachedAt: 5, NextSeq: 9, Will: &broker.Will{Message: m, Delay: 1},
		}},
		{Kind: broker.OpSubscribe, ClientID: "a", Subscription: &broker.Subscription{Filter: "f", QoS: 2, NoLocal: true, ID: 300}},
		{Kind: broker.OpUnsubscribe, ClientID: "a", Topic: "g"},
		{Kind: broker.OpRetain, Message: m},
		{Kind: broker.OpUnretain, Topic: "x"},
		{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{
			{ClientID: "a", Seq: 1, QoS: 1, Retain: true, SubscriptionIDs: []uint32{1, 300}}, {ClientID: "b", Seq: 1000, QoS: 2},
		}},
		{Kind: broker.OpDequeue, ClientID: "a", Seq: 4},
		{Kind: broker.OpReleased, ClientID: "a", Seq: 1},
		{Kind: broker.OpSent, ClientID: "a", Seq: 1},
		{Kind: broker.OpInbound, ClientID: "a", PacketID: 65535},
		{Kind: broker.OpInboundDone, ClientID: "a", PacketID: 7},
		{Kind: broker.OpDeleteSession, ClientID: "c"},
		{Kind: broker.OpDelay, Seq: 300, Due: 1_790_000_000_000, Message: m},
		{Kind: broker.OpDelayDone, Seq: 1},
	}}
}

func encoded(t testing.TB, b *broker.Batch) []byte {
	t.Helper()
	e := new(encoder)
	out, err := e.batch(b)
	require.NoError(t, err)
	return out
}

func TestSharedMessageIsStoredOnce(t *testing.T) {
	m := &broker.Message{Topic: "t", Payload: make([]byte, 10_000)}
	b := &broker.Batch{Ops: []broker.Op{
		{Kind: broker.OpRetain, Message: m}, {Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{{ClientID: "a", Seq: 1}}},
	}}
	require.Less(t, len(encoded(t, b)), 10_200)
}

// The layout on disk outlives the program: a change needs a new version, and this one must stay readable.
func TestRecordVersion1IsFixed(t *testing.T) {
	b := encoded(t, &broker.Batch{Ops: []broker.Op{
		{Kind: broker.OpEnqueue, Message: &broker.Message{Topic: "t", QoS: 1}, Targets: []broker.Target{
			{ClientID: "a", Seq: 300, QoS: 1, SubscriptionIDs: []uint32{5}},
		}},
		{Kind: broker.OpDequeue, ClientID: "a", Seq: 2},
		{Kind: broker.OpPutSession, Session: &broker.SessionRecord{ClientID: "a", Username: "u", Protocol: "p", Expiry: 1, DetachedAt: 2, NextSeq: 3}},
		{Kind: broker.OpSubscribe, ClientID: "a", Subscription: &broker.Subscription{Filter: "f", QoS: 2, NoLocal: true, RetainHandling: 1, ID: 4}},
	}})
	e := encoder{buf: b}
	e.settle(0x0102)
	require.Equal(t, uint64(0x0102), settled(b))
	want := "\x01\x02\x01\x00\x00\x00\x00\x00\x00\x01\xa1\x01\x09\x01\x01\x00\x00\x01t\x00\x00\x00" +
		"\x07\x09\x00\x01\x01a\xac\x02\x01\x01\x05" + "\x08\x03\x01a\x02" + "\x01\x0a\x01a\x01u\x01p\x02\x04\x03\x00" + "\x03\x06\x01a\x01f\x1a\x04"
	require.Equal(t, want, string(b))
}

// A program that knows only version 1 must not start where messages are delayed, and may where none ever were.
func TestRecordVersion2IsFixed(t *testing.T) {
	m := &broker.Message{Topic: "t"}
	b := encoded(t, &broker.Batch{Ops: []broker.Op{{Kind: broker.OpDelayDone, Seq: 5}, {Kind: broker.OpDelay, Message: m, Seq: 300, Due: -2}}})
	want := "\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\xa1\x01\x09\x01\x00\x00\x00\x01t\x00\x00\x00" + "\x0e\x01\x05" + "\x0d\x04\x00\xac\x02\x03"
	require.Equal(t, want, string(b))
	for _, op := range everyOp().Ops {
		delays := op.Kind == broker.OpDelay || op.Kind == broker.OpDelayDone
		require.Equal(t, delays, encoded(t, &broker.Batch{Ops: []broker.Op{op}})[0] == 2, "kind %d", op.Kind)
	}
}

func TestIncompleteOpsAreRefused(t *testing.T) {
	for _, kind := range []broker.OpKind{broker.OpPutSession, broker.OpSubscribe, broker.OpRetain, broker.OpEnqueue, broker.OpDelay, 0, opBorn, 200} {
		_, err := new(encoder).batch(&broker.Batch{Ops: []broker.Op{{Kind: kind}}})
		require.Error(t, err, "kind %d", kind)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	l, err := seglog.Open(dir, seglog.Options{})
	require.NoError(t, err)
	_, err = l.Append(t.Context(), nil, []byte{recordVersion + 1, 0})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = Open(Config{Dir: dir}, nil, nil)
	require.ErrorIs(t, err, ErrVersion)
}

func TestTruncatedRecords(t *testing.T) {
	b := encoded(t, everyOp())
	require.NoError(t, check(b))
	whole := 0 // ends that lie between two ops are complete records
	for n := range b {
		if check(b[:n:n]) == nil {
			whole++
		}
		exercise(b[:n:n])
	}
	require.Equal(t, len(everyOp().Ops), whole)
}

// exercise runs everything that reads records over b.
func exercise(b []byte) {
	s := &Store{state: newState(), metrics: newMetrics()}
	s.pass = &pass{hi: 10, touched: map[uint64]uint64{}}
	s.apply(b, place{rec: 1})
	s.touch(b, 2)
	s.survivors(new(encoder), b, 1)
	for id, c := range s.clients {
		for _, e := range c.queue.page(nil, 0, 100) {
			_ = decodeQueued(b, id, e, &broker.Queued{})
		}
	}
	s.values.state(&s.state)
}

func FuzzRecord(f *testing.F) {
	e := new(encoder)
	b, err := e.batch(everyOp())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	e = new(encoder)
	e.putVoid(3, 7)
	e.putBorn("a", 1)
	f.Add(e.finish())
	f.Fuzz(func(t *testing.T, b []byte) {
		exercise(b)
		err := check(b)
		if err != nil {
			return
		}
		// What check accepts is applied completely: what lives of it can be encoded and is accepted again.
		s := &Store{state: newState()}
		s.applied = 2
		s.apply(b, place{rec: 1})
		e := new(encoder)
		if !s.survivors(e, b, 1) {
			t.Fatal("undecided without a pending change")
		}
		if err := check(e.finish()); err != nil {
			t.Fatal(errors.Join(errors.New("copy cannot be read"), err))
		}
	})
}

// The index against a map, with numbers that come in any order and enough of them to split and join blocks.
func TestQueueIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var q queue
		model := map[uint64]entry{}
		base := uint64(1)
		rt.Repeat(map[string]func(*rapid.T){
			"append many": func(rt *rapid.T) {
				for range rapid.IntRange(1, 600).Draw(rt, "n") {
					base += rapid.Uint64Range(1, 3).Draw(rt, "step")
					e := entry{seq: base, stored: uint32(base), share: 2}
					q.put(e)
					model[base] = e
				}
			},
			"insert": func(rt *rapid.T) {
				e := entry{seq: rapid.Uint64Range(1, base+3).Draw(rt, "seq"), stored: rapid.Uint32().Draw(rt, "stored"), share: 7}
				q.put(e)
				model[e.seq] = e
				base = max(base, e.seq)
			},
			"remove": func(rt *rapid.T) {
				seq := rapid.Uint64Range(1, base+3).Draw(rt, "seq")
				_, had := model[seq]
				require.Equal(rt, had, q.remove(seq))
				delete(model, seq)
			},
			"remove front": func(rt *rapid.T) {
				for range min(rapid.IntRange(1, 300).Draw(rt, "n"), q.count) {
					seq := q.first()
					require.True(rt, q.remove(seq))
					delete(model, seq)
				}
			},
			"thin out": func(rt *rapid.T) {
				for _, seq := range q.pick(func(e *entry) bool { return e.seq%5 != 0 }) {
					require.True(rt, q.remove(seq))
					delete(model, seq)
				}
			},
			"": func(rt *rapid.T) { sameIndex(rt, &q, model) },
		})
	})
}

func sameIndex(rt *rapid.T, q *queue, model map[uint64]entry) {
	seqs := slices.Sorted(maps.Keys(model))
	got := q.page(nil, 0, len(seqs)+1)
	require.Len(rt, got, len(seqs))
	require.Equal(rt, len(seqs), q.count)
	var stored, share int64
	for i, seq := range seqs {
		require.Equal(rt, model[seq], got[i])
		stored += int64(got[i].stored)
		share += int64(got[i].share)
	}
	require.Equal(rt, stored, q.stored)
	require.Equal(rt, share, q.share)
	for _, b := range q.blocks {
		require.NotEmpty(rt, b)
		require.LessOrEqual(rt, cap(b), blockSize)
	}
	if len(seqs) == 0 {
		require.Zero(rt, q.first())
		require.Zero(rt, q.last())
		return
	}
	require.Equal(rt, seqs[0], q.first())
	require.Equal(rt, seqs[len(seqs)-1], q.last())
	from := rapid.IntRange(0, len(seqs)-1).Draw(rt, "from")
	require.Equal(rt, got[from], q.page(nil, seqs[from], 1)[0])
	require.Equal(rt, got[from], *q.find(seqs[from]))
}
