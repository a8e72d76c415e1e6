package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDeliversByFilterAndQoS(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
	sub.subscribe("a/+", 1)
	require.Equal(t, Success, pub.publish("a/b", "one", 2))
	require.Equal(t, NoSubscribers, pub.publish("b/b", "two", 1))
	require.Equal(t, Success, pub.publish("a/c", "three", 0))
	got := sub.take()
	require.Len(t, got, 2)
	require.Equal(t, QoS(1), got[0].QoS, "the lower of the two")
	require.Equal(t, uint16(1), got[0].PacketID)
	require.Equal(t, QoS(0), got[1].QoS)
	require.Zero(t, got[1].PacketID)
	require.Equal(t, "pub", got[0].Message.ClientID)
}

func TestRefusesTopicsThatMayNotBePublished(t *testing.T) {
	b := newBroker(t, newMemStore())
	pub := connect(t, b, "pub")
	for topic, want := range map[string]Reason{
		"": InvalidTopic, "a/+": InvalidTopic, "a/#": InvalidTopic, "a\x00b": InvalidTopic, "\xff": InvalidTopic,
		strings.Repeat("/", MaxTopicLevels): InvalidTopic, "$SYS/broker/version": NotAuthorized, "$SYS": NotAuthorized,
	} {
		require.Equal(t, want, pub.publish(topic, "x", 1), "topic %q", topic)
	}
	require.Equal(t, QoSNotSupported, pub.publish("a", "x", 3))
}

func TestOverlappingSubscriptionsDeliverOnce(t *testing.T) {
	b := newBroker(t, newMemStore())
	c := connect(t, b, "c")
	c.subscribeWith(Subscription{Filter: "a/#", QoS: 0, ID: 7})
	c.subscribeWith(Subscription{Filter: "a/b", QoS: 2, ID: 8, NoLocal: true})
	c.subscribeWith(Subscription{Filter: "+/b", QoS: 1})
	other := connect(t, b, "other")
	other.publish("a/b", "x", 2)
	got := c.take()
	require.Len(t, got, 1)
	require.Equal(t, QoS(2), got[0].QoS, "highest QoS [MQTT-3.3.4-2]")
	require.ElementsMatch(t, []uint32{7, 8}, got[0].SubscriptionIDs)
	c.publish("a/b", "own", 2)
	got = c.take()
	require.Len(t, got, 1)
	require.Equal(t, QoS(1), got[0].QoS, "the No Local subscription does not count for an own message")
	require.Equal(t, []uint32{7}, got[0].SubscriptionIDs)
}

func TestRetainedValues(t *testing.T) {
	b := newBroker(t, newMemStore())
	pub := connect(t, b, "pub")
	retain := func(topic, payload string) {
		pub.publishMessage(&Message{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: true}, 0)
	}
	retain("a", "parent")
	retain("a/b", "old")
	retain("a/b", "new")
	retain("a/c", "gone")
	retain("a/c", "")
	retain("$x/y", "hidden")

	hash := connect(t, b, "hash")
	hash.subscribe("a/#", 1)
	got := map[string]Delivery{}
	for _, d := range hash.take() {
		got[string(d.Message.Payload)] = d
	}
	require.Len(t, got, 2, "a/# matches a, and an empty payload cleared a/c")
	require.True(t, got["parent"].Retain)
	require.True(t, got["new"].Retain)

	all := connect(t, b, "all")
	all.subscribe("#", 0)
	require.ElementsMatch(t, []string{"parent", "new"}, all.payloads(), "a leading wildcard matches no $ topic")
	all.subscribeWith(Subscription{Filter: "#", RetainHandling: 1})
	require.Empty(t, all.payloads(), "retain handling 1: not for a subscription that existed")
	all.subscribeWith(Subscription{Filter: "a/b", RetainHandling: 2})
	require.Empty(t, all.payloads())

	hash.payloads()
	retain("a/b", "live")
	for _, d := range hash.take() {
		require.False(t, d.Retain, "a live message carries no retain flag unless the subscription asks")
	}
	rap := connect(t, b, "rap")
	rap.subscribeWith(Subscription{Filter: "a/b", RetainAsPublished: true, RetainHandling: 2})
	retain("a/b", "")
	ds := rap.take()
	require.Len(t, ds, 1, "the clearing message is delivered")
	require.True(t, ds[0].Retain)
	m, r := pub.Retained("a/b")
	require.Equal(t, Success, r)
	require.Nil(t, m)
}

