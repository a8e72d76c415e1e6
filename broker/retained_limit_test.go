package broker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func limitRetained(r RetainedConfig) func(*Config) {
	return func(c *Config) { c.Retained = r }
}

func (c *client) retain(topic, payload string, qos QoS) Reason {
	return c.publishMessage(&Message{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: true}, 0)
}

func TestNewValueBeyondTheCountIsRefused(t *testing.T) {
	store, rec := newMemStore(), &recordingHook{}
	b := newBroker(t, store, limitRetained(RetainedConfig{MaxCount: 2}), func(c *Config) { c.Hooks = []Hook{rec} })
	pub, sub := connect(t, b, "pub"), connect(t, b, "sub")
	sub.subscribe("#", 1)
	send := func(m *Message) Reason {
		done := make(chan Reason, 1)
		rec.got = nil
		pub.Publish(t.Context(), m, 0, func(r Reason) { done <- r })
		if rec.got != nil {
			rec.release(Success)
		}
		return <-done
	}
	retain := func(topic, payload string, qos QoS) Reason {
		return send(&Message{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: true})
	}
	require.Equal(t, Success, retain("a/b", "1", 1))
	require.Equal(t, Success, retain("a/c", "1", 1))
	require.Len(t, sub.take(), 2)
	for _, topic := range []string{"a", "a/d", "a/b/c"} {
		require.Equal(t, QuotaExceeded, retain(topic, "x", 1), topic)
		require.Nil(t, rec.got, "the bridges have not got it")
		require.Empty(t, sub.take(), "nor has a subscriber")
	}
	require.Equal(t, map[string]uint64{"count": 3, "bytes": 0, "payload": 0}, b.Stats().Unretained)
	require.Equal(t, Success, retain("a/b", "2", 1), "a value that is there is replaced")
	require.Equal(t, Success, retain("a/x", "", 1), "nothing is cleared")
	require.Equal(t, Success, send(&Message{Topic: "a/d", QoS: 1}), "nor counts what is not retained")
	require.Len(t, sub.take(), 3)

	require.Equal(t, Success, retain("a/d", "live", 0), "a publisher of QoS 0 gets no answer")
	require.Equal(t, []string{"live"}, sub.payloads(), "so it is delivered")
	m, _ := pub.Retained("a/d")
	require.Nil(t, m)
	require.EqualValues(t, 4, b.Stats().Unretained["count"])

	require.Equal(t, Success, retain("a/c", "", 1))
	require.Equal(t, Success, retain("a/d", "x", 2), "the cleared value has left its place")
	require.Equal(t, QuotaExceeded, retain("a/c", "x", 2))
	require.EqualValues(t, 2, b.Stats().Retained)
	require.Len(t, store.kept, 2)
}

func TestRetainedBytesAndPayload(t *testing.T) {
	one := int64((&Message{Topic: "t", Payload: make([]byte, 100)}).size())
	b := newBroker(t, newMemStore(), limitRetained(RetainedConfig{MaxBytes: 2 * one, MaxPayload: 150}))
	pub := connect(t, b, "pub")
	payload := func(n int) string { return string(make([]byte, n)) }
	require.Equal(t, Success, pub.retain("a", payload(100), 1))
	require.Equal(t, Success, pub.retain("b", payload(99), 1))
	require.Equal(t, 2*one-1, b.Stats().RetainedBytes)
	require.Equal(t, QuotaExceeded, pub.retain("c", payload(1), 1))
	require.Equal(t, QuotaExceeded, pub.retain("b", payload(101), 1), "it would grow beyond the cap")
	require.Equal(t, Success, pub.retain("b", payload(100), 1), "just so")
	require.Equal(t, Success, pub.retain("b", payload(100), 1))
	require.Equal(t, Success, pub.retain("b", payload(50), 1))
	require.Equal(t, PacketTooLarge, pub.retain("b", payload(151), 1), "no retry can help")
	require.Equal(t, NoSubscribers, pub.retain("b", payload(151), 0))
	require.Equal(t, NoSubscribers, pub.publish("b", payload(151), 1))
	require.Equal(t, map[string]uint64{"count": 0, "bytes": 2, "payload": 2}, b.Stats().Unretained)
	m, _ := pub.Retained("b")
	require.Len(t, m.Payload, 50)
	require.True(t, pub.retain("a", "", 1).OK())
	require.True(t, pub.retain("b", "", 1).OK())
	require.Zero(t, b.Stats().RetainedBytes)
}

