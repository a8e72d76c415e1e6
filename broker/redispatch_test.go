package broker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What a member holds when it leaves: 0 acknowledged, 1 and 2 sent, 3 and 4
// waiting.
func holding(t *testing.T, b *Broker, qos QoS, change ...func(*ConnectRequest)) *client {
	t.Helper()
	c, pub := connect(t, b, "first", append(change, receiveMaximum(2))...), connect(t, b, "pub")
	c.subscribe("$share/g/t", qos)
	for i := range 5 {
		require.Equal(t, Success, pub.publish("t", string(rune('0'+i)), qos))
	}
	c.complete(c.Next(make([]Delivery, 0, 1))[0])
	require.Len(t, c.take(), 2)
	return c
}

// clean are the payloads of what comes for the first time.
func clean(t *testing.T, c *client) (out []string) {
	for _, d := range c.take() {
		require.False(t, d.Dup, "another member never got it before")
		out = append(out, string(d.Message.Payload))
		c.complete(d)
	}
	return out
}

// lostWithSessions counts what nobody has got, kept sessions or not.
func lostWithSessions(b *Broker) uint64 {
	dropped := b.Stats().Dropped
	return dropped["session_ended"] + dropped["disconnected"]
}

func TestMessagesOfAMemberThatLeavesGoToAnother(t *testing.T) {
	leave := func(_ *testing.T, _ *Broker, c *client) { c.Close(Closing{}) }
	cleanly := func(t *testing.T, b *Broker, _ *client) { connect(t, b, "first", cleanStart) }
	unsubscribe := func(t *testing.T, _ *Broker, c *client) {
		c.Unsubscribe([]string{"$share/g/t"}, func(r []Reason) { require.Equal(t, []Reason{Success}, r) })
	}
	for name, tc := range map[string]struct {
		qos     QoS
		durable bool
		act     func(*testing.T, *Broker, *client)
		want    []string
		lost    uint64
	}{
		"not durable":                    {1, false, leave, []string{"1", "2", "3", "4"}, 0},
		"durable, clean start":           {1, true, cleanly, []string{"1", "2", "3", "4"}, 0},
		"QoS 2 that was sent is not":     {2, false, leave, []string{"3", "4"}, 2},
		"QoS 2, durable":                 {2, true, cleanly, []string{"3", "4"}, 2},
		"unsubscribed: never sent":       {1, false, unsubscribe, []string{"3", "4"}, 0},
		"unsubscribed, durable":          {1, true, unsubscribe, []string{"3", "4"}, 0},
		"durable, away: what waits goes": {1, true, leave, []string{"3", "4"}, 0},
	} {
		for _, heir := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				store := newMemStore()
				b := newBroker(t, store)
				var own []func(*ConnectRequest)
				if tc.durable {
					own = append(own, durable)
				}
				first := holding(t, b, tc.qos, own...)
				var other *client
				if heir {
					other = connect(t, b, "other", durable)
				} else {
					other = connect(t, b, "other")
				}
				other.subscribe("$share/g/t", tc.qos)
				tc.act(t, b, first)
				if heir {
					require.Equal(t, len(tc.want), store.queued("other"), "on disk")
				}
				require.Equal(t, tc.want, clean(t, other))
				require.Equal(t, tc.lost, lostWithSessions(b))
				require.Zero(t, store.queued("other"))
			})
		}
	}
}

func TestQoS2ThatWasReceivedIsNotRedispatched(t *testing.T) {
	b := newBroker(t, newMemStore())
	first := connect(t, b, "first", durable)
	first.subscribe("$share/g/t", 2)
	pub := connect(t, b, "pub")
	require.Equal(t, Success, pub.publish("t", "x", 2))
	first.Received(first.take()[0].PacketID, false, func(r Reason) { require.Equal(t, Success, r) })
	other := connect(t, b, "other")
	other.subscribe("$share/g/t", 2)
	first.Close(Closing{})
	again := connect(t, b, "first", durable)
	require.True(t, again.take()[0].Release, "the exchange is finished with the same member [MQTT-4.8.2-4]")
	connect(t, b, "first", cleanStart)
	require.Empty(t, other.take())
	require.Zero(t, lostWithSessions(b))
}