func TestWindowHoldsReceiveMaximumAndKeepsOrder(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub := connect(t, b, "sub", func(r *ConnectRequest) { r.ReceiveMaximum = 16 })
	sub.subscribe("t", 1)
	pub := connect(t, b, "pub")
	for i := range 500 {
		pub.publish("t", fmt.Sprint(i), 1)
	}
	var got []string
	for len(got) < 500 {
		ds := sub.take()
		require.NotEmpty(t, ds)
		require.LessOrEqual(t, len(ds), 16)
		rand.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] })
		byID := map[uint16]string{}
		for _, d := range ds {
			require.NotContains(t, byID, d.PacketID)
			byID[d.PacketID] = string(d.Message.Payload)
		}
		require.Empty(t, sub.take(), "the window is full")
		for _, d := range ds {
			require.Equal(t, Success, sub.Acked(d.PacketID))
			require.Equal(t, PacketIDNotFound, sub.Acked(d.PacketID))
		}
		for id := uint16(len(got) + 1); len(byID) > 0; id++ {
			got = append(got, byID[id])
			delete(byID, id)
		}
	}
	for i, p := range got {
		require.Equal(t, fmt.Sprint(i), p)
	}
}

func TestPacketIdentifiersAreFreeInBothDirections(t *testing.T) {
	b := newBroker(t, newMemStore())
	c := connect(t, b, "c")
	c.subscribe("t", 1)
	c.publish("t", "x", 1)
	d := c.take()[0]
	require.Equal(t, uint16(1), d.PacketID)
	require.Equal(t, Success, c.publishMessage(&Message{Topic: "t", QoS: 2}, 1), "the client may use 1 for its own message")
	require.Equal(t, Success, c.Acked(1), "and ours is still there")
}

func TestQoS2IsRoutedOnce(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub, pub := connect(t, b, "sub"), connect(t, b, "pub", durable)
	sub.subscribe("t", 2)
	send := func(id uint16) Reason {
		return pub.publishMessage(&Message{Topic: "t", Payload: []byte("x"), QoS: 2}, id)
	}
	require.Equal(t, Success, send(5))
	require.Equal(t, Success, send(5), "a duplicate gets the outcome of the first")
	require.Len(t, sub.payloads(), 1)

	again := connect(t, b, "pub", durable)
	require.Equal(t, Success, again.publishMessage(&Message{Topic: "t", Payload: []byte("x"), QoS: 2}, 5), "also on the next connection")
	require.Empty(t, sub.payloads())
	var r Reason
	again.Release(5, func(got Reason) { r = got })
	require.Equal(t, Success, r)
	again.Release(5, func(got Reason) { r = got })
	require.Equal(t, PacketIDNotFound, r)
	require.Equal(t, Success, again.publishMessage(&Message{Topic: "t", Payload: []byte("y"), QoS: 2}, 5))
	require.Equal(t, []string{"y"}, sub.payloads())
}

// The store may be ahead of a recorder when the gateway dies. The publisher, who
// has no PUBREC, sends again: sessions get nothing twice, recorders get it.
func TestQoS2IsRecordedAgainAfterACrash(t *testing.T) {
	store, rec := newMemStore(), &recordingHook{}
	hook := func(c *Config) { c.Hooks = []Hook{rec} }
	b := newBroker(t, store, hook)
	connect(t, b, "sub", durable).subscribe("t", 2)
	done := make(chan Reason, 2)
	send := func(c *client) {
		c.Publish(context.Background(), &Message{Topic: "t", Payload: []byte("x"), QoS: 2}, 5, func(r Reason) { done <- r })
	}
	send(connect(t, b, "pub", durable))
	require.Empty(t, done, "the recorder is not done")

	rec = &recordingHook{}
	b = newBroker(t, store, hook) // as after kill -9
	pub, _ := reconnect(t, b, "pub", durable)
	send(pub)
	require.NotNil(t, rec.got)
	require.Empty(t, done, "now it waits for the recorder of this life")
	rec.release(Success)
	require.Equal(t, Success, <-done)
	rec.got = nil
	send(pub)
	require.Equal(t, Success, <-done)
	require.Nil(t, rec.got, "a further duplicate is only answered")
	sub, _ := reconnect(t, b, "sub", durable)
	require.Equal(t, []string{"x"}, sub.payloads())
}