// However many publish at once, there are never more values than the cap
// allows, and each that was acknowledged is there.
func TestConcurrentPublishersCannotExceedTheCap(t *testing.T) {
	const limit, publishers, each = 50, 8, 60
	size := (&Message{Topic: "0/00", Payload: []byte("x")}).size()
	for name, cfg := range map[string]RetainedConfig{
		"count": {MaxCount: limit},
		"bytes": {MaxBytes: int64(limit * size)},
	} {
		t.Run(name, func(t *testing.T) {
			store := newMemStore()
			b := newBroker(t, store, limitRetained(cfg))
			var accepted, cleared atomic.Int64
			var wg sync.WaitGroup
			for p := range publishers {
				c := connect(t, b, fmt.Sprint(p))
				wg.Go(func() {
					for i := range each {
						topic := fmt.Sprintf("%d/%02d", p, i)
						if !c.retain(topic, "x", 1).OK() {
							continue
						}
						accepted.Add(1)
						if i%7 == 3 && c.retain(topic, "", 1).OK() {
							cleared.Add(1)
						}
						if n := b.retained.count.Load(); n > limit {
							t.Errorf("%d values", n)
						}
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, limit, b.Stats().Retained, "and the cap was reached")
			require.EqualValues(t, limit, accepted.Load()-cleared.Load())
			require.EqualValues(t, limit*size, b.Stats().RetainedBytes)
			require.Len(t, store.kept, limit)
		})
	}
}

func TestMoreRetainedThanTheCapAfterARestart(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	pub := connect(t, b, "pub")
	for i := range 5 {
		require.Equal(t, Success, pub.retain(fmt.Sprint("t/", i), "xx", 1))
	}
	require.NoError(t, b.Close())
	b = newBroker(t, store, limitRetained(RetainedConfig{MaxCount: 3, MaxBytes: 1}))
	pub = connect(t, b, "pub")
	sub := connect(t, b, "sub")
	sub.subscribe("t/#", 0)
	require.Len(t, sub.take(), 5, "what is stored is served")
	require.Equal(t, QuotaExceeded, pub.retain("t/5", "x", 1))
	require.Equal(t, Success, pub.retain("t/0", "yy", 1), "not larger than before")
	require.Equal(t, QuotaExceeded, pub.retain("t/0", "zzz", 1))
	for i := range 3 {
		require.True(t, pub.retain(fmt.Sprint("t/", i), "", 1).OK())
	}
	require.EqualValues(t, 2, b.Stats().Retained)
}

func TestExpiryOfRetainedValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store, limitRetained(RetainedConfig{MaxCount: 4, DefaultExpiry: time.Minute, MaxExpiry: time.Hour}))
		defer b.Close()
		pub, sub := connect(t, b, "pub"), connect(t, b, "sub")
		sub.subscribe("#", 1)
		retain := func(topic string, life time.Duration) Reason {
			m := &Message{Topic: topic, Payload: []byte("v"), QoS: 1, Retain: true}
			if life > 0 {
				m.Expires = time.Now().Add(life).UnixMilli()
			}
			return pub.publishMessage(m, 0)
		}
		require.Equal(t, Success, retain("default", 0))
		require.Equal(t, Success, retain("short", time.Second))
		require.Equal(t, Success, retain("long", 30*time.Minute))
		require.Equal(t, Success, retain("too long", 30*time.Hour))
		for _, d := range sub.take() {
			require.Equal(t, map[string]bool{"default": true}[d.Message.Topic], d.Message.Expires == 0, "what is delivered at once keeps its own expiry")
		}
		left := func() (topics []string) {
			synctest.Wait()
			_ = pub.RetainedMatch("#", func(m *Message) bool { topics = append(topics, m.Topic); return true })
			return topics
		}
		require.Equal(t, QuotaExceeded, retain("one more", 0))
		time.Sleep(3 * time.Second)
		require.ElementsMatch(t, []string{"default", "long", "too long"}, left())
		require.Equal(t, Success, retain("short", 0), "the expired value has left its place")
		time.Sleep(2 * time.Minute)
		require.ElementsMatch(t, []string{"long", "too long"}, left())
		time.Sleep(time.Hour)
		require.Empty(t, left())
		require.Empty(t, store.kept)
	})
}