func TestLeavingStaysWithThoseWhoRemain(t *testing.T) {
	b := newBroker(t, newMemStore())
	first := holding(t, b, 1)
	first.Unsubscribe([]string{"$share/g/t"}, func([]Reason) {})
	require.Empty(t, first.take(), "the window is full")
	for id := uint16(2); id <= 3; id++ {
		require.Equal(t, Success, first.Acked(id))
	}
	require.Equal(t, []string{"3", "4"}, first.payloads(), "there is nobody else")

	b = newBroker(t, newMemStore())
	holding(t, b, 1).Close(Closing{})
	require.Equal(t, uint64(4), lostWithSessions(b), "without another member they are lost, and counted")
}

func TestEverybodyLeavesButOne(t *testing.T) {
	b := newBroker(t, newMemStore())
	group, pub := members(t, b, 5, 1), connect(t, b, "pub")
	fill(pub, "t", 0, 50)
	for _, c := range group {
		c.take()
	}
	for _, c := range group[:4] {
		c.Close(Closing{})
	}
	got := all(group[4])
	require.Len(t, got, 40, "its own ten were sent before")
	for id := uint16(1); id <= 10; id++ {
		require.Equal(t, Success, group[4].Acked(id))
	}
	require.Zero(t, lostWithSessions(b))
	require.Zero(t, b.Stats().Queued)
}

func TestALongQueueIsInherited(t *testing.T) {
	for name, expires := range map[string]bool{"clean start": false, "expired after a restart": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemStore()
				b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = 1000 })
				first, pub := connect(t, b, "first", func(r *ConnectRequest) { r.Expiry = time.Hour }), connect(t, b, "pub")
				first.subscribe("$share/g/t", 1)
				first.subscribe("plain", 1)
				fill(pub, "t", 0, 300)
				fill(pub, "plain", 0, 10)
				fill(pub, "t", 300, 310)
				require.Greater(t, b.find("first").spill.count, 250)
				sent := first.Next(make([]Delivery, 0, 3))
				require.Equal(t, Success, first.Acked(sent[0].PacketID))
				if expires {
					require.NoError(t, b.Close())
					b = newBroker(t, store)
				}
				defer b.Close()
				other := connect(t, b, "other", durable, receiveMaximum(400))
				other.subscribe("$share/g/t", 1)
				if expires {
					time.Sleep(2 * time.Hour)
					synctest.Wait()
				} else {
					connect(t, b, "first", cleanStart)
				}
				require.Equal(t, 309, store.queued("other"))
				require.ElementsMatch(t, numbers(1, 310), other.payloads())
				require.Equal(t, uint64(10), b.Stats().Dropped["session_ended"], "those of the normal subscription")
				require.False(t, store.has("first") && expires)
			})
		})
	}
}

// The message moves in one batch: wherever a crash comes, one of the two has
// it.
func TestMoveToAnotherMemberIsOneStep(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	first := holding(t, b, 1, durable)
	connect(t, b, "other", durable).subscribe("$share/g/t", 1)
	store.onCommit = func(batch *Batch, taken bool) {
		if taken {
			require.Equal(t, 4, store.queued("first")+store.queued("other"))
		}
	}
	first.Close(Closing{})
	store.onCommit = nil
	require.Equal(t, 2, store.queued("other"))
	connect(t, b, "first", cleanStart)
	require.Equal(t, 4, store.queued("other"))
}

func TestMoveThatTheStoreRefusesLeavesTheMessage(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	first := holding(t, b, 1, durable)
	other := connect(t, b, "other", durable)
	other.subscribe("$share/g/t", 1)
	store.fail = func(batch *Batch) error {
		if has(batch, OpEnqueue) {
			return errDisk
		}
		return nil
	}
	first.Close(Closing{})
	store.fail = nil
	require.Empty(t, other.take())
	require.Empty(t, b.find("first").reserved)
	again := connect(t, b, "first", durable)
	require.Equal(t, numbers(1, 5), again.payloads(), "in order")
	require.Zero(t, store.queued("first"))
}