func TestAcknowledgesOnlyWhatIsOnDisk(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub := connect(t, b, "sub", durable)
	sub.subscribe("t", 1)
	sub.Close(Closing{})
	pub := connect(t, b, "pub")
	store.hold(true)
	done := make(chan Reason, 1)
	pub.Publish(context.Background(), &Message{Topic: "t", QoS: 1}, 0, func(r Reason) { done <- r })
	require.Empty(t, done, "acknowledged before the commit")
	store.hold(false)
	require.Equal(t, Success, <-done)

	store.err = errDisk
	require.Equal(t, ServerUnavailable, pub.publish("t", "x", 1), "a failed commit is a negative answer")
	store.err = nil
	back := connect(t, b, "sub", durable)
	require.Len(t, back.payloads(), 1, "the refused message was taken back")
}

// A QoS 2 message that was sent and then lost in a crash would come twice, and
// its identifier could belong to another one by then.
func TestQoS2GoesOutOnlyWhenItIsOnDisk(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 2)
	store.hold(true)
	done := make(chan Reason, 3)
	for i, qos := range []QoS{1, 2, 1} {
		pub.Publish(context.Background(), &Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: qos}, uint16(qos/2), func(r Reason) { done <- r })
	}
	require.Equal(t, []string{"0"}, sub.payloads(), "QoS 1 does not wait, and nothing passes the QoS 2 message")
	store.hold(false)
	require.Equal(t, []string{"1", "2"}, sub.payloads())
	for range 3 {
		require.Equal(t, Success, <-done)
	}
}

func TestResumesWindowFirstWithDup(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub := connect(t, b, "sub", durable, func(r *ConnectRequest) { r.ReceiveMaximum = 2 })
	sub.subscribe("t", 2)
	pub := connect(t, b, "pub")
	for i := range 4 {
		pub.publish("t", fmt.Sprint(i), QoS(1+i%2))
	}
	first := sub.take()
	require.Len(t, first, 2)
	sub.Received(first[1].PacketID, false, func(r Reason) { require.Equal(t, Success, r) })
	sub.Close(Closing{})
	require.Equal(t, Closed, sub.Acked(first[0].PacketID))

	sub, present := reconnect(t, b, "sub", durable)
	require.True(t, present)
	ds := sub.take()
	require.Len(t, ds, 4)
	require.Equal(t, first[0].PacketID, ds[0].PacketID)
	require.True(t, ds[0].Dup)
	require.True(t, ds[1].Release, "PUBREC had come: only PUBREL is sent again")
	require.Equal(t, first[1].PacketID, ds[1].PacketID)
	require.False(t, ds[2].Dup, "never sent before")
	require.Equal(t, "2", string(ds[2].Message.Payload))
	require.Equal(t, Success, sub.Acked(ds[1].PacketID))
}

func TestSessionSurvivesARestart(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub := connect(t, b, "sub", durable)
	sub.subscribeWith(Subscription{Filter: "t", QoS: 2, ID: 3})
	pub := connect(t, b, "pub", durable)
	for i := range 200 {
		require.Equal(t, Success, pub.publish("t", fmt.Sprint(i), 1+QoS(i%2)))
	}
	pub.publishMessage(&Message{Topic: "r", Payload: []byte("kept"), QoS: 1, Retain: true}, 0)
	pub.publishMessage(&Message{Topic: "t2", QoS: 2}, 9)
	ds := sub.Next(make([]Delivery, 0, 10))
	require.Equal(t, Success, sub.Acked(ds[0].PacketID))
	sub.Received(ds[1].PacketID, false, func(Reason) {})

	b = newBroker(t, store) // as after kill -9: nobody closed anything
	m, _ := connect(t, b, "x").Retained("r")
	require.Equal(t, "kept", string(m.Payload))
	pub, present := reconnect(t, b, "pub", durable)
	require.True(t, present)
	require.Equal(t, Success, pub.publishMessage(&Message{Topic: "t", QoS: 2}, 9), "known as a duplicate")
	sub, present = reconnect(t, b, "sub", durable)
	require.True(t, present)
	got := sub.take()
	require.True(t, got[0].Release)
	require.Equal(t, ds[1].PacketID, got[0].PacketID, "identifiers survive [MQTT-4.4.0-1]")
	require.True(t, got[1].Dup)
	require.Equal(t, ds[2].PacketID, got[1].PacketID)
	require.False(t, got[20].Dup)
	require.Equal(t, []uint32{3}, got[20].SubscriptionIDs)
	sub.Acked(got[0].PacketID)
	next := 2
	for got = got[1:]; next < 200; got = sub.take() {
		require.NotEmpty(t, got)
		for _, d := range got {
			require.Equal(t, fmt.Sprint(next), string(d.Message.Payload))
			sub.complete(d)
			next++
		}
	}
	require.Zero(t, store.queued("sub"))
	require.Empty(t, sub.take())
}