func TestMaximumExpiryAlone(t *testing.T) {
	c := RetainedConfig{MaxExpiry: time.Minute}
	for expires, want := range map[int64]int64{0: 61_000, 5000: 5000, 61_000: 61_000, 61_001: 61_000} {
		m := &Message{Time: 1000, Expires: expires}
		require.Equal(t, want, c.keepable(m).Expires)
		require.Equal(t, expires, m.Expires, "a message is immutable")
	}
}

func TestValueThatCannotBeStoredLeavesItsPlace(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, limitRetained(RetainedConfig{MaxCount: 1, DefaultExpiry: time.Hour}))
	pub := connect(t, b, "pub")
	store.err = errDisk
	require.Equal(t, ServerUnavailable, pub.retain("a", "x", 1))
	store.err = nil
	require.Zero(t, b.Stats().Retained)
	require.Zero(t, b.Stats().RetainedBytes)
	require.Equal(t, Success, pub.retain("b", "1", 1))
	store.err = errDisk
	require.Equal(t, ServerUnavailable, pub.retain("b", "22", 1))
	store.err = nil
	m, _ := pub.Retained("b")
	require.Equal(t, "1", string(m.Payload))
	require.EqualValues(t, m.size(), b.Stats().RetainedBytes)
}

func TestWillThatCannotBeRetainedIsDelivered(t *testing.T) {
	b := newBroker(t, newMemStore(), limitRetained(RetainedConfig{MaxCount: 1}))
	pub, sub := connect(t, b, "pub"), connect(t, b, "sub")
	require.Equal(t, Success, pub.retain("a", "x", 1))
	sub.subscribe("lwt", 1)
	will := &Will{Message: &Message{Topic: "lwt", Payload: []byte("gone"), QoS: 1, Retain: true}}
	connect(t, b, "dies", func(r *ConnectRequest) { r.Will = will }).Close(Closing{Reason: KeepAliveTimeout})
	require.Equal(t, []string{"gone"}, sub.payloads())
	require.EqualValues(t, 1, b.Stats().Retained)
}

// The tree itself keeps to the limits, whoever looked before whether there is
// room.
func TestRetainedTreeKeepsToItsLimits(t *testing.T) {
	r := newRetained()
	m := func(topic, payload string) *Message { return &Message{Topic: topic, Payload: []byte(payload)} }
	size := int64(m("a", "1").size())
	limits := retainedLimits{count: 3, bytes: 2 * size}
	_, got := r.put(m("a", "1"), limits)
	require.Equal(t, limitNone, got)
	_, got = r.put(m("b", "22"), limits)
	require.Equal(t, limitBytes, got)
	require.Nil(t, r.find("b"), "no node stays of what was refused")
	_, got = r.put(m("b", "2"), limits)
	require.Equal(t, limitNone, got)
	_, got = r.put(m("b", "22"), limits)
	require.Equal(t, limitBytes, got)
	require.Equal(t, 2*size, r.bytes.Load())
	_, got = r.put(m("c", "3"), retainedLimits{count: 2, bytes: 1 << 20})
	require.Equal(t, limitCount, got)
	require.EqualValues(t, 2, r.count.Load())
}

// A delayed message is not held up for ever by a limit that no waiting helps
// against, and comes when there is room otherwise.
func TestLimitsOfDelayedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store, limitRetained(RetainedConfig{MaxPayload: 10}))
		pub := connect(t, b, "pub")
		require.Equal(t, PacketTooLarge, pub.retain("$delayed/5/a", "12345678901", 1))
		require.Equal(t, Success, pub.retain("$delayed/5/a", "1234567890", 1))
		require.NoError(t, b.Close())

		b = newBroker(t, store, limitRetained(RetainedConfig{MaxPayload: 5, MaxCount: 1}))
		defer b.Close()
		pub = connect(t, b, "pub")
		sub := connect(t, b, "sub")
		sub.subscribe("#", 1)
		later(10 * time.Second)
		require.Equal(t, []string{"1234567890"}, sub.payloads())
		require.Zero(t, b.Stats().Retained)
		require.Zero(t, store.waiting())

		require.Equal(t, Success, pub.retain("$delayed/5/b", "later", 1))
		require.Equal(t, Success, pub.retain("c", "now", 1))
		later(10 * time.Second)
		require.Equal(t, []string{"now"}, sub.payloads(), "there is no room for the other")
		require.Equal(t, 1, b.Stats().Delayed.Waiting)
		require.True(t, pub.retain("c", "", 1).OK())
		later(time.Minute)
		require.Equal(t, []string{"", "later"}, sub.payloads())
	})
}
