package broker

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func withStrategy(s ShareStrategy) func(*Config) { return func(c *Config) { c.ShareStrategy = s } }

func receiveMaximum(n uint16) func(*ConnectRequest) {
	return func(r *ConnectRequest) { r.ReceiveMaximum = n }
}

// members connects clients a, b, c… with the same shared subscription.
func members(t testing.TB, b *Broker, n int, qos QoS, change ...func(*ConnectRequest)) []*client {
	t.Helper()
	all := make([]*client, n)
	for i := range all {
		all[i] = connect(t, b, string(rune('a'+i)), change...)
		all[i].subscribe("$share/g/t/#", qos)
	}
	return all
}

// all takes and completes what clients have got.
func all(clients ...*client) (got []string) {
	for _, c := range clients {
		got = append(got, c.payloads()...)
	}
	return got
}

func TestShareStrategies(t *testing.T) {
	const n = 300
	for strategy, check := range map[ShareStrategy]func(t *testing.T, got [][]Delivery){
		ShareRoundRobin: func(t *testing.T, got [][]Delivery) {
			for i, ds := range got {
				for k, d := range ds {
					require.Equal(t, strconv.Itoa(3*k+i), string(d.Message.Payload))
				}
			}
		},
		ShareRandom: func(t *testing.T, got [][]Delivery) {
			for _, ds := range got {
				require.InDelta(t, n/3, len(ds), 60) // seven times the deviation
			}
		},
		ShareSticky:       allToOne(n),
		ShareHashClientID: allToOne(n),
		ShareHashTopic: func(t *testing.T, got [][]Delivery) {
			owner := map[string]int{}
			for i, ds := range got {
				require.NotEmpty(t, ds)
				for _, d := range ds {
					topic := d.Message.Topic
					if _, known := owner[topic]; !known {
						owner[topic] = i
					}
					require.Equal(t, owner[topic], i, topic)
				}
			}
		},
	} {
		t.Run(string(strategy), func(t *testing.T) {
			b := newBroker(t, newMemStore(), withStrategy(strategy), func(c *Config) { c.Session.Inflight = n })
			group, pub := members(t, b, 3, 1), connect(t, b, "pub")
			for i := range n {
				require.Equal(t, Success, pub.publish(fmt.Sprint("t/", i%7), strconv.Itoa(i), 1))
			}
			got, total := make([][]Delivery, 3), 0
			for i, c := range group {
				got[i] = c.take()
				total += len(got[i])
			}
			require.Equal(t, n, total, "each message goes to exactly one member")
			check(t, got)
		})
	}
	require.Len(t, ShareStrategies(), 5)
}

func allToOne(n int) func(*testing.T, [][]Delivery) {
	return func(t *testing.T, got [][]Delivery) {
		require.True(t, slices.ContainsFunc(got, func(ds []Delivery) bool { return len(ds) == n }), "all to one")
	}
}

// A hash of the publisher spreads publishers, and comes to the same member
// after a restart.
func TestShareHashIsStable(t *testing.T) {
	owners := func() (names []string) {
		b := newBroker(t, newMemStore(), withStrategy(ShareHashClientID))
		group := members(t, b, 3, 0)
		for i := range 30 {
			connect(t, b, fmt.Sprint("pub", i)).publish("t", "x", 0)
			for _, c := range group {
				if len(c.payloads()) > 0 {
					names = append(names, c.ClientID())
				}
			}
		}
		return names
	}
	first := owners()
	require.Len(t, first, 30)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(first))), 3)
	require.Equal(t, first, owners())
}

