package storetest

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func testEmpty(t *testing.T, open Open) {
	b := newBox(t, open)
	got, err := b.store.Queued("nobody", 0, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	b.commit() // an empty batch is durable when all before it are
	b.check()
}

func testSessionRecord(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	will := message("will/topic", "gone")
	will.Properties = &broker.Properties{ContentType: "text/plain", EmptyResponseTopic: true, User: []broker.UserProperty{{Key: "k", Value: "v"}}}
	b.commit(broker.Op{Kind: broker.OpPutSession, ClientID: "b", Session: &broker.SessionRecord{
		ClientID: "b", Username: "user", Protocol: "coap", Expiry: math.MaxInt64, DetachedAt: 1_790_000_000_123, NextSeq: 77, Mount: "site/b/",
		Will: &broker.Will{Message: will, Delay: 90 * time.Second},
	}})
	b.commit(broker.Op{Kind: broker.OpPutSession, ClientID: "will only", Session: &broker.SessionRecord{
		ClientID: "will only", Will: &broker.Will{Message: message("w", "")},
	}})
	b.check()

	b.commit(enqueue(message("t", "1"), to("b", 5)), subscribe("b", broker.Subscription{Filter: "f"}))
	b.commit(broker.Op{Kind: broker.OpPutSession, ClientID: "b", Session: &broker.SessionRecord{ClientID: "b", NextSeq: 78, Mount: "site/b/"}})
	b.check() // replaced without will; queue and subscriptions stay
}

func testSubscriptions(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	b.commit(
		subscribe("a", broker.Subscription{Filter: "x/+", QoS: 1}),
		subscribe("a", broker.Subscription{
			Filter: "x/#", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 268_435_455,
		}),
		subscribe("b", broker.Subscription{Filter: "x/+", RetainHandling: 1, ID: 1}),
	)
	b.check()
	b.commit(subscribe("a", broker.Subscription{Filter: "x/+", QoS: 2, ID: 3}))
	b.commit(broker.Op{Kind: broker.OpUnsubscribe, ClientID: "a", Topic: "x/#"})
	b.check()
}

func testRetained(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(broker.Op{Kind: broker.OpRetain, Message: message("a", "1")}, broker.Op{Kind: broker.OpRetain, Message: message("b", "1")})
	b.commit(broker.Op{Kind: broker.OpRetain, Message: message("a", "2")})
	b.check()
	b.commit(broker.Op{Kind: broker.OpUnretain, Topic: "a"})
	b.check()
	b.commit(broker.Op{Kind: broker.OpRetain, Message: message("a", "3")})
	b.check()
}

func testQueue(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	for seq := uint64(1); seq <= 10; seq++ {
		b.commit(enqueue(message("t", fmt.Sprint(seq)), to("a", seq)))
	}
	b.check()
	for _, seq := range []uint64{1, 5, 10, 2} {
		b.commit(seqOp(broker.OpDequeue, "a", seq))
	}
	b.check()
	for _, seq := range []uint64{3, 4, 6, 7, 8, 9} {
		b.commit(seqOp(broker.OpDequeue, "a", seq))
	}
	b.check()
	b.commit(enqueue(message("t", "after"), to("a", 11)))
	b.check()
}

func testQueuedPages(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	for seq := uint64(2); seq <= 2000; seq += 2 {
		b.commit(enqueue(message("t", fmt.Sprint(seq)), to("a", seq)), enqueue(message("t", "other"), to("b", seq)))
	}
	for _, c := range []struct {
		from        uint64
		max         int
		first, last uint64
		count       int
	}{
		{0, 5, 2, 10, 5},
		{2, 1, 2, 2, 1},
		{3, 2, 4, 6, 2},
		{1998, 10, 1998, 2000, 2},
		{2000, 10, 2000, 2000, 1},
		{1, 999, 2, 1998, 999},
		{1, 5000, 2, 2000, 1000},
		{501, 300, 502, 1100, 300},
		{2001, 10, 0, 0, 0},
		{math.MaxUint64, 1, 0, 0, 0},
		{0, 0, 0, 0, 0},
	} {
		got, err := b.store.Queued("a", c.from, c.max)
		require.NoError(t, err)
		require.Len(t, got, c.count, "from %d max %d", c.from, c.max)
		for i, q := range got {
			require.Equal(t, c.first+2*uint64(i), q.Seq)
			require.Equal(t, fmt.Sprint(q.Seq), string(q.Message.Payload))
		}
	}
	b.check()
}

// Batches of several publishers may come out of order.
func testOutOfOrder(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	for i := range uint64(700) { // 7 is prime to 1009: every number once
		b.commit(enqueue(message("t", fmt.Sprint(i)), to("a", 1+(i*7)%1009)))
	}
	for i := range uint64(350) {
		b.commit(seqOp(broker.OpDequeue, "a", 1+(i*14)%1009))
	}
	b.check()
}

func testEnqueueTwice(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	b.commit(enqueue(message("t", "first"), to("a", 3)))
	b.commit(seqOp(broker.OpReleased, "a", 3))
	b.commit(enqueue(message("t", "second, longer"), broker.Target{ClientID: "a", Seq: 3, QoS: 2, SubscriptionIDs: []uint32{1}}))
	b.check() // the later one counts, as if the first had never been
	b.commit(seqOp(broker.OpDequeue, "a", 3))
	b.check()
}

func testTargets(t *testing.T, open Open) {
	b := newBox(t, open)
	var ops []broker.Op
	var targets []broker.Target
	for i := range 50 {
		id := fmt.Sprintf("client-%02d", i)
		ops = append(ops, put(id))
		target := broker.Target{ClientID: id, Seq: uint64(i + 1), QoS: broker.QoS(1 + i%2), Retain: i%3 == 0}
		for j := range i % 4 {
			target.SubscriptionIDs = append(target.SubscriptionIDs, uint32(100*i+j+1))
		}
		if i%5 > 2 {
			target.Share = fmt.Sprintf("$share/group %d/t", i)
		}
		targets = append(targets, target)
	}
	b.commit(ops...)
	b.commit(enqueue(message("t", "one body for all"), targets...))
	b.commit(enqueue(message("t", "to nobody")))
	b.check()
	for i := range 49 {
		b.commit(seqOp(broker.OpDequeue, targets[i].ClientID, targets[i].Seq))
	}
	b.check() // the last one still has the body
}

func testMessageProperties(t *testing.T, open Open) {
	b := newBox(t, open)
	m := message("t", "\x00\xff")
	m.QoS, m.Retain, m.Expires = 2, true, 1_790_000_100_000
	m.Properties = &broker.Properties{
		PayloadFormat: broker.FormatUTF8, ContentType: "ct", ResponseTopic: "r/t", CorrelationData: []byte{0, 1},
		User: []broker.UserProperty{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}},
	}
	b.commit(put("a"), enqueue(m, to("a", 1)), broker.Op{Kind: broker.OpRetain, Message: m})
	b.check()
}

