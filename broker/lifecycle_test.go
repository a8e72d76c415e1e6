package broker

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func cleanStart(r *ConnectRequest) { r.CleanStart = true }

// send publishes and returns where the outcome will be.
func (c *client) send(ctx context.Context, m *Message, id uint16) chan Reason {
	done := make(chan Reason, 1)
	c.Publish(ctx, m, id, func(r Reason) { done <- r })
	return done
}

func TestWillsAndInjectedMessagesAreRoutedAsRewritten(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{rewritingHook{}} })
	watch := connect(t, b, "watch")
	watch.subscribe("new/#", 1)
	connect(t, b, "c", func(r *ConnectRequest) { r.Will = &Will{Message: &Message{Topic: "w", Payload: []byte("will")}} }).Close(Closing{})
	var got Reason
	b.Inject(NoWait, &Message{Topic: "i", Payload: []byte("injected"), QoS: 1}, func(r Reason) { got = r })
	require.Equal(t, Success, got)
	require.Equal(t, []string{"will", "injected"}, watch.payloads())
}

func TestWillMayNotBelongToTheBroker(t *testing.T) {
	b := newBroker(t, newMemStore())
	for topic, want := range map[string]Reason{"$SYS/x": NotAuthorized, "a/#": InvalidTopic, "": InvalidTopic} {
		_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Will: &Will{Message: &Message{Topic: topic}}})
		require.Equal(t, want, ReasonOf(err), topic)
	}
	_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Will: &Will{Message: &Message{Topic: "w", QoS: 3}}})
	require.Equal(t, QoSNotSupported, ReasonOf(err))
}

func TestLateReleaseOfAnOldConnectionTouchesNothing(t *testing.T) {
	b := newBroker(t, newMemStore())
	sub, old := connect(t, b, "sub"), connect(t, b, "pub", durable)
	sub.subscribe("t", 2)
	next := connect(t, b, "pub", durable)
	next.publishMessage(&Message{Topic: "t", Payload: []byte("x"), QoS: 2}, 5)
	old.Release(5, func(r Reason) { require.Equal(t, Closed, r) })
	next.publishMessage(&Message{Topic: "t", Payload: []byte("x"), QoS: 2}, 5)
	require.Equal(t, []string{"x"}, sub.payloads())
}

func TestReleaseThatTheStoreRefusedStaysOpen(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	pub := connect(t, b, "pub", durable)
	pub.publishMessage(&Message{Topic: "t", QoS: 2}, 5)
	var got Reason
	record := func(r Reason) { got = r }
	store.err = errDisk
	pub.Release(5, record)
	require.Equal(t, ServerUnavailable, got)
	store.err = nil
	pub.Release(5, record)
	require.Equal(t, Success, got)
	require.Empty(t, store.state["pub"].inbound)
}

func TestQoS2RefusedByARecorderIsForgottenByTheStoreToo(t *testing.T) {
	store, rec := newMemStore(), &recordingHook{}
	b := newBroker(t, store, func(c *Config) { c.Hooks = []Hook{rec} })
	pub := connect(t, b, "pub", durable)
	done := pub.send(context.Background(), &Message{Topic: "t", QoS: 2}, 5)
	duplicate := pub.send(context.Background(), &Message{Topic: "t", QoS: 2}, 5)
	require.Empty(t, duplicate, "no outcome yet")
	rec.release(QuotaExceeded)
	require.Equal(t, QuotaExceeded, <-done)
	require.Equal(t, QuotaExceeded, <-duplicate)
	require.Empty(t, store.state["pub"].inbound, "a new message under 5 would be swallowed after a restart")
}

// pausingStore lets a test hold one batch back before the store has it.
func pausingStore(held func(*Batch) bool) (store *memStore, entered, goOn chan struct{}) {
	store, entered, goOn = newMemStore(), make(chan struct{}), make(chan struct{})
	store.onCommit = func(b *Batch, taken bool) {
		if !taken && held(b) {
			close(entered)
			<-goOn
		}
	}
	return store, entered, goOn
}

