package broker

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// smallMemory makes a session keep nothing in memory beyond its window.
func smallMemory(c *Config) { c.Session.MemoryBytes = 1 }

func fill(pub *client, topic string, from, to int) {
	pub.t.Helper()
	for i := from; i < to; i++ {
		require.Equal(pub.t, Success, pub.publish(topic, fmt.Sprint(i), 1))
	}
}

func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestMessageStoredWhileAPageIsReadComesOnce(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprint("after the read ", after), func(t *testing.T) {
			store := newMemStore()
			b := newBroker(t, store, smallMemory)
			sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
			sub.subscribe("t", 1)
			fill(pub, "t", 0, 3)
			// The next message is in the store, but its publisher has not queued
			// it yet, when the page is read.
			appended, goOn, published := make(chan struct{}), make(chan struct{}), make(chan Reason, 1)
			store.onCommit = func(batch *Batch, taken bool) {
				if m := batch.Ops[0].Message; m != nil && string(m.Payload) == "3" && taken {
					close(appended)
					<-goOn
				}
			}
			once := false
			store.onQueued = func(reading bool) error {
				if reading == after || once {
					return nil
				}
				once = true
				go pub.Publish(context.Background(), &Message{Topic: "t", Payload: []byte("3"), QoS: 1}, 0, func(r Reason) { published <- r })
				<-appended
				return nil
			}
			got := sub.payloads()
			b.cfg.Session.MemoryBytes = 1 << 20
			close(goOn)
			require.Equal(t, Success, <-published)
			require.Equal(t, numbers(0, 4), append(got, sub.payloads()...))
			require.Zero(t, store.queued("sub"))
			require.Zero(t, b.find("sub").bytes)
			require.Zero(t, b.Stats().Dropped["store"])
		})
	}
}

func TestDeliveriesWaitForALowerNumber(t *testing.T) {
	for _, memory := range []int{1, 1 << 20} {
		t.Run(fmt.Sprint("memory ", memory), func(t *testing.T) {
			store, entered, goOn := pausingStore(func(b *Batch) bool {
				m := b.Ops[0].Message
				return m != nil && m.Topic == "s"
			})
			b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = memory })
			sub, slow, fast := connect(t, b, "sub", durable), connect(t, b, "slow"), connect(t, b, "fast")
			sub.subscribe("#", 1)
			fill(fast, "f", 0, 1)
			done := make(chan Reason, 1)
			go slow.Publish(context.Background(), &Message{Topic: "s", Payload: []byte("slow"), QoS: 1}, 0, func(r Reason) { done <- r })
			<-entered // it has the number before the next
			fill(fast, "f", 1, 3)
			require.Equal(t, []string{"0"}, sub.payloads())
			close(goOn)
			require.Equal(t, Success, <-done)
			var got []string
			for len(got) < 3 {
				<-sub.woken
				got = append(got, sub.payloads()...)
			}
			require.Equal(t, []string{"slow", "1", "2"}, got, "each once")
			require.Zero(t, store.queued("sub"))
		})
	}
}

func TestRetainedValueIsQueuedBehindASpilledQueue(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	pub := connect(t, b, "pub")
	pub.publishMessage(&Message{Topic: "r", Payload: []byte("kept"), QoS: 1, Retain: true}, 0)
	sub := connect(t, b, "sub", durable)
	sub.subscribe("t", 1)
	fill(pub, "t", 0, 3)

	b = newBroker(t, store) // now everything is only in the store
	sub = connect(t, b, "sub", durable)
	sub.subscribe("r", 1)
	require.Equal(t, append(numbers(0, 3), "kept"), sub.payloads())
	require.Empty(t, sub.payloads())
	require.Zero(t, store.queued("sub"))
}

func TestRefusedSubscriptionTakesItsRetainedValuesBack(t *testing.T) {
	for _, memory := range []int{1, 1 << 20} {
		store := newMemStore()
		b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = memory })
		pub, sub := connect(t, b, "pub"), connect(t, b, "sub", durable)
		pub.publishMessage(&Message{Topic: "r", Payload: []byte("kept"), QoS: 1, Retain: true}, 0)
		store.err = errDisk
		var got []Reason
		sub.Subscribe([]Subscription{{Filter: "r", QoS: 1}, {Filter: "r", QoS: 2}}, func(r []Reason, _ []QoS) { got = r })
		require.Equal(t, []Reason{ServerUnavailable, ServerUnavailable}, got)
		store.err = nil
		require.Empty(t, sub.payloads())
		require.Zero(t, b.router.count())
		require.Zero(t, b.find("sub").bytes)
	}
}