func TestShareOfASlowMember(t *testing.T) {
	for strategy, want := range map[ShareStrategy]int{ShareRoundRobin: 2, ShareRandom: 2, ShareSticky: 20} {
		b := newBroker(t, newMemStore(), withStrategy(strategy))
		slow := connect(t, b, "slow", receiveMaximum(2))
		slow.subscribe("$share/g/t", 1)
		connect(t, b, "pub").publish("t", "0", 1) // sticky chooses it
		fast, pub := connect(t, b, "fast"), connect(t, b, "pub")
		fast.subscribe("$share/g/t", 1)
		fill(pub, "t", 1, 20)
		require.Equal(t, want, b.find("slow").queue.len(), "%s: what fits into its window", strategy)
		require.ElementsMatch(t, numbers(0, 20), all(slow, fast))
	}
}

func TestShareGoesToWhoIsHere(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	away, here, pub := connect(t, b, "away", durable), connect(t, b, "here"), connect(t, b, "pub")
	away.subscribe("$share/g/t", 1)
	here.subscribe("$share/g/t", 1)
	away.Close(Closing{})
	fill(pub, "t", 0, 10)
	require.Equal(t, numbers(0, 10), here.payloads())
	here.Close(Closing{})
	fill(pub, "t", 10, 20)
	require.Equal(t, 10, store.queued("away"), "durable, as nobody is here")
	require.Equal(t, NoSubscribers, pub.publish("t", "x", 0), "nobody keeps QoS 0")
	here = connect(t, b, "here")
	here.subscribe("$share/g/t", 1)
	fill(pub, "t", 20, 30)
	require.Equal(t, numbers(20, 30), here.payloads())
	require.Equal(t, numbers(10, 20), connect(t, b, "away", durable).payloads())
}

func TestShareNeverGoesToASessionThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore())
		defer b.Close()
		for i := range 4 {
			c := connect(t, b, fmt.Sprint("c", i), func(r *ConnectRequest) { r.Expiry = time.Minute })
			c.subscribe("$share/g/t", 1)
			if i < 3 {
				c.Close(Closing{})
			}
		}
		connect(t, b, "c3", durable).Close(Closing{})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		_, present := reconnect(t, b, "c0", durable)
		require.False(t, present)
		fill(connect(t, b, "pub"), "t", 0, 20)
		require.Equal(t, numbers(0, 20), connect(t, b, "c3", durable).payloads(), "the only one that is left")
		require.Equal(t, int64(1), b.router.groups.Load())
	})
}

func TestShareRefusesWhenNobodyHasRoom(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Session.QueueBytes = 1000 })
	members(t, b, 2, 1, durable)
	pub := connect(t, b, "pub")
	accepted := 0
	for pub.publish("t", "x", 1) == Success {
		accepted++
	}
	per := 1000 / (entryOverhead + 2)
	require.Equal(t, 2*per, accepted, "both are filled")
	require.Equal(t, QuotaExceeded, pub.publish("t", "x", 1))
	connect(t, b, "c", durable).subscribe("$share/g/t/#", 1)
	require.Equal(t, Success, pub.publish("t", "x", 1), "the new one has room")
}

func TestSharedSubscriptionOptions(t *testing.T) {
	b := newBroker(t, newMemStore())
	pub, c := connect(t, b, "pub"), connect(t, b, "c")
	pub.publishMessage(&Message{Topic: "t", Payload: []byte("kept"), Retain: true}, 0)
	c.subscribeWith(Subscription{Filter: "$share/g/t", QoS: 1, ID: 7, RetainAsPublished: true})
	require.Empty(t, c.take(), "no retained value for a shared subscription")

	c.subscribeWith(Subscription{Filter: "t", QoS: 2, ID: 8, RetainHandling: 2})
	c.subscribeWith(Subscription{Filter: "$share/other/+", ID: 9})
	pub.publishMessage(&Message{Topic: "t", Payload: []byte("x"), QoS: 2, Retain: true}, 0)
	got := map[uint32]Delivery{}
	for _, d := range c.take() {
		require.Len(t, d.SubscriptionIDs, 1)
		got[d.SubscriptionIDs[0]] = d
	}
	require.Len(t, got, 3, "the normal one and each shared one deliver")
	require.Equal(t, []QoS{1, 2, 0}, []QoS{got[7].QoS, got[8].QoS, got[9].QoS}, "the granted QoS of each [MQTT-4.8.2-3]")
	require.Equal(t, []bool{true, false, false}, []bool{got[7].Retain, got[8].Retain, got[9].Retain})

	c.Subscribe([]Subscription{{Filter: "$share/g/t", NoLocal: true}, {Filter: "$queue/t", NoLocal: true}}, func(r []Reason, _ []QoS) {
		require.Equal(t, []Reason{ProtocolError, ProtocolError}, r)
	})
	require.Equal(t, Success, c.publish("t", "own", 0), "own messages come too")
	c.Unsubscribe([]string{"$share/g/t", "$share/g/t", "$share/none/t"}, func(r []Reason) {
		require.Equal(t, []Reason{Success, NoSubscriptionExisted, NoSubscriptionExisted}, r)
	})
}