func has(b *Batch, kind OpKind) bool {
	return slices.ContainsFunc(b.Ops, func(o Op) bool { return o.Kind == kind })
}

func TestCleanStartEndsBehindWhatIsOnItsWayToTheStore(t *testing.T) {
	for name, tc := range map[string]struct {
		kind OpKind
		act  func(t *testing.T, b *Broker, old *client)
	}{
		"publish to it": {OpEnqueue, func(t *testing.T, b *Broker, _ *client) { connect(t, b, "p").publish("t", "stale", 1) }},
		"subscribe": {OpSubscribe, func(_ *testing.T, _ *Broker, c *client) {
			c.Subscribe([]Subscription{{Filter: "x"}}, func([]Reason, []QoS) {})
		}},
		"unsubscribe": {OpUnsubscribe, func(_ *testing.T, _ *Broker, c *client) { c.Unsubscribe([]string{"t"}, func([]Reason) {}) }},
		"QoS 2 publish": {OpInbound, func(_ *testing.T, _ *Broker, c *client) {
			c.send(context.Background(), &Message{Topic: "u", QoS: 2}, 7)
		}},
		"QoS 2 released": {OpInboundDone, func(_ *testing.T, _ *Broker, c *client) { c.Release(3, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			store, entered, goOn := pausingStore(func(b *Batch) bool { return has(b, tc.kind) })
			b := newBroker(t, store)
			old := connect(t, b, "c", durable)
			hook := store.onCommit
			store.onCommit = nil
			old.subscribe("t", 1)
			old.publishMessage(&Message{Topic: "u", QoS: 2}, 3)
			store.onCommit = hook

			acted, connected := make(chan struct{}), make(chan struct{})
			go func() { defer close(acted); tc.act(t, b, old) }()
			<-entered
			go func() {
				defer close(connected)
				_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Protocol: "mqtt", Expiry: NeverExpires, CleanStart: true})
				if err != nil {
					t.Error(err)
				}
			}()
			require.Equal(t, TakenOver, <-old.kicked)
			close(goOn)
			<-acted
			<-connected
			c := store.state["c"]
			require.Empty(t, c.queue)
			require.Empty(t, c.subs)
			require.Empty(t, c.inbound)
		})
	}
}

func TestSequenceNumbersAreNotUsedAgainAfterCleanStart(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	old, pub := connect(t, b, "c", durable), connect(t, b, "pub")
	old.subscribe("t", 1)
	fill(pub, "t", 0, 3)
	next := connect(t, b, "c", durable, cleanStart)
	next.subscribe("t", 1)
	fill(pub, "t", 3, 4)
	d := next.take()
	require.Equal(t, uint16(1), d[0].PacketID)
	b.find("c").settle(1) // as if the acknowledgement of the old one came only now
	require.Equal(t, 1, store.queued("c"))
}

func TestRetainedChangeReachesWhoSubscribesMeanwhile(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{subscribingHook{}} })
	pub, sub := connect(t, b, "pub"), connect(t, b, "sub")
	pub.publishMessage(&Message{Topic: "t", Payload: []byte("old"), QoS: 1, Retain: true}, 0)
	b.recorders[0] = subscribingHook{func() { sub.subscribe("t", 1) }} // between matching and retaining
	pub.publishMessage(&Message{Topic: "t", Payload: []byte("new"), QoS: 1, Retain: true}, 0)
	got := sub.payloads()
	require.Equal(t, "new", got[len(got)-1], "it must not be left with the old value")
}

type subscribingHook struct{ act func() }

func (subscribingHook) Name() string { return "subscribe" }
func (h subscribingHook) Record(context.Context, *Publication) Reason {
	if h.act != nil {
		h.act()
	}
	return Success
}