func TestMemberThatLeavesWhileAMessageIsOnItsWayToIt(t *testing.T) {
	for _, kept := range []bool{false, true} {
		for qos := range QoS(3) {
			b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{subscribingHook{}} })
			var own []func(*ConnectRequest)
			if kept {
				own = append(own, durable)
			}
			group, pub := members(t, b, 3, 2, own...), connect(t, b, "pub")
			none := time.Duration(0)
			b.recorders[0] = subscribingHook{func() { group[0].Close(Closing{Expiry: &none}) }} // chosen already
			require.Equal(t, Success, pub.publish("t", "x", qos))
			require.Equal(t, []string{"x"}, all(group[1:]...))
		}
	}
}

func TestMemberThatEndsBetweenStoreAndQueue(t *testing.T) {
	for _, heir := range []func(*ConnectRequest){durable, receiveMaximum(9)} {
		store, entered, goOn := pausingStore(func(batch *Batch) bool {
			return has(batch, OpEnqueue) && batch.Ops[0].Targets[0].ClientID == "a"
		})
		b := newBroker(t, store)
		connect(t, b, "a", durable).subscribe("$share/g/t", 1)
		other, pub := connect(t, b, "b", heir), connect(t, b, "pub")
		other.subscribe("$share/g/t", 1)
		published := make(chan Reason, 1)
		go pub.Publish(context.Background(), &Message{Topic: "t", Payload: []byte("x"), QoS: 1}, 0, func(r Reason) { published <- r })
		<-entered
		ended := startClean(t, b, "a")
		old := b.find("a")
		require.Eventually(t, func() bool { return dead(old) }, 10*time.Second, time.Millisecond)
		close(goOn)
		require.Equal(t, Success, <-published)
		<-ended
		require.Equal(t, []string{"x"}, other.payloads())
		require.Zero(t, store.queued("a"))
		require.Zero(t, store.queued("b"))
	}
}

// The message that is on its way is passed on once, although the store still
// has it when what only the store has is passed on.
func TestMemberThatEndsWithASpilledQueue(t *testing.T) {
	store, entered, goOn := pausingStore(func(batch *Batch) bool {
		return has(batch, OpEnqueue) && string(batch.Ops[0].Message.Payload) == "1"
	})
	b := newBroker(t, store, smallMemory)
	connect(t, b, "a", durable).subscribe("$share/g/t", 1)
	pub := connect(t, b, "pub")
	fill(pub, "t", 0, 1)
	old := b.find("a")
	require.Equal(t, 1, old.spill.count)
	published := make(chan Reason, 1)
	go pub.Publish(context.Background(), &Message{Topic: "t", Payload: []byte("1"), QoS: 1}, 0, func(r Reason) { published <- r })
	<-entered
	b.cfg.Session.MemoryBytes = 1 << 20
	other := connect(t, b, "b")
	other.subscribe("$share/g/t", 1)
	ended := startClean(t, b, "a")
	require.Eventually(t, func() bool { return dead(old) }, 10*time.Second, time.Millisecond)
	store.mu.Lock()
	store.busy = true
	store.mu.Unlock()
	close(goOn)
	require.Equal(t, Success, <-published)
	<-ended
	require.ElementsMatch(t, []string{"0", "1"}, other.payloads())
}

func TestEndWaitsForWhatOnlyTheStoreWillHave(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, smallMemory)
	connect(t, b, "a", durable).subscribe("$share/g/t", 1)
	other, pub := connect(t, b, "b", durable), connect(t, b, "pub")
	store.hold(true)
	published := pub.send(context.Background(), &Message{Topic: "t", Payload: []byte("x"), QoS: 1}, 0)
	old := b.find("a")
	require.Len(t, old.unsaved, 1)
	ended := startClean(t, b, "a")
	require.Eventually(t, func() bool { return dead(old) }, 10*time.Second, time.Millisecond)
	other.Subscribe([]Subscription{{Filter: "$share/g/t", QoS: 1}}, func([]Reason, []QoS) {})
	store.hold(false)
	<-ended
	require.Equal(t, Success, <-published)
	require.Equal(t, []string{"x"}, other.payloads())
}