func TestLongQueueSpillsAndComesBackInOrder(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = 2000 })
	sub := connect(t, b, "sub", durable)
	sub.subscribe("t", 1)
	sub.Close(Closing{})
	pub := connect(t, b, "pub")
	for i := range 1000 {
		require.Equal(t, Success, pub.publish("t", fmt.Sprint(i), 1))
	}
	st := b.find("sub")
	require.Less(t, st.memory, 2001)
	require.Greater(t, st.spill.count, 900)
	sub = connect(t, b, "sub", durable)
	got := sub.payloads()
	require.Len(t, got, 1000)
	for i, p := range got {
		require.Equal(t, fmt.Sprint(i), p)
	}
	require.Zero(t, st.bytes)
	require.Zero(t, st.memory)
	require.Equal(t, Success, pub.publish("t", "again", 1))
	require.Equal(t, []string{"again"}, sub.payloads())
}

func TestSpilledMessageWaitsForItsCommit(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = 1 })
	sub := connect(t, b, "sub", durable)
	sub.subscribe("t", 1)
	require.Empty(t, sub.take())
	pub := connect(t, b, "pub")
	store.hold(true)
	pub.Publish(context.Background(), &Message{Topic: "t", Payload: []byte("x"), QoS: 1}, 0, nil)
	<-sub.woken
	require.Empty(t, sub.take(), "only the store has it, and it is not committed")
	store.hold(false)
	<-sub.woken
	require.Equal(t, []string{"x"}, sub.payloads())
}

func TestFullQueueRefusesOrDropsOldest(t *testing.T) {
	for _, policy := range []FullPolicy{RefuseNewest, DropOldest} {
		t.Run(string(policy), func(t *testing.T) {
			store := newMemStore()
			b := newBroker(t, store, func(c *Config) {
				c.Session.QueueBytes, c.Session.MemoryBytes, c.Session.WhenFull = 5000, 1000, policy
			})
			sub, other := connect(t, b, "sub", durable), connect(t, b, "other")
			sub.subscribe("t", 1)
			other.subscribe("t", 1)
			sub.Close(Closing{})
			pub := connect(t, b, "pub")
			var acked, heard []string
			for i := range 100 {
				if p := fmt.Sprint(i); pub.publish("t", p, 1) == Success {
					acked = append(acked, p)
				}
				heard = append(heard, other.payloads()...)
			}
			sub = connect(t, b, "sub", durable)
			got := sub.payloads()
			require.LessOrEqual(t, len(got), 5000/entryOverhead)
			require.Greater(t, len(got), 20)
			require.Zero(t, store.queued("sub"))
			if policy == RefuseNewest {
				require.Equal(t, acked, got, "what was acknowledged is there, the rest was refused")
				require.Equal(t, acked, heard, "nobody got a refused message")
				return
			}
			require.Len(t, acked, 100)
			require.Equal(t, acked[100-len(got):], got)
			require.Equal(t, uint64(100-len(got)), b.Stats().Dropped["queue_full"])
		})
	}
}

func TestSlowSubscriberLosesOnlyItsOwnQoS0(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Session.MemoryBytes = 10 * 200 })
	slow, fast, pub := connect(t, b, "slow"), connect(t, b, "fast"), connect(t, b, "pub")
	slow.subscribe("t", 0)
	fast.subscribe("t", 0)
	for i := range 100 {
		pub.publish("t", fmt.Sprint(i), 0)
		require.Len(t, fast.payloads(), 1)
	}
	got := slow.payloads()
	require.Equal(t, "99", got[len(got)-1], "the oldest went")
	require.Equal(t, uint64(100-len(got)), b.Stats().Dropped["queue_full"])
}

