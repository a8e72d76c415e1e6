package broker

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A queue may have filled the disk. Its client must be able to come and take
// what waits, or the disk stays full for ever.
func TestKeptSessionIsResumedWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		hour := func(r *ConnectRequest) { r.Expiry = time.Hour }
		sub := connect(t, b, "sub", hour)
		sub.subscribe("t", 1)
		sub.Close(Closing{})
		require.Equal(t, Success, connect(t, b, "pub").publish("t", "waits", 1))
		fail := func(err error) {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.err = err
		}
		fail(errDisk)
		sub, present := reconnect(t, b, "sub", hour)
		require.True(t, present)
		require.Equal(t, []string{"waits"}, sub.payloads())

		stored := func() int64 {
			store.mu.Lock()
			defer store.mu.Unlock()
			return store.state["sub"].record.DetachedAt
		}
		require.NotZero(t, stored(), "the record is still the one of its absence")
		fail(nil)
		time.Sleep(2 * saveRetry)
		require.Zero(t, stored(), "a restart would count the expiry from the old absence")
	})
}

// Messages for a session of which the store knows nothing would be gone after
// a restart.
func TestSessionThatWasNeverStoredIsNotResumedWhileTheStoreFails(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	store.err = errDisk
	for range 2 {
		_, _, err := b.Connect(context.Background(), &ConnectRequest{ClientID: "c", Expiry: time.Hour})
		require.Equal(t, ServerUnavailable, ReasonOf(err))
	}
}

func TestFailingStoreDoesNotFloodTheLog(t *testing.T) {
	var text bytes.Buffer
	store := newMemStore()
	b, err := New(context.Background(), Config{Authenticate: admitAll{}}, store, slog.New(slog.NewTextHandler(&text, nil)), nil)
	require.NoError(t, err)
	connect(t, b, "sub", durable).subscribe("t", 1)
	pub := connect(t, b, "pub")
	store.err = errDisk
	for range 1000 {
		require.False(t, pub.publish("t", "x", 1).OK())
	}
	require.NoError(t, b.Close())
	require.Equal(t, 1, strings.Count(text.String(), errDisk.Error()))
	require.EqualValues(t, 1000, b.Stats().StoreErrors)
}

// Two Subscribes of a new filter that both fail leave nothing; one that the store
// takes is enough to stay.
func TestSubscribesThatFailTogether(t *testing.T) {
	for _, failing := range [][]bool{{true, true}, {false, true}, {true, false}} {
		store := newMemStore()
		b := newBroker(t, store)
		one, two := connect(t, b, "one", durable), connect(t, b, "two", durable)
		store.hold(true)
		got := make(chan Reason, 2)
		for range failing {
			one.Subscribe([]Subscription{{Filter: "$exclusive/e", QoS: 1}}, func(r []Reason, _ []QoS) { got <- r[0] })
		}
		batches := 0
		store.mu.Lock()
		store.fail = func(*Batch) error {
			batches++
			if failing[batches-1] {
				return errDisk
			}
			return nil
		}
		store.mu.Unlock()
		store.hold(false)
		for _, fails := range failing {
			require.Equal(t, !fails, (<-got).OK())
		}
		store.mu.Lock()
		store.fail = nil
		store.mu.Unlock()
		stays := !failing[0] || !failing[1]
		require.Equal(t, stays, two.ask("$exclusive/e") == QuotaExceeded, failing)
		require.Equal(t, stays, len(one.state.subs) == 1, failing)
		require.Equal(t, stays, len(store.session("one").subs) == 1, failing)
	}
}
