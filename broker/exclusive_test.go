package broker

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// ask subscribes to one filter and returns the answer.
func (c *client) ask(filter string) Reason { return c.askWith(Subscription{Filter: filter, QoS: 1}) }

func (c *client) askWith(sub Subscription) Reason {
	answer := make(chan Reason, 1)
	c.Subscribe([]Subscription{sub}, func(r []Reason, _ []QoS) { answer <- r[0] })
	return <-answer
}

func (c *client) unsubscribe(filter string) Reason {
	answer := make(chan Reason, 1)
	c.Unsubscribe([]string{filter}, func(r []Reason) { answer <- r[0] })
	return <-answer
}

func TestExclusiveSubscriptionHasOneHolder(t *testing.T) {
	b := newBroker(t, newMemStore())
	first, second, pub := connect(t, b, "first", durable), connect(t, b, "second"), connect(t, b, "pub")
	pub.publishMessage(&Message{Topic: "e/1", Payload: []byte("kept"), QoS: 1, Retain: true}, 0)

	require.Equal(t, Success, first.ask("$exclusive/e/+"))
	require.Equal(t, []string{"kept"}, first.payloads(), "retained values come under their own topic")
	require.Equal(t, QuotaExceeded, second.ask("$exclusive/e/+"))
	require.Equal(t, Success, first.ask("$exclusive/e/+"), "the holder may subscribe again")
	first.payloads()
	require.Equal(t, Success, second.ask("e/+"), "the plain filter is free")
	require.Equal(t, Success, second.ask("$exclusive/e/#"), "and so is another one")
	second.payloads()
	require.Equal(t, Success, first.ask("e/+"), "also for the holder")
	first.payloads()

	require.Equal(t, Success, pub.publish("e/2", "x", 1))
	require.Equal(t, []string{"x"}, first.payloads(), "overlapping subscriptions deliver once")
	require.Equal(t, []string{"x"}, second.payloads())
	require.Equal(t, NoSubscriptionExisted, second.unsubscribe("$exclusive/e/+"))
	require.Equal(t, Success, first.unsubscribe("$exclusive/e/+"))
	require.Equal(t, NoSubscriptionExisted, first.unsubscribe("$exclusive/e/+"))
	require.Equal(t, Success, pub.publish("e/2", "y", 1))
	require.Equal(t, []string{"y"}, first.payloads(), "the plain subscription stays")
	require.Equal(t, Success, second.ask("$exclusive/e/+"))
	require.Equal(t, InvalidTopic, pub.publish("$exclusive/e/2", "z", 1))
}

func TestExclusiveFilterSyntax(t *testing.T) {
	for _, f := range []string{"$exclusive/a", "$exclusive/#", "$exclusive//", "$exclusive/$SYS/#", "$exclusive/$shared", "$exclusives"} {
		require.NoError(t, ValidFilter(f), f)
	}
	for _, f := range []string{
		"$exclusive", "$exclusive/", "$exclusive/a#", "$exclusive/$share/g/a", "$exclusive/$queue/a", "$exclusive/$exclusive/a",
		"$exclusive/$delayed/5/a", "$share/g/$exclusive/a", "$queue/$exclusive/a",
	} {
		require.Error(t, ValidFilter(f), f)
	}
	for f, want := range map[string]string{"$exclusive/a/+": "a/+", "$share/g/a": "a", "$queue/a": "a", "a": "a", "$exclusives/a": "$exclusives/a"} {
		require.Equal(t, want, MatchedFilter(f))
	}
}

func TestExclusiveSubscriptionIsFreedWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore())
		other := connect(t, b, "other")
		const f = "$exclusive/e"

		c := connect(t, b, "c")
		require.Equal(t, Success, c.ask(f))
		c.Close(Closing{})
		require.Equal(t, Success, other.ask(f), "ended with its connection")
		require.Equal(t, Success, other.unsubscribe(f))

		c = connect(t, b, "c", func(r *ConnectRequest) { r.Expiry = time.Minute })
		require.Equal(t, Success, c.ask(f))
		c.Close(Closing{})
		require.Equal(t, QuotaExceeded, other.ask(f), "a session that is away keeps it")
		connect(t, b, "c", func(r *ConnectRequest) { r.Expiry = time.Minute })
		require.Equal(t, QuotaExceeded, other.ask(f), "it came back")
		connect(t, b, "c", func(r *ConnectRequest) { r.CleanStart, r.Expiry = true, time.Minute })
		require.Equal(t, Success, other.ask(f), "taken over with a clean start")
		require.Equal(t, Success, other.unsubscribe(f))

		c = connect(t, b, "c", func(r *ConnectRequest) { r.Expiry = time.Minute })
		require.Equal(t, Success, c.ask(f))
		c.Close(Closing{})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, Success, other.ask(f), "expired")
	})
}

func TestExclusiveSubscriptionSurvivesARestart(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	require.Equal(t, Success, connect(t, b, "holder", durable).ask("$exclusive/e"))
	require.NoError(t, b.Close())

	b = newBroker(t, store)
	other := connect(t, b, "other", durable)
	require.Equal(t, QuotaExceeded, other.ask("$exclusive/e"))
	require.Equal(t, Success, connect(t, b, "holder", durable).unsubscribe("$exclusive/e"))
	require.Equal(t, Success, other.ask("$exclusive/e"))
}

