package broker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// waiting is how many messages the store keeps for later.
func (m *memStore) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.delayed)
}

func (m *memStore) failWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// later moves the clock of a synctest bubble.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestDelayedTopicSyntax(t *testing.T) {
	for topic, want := range map[string]struct {
		rest    string
		seconds int64
	}{
		"$delayed/5/a/b": {"a/b", 5}, "$delayed/0/a": {"a", 0}, "$delayed/4294967//": {"/", 4294967}, "$delayed/007/a": {"a", 7},
		"a/$delayed/5/b": {"a/$delayed/5/b", 0}, "$delayeds/5/b": {"$delayeds/5/b", 0}, "$delayed/1/$delayeds/5": {"$delayeds/5", 1},
	} {
		rest, seconds, err := splitDelayed(topic)
		require.NoError(t, err, topic)
		require.Equal(t, want.rest, rest)
		require.Equal(t, want.seconds, seconds)
	}
	b := newBroker(t, newMemStore())
	c := connect(t, b, "c")
	for _, topic := range []string{
		"$delayed", "$delayed/", "$delayed/5", "$delayed/5/", "$delayed//a", "$delayed/-1/a", "$delayed/+5/a", "$delayed/1.5/a", "$delayed/5s/a",
		"$delayed/0x5/a", "$delayed/1_0/a", "$delayed/4294968/a", "$delayed/1790000000/a", "$delayed/99999999999999999999/a", "$delayed/ 5/a",
		"$delayed/5/a/#", "$delayed/5/+", "$delayed/5/a\x00", "$delayed/5/$delayed/5/a", "$delayed/5/$delayed", "$delayed/5/$share/g/a",
		"$delayed/5/$queue/a", "$delayed/5/$exclusive/a", "$delayed/a/5",
	} {
		for qos := range QoS(3) {
			require.Equal(t, InvalidTopic, c.publish(topic, "x", qos), "%q", topic)
		}
		_, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: "w", Will: &Will{Message: &Message{Topic: topic}}})
		require.Equal(t, InvalidTopic, ReasonOf(err), "will %q", topic)
	}
	require.Equal(t, NotAuthorized, c.publish("$delayed/5/$SYS/x", "x", 1))
	require.Zero(t, b.Stats().Delayed.Waiting)
}

func FuzzDelayedTopic(f *testing.F) {
	for _, s := range []string{"$delayed/5/a", "$delayed", "$delayed/4294968/a", "a", "$delayed/0/$delayed/1/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		rest, seconds, err := splitDelayed(topic)
		if err != nil {
			require.True(t, strings.HasPrefix(topic, "$delayed"))
			return
		}
		require.True(t, strings.HasSuffix(topic, rest))
		require.True(t, seconds >= 0 && seconds <= MaxDelay)
		require.False(t, rest != topic && extended(rest))
		words, again := delayedWords(topic)
		require.Equal(t, topic, words+again)
	})
}

func TestDelayedIsPublishedAtItsTime(t *testing.T) {
	for qos := range QoS(3) {
		t.Run(fmt.Sprint("qos ", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newMemStore()
				b := newBroker(t, store)
				sub := connect(t, b, "sub", durable)
				sub.subscribe("#", 2)
				pub := connect(t, b, "pub", func(r *ConnectRequest) { r.Protocol, r.Credentials.Username = "coap", "user" })
				props := &Properties{ContentType: "ct", User: []UserProperty{{"k", "1"}, {"k", "2"}}}
				m := &Message{Topic: "$delayed/60/a/b", Payload: []byte("x"), QoS: qos, Retain: true, Properties: props}
				require.Equal(t, Success, pub.publishMessage(m, uint16(qos/2)))
				require.Equal(t, Success, pub.publish("$delayed/0/now", "y", qos))
				require.Equal(t, []string{"y"}, sub.payloads(), "0 seconds")
				require.Equal(t, int(min(qos, 1)), store.waiting())
				pub.Close(Closing{})

				later(59 * time.Second)
				require.Empty(t, sub.take())
				require.Nil(t, b.retainedValue("a/b"))
				later(2 * time.Second)
				got := sub.take()
				require.Len(t, got, 1)
				g := got[0].Message
				require.Equal(t, "a/b", g.Topic)
				require.Equal(t, []string{"pub", "user", "coap"}, []string{g.ClientID, g.Username, g.Protocol})
				require.Equal(t, props, g.Properties)
				require.Equal(t, qos, got[0].QoS)
				sub.complete(got[0])
				require.Equal(t, "x", string(b.retainedValue("a/b").Payload))
				require.Zero(t, store.waiting())
				require.Equal(t, DelayedStats{Published: 1}, b.Stats().Delayed)
				later(time.Hour)
				require.Empty(t, sub.take())
			})
		})
	}
}

func TestDelayedOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore())
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		var want []string
		for i := range 1000 { // several rounds, all due at the same millisecond
			want = append(want, fmt.Sprintf("%03d", i))
			require.Equal(t, Success, pub.publish("$delayed/9/t", want[i], 1))
		}
		require.Equal(t, Success, pub.publish("$delayed/8/t", "first", 1))
		require.Equal(t, Success, pub.publish("$delayed/10/t", "last", 1))
		later(11 * time.Second)
		require.Equal(t, append(append([]string{"first"}, want...), "last"), sub.payloads())
	})
}

func TestDelayedIsAcknowledgedOnDisk(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	pub := connect(t, b, "pub", durable)
	store.hold(true)
	for qos := QoS(1); qos <= 2; qos++ {
		answer := pub.send(context.Background(), &Message{Topic: "$delayed/60/t", QoS: qos}, uint16(qos))
		select {
		case r := <-answer:
			t.Fatalf("answered %v before it is on disk", r)
		default:
		}
		store.flush()
		require.Equal(t, Success, <-answer)
		require.Equal(t, int(qos), store.waiting())
	}
	require.Equal(t, Success, pub.publish("$delayed/60/t", "", 0), "nobody waits for QoS 0")
	store.hold(false)
	require.Equal(t, Success, pub.publishMessage(&Message{Topic: "$delayed/60/t", QoS: 2}, 2), "a duplicate")
	require.Equal(t, 2, store.waiting())

	store.failWith(errDisk)
	require.Equal(t, ServerUnavailable, pub.publish("$delayed/60/t", "", 1))
	require.Equal(t, 3, b.Stats().Delayed.Waiting, "what was refused takes no place")
}

func TestDelayedSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		pub := connect(t, b, "pub", durable)
		connect(t, b, "sub", durable).subscribe("#", 1)
		for _, m := range []string{"30 c", "10 a", "20 b", "3600 later", "30 d"} {
			seconds, name, _ := strings.Cut(m, " ")
			require.Equal(t, Success, pub.publish("$delayed/"+seconds+"/t", name, 1))
		}
		require.Equal(t, Success, pub.publishMessage(&Message{Topic: "$delayed/60/q", Payload: []byte("once"), QoS: 2}, 7))
		require.Equal(t, Success, pub.publish("$delayed/60/t", "lost", 0))
		ids := b.Delayed(0, 100)
		require.NoError(t, b.Close())
		later(10 * time.Minute)

		b = newBroker(t, store)
		synctest.Wait()
		sub := connect(t, b, "sub", durable)
		require.Equal(t, []string{"a", "b", "c", "d", "once"}, sub.payloads(), "overdue ones at once, by their time")
		pub = connect(t, b, "pub", durable)
		require.Equal(t, Success, pub.publishMessage(&Message{Topic: "$delayed/60/q", Payload: []byte("once"), QoS: 2}, 7), "a duplicate")
		require.Equal(t, 1, store.waiting())
		require.Equal(t, Success, pub.publish("$delayed/1/t", "new", 1))
		list := b.Delayed(0, 100)
		require.Len(t, list, 2)
		require.Greater(t, list[1].ID, ids[len(ids)-1].ID, "numbers are not used again")
		require.Less(t, list[1].ID, uint64(1)<<53)
		later(time.Hour)
		require.Equal(t, []string{"new", "later"}, sub.payloads())
		require.Zero(t, store.waiting())
	})
}

// The removal and the arrival in the queues of sessions are one batch. If it
// fails nobody has got the message, and it comes with the next attempt.
func TestDelayedLeavesInOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		var together atomic.Bool
		store.onCommit = func(b *Batch, _ bool) {
			if has(b, OpDelayDone) && has(b, OpEnqueue) && has(b, OpRetain) {
				together.Store(true)
			}
		}
		b := newBroker(t, store)
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		require.Equal(t, Success, pub.publishMessage(&Message{Topic: "$delayed/5/t", Payload: []byte("x"), QoS: 1, Retain: true}, 0))
		store.failWith(errDisk)
		later(6 * time.Second)
		require.Equal(t, 1, store.waiting())
		require.Nil(t, b.retainedValue("t"))
		require.Zero(t, store.queued("sub"))
		info := b.Delayed(0, 1)[0]
		require.Equal(t, ServerUnavailable, info.Reason)
		require.Positive(t, info.Attempts)
		require.Equal(t, 1, b.Stats().Delayed.Held)
		sub.payloads()

		store.failWith(nil)
		later(time.Minute)
		require.True(t, together.Load())
		require.Equal(t, []string{"x"}, sub.payloads())
		require.Zero(t, store.waiting())
		require.Zero(t, b.Stats().Delayed.Held)
	})
}