func TestRetainedValuesOfOneSubscriptionKeepToTheQueueCap(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Session.QueueBytes = 10 * 200 })
	pub, sub := connect(t, b, "pub"), connect(t, b, "sub", durable)
	for i := range 100 {
		pub.publishMessage(&Message{Topic: fmt.Sprint("r/", i), Payload: []byte("v"), QoS: 1, Retain: true}, 0)
	}
	sub.subscribe("r/+", 1)
	n := len(sub.payloads())
	require.Less(t, n, 13)
	require.Equal(t, uint64(100-n), b.Stats().Dropped["queue_full"])
}

func TestLastResumptionKeepsOrderAndTheStoreInformed(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, smallMemory, func(c *Config) { c.Session.Inflight = 4 })
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 1)
	fill(pub, "t", 0, 10)
	last, present := reconnect(t, b, "sub") // session expiry 0 from now on
	require.True(t, present)
	fill(pub, "t", 10, 20)
	require.Equal(t, numbers(0, 20), last.payloads())
	require.Zero(t, store.queued("sub"))
	last.Close(Closing{})
	require.False(t, store.has("sub"))
}

func TestNewOwnerIsWokenForAPageThatTheOldOneRead(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, smallMemory)
	old, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	old.subscribe("t", 1)
	fill(pub, "t", 0, 3)
	var next *client
	store.onQueued = func(reading bool) error {
		if !reading && next == nil {
			next = connect(t, b, "sub", durable)
			<-drained(next.woken)
			require.Empty(t, next.take(), "the page is still being read")
		}
		return nil
	}
	require.Empty(t, old.take())
	select {
	case <-next.woken:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody told the new owner")
	}
	require.Equal(t, numbers(0, 3), next.payloads())
}

func TestQueueIsReadAgainAfterAReadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store, smallMemory)
		defer b.Close()
		sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
		sub.subscribe("t", 1)
		fill(pub, "t", 0, 2)
		reads := 0
		store.onQueued = func(reading bool) error {
			if reading {
				reads++
			}
			if reads == 1 {
				return errDisk
			}
			return nil
		}
		require.Empty(t, sub.take())
		<-drained(sub.woken)
		require.Empty(t, sub.take())
		require.Equal(t, 1, reads, "not once for every message")
		<-sub.woken
		require.Equal(t, numbers(0, 2), sub.payloads())
	})
}

// drained empties a wake channel and returns one that is ready.
func drained(woken chan struct{}) <-chan struct{} {
	select {
	case <-woken:
	default:
	}
	ready := make(chan struct{})
	close(ready)
	return ready
}

func TestEntriesThatTheStoreLostAreCountedAndTheRestGoesOn(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, smallMemory)
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 1)
	fill(pub, "t", 0, 3)
	store.mu.Lock()
	store.state["sub"].queue = nil
	store.mu.Unlock()
	require.Empty(t, sub.payloads())
	require.Equal(t, uint64(3), b.Stats().Dropped["store"])
	fill(pub, "t", 3, 5)
	require.Equal(t, numbers(3, 5), sub.payloads())
	require.Zero(t, b.find("sub").bytes)
}

func TestExpiredMessagesMakeRoomInAFullQueue(t *testing.T) {
	for _, memory := range []int{1, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemStore()
			b := newBroker(t, store, func(c *Config) { c.Session.QueueBytes, c.Session.MemoryBytes = 2000, memory })
			defer b.Close()
			sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
			sub.subscribe("t", 1)
			sub.Close(Closing{})
			send := func() Reason {
				return pub.publishMessage(&Message{Topic: "t", QoS: 1, Expires: time.Now().Add(time.Minute).UnixMilli()}, 0)
			}
			last := Success
			for last == Success {
				last = send()
			}
			require.Equal(t, QuotaExceeded, last)
			time.Sleep(2 * time.Minute)
			require.Equal(t, Success, send())
			require.Equal(t, uint64(1), b.Stats().Dropped["expired"], "as many as it takes")
		})
	}
}

func TestBusyStoreIsToldLaterWhatWasAcknowledged(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 1)
	fill(pub, "t", 0, 1000)
	store.busy = true
	require.Len(t, sub.payloads(), 1000)
	require.Equal(t, 1000, store.queued("sub"))
	store.busy = false
	fill(pub, "t", 1000, 1001)
	require.Len(t, sub.payloads(), 1)
	require.Zero(t, store.queued("sub"))

	fill(pub, "t", 0, 1)
	store.busy = true
	sub.payloads()
	sub.Close(Closing{})
	require.Zero(t, store.queued("sub"), "at the latest when the connection ends")
}