func TestAdapterMayAskForLessMemory(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub := connect(t, b, "sub", func(r *ConnectRequest) { r.MemoryBytes = 2000 })
	all, pub := connect(t, b, "all"), connect(t, b, "pub")
	sub.subscribe("t", 0)
	all.subscribe("t", 0)
	for i := range 100 {
		pub.publish("t", fmt.Sprint(i), 0)
	}
	require.Len(t, all.payloads(), 100)
	got := sub.payloads()
	require.LessOrEqual(t, len(got), 2000/entryOverhead)
	require.Equal(t, "99", got[len(got)-1])
	pub.publish("t", strings.Repeat("x", 5000), 0)
	require.Len(t, sub.payloads(), 1, "one message may be larger")
}

func TestExpiredMessagesAreNotDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		defer b.Close()
		sub := connect(t, b, "sub", durable)
		sub.subscribe("t", 1)
		pub := connect(t, b, "pub")
		for _, life := range []time.Duration{time.Second, time.Hour} {
			m := &Message{Topic: "t", Payload: []byte(life.String()), QoS: 1, Retain: true, Expires: time.Now().Add(life).UnixMilli()}
			pub.publishMessage(m, 0)
		}
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"1h0m0s"}, sub.payloads())
		require.Zero(t, store.queued("sub"))
		require.Equal(t, uint64(1), b.Stats().Dropped["expired"])
		time.Sleep(time.Hour)
		m, _ := pub.Retained("t")
		require.Nil(t, m)
	})
}

func TestTakeoverDetachesTheOldConnection(t *testing.T) {
	b := newBroker(t, newMemStore())
	old := connect(t, b, "c", durable)
	old.subscribe("t", 1)
	pub := connect(t, b, "pub")
	pub.publish("t", "x", 1)
	d := old.take()[0]
	next, present := reconnect(t, b, "c", durable)
	require.True(t, present)
	require.Equal(t, TakenOver, <-old.kicked)
	require.Empty(t, old.take())
	require.Equal(t, Closed, old.publish("t", "late", 1))
	require.Equal(t, Closed, old.Acked(d.PacketID))
	old.Close(Closing{})
	old.Close(Closing{})
	require.Equal(t, []string{"x"}, next.payloads(), "the new owner gets it again")
	_, present = reconnect(t, b, "c", func(r *ConnectRequest) { r.CleanStart = true })
	require.False(t, present)
	require.Equal(t, NoSubscribers, pub.publish("t", "x", 1), "clean start ended the subscriptions")
}

func TestTakeoverStormLosesNothing(t *testing.T) {
	b := newBroker(t, newMemStore())
	first := connect(t, b, "sub", durable)
	first.subscribe("t", 1)
	const total = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		pub := connect(t, b, "pub")
		for i := range total {
			pub.publish("t", fmt.Sprint(i), 1)
		}
	})
	last := -1
	for last < total-1 {
		c := connect(t, b, "sub", durable)
		for range 5 {
			for _, d := range c.Next(make([]Delivery, 0, 7)) {
				var n int
				_, err := fmt.Sscan(string(d.Message.Payload), &n)
				require.NoError(t, err)
				require.LessOrEqual(t, n, last+1, "nothing is skipped")
				last = max(last, n)
				c.Acked(d.PacketID)
			}
		}
	}
	wg.Wait()
}