func TestQueueIsAShortFormOfAShare(t *testing.T) {
	b := newBroker(t, newMemStore())
	x, y, pub := connect(t, b, "x"), connect(t, b, "y"), connect(t, b, "pub")
	x.subscribe("$queue/t/#", 1)
	y.subscribe("$share/$queue/t/#", 1)
	fill(pub, "t", 0, 10)
	require.Equal(t, 5, b.find("x").queue.len())
	require.ElementsMatch(t, numbers(0, 10), all(x, y))
	y.Unsubscribe([]string{"$queue/t/#"}, func(r []Reason) { require.Equal(t, []Reason{Success}, r) })
	x.Unsubscribe([]string{"$share/$queue/t/#"}, func(r []Reason) { require.Equal(t, []Reason{Success}, r) })
	require.Equal(t, NoSubscribers, pub.publish("t", "x", 1))
	require.Zero(t, b.router.groups.Load())
	require.Empty(t, b.router.root.children, "nothing is left of it")
	for _, bad := range []string{"$queue/", "$queue/a#", "$share/$queue/", "$share/$queue"} {
		require.Error(t, ValidFilter(bad), bad)
	}
	require.NoError(t, ValidFilter("$queue"), "only a topic of that name")
}

func TestShareGroups(t *testing.T) {
	b := newBroker(t, newMemStore())
	pub := connect(t, b, "pub")
	one, two, three := connect(t, b, "1"), connect(t, b, "2"), connect(t, b, "3")
	one.subscribe("$share/g/t/#", 1)
	two.subscribe("$share/h/t/#", 1) // another group
	three.subscribe("$share/g/t", 1) // another filter: another subscription
	fill(pub, "t", 0, 5)
	for _, c := range []*client{one, two, three} {
		require.Equal(t, numbers(0, 5), c.payloads())
	}
	one.subscribe("$share/all/#", 1)
	require.Equal(t, NoSubscribers, pub.publish("$x/y", "x", 1), "a leading wildcard matches no $ topic")
	require.Equal(t, Success, pub.publish("u", "x", 1))
	require.Equal(t, 4, b.Stats().Subscriptions)
	one.subscribe("$share/all/#", 0) // replaced
	require.Equal(t, 4, b.Stats().Subscriptions)
	one.payloads()
	pub.publish("u", "x", 1)
	require.Equal(t, QoS(0), one.take()[0].QoS)
}

// Retained messages are matched twice; the choice is made once.
func TestShareOfRetainedMessagesIsFair(t *testing.T) {
	b := newBroker(t, newMemStore())
	group, pub := members(t, b, 2, 1), connect(t, b, "pub")
	for i := range 10 {
		pub.publishMessage(&Message{Topic: "t", Payload: []byte{byte(i)}, QoS: 1, Retain: true}, 0)
	}
	require.Len(t, group[0].take(), 5)
	require.Len(t, group[1].take(), 5)
}
