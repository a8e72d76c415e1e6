package broker

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCountsWhatHappened(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t/#", 2)
	for qos := range QoS(3) {
		for range qos + 1 {
			require.Equal(t, Success, pub.publishMessage(&Message{Topic: "t/1", Payload: []byte("12345"), QoS: qos}, 0))
		}
	}
	require.Equal(t, NoSubscribers, pub.publish("x", "1234567", 0))
	s := b.Stats()
	require.Equal(t, [3]uint64{2, 2, 3}, s.Received)
	require.EqualValues(t, 6*5+7, s.ReceivedBytes)
	require.EqualValues(t, 1, s.Unmatched)
	require.Zero(t, s.SentBytes)
	require.Equal(t, 6, s.Queued)
	got := sub.take()
	require.Len(t, got, 6)
	s = b.Stats()
	require.Equal(t, [3]uint64{1, 2, 3}, s.Sent)
	require.EqualValues(t, 6*5, s.SentBytes)
	require.Equal(t, 5, s.InFlight)
	for _, d := range got {
		sub.complete(d)
	}
	require.Zero(t, b.Stats().InFlight)

	sub.Close(Closing{})
	reconnect(t, b, "sub", durable)
	connect(t, b, "sub", durable, cleanStart)
	pub.Close(Closing{})
	s = b.Stats()
	require.Equal(t, []uint64{4, 1, 1, 2, 1}, []uint64{s.Connects, s.Resumed, s.Discarded, s.Ended, s.Takeovers})
}

func TestCountsSubscriptions(t *testing.T) {
	b := newBroker(t, newMemStore())
	x, y := connect(t, b, "x"), connect(t, b, "y")
	connect(t, b, "z")
	check := func(subscriptions, shared, filters, subscribers int) {
		t.Helper()
		s := b.Stats()
		require.Equal(t, []int{subscriptions, shared, filters, subscribers}, []int{s.Subscriptions, s.Shared, s.Filters, s.Subscribers})
	}
	check(0, 0, 0, 0)
	for i, c := range []*client{x, y} {
		for range 2 { // the second time changes nothing
			c.subscribe("a/b", 0)
			c.subscribe("a", 0)
			c.subscribe("$share/g/a/b", 0)
			c.subscribe(fmt.Sprint("$share/g/only/", i), 0)
		}
	}
	check(8, 4, 4, 2)
	x.Unsubscribe([]string{"a/b", "$share/g/only/0", "not/there"}, func([]Reason) {})
	check(6, 3, 3, 2)
	y.Unsubscribe([]string{"a/b"}, func([]Reason) {})
	check(5, 3, 3, 2)
	x.Close(Closing{})
	check(3, 2, 3, 1)
	y.Close(Closing{})
	check(0, 0, 0, 0)
}