func testReleased(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	for seq := uint64(1); seq <= 4; seq++ {
		b.commit(enqueue(message("t", "x"), broker.Target{ClientID: "a", Seq: seq, QoS: 2}))
	}
	b.commit(seqOp(broker.OpReleased, "a", 2), seqOp(broker.OpReleased, "a", 4))
	b.check()
	b.commit(seqOp(broker.OpDequeue, "a", 2))
	b.check()
}

func testSent(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	b.commit(seqOp(broker.OpSent, "a", 9))
	b.commit(seqOp(broker.OpSent, "a", 7)) // the highest counts
	b.check()
	b.commit(put("a"), seqOp(broker.OpSent, "a", 12))
	b.check()
}

func testInbound(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	b.commit(packetOp(broker.OpInbound, "a", 1), packetOp(broker.OpInbound, "a", 65535), packetOp(broker.OpInbound, "b", 1))
	b.commit(packetOp(broker.OpInbound, "a", 1))
	b.check()
	b.commit(packetOp(broker.OpInboundDone, "a", 1))
	b.check()
}

func testDelayed(t *testing.T, open Open) {
	b := newBox(t, open)
	const due = 1_790_000_060_000
	delay := func(number uint64, m *broker.Message) broker.Op {
		return broker.Op{Kind: broker.OpDelay, Seq: number, Due: due + int64(number), Message: m}
	}
	m := message("later", "")
	m.QoS, m.Retain, m.Expires = 2, true, due
	m.Properties = &broker.Properties{ContentType: "ct", User: []broker.UserProperty{{Key: "k", Value: "v"}}}
	b.commit(delay(math.MaxUint64, m), delay(1, message("later", "1")), delay(2, message("later", "2")))
	b.check()
	b.commit(broker.Op{Kind: broker.OpDelayDone, Seq: 1}, broker.Op{Kind: broker.OpDelayDone, Seq: 77})
	b.commit(delay(2, message("instead", "of 2")))
	b.check()
	// At its time it goes to the queues and leaves in one step.
	b.commit(put("a"), put("b"), delay(3, m))
	b.commit(
		broker.Op{Kind: broker.OpDelayDone, Seq: 3}, broker.Op{Kind: broker.OpRetain, Message: m}, enqueue(m, to("a", 1), to("b", 4)),
		delay(4, m), broker.Op{Kind: broker.OpDelayDone, Seq: 4}, delay(5, m),
	)
	b.check()
	b.commit(broker.Op{Kind: broker.OpDeleteSession, ClientID: "a"}) // it belongs to no session, also not to its publisher's
	b.commit(put("publisher"), broker.Op{Kind: broker.OpDeleteSession, ClientID: "publisher"})
	b.check()
}