func TestWills(t *testing.T) {
	will := func(delay time.Duration) func(*ConnectRequest) {
		return func(r *ConnectRequest) {
			p := &Properties{ContentType: "text/plain", User: []UserProperty{{"k", "v"}}}
			r.Will = &Will{Message: &Message{Topic: "will", Payload: []byte("gone"), QoS: 1, Properties: p}, Delay: delay}
		}
	}
	expiry := func(d time.Duration) func(*ConnectRequest) { return func(r *ConnectRequest) { r.Expiry = d } }
	for _, tc := range []struct {
		name    string
		connect []func(*ConnectRequest)
		act     func(t *testing.T, b *Broker, c *client)
		want    int
	}{
		{"lost connection", []func(*ConnectRequest){will(0)}, func(_ *testing.T, _ *Broker, c *client) { c.Close(Closing{Reason: KeepAliveTimeout}) }, 1},
		{"goodbye", []func(*ConnectRequest){will(0)}, func(_ *testing.T, _ *Broker, c *client) { c.Close(Closing{KeepWill: true}) }, 0},
		{"delay without expiry fires at once", []func(*ConnectRequest){will(time.Minute)}, func(_ *testing.T, _ *Broker, c *client) { c.Close(Closing{}) }, 1},
		{"delay is waited for", []func(*ConnectRequest){will(time.Minute), expiry(time.Hour)}, func(_ *testing.T, _ *Broker, c *client) {
			c.Close(Closing{})
			time.Sleep(59 * time.Second)
		}, 0},
		{"delay passes", []func(*ConnectRequest){will(time.Minute), expiry(time.Hour)}, func(_ *testing.T, _ *Broker, c *client) {
			c.Close(Closing{})
			time.Sleep(61 * time.Second)
		}, 1},
		{"session ends before the delay", []func(*ConnectRequest){will(time.Hour), expiry(time.Minute)}, func(_ *testing.T, _ *Broker, c *client) {
			c.Close(Closing{})
			time.Sleep(61 * time.Second)
		}, 1},
		{"reconnect cancels", []func(*ConnectRequest){will(time.Minute), expiry(time.Hour)}, func(t *testing.T, b *Broker, c *client) {
			c.Close(Closing{})
			connect(t, b, "c", expiry(time.Hour))
			time.Sleep(2 * time.Hour)
		}, 0},
		{"takeover without delay fires", []func(*ConnectRequest){will(0), expiry(time.Hour)}, func(t *testing.T, b *Broker, _ *client) { connect(t, b, "c", expiry(time.Hour)) }, 1},
		{"clean start ends the session", []func(*ConnectRequest){will(time.Hour), expiry(time.Hour)}, func(t *testing.T, b *Broker, c *client) {
			c.Close(Closing{})
			connect(t, b, "c", func(r *ConnectRequest) { r.CleanStart = true })
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBroker(t, newMemStore())
				defer b.Close()
				watch := connect(t, b, "watch")
				watch.subscribe("will", 1)
				tc.act(t, b, connect(t, b, "c", tc.connect...))
				synctest.Wait()
				got := watch.take()
				require.Len(t, got, tc.want)
				for _, d := range got {
					require.Equal(t, "text/plain", d.Message.Properties.ContentType)
					require.Equal(t, "c", d.Message.ClientID)
				}
			})
		})
	}
}

func TestWillSurvivesACrash(t *testing.T) {
	for _, comesBack := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemStore()
			b := newBroker(t, store)
			connect(t, b, "c", func(r *ConnectRequest) { r.Will = &Will{Message: &Message{Topic: "will", QoS: 1}} })
			require.NoError(t, b.Close())
			b = newBroker(t, store)
			defer b.Close()
			watch := connect(t, b, "watch")
			watch.subscribe("will", 1)
			if comesBack {
				connect(t, b, "c")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if comesBack {
				require.Empty(t, watch.take())
				return
			}
			require.Len(t, watch.take(), 1)
			require.False(t, store.has("c"), "and its session has ended")
		})
	}
}

func TestSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store, func(c *Config) { c.Session.MaxExpiry = time.Hour })
		defer b.Close()
		c := connect(t, b, "c", durable)
		require.Equal(t, time.Hour, c.Expiry(), "capped")
		c.subscribe("t", 1)
		c.Close(Closing{})
		time.Sleep(59 * time.Minute)
		require.True(t, store.has("c"))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.False(t, store.has("c"))
		require.Zero(t, b.router.count())
		_, present := reconnect(t, b, "c", durable)
		require.False(t, present)
	})
}

func TestSubackComesBeforeTheRetainedValue(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	pub := connect(t, b, "pub")
	pub.publishMessage(&Message{Topic: "t", Payload: []byte("kept"), QoS: 1, Retain: true}, 0)
	sub := connect(t, b, "sub", durable)
	require.Empty(t, sub.take())
	store.hold(true)
	acked := false
	sub.Subscribe([]Subscription{{Filter: "t", QoS: 1}}, func([]Reason, []QoS) { acked = true })
	pub.publish("t", "live", 0)
	require.Empty(t, sub.take())
	require.False(t, acked)
	store.hold(false)
	require.True(t, acked)
	<-sub.woken
	require.Equal(t, []string{"kept", "live"}, sub.payloads())
}