// countingHook answers as a test wants and remembers what it got.
type countingHook struct {
	mu     sync.Mutex // covers everything below
	got    []string
	answer func(m *Message) Reason // of Record
	later  func(p *Publication)    // ends what Hold began, nil = at once
}

func (*countingHook) Name() string { return "count" }
func (h *countingHook) Record(_ context.Context, p *Publication) Reason {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.answer != nil {
		if r := h.answer(p.Message); !r.OK() {
			return r
		}
	}
	h.got = append(h.got, string(p.Message.Payload))
	if h.later != nil {
		p.Hold()
		h.later(p)
	}
	return Success
}

func (h *countingHook) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.got)
}

func TestDelayedWaitsForTheRecorders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		hook := &countingHook{}
		var held []*Publication
		hook.later = func(p *Publication) { held = append(held, p) }
		b := newBroker(t, store, func(c *Config) { c.Hooks = []Hook{hook} })
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		require.Equal(t, Success, pub.publish("$delayed/5/t", "x", 1))
		require.Empty(t, hook.seen(), "not before its time")
		later(6 * time.Second)
		require.Equal(t, []string{"x"}, hook.seen())
		require.Equal(t, 1, store.waiting(), "a crash now must not lose it for the recorder")
		require.Empty(t, sub.payloads())

		held[0].Done(ServerUnavailable)
		later(2 * time.Second)
		require.Equal(t, []string{"x", "x"}, hook.seen(), "it was not on disk there")
		store.failWith(errDisk)
		held[1].Done(Success)
		later(time.Minute)
		require.Equal(t, 1, store.waiting())
		store.failWith(nil)
		later(time.Minute)
		require.Equal(t, []string{"x", "x"}, hook.seen(), "it is on disk there")
		require.Equal(t, []string{"x"}, sub.payloads())
		require.Zero(t, store.waiting())
	})
}

// Who cannot take a message holds up the messages of its publisher and topic,
// and nobody else's.
func TestDelayedIsTriedAgainInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Bool
		hook := &countingHook{answer: func(m *Message) Reason {
			if !free.Load() && m.Topic == "full" && string(m.Payload) == "a" {
				return QuotaExceeded
			}
			return Success
		}}
		b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{hook} })
		one, two := connect(t, b, "one"), connect(t, b, "two")
		require.Equal(t, Success, one.publish("$delayed/5/full", "a", 1))
		require.Equal(t, Success, one.publish("$delayed/5/full", "b", 1))
		require.Equal(t, Success, one.publish("$delayed/6/full", "c", 1))
		require.Equal(t, Success, one.publish("$delayed/5/free", "d", 1))
		require.Equal(t, Success, two.publish("$delayed/6/full", "e", 1))
		later(30 * time.Second)
		require.Equal(t, []string{"d", "e"}, hook.seen())
		require.Equal(t, 3, b.Stats().Delayed.Held)
		require.Greater(t, b.Stats().Delayed.Retries, uint64(3))
		require.Less(t, b.Stats().Delayed.Retries, uint64(10), "with a pause that grows")
		info := b.Delayed(0, 10)
		require.Len(t, info, 3)
		require.Equal(t, []Reason{QuotaExceeded, Success, Success}, []Reason{info[0].Reason, info[1].Reason, info[2].Reason})
		free.Store(true)
		later(time.Minute)
		require.Equal(t, []string{"d", "e", "a", "b", "c"}, hook.seen())
		require.Zero(t, b.Stats().Delayed.Held)
		require.Empty(t, b.delayed.lanes)
	})
}

// A recorder that loses one message must not let the next one overtake it.
func TestDelayedKeepsOrderWhenARecorderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var healthy atomic.Bool
		hook := &countingHook{later: func(p *Publication) {
			if !healthy.Load() && string(p.Message.Payload) == "a" {
				p.Done(ServerUnavailable)
				return
			}
			p.Done(Success)
		}}
		b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{hook} })
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		require.Equal(t, Success, pub.publish("$delayed/5/t", "a", 1))
		require.Equal(t, Success, pub.publish("$delayed/5/t", "b", 1))
		later(6 * time.Second)
		require.Empty(t, sub.payloads())
		healthy.Store(true)
		later(10 * time.Second)
		require.Equal(t, []string{"a", "b"}, sub.payloads())
		require.Equal(t, 1, strings.Count(fmt.Sprint(hook.seen()), "b"), "what is on disk there is not given again")
	})
}

func TestDelayedMeetsAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore(), func(c *Config) { c.Session.QueueBytes = 400 })
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		var want []string
		for i := range 10 { // two fit
			want = append(want, fmt.Sprint(i))
			require.Equal(t, Success, pub.publish("$delayed/5/t", want[i], 1))
		}
		later(10 * time.Second)
		require.Equal(t, 8, b.Stats().Delayed.Held)
		var got []string
		for range 10 {
			got = append(got, sub.payloads()...)
			later(time.Minute)
		}
		require.Equal(t, want, got)
		require.Zero(t, b.Stats().Delayed.Waiting)
	})
}

func TestDelayedExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		pub := connect(t, b, "pub")
		publish := func(seconds int, expiry time.Duration, qos QoS) {
			m := &Message{Topic: fmt.Sprintf("$delayed/%d/t", seconds), Payload: fmt.Append(nil, seconds), QoS: qos, Expires: time.Now().Add(expiry).UnixMilli()}
			require.Equal(t, Success, pub.publishMessage(m, 0))
		}
		publish(60, 10*time.Second, 1)
		publish(60, 10*time.Second, 0)
		publish(20, time.Minute, 1)
		later(11 * time.Second)
		require.Equal(t, uint64(2), b.Stats().Dropped["expired"], "they take no place until their time")
		require.Equal(t, 1, store.waiting())
		later(20 * time.Second)
		require.Equal(t, []string{"20"}, sub.payloads())
		require.Equal(t, uint64(1), b.Stats().Delayed.Published)
	})
}

func TestDelayedLimits(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Delayed = DelayedConfig{MaxMessages: 2, MaxBytes: 1000} })
	pub := connect(t, b, "pub")
	require.Equal(t, QuotaExceeded, pub.publish("$delayed/60/t", strings.Repeat("x", 1000), 1), "bytes")
	require.Equal(t, Success, pub.publish("$delayed/60/t", "", 1))
	require.Equal(t, Success, pub.publish("$delayed/60/t", "", 0))
	for qos := range QoS(3) {
		require.Equal(t, QuotaExceeded, pub.publish("$delayed/60/t", "", qos), "count")
	}
	require.Equal(t, uint64(4), b.Stats().Delayed.Refused)
	require.NoError(t, b.Close())

	b = newBroker(t, store, func(c *Config) { c.Delayed.MaxMessages = -1 })
	pub = connect(t, b, "pub")
	require.Equal(t, ImplementationError, pub.publish("$delayed/60/t", "", 1))
	require.Equal(t, 1, b.Stats().Delayed.Waiting, "what was acknowledged is still published")
}

func TestDeleteDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		var free atomic.Bool
		hook := &countingHook{answer: func(m *Message) Reason {
			if !free.Load() && m.Topic == "full" {
				return QuotaExceeded
			}
			return Success
		}}
		b := newBroker(t, store, func(c *Config) { c.Hooks = []Hook{hook} })
		pub := connect(t, b, "pub")
		for _, topic := range []string{"$delayed/60/t", "$delayed/1/full", "$delayed/1/full", "$delayed/1/full", "$delayed/70/t"} {
			require.Equal(t, Success, pub.publish(topic, topic, 1))
		}
		later(5 * time.Second)
		list := b.Delayed(0, math.MaxInt)
		require.Len(t, list, 5)
		require.Equal(t, list[2:4], b.Delayed(list[1].ID, 2))
		remove := func(id uint64) bool {
			ok, err := b.DeleteDelayed(t.Context(), id)
			require.NoError(t, err)
			return ok
		}
		require.True(t, remove(list[0].ID), "waits for its time")
		require.False(t, remove(list[0].ID))
		require.True(t, remove(list[2].ID), "waits behind another one")
		require.True(t, remove(list[1].ID), "is tried again")
		require.False(t, remove(1))
		require.Equal(t, 2, store.waiting())

		store.failWith(errDisk)
		ok, err := b.DeleteDelayed(t.Context(), list[4].ID)
		require.ErrorIs(t, err, errDisk)
		require.False(t, ok)
		store.failWith(nil)
		free.Store(true)
		later(2 * time.Minute)
		require.Equal(t, []string{"$delayed/1/full", "$delayed/70/t"}, hook.seen())

		require.Equal(t, Success, pub.publish("$delayed/1/t", "z", 1))
		hook.mu.Lock()
		hook.later = func(p *Publication) {
			require.False(t, remove(b.Delayed(0, 1)[0].ID), "it is being published")
			p.Done(Success)
		}
		hook.mu.Unlock()
		later(2 * time.Second)
		require.Contains(t, hook.seen(), "z")
	})
}