// While it is not decided who has the earlier messages, later ones wait.
func TestNothingOvertakesAMessageThatMayComeBack(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	first := holding(t, b, 1, durable)
	first.subscribe("plain", 1)
	fill(connect(t, b, "p"), "plain", 5, 6)
	other := connect(t, b, "other", durable)
	other.subscribe("$share/g/t", 1)
	store.hold(true)
	store.fail = func(batch *Batch) error {
		if has(batch, OpEnqueue) {
			return errDisk
		}
		return nil
	}
	first.Unsubscribe([]string{"$share/g/t"}, func([]Reason) {})
	for id := uint16(2); id <= 3; id++ {
		require.Equal(t, Success, first.Acked(id))
	}
	require.Empty(t, first.take())
	store.hold(false)
	store.fail = nil
	require.Equal(t, numbers(3, 6), first.payloads())
}

// A session that expired while no gateway ran leaves its messages to members
// that are loaded behind it.
func TestSessionsThatExpiredMeanwhileEndWhenAllAreLoaded(t *testing.T) {
	for range 20 { // the store lists sessions in any order
		store := newMemStore()
		b := newBroker(t, store)
		first, pub := connect(t, b, "first", func(r *ConnectRequest) { r.Expiry = time.Hour }), connect(t, b, "pub")
		first.subscribe("$share/g/t", 1)
		fill(pub, "t", 0, 5)
		for i := range 5 {
			connect(t, b, string(rune('a'+i)), durable).subscribe("$share/g/t", 1)
		}
		require.NoError(t, b.Close())
		store.session("first").record.DetachedAt = clockSet + 1
		newBroker(t, store)
		require.Eventually(t, func() bool { return !store.has("first") }, 10*time.Second, time.Millisecond)
		total := 0
		for i := range 5 {
			total += store.queued(string(rune('a' + i)))
		}
		require.Equal(t, 5, total)
	}
}

// startClean ends the session of a client by a new one; closed when that is
// done.
func startClean(t *testing.T, b *Broker, id string) (ended chan struct{}) {
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		if _, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: id, CleanStart: true}); err != nil {
			t.Error(err)
		}
	}()
	return ended
}

func dead(st *sessionState) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.dead
}

func TestRedispatchWaitsForABusyStoreInAGoroutineOfTheBroker(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Hooks = []Hook{subscribingHook{}} })
	first, other, pub := connect(t, b, "a"), connect(t, b, "b", durable), connect(t, b, "pub")
	first.subscribe("$share/g/t", 1)
	other.subscribe("$share/g/t", 1)
	b.recorders[0] = subscribingHook{func() {
		first.Close(Closing{})
		store.mu.Lock()
		store.busy = true
		store.mu.Unlock()
	}}
	require.Equal(t, Success, pub.publish("t", "x", 1), "acknowledged when it is on disk")
	require.Equal(t, 1, store.queued("b"))
	require.Eventually(t, func() bool { return len(other.take()) == 1 }, 10*time.Second, time.Millisecond)
}

func TestExpiredMessagesAreNotRedispatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		defer b.Close()
		first, pub := connect(t, b, "first", durable), connect(t, b, "pub")
		first.subscribe("$share/g/t", 1)
		pub.publishMessage(&Message{Topic: "t", QoS: 1, Expires: time.Now().Add(time.Second).UnixMilli()}, 0)
		time.Sleep(2 * time.Second)
		other := connect(t, b, "other")
		other.subscribe("$share/g/t", 1)
		first.Close(Closing{})
		require.Empty(t, other.take())
		require.Zero(t, store.queued("first"))
		require.Equal(t, uint64(1), b.Stats().Dropped["expired"])
	})
}