func TestSubscribeAnswers(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	c := connect(t, b, "c", durable)
	var got []Reason
	record := func(r []Reason, _ []QoS) { got = r }
	c.Subscribe([]Subscription{{Filter: "a"}, {Filter: "a#"}, {Filter: "$share/g/a"}, {Filter: "$share/g"}, {Filter: "a", QoS: 3}}, record)
	require.Equal(t, []Reason{Success, InvalidFilter, Success, InvalidFilter, QoSNotSupported}, got)
	store.err = errDisk
	c.Subscribe([]Subscription{{Filter: "b"}}, record)
	require.Equal(t, []Reason{ServerUnavailable}, got)
	store.err = nil
	require.Equal(t, NoSubscribers, connect(t, b, "p").publish("b", "", 1), "a refused subscription does not stay")
	c.Unsubscribe([]string{"a", "b", "c+"}, func(r []Reason) { got = r })
	require.Equal(t, []Reason{Success, NoSubscriptionExisted, InvalidFilter}, got)
}

func TestTheSameSubscriptionIsStoredOnce(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	c := connect(t, b, "c", durable)
	c.subscribe("a", 1)
	c = connect(t, b, "c", durable)
	n := len(store.ops)
	store.err = errDisk // nothing to write, so nothing can fail
	c.subscribe("a", 1)
	store.err = nil
	require.Len(t, store.ops, n)
	c.subscribe("a", 2)
	require.Equal(t, QoS(2), store.state["c"].subs["a"].QoS)
	store.hold(true)
	c.Subscribe([]Subscription{{Filter: "b", QoS: 1}}, func([]Reason, []QoS) {})
	c.Subscribe([]Subscription{{Filter: "b", QoS: 1}}, func([]Reason, []QoS) {})
	store.hold(false)
	require.Len(t, store.ops, n+3, "one that may still be undone is stored by each")
}

func TestHooksChangeBeforeEverythingAndHoldTheAck(t *testing.T) {
	rec := &recordingHook{}
	b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{rec, rewritingHook{}} })
	sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
	sub.subscribe("new/#", 0)
	done := make(chan Reason, 1)
	pub.Publish(context.Background(), &Message{Topic: "old", Payload: []byte("x"), QoS: 1, Retain: true}, 0, func(r Reason) { done <- r })
	require.Empty(t, done)
	require.Equal(t, "new/old", rec.got.Topic)
	m, _ := pub.Retained("new/old")
	require.NotNil(t, m)
	require.Equal(t, []string{"x"}, sub.payloads())
	rec.release(Success)
	require.Equal(t, Success, <-done)
	pub.Publish(context.Background(), &Message{Topic: "old", QoS: 1}, 0, func(r Reason) { done <- r })
	rec.release(QuotaExceeded)
	require.Equal(t, QuotaExceeded, <-done)
}

type rewritingHook struct{}

func (rewritingHook) Name() string { return "rewrite" }
func (rewritingHook) Rewrite(p *Publication) Reason {
	m := *p.Message
	m.Topic = "new/" + m.Topic
	p.Message = &m
	return Success
}

type recordingHook struct {
	got *Message
	p   *Publication
}

func (*recordingHook) Name() string { return "record" }
func (h *recordingHook) Record(_ context.Context, p *Publication) Reason {
	h.got, h.p = p.Message, p
	p.Hold()
	return Success
}
func (h *recordingHook) release(r Reason) { h.p.Done(r) }

func TestManyPublishersKeepTheirOrder(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = 20000 })
	sub := connect(t, b, "sub", durable)
	sub.subscribe("#", 1)
	const publishers, each = 8, 500
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			c := connect(t, b, fmt.Sprintf("p%d", p))
			for i := range each {
				if r := c.publish(fmt.Sprintf("t/%d", p), fmt.Sprint(i), 1); r != Success {
					t.Errorf("publish: %v", r)
				}
			}
		})
	}
	next := map[string]int{}
	for total := 0; total < publishers*each; {
		ds := sub.take()
		if len(ds) == 0 {
			<-sub.woken
			continue
		}
		for _, d := range ds {
			require.Equal(t, fmt.Sprint(next[d.Message.Topic]), string(d.Message.Payload))
			next[d.Message.Topic]++
			sub.complete(d)
			total++
		}
	}
	wg.Wait()
	require.Zero(t, store.queued("sub"))
}

func TestCloseEndsWhatTheBrokerDoes(t *testing.T) {
	b := newBroker(t, newMemStore())
	c := connect(t, b, "c", durable)
	c.Close(Closing{Reason: ShuttingDown})
	require.NoError(t, b.Close())
	_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "d"})
	require.Equal(t, ShuttingDown, ReasonOf(err))
}