func TestRefusedRetainedMessageLeavesTheOldValue(t *testing.T) {
	for _, busy := range []bool{false, true} {
		for _, payload := range []string{"new", ""} {
			store := newMemStore()
			b := newBroker(t, store)
			pub := connect(t, b, "pub")
			refuse := func(on bool) {
				store.busy = busy && on
				store.err = nil
				if on && !busy {
					store.err = errDisk
				}
			}
			retain := func(topic, payload string) Reason {
				return <-pub.send(NoWait, &Message{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: true}, 0)
			}
			retain("t", "old")
			refuse(true)
			require.False(t, retain("t", payload).OK())
			require.False(t, retain("u/v", "first").OK())
			m, _ := pub.Retained("t")
			require.Equal(t, "old", string(m.Payload))
			m, _ = pub.Retained("u/v")
			require.Nil(t, m)
			require.Equal(t, int64(1), b.Stats().Retained)
			require.Equal(t, store.kept["t"].StoredSize(), b.Stats().RetainedBytes)
		}
	}
}

func TestRetainedWriterThatMayNotBlockDoesNotWaitForOneThatDoes(t *testing.T) {
	store, entered, goOn := pausingStore(func(b *Batch) bool { return has(b, OpRetain) })
	b := newBroker(t, store)
	slow, quick := connect(t, b, "slow"), connect(t, b, "quick")
	var done chan Reason
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		done = slow.send(context.Background(), &Message{Topic: "t", Payload: []byte("x"), QoS: 1, Retain: true}, 0)
	}()
	<-entered
	require.Equal(t, ServerBusy, <-quick.send(NoWait, &Message{Topic: "t", Payload: []byte("y"), QoS: 1, Retain: true}, 0))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.Equal(t, ServerBusy, <-quick.send(ctx, &Message{Topic: "t", Payload: []byte("y"), QoS: 1, Retain: true}, 0))
	close(goOn)
	<-finished
	require.Equal(t, Success, <-done)
}

func TestNobodyHasGotAMessageThatTheStoreDidNotTake(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	away, here, pub := connect(t, b, "away", durable), connect(t, b, "here"), connect(t, b, "pub")
	away.subscribe("t", 1)
	here.subscribe("t", 1)
	store.busy = true
	require.Equal(t, ServerBusy, <-pub.send(NoWait, &Message{Topic: "t", QoS: 1}, 0))
	require.Empty(t, here.payloads(), "the publisher sends it again")
	require.Empty(t, away.payloads())
	require.Empty(t, b.find("away").reserved)
}

func TestTimersOfAnEarlierAbsenceDoNothing(t *testing.T) {
	b := newBroker(t, newMemStore())
	will := func(r *ConnectRequest) {
		r.Expiry, r.Will = time.Hour, &Will{Message: &Message{Topic: "w"}, Delay: time.Minute}
	}
	watch := connect(t, b, "watch")
	watch.subscribe("w", 0)
	connect(t, b, "c", will).Close(Closing{})
	earlier := b.find("c").epoch
	connect(t, b, "c", will).Close(Closing{})
	b.willDue(b.find("c"), earlier) // as if it had waited for the lock meanwhile
	b.expired(b.find("c"), earlier)
	require.Empty(t, watch.take())
	_, present := reconnect(t, b, "c", will)
	require.True(t, present)
}

func TestDisconnectSetsTheExpiryButCannotMakeASessionDurable(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.Session.MaxExpiry = time.Hour })
	day, none := 24*time.Hour, time.Duration(0)
	c := connect(t, b, "c")
	c.subscribe("t", 1)
	c.Close(Closing{Expiry: &day})
	_, known := b.Session("c")
	require.False(t, known)
	connect(t, b, "d", func(r *ConnectRequest) { r.Expiry = time.Minute }).Close(Closing{Expiry: &day})
	d, _ := b.Session("d")
	require.Equal(t, time.Hour, d.Expiry, "the cap applies")
	connect(t, b, "d", durable).Close(Closing{Expiry: &none})
	_, known = b.Session("d")
	require.False(t, known)
	require.False(t, store.has("d"))
}