func testDeleteSession(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("b"))
	for _, id := range []string{"a", "b"} {
		b.commit(
			subscribe(id, broker.Subscription{Filter: "f"}), enqueue(message("t", "x"), to(id, 1), to(id, 2)),
			packetOp(broker.OpInbound, id, 4), seqOp(broker.OpSent, id, 1), seqOp(broker.OpReleased, id, 1),
		)
	}
	b.commit(broker.Op{Kind: broker.OpDeleteSession, ClientID: "a"})
	got, err := b.store.Queued("a", 0, 10)
	require.NoError(t, err)
	require.Empty(t, got)
	b.check()
	b.commit(put("a"))
	b.check() // nothing of the old one comes back
	b.commit(broker.Op{Kind: broker.OpDeleteSession, ClientID: "b"}, put("b"), enqueue(message("t", "new"), to("b", 1)))
	b.check()
}

// What reaches the store for a session that is gone has no effect, also not when the session comes back.
func testUnknownSession(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"), put("kept"))
	b.commit(broker.Op{Kind: broker.OpDeleteSession, ClientID: "a"})
	late := []broker.Op{
		enqueue(message("t", "late"), to("a", 1), to("kept", 1)), subscribe("a", broker.Subscription{Filter: "f"}),
		packetOp(broker.OpInbound, "a", 4), seqOp(broker.OpSent, "a", 1), seqOp(broker.OpReleased, "a", 1), seqOp(broker.OpDequeue, "a", 1),
	}
	b.commit(late...)
	b.check()
	b.commit(late...)
	b.commit(put("a"))
	b.check()
}

func testUnknownThings(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(put("a"))
	b.commit(
		seqOp(broker.OpDequeue, "a", 5), seqOp(broker.OpReleased, "a", 5), packetOp(broker.OpInboundDone, "a", 5),
		broker.Op{Kind: broker.OpUnsubscribe, ClientID: "a", Topic: "f"}, broker.Op{Kind: broker.OpUnretain, Topic: "t"},
		broker.Op{Kind: broker.OpDeleteSession, ClientID: "nobody"},
	)
	b.check()
	b.commit(enqueue(message("t", "x"), to("a", 5)))
	b.check() // an early dequeue does not hold back what comes later
}

// Within a batch and between batches the last one wins.
func testEffectsFollowOrder(t *testing.T, open Open) {
	b := newBox(t, open)
	b.commit(
		put("a"), enqueue(message("t", "1"), to("a", 1)), seqOp(broker.OpDequeue, "a", 1), enqueue(message("t", "2"), to("a", 2)),
		broker.Op{Kind: broker.OpRetain, Message: message("r", "1")}, broker.Op{Kind: broker.OpUnretain, Topic: "r"},
		broker.Op{Kind: broker.OpRetain, Message: message("s", "1")}, broker.Op{Kind: broker.OpRetain, Message: message("s", "2")},
		subscribe("a", broker.Subscription{Filter: "f", QoS: 1}), broker.Op{Kind: broker.OpUnsubscribe, ClientID: "a", Topic: "f"},
		subscribe("a", broker.Subscription{Filter: "g", QoS: 1}), subscribe("a", broker.Subscription{Filter: "g", QoS: 2}),
	)
	b.check()
	b.commit(put("gone"), broker.Op{Kind: broker.OpDeleteSession, ClientID: "gone"})
	b.check()
}

func testLargeMessage(t *testing.T, open Open) {
	b := newBox(t, open)
	m := message("t", "")
	m.Payload = randomPayload(9 << 20)
	b.commit(put("a"), enqueue(m, to("a", 1)))
	b.check()
}

func testClose(t *testing.T, open Open) {
	b := newBox(t, open)
	ctx := t.Context()
	called := make(chan error, 100)
	ops := []broker.Op{put("a")}
	for i := range 100 {
		ops = append(ops, enqueue(message("t", fmt.Sprint(i)), to("a", uint64(i+1))))
		require.NoError(t, b.store.Commit(ctx, &broker.Batch{Ops: ops}, func(err error) { called <- err }))
		b.model.Apply(ops...)
		ops = nil
	}
	require.NoError(t, b.store.Close())
	require.Len(t, called, 100, "Close waits for what was committed")
	for range 100 {
		require.NoError(t, <-called)
	}
	require.NoError(t, b.store.Close())
	err := b.store.Commit(ctx, &broker.Batch{Ops: []broker.Op{put("b")}}, func(error) { t.Error("done of a refused batch") })
	require.Error(t, err)
	_, err = b.store.Queued("a", 0, 1)
	require.Error(t, err)
	b.store = b.open(t, b.dir)
	Check(t, b.store, b.model)
}