func TestDelayedWill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		sub := connect(t, b, "sub", durable)
		sub.subscribe("#", 1)
		mount, err := ParseMountpoint("site/")
		require.NoError(t, err)
		will := func(r *ConnectRequest) {
			r.Mountpoint = mount
			r.Will = &Will{Message: &Message{Topic: "$delayed/60/gone", Payload: []byte("w"), QoS: 1}}
		}
		connect(t, b, "pub", will).Close(Closing{})
		synctest.Wait()
		require.Equal(t, 1, store.waiting())
		require.Empty(t, sub.payloads())
		later(61 * time.Second)
		got := sub.take()
		require.Len(t, got, 1)
		require.Equal(t, "site/gone", got[0].Message.Topic)
		require.Equal(t, "pub", got[0].Message.ClientID)
	})
}

// What changes or refuses a message sees the real topic, once, and its
// publisher gets the answer.
func TestDelayedIsRewrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &seeingHook{}
		b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{seen} })
		sub := connect(t, b, "sub")
		sub.subscribe("#", 1)
		mount, err := ParseMountpoint("site/")
		require.NoError(t, err)
		pub := connect(t, b, "pub", func(r *ConnectRequest) { r.Mountpoint = mount })
		require.Equal(t, Success, pub.publish("$delayed/5/a", "x", 1))
		require.Equal(t, NotAuthorized, pub.publish("$delayed/5/secret", "x", 1))
		later(6 * time.Second)
		require.Equal(t, []string{"site/a", "site/secret"}, seen.topics)
		require.Equal(t, []string{"x!"}, sub.payloads())
	})
}

type seeingHook struct{ topics []string }

func (*seeingHook) Name() string { return "see" }
func (h *seeingHook) Rewrite(p *Publication) Reason {
	h.topics = append(h.topics, p.Message.Topic)
	if strings.HasSuffix(p.Message.Topic, "secret") {
		return NotAuthorized
	}
	m := *p.Message
	m.Payload = append(slices.Clone(m.Payload), '!')
	p.Message = &m
	return Success
}

// A clock that is set does not keep a message waiting.
func TestDelayedNoticesThatTheClockWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore())
		sub := connect(t, b, "sub")
		sub.subscribe("#", 1)
		require.Equal(t, Success, connect(t, b, "pub").publish("$delayed/4000000/t", "x", 1))
		b.delayed.mu.Lock()
		b.delayed.queue[0].at = nowMillis() + 1000 // as if the clock had gone on
		b.delayed.mu.Unlock()
		later(delayedWatch + time.Second)
		require.Equal(t, []string{"x"}, sub.payloads())
	})
}

// A retry gives the message to those that refused it, and to nobody else.
func TestDelayedReachesOneRecorderOnceWhileAnotherRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := &countingHook{}
		full := &countingHook{answer: func(*Message) Reason { return QuotaExceeded }}
		b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{healthy, full} })
		pub := connect(t, b, "pub")
		require.Equal(t, Success, pub.publish("$delayed/5/t", "x", 1))
		later(time.Hour)
		require.Equal(t, []string{"x"}, healthy.seen(), "once, however often the other one refuses")
	})
}

// A recorder that can never take a message loses it, counted; those behind it go on.
func TestDelayedThatCannotBeRecordedHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &countingHook{answer: func(m *Message) Reason {
			if string(m.Payload) == "large" {
				return PacketTooLarge
			}
			return Success
		}}
		b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{hook} })
		pub := connect(t, b, "pub")
		require.Equal(t, Success, pub.publish("$delayed/5/t", "large", 1))
		require.Equal(t, Success, pub.publish("$delayed/5/t", "small", 1))
		later(24 * time.Hour)
		require.Equal(t, []string{"small"}, hook.seen())
		require.Equal(t, uint64(1), b.Stats().Dropped["unsendable"])
		require.Zero(t, b.Stats().Delayed.Waiting)
	})
}