// What the store does not take has no effect: a hold that was refused is free,
// one whose end was refused is not.
func TestExclusiveHoldFollowsTheStore(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	one, two := connect(t, b, "one", durable), connect(t, b, "two", durable)
	store.err = errDisk
	require.Equal(t, ServerUnavailable, one.ask("$exclusive/e"))
	store.err = nil
	require.Equal(t, Success, two.ask("$exclusive/e"))
	store.err = errDisk
	require.Equal(t, ServerUnavailable, two.unsubscribe("$exclusive/e"))
	store.err = nil
	require.Equal(t, QuotaExceeded, one.ask("$exclusive/e"), "a restart would find it with the other one")
	require.Equal(t, Success, two.unsubscribe("$exclusive/e"), "the end can be asked for again")
	require.Equal(t, Success, one.ask("$exclusive/e"))

	store.hold(true)
	left := make(chan Reason, 1)
	one.Unsubscribe([]string{"$exclusive/e"}, func(r []Reason) { left <- r[0] })
	again := make(chan Reason, 1)
	one.Subscribe([]Subscription{{Filter: "$exclusive/e"}}, func(r []Reason, _ []QoS) { again <- r[0] })
	store.hold(false)
	require.Equal(t, Success, <-left)
	require.Equal(t, Success, <-again)
	require.Equal(t, QuotaExceeded, two.ask("$exclusive/e"), "it has subscribed again meanwhile")
}

func TestStoredTwiceHasOneHolder(t *testing.T) {
	store := newMemStore()
	for _, id := range []string{"a", "b"} {
		s := store.session(id)
		s.record.Expiry = time.Hour
		s.subs["$exclusive/e"] = Subscription{Filter: "$exclusive/e", QoS: 1}
	}
	b := newBroker(t, store)
	a, bb := connect(t, b, "a", durable), connect(t, b, "b", durable)
	require.ElementsMatch(t, []Reason{Success, QuotaExceeded}, []Reason{a.ask("$exclusive/e"), bb.ask("$exclusive/e")})
	require.Equal(t, 1, len(store.session("a").subs)+len(store.session("b").subs))
}

// Many clients ask at the same moment, leave and come back, on a store that
// answers late and sometimes fails: there is never more than one holder.
func TestExclusiveStress(t *testing.T) {
	store := newAsyncStore(t, 20, 0.1)
	b := newBroker(t, store)
	var mu sync.Mutex
	held := map[string]string{}
	var granted int
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprint("client", i)
			for round := range 60 {
				s, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: id, Expiry: time.Duration(i%2) * time.Hour, CleanStart: true})
				if err != nil {
					continue // the store failed
				}
				f := fmt.Sprint("$exclusive/e/", round%3)
				answer := make(chan Reason, 1)
				s.Subscribe([]Subscription{{Filter: f, QoS: 1}}, func(r []Reason, _ []QoS) { answer <- r[0] })
				if <-answer == Success {
					mu.Lock()
					if held[f] != "" {
						t.Errorf("%s got %s, which %s holds", id, f, held[f])
					}
					held[f] = id
					granted++
					mu.Unlock()
					runtime.Gosched()
					mu.Lock()
					held[f] = ""
					mu.Unlock()
					if round%2 == 0 {
						s.Unsubscribe([]string{f}, func([]Reason) { answer <- Success })
						<-answer
					}
				}
				s.Close(Closing{Expiry: new(time.Duration)})
			}
		})
	}
	wg.Wait()
	require.Greater(t, granted, 20)
	b.exclusive.mu.Lock()
	defer b.exclusive.mu.Unlock()
	require.Empty(t, b.exclusive.filters)
	require.Empty(t, b.exclusive.held)
}

// TestExclusiveAgainstAModel compares with the rules in a map.
func TestExclusiveAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := newMemStore()
		b := newBroker(t, store)
		defer func() { require.NoError(t, b.Close()) }()
		clients := map[string]*client{}
		holder := map[string]string{}
		id := func() string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "client") }
		filter := func() string { return rapid.SampledFrom([]string{"$exclusive/x", "$exclusive/x/#"}).Draw(rt, "filter") }
		of := func(id string) *client {
			if clients[id] == nil {
				clients[id] = connect(t, b, id, durable)
			}
			return clients[id]
		}
		leave := func(id string) {
			for f, h := range holder {
				if h == id {
					delete(holder, f)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"subscribe": func(rt *rapid.T) {
				id, f := id(), filter()
				want := Success
				if h := holder[f]; h != "" && h != id {
					want = QuotaExceeded
				} else {
					holder[f] = id
				}
				require.Equal(rt, want, of(id).ask(f))
			},
			"unsubscribe": func(rt *rapid.T) {
				id, f := id(), filter()
				want := NoSubscriptionExisted
				if holder[f] == id {
					want = Success
					delete(holder, f)
				}
				require.Equal(rt, want, of(id).unsubscribe(f))
			},
			"take over": func(*rapid.T) { id := id(); clients[id] = connect(t, b, id, durable) },
			"end": func(*rapid.T) {
				id := id()
				of(id).Close(Closing{Expiry: new(time.Duration)})
				clients[id] = nil
				leave(id)
			},
			"clean start": func(*rapid.T) {
				id := id()
				clients[id] = connect(t, b, id, durable, func(r *ConnectRequest) { r.CleanStart = true })
				leave(id)
			},
			"restart": func(*rapid.T) {
				require.NoError(t, b.Close())
				b, clients = newBroker(t, store), map[string]*client{}
			},
		})
	})
}

// What the store still has stays held, however often it fails.
func TestExclusiveHoldOutlastsTwoFailures(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	one, two := connect(t, b, "one", durable), connect(t, b, "two", durable)
	require.Equal(t, Success, one.ask("$exclusive/e"))
	store.err = errDisk
	require.Equal(t, ServerUnavailable, one.unsubscribe("$exclusive/e"))
	require.Equal(t, ServerUnavailable, one.ask("$exclusive/e"))
	store.err = nil
	require.Len(t, store.session("one").subs, 1)
	require.Equal(t, QuotaExceeded, two.ask("$exclusive/e"), "the store still has it with the first one")
}