func TestWhatAReceiverLosesWithItsSessionIsCounted(t *testing.T) {
	b := newBroker(t, newMemStore(), smallMemory)
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 1)
	pub.publish("t", "x", 1)
	require.Len(t, sub.take(), 1)
	fill(pub, "t", 0, 3)
	pub.publish("t", "x", 0)
	b.cfg.Session.MemoryBytes = 1 << 20
	pub.publish("t", "x", 0)
	none := time.Duration(0)
	sub.Close(Closing{Expiry: &none})
	require.Equal(t, uint64(1), b.Stats().Dropped["disconnected"])
	require.Equal(t, uint64(1), b.Stats().Dropped["queue_full"])
	require.Equal(t, uint64(4), b.Stats().Dropped["session_ended"])
}

func TestSessionsOfAListenerThatStoppedStillExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		defer b.Close()
		watch := connect(t, b, "watch")
		watch.subscribe("w", 0)
		c := connect(t, b, "c", func(r *ConnectRequest) {
			r.Expiry, r.Will = time.Hour, &Will{Message: &Message{Topic: "w"}}
		})
		c.Close(Closing{Reason: ShuttingDown})
		require.Empty(t, watch.take(), "the client comes back to the next process")
		time.Sleep(willGrace + time.Second)
		synctest.Wait()
		require.Len(t, watch.take(), 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.False(t, store.has("c"))
	})
}

func TestOwnFullQueueDoesNotStopAPublisher(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Session.QueueBytes = 1000 })
	c := connect(t, b, "c", durable)
	c.subscribe("own", 1)
	c.subscribeWith(Subscription{Filter: "deaf", QoS: 1, NoLocal: true})
	r := Success
	for r == Success {
		r = c.publish("own", "x", 1)
	}
	require.Equal(t, QuotaExceeded, r, "refused, not stuck")
	require.NotEqual(t, QuotaExceeded, c.publish("deaf", "x", 1), "this one does not go to that queue")
	require.Equal(t, NoSubscribers, c.publish("deaf", "x", 1))
	require.NotEmpty(t, c.payloads())
	require.Equal(t, Success, c.publish("own", "x", 1))
}

func TestMessageTooLargeForItsReceiverIsPassedOver(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
	sub.subscribe("t", 2)
	pub.publish("t", "big", 2)
	pub.publish("t", "small", 2)
	big := sub.Next(make([]Delivery, 0, 1))[0]
	sub.Discard(big, DropTooLarge)
	require.Equal(t, []string{"small"}, sub.payloads())
	require.Equal(t, uint64(1), b.Stats().Dropped["too_large"])
	require.Zero(t, store.queued("sub"), "it does not come again")
}

func TestFailedReceiverEndsAQoS2Delivery(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	sub, pub := connect(t, b, "sub", durable, func(r *ConnectRequest) { r.ReceiveMaximum = 1 }), connect(t, b, "pub")
	sub.subscribe("t", 2)
	pub.publish("t", "refused", 2)
	pub.publish("t", "next", 2)
	d := sub.take()[0]
	sub.Received(d.PacketID, true, func(Reason) { t.Error("no PUBREL belongs to it") })
	require.Equal(t, []string{"next"}, sub.payloads())
	require.Zero(t, store.queued("sub"))
}

func TestPacketIdentifierIsNotGivenTwiceWhileItIsOutstanding(t *testing.T) {
	b := newBroker(t, newMemStore(), func(c *Config) { c.Session.Inflight, c.Session.MemoryBytes = packetIDs, 1<<30 })
	sub, pub := connect(t, b, "sub"), connect(t, b, "pub")
	sub.subscribe("t", 1)
	pub.publish("t", "first", 1)
	first := sub.take()[0]
	buf, m := make([]Delivery, 0, 1), Message{Topic: "t", QoS: 1, Time: 1}
	for range packetIDs + 10 {
		next := m
		pub.Publish(NoWait, &next, 0, nil)
		for _, d := range sub.Next(buf) {
			if d.PacketID == first.PacketID || sub.Acked(d.PacketID) != Success {
				t.Fatalf("identifier %d", d.PacketID)
			}
		}
	}
	require.Equal(t, Success, sub.Acked(first.PacketID))
	require.Len(t, sub.payloads(), 11, "what had to wait for the identifier")
}

func TestConnectFailsWhenItsSessionCannotBeStored(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	store.err = errDisk
	_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Expiry: time.Hour})
	require.Equal(t, ServerUnavailable, ReasonOf(err))
	require.ErrorIs(t, err, errDisk)
	info, known := b.Session("c")
	require.True(t, !known || !info.Connected)
	store.err = nil
	store.hold(true)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, _, err = b.Connect(ctx, &ConnectRequest{ClientID: "c", Expiry: time.Hour})
	require.ErrorIs(t, err, context.Canceled)
	store.hold(false)
	_, present := reconnect(t, b, "c", durable)
	require.True(t, present)
}

func TestMatchCacheIsBounded(t *testing.T) {
	b := newBroker(t, newMemStore())
	pub := connect(t, b, "pub")
	for i := range matchCacheTargets {
		connect(t, b, rand.Text()).subscribe("few/"+strconv.Itoa(i%2), 0)
	}
	for i := range 10 * matchCacheTopics {
		pub.publish("few/"+strconv.Itoa(i), "x", 0)
		require.LessOrEqual(t, len(pub.cache.topics), matchCacheTopics)
	}
	for range matchCacheTargets + 1 {
		connect(t, b, rand.Text()).subscribe("many", 0)
	}
	pub.publish("many", "x", 0)
	require.NotContains(t, pub.cache.topics, "many")
	require.Equal(t, 2*matchCacheTargets+1, b.Stats().Queued, "and everybody has got it")
}

func TestNothingIsDeliveredBeforeTheAnswerToConnect(t *testing.T) {
	b := newBroker(t, newMemStore())
	first, pub := connect(t, b, "c", durable), connect(t, b, "pub")
	first.subscribe("t", 1)
	woken := make(chan struct{}, 10)
	s, present, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Expiry: NeverExpires, Wake: func() { woken <- struct{}{} }})
	require.NoError(t, err)
	require.True(t, present)
	for qos := range QoS(3) {
		pub.publish("t", "x", qos)
	}
	require.Empty(t, s.Next(make([]Delivery, 0, 10)))
	require.Empty(t, woken)
	s.Start()
	require.Len(t, woken, 1)
	require.Len(t, s.Next(make([]Delivery, 0, 10)), 3)
}

func TestCompletionsThatTheStoreCouldNotWriteAreToldAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		defer b.Close()
		sub, pub := connect(t, b, "sub", durable), connect(t, b, "pub")
		sub.subscribe("t", 1)
		for range 3 {
			require.Equal(t, Success, pub.publish("t", "x", 1))
		}
		ds := sub.take()
		store.err = errDisk
		require.Equal(t, Success, sub.Acked(ds[0].PacketID))
		store.err = nil
		require.Equal(t, Success, sub.Acked(ds[1].PacketID))
		require.Equal(t, 2, store.queued("sub"), "not in a loop")
		time.Sleep(2 * untoldRetry)
		require.Equal(t, Success, sub.Acked(ds[2].PacketID))
		require.Zero(t, store.queued("sub"))
	})
}

func TestTimeNotedByAnUnsetClockIsIgnored(t *testing.T) {
	store := newMemStore()
	store.session("c").record = SessionRecord{ClientID: "c", Expiry: time.Hour, DetachedAt: 5000, NextSeq: 1}
	store.session("old").record = SessionRecord{ClientID: "old", Expiry: time.Hour, DetachedAt: clockSet + 1, NextSeq: 1}
	b := newBroker(t, store)
	require.Eventually(t, func() bool { return !store.has("old") }, 10*time.Second, time.Millisecond, "its time is over")
	require.NotNil(t, b.find("c"))
}
