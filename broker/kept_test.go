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

func maxKept(n int) func(*Config) { return func(c *Config) { c.Session.MaxKept = n } }

func refusedConnect(t *testing.T, b *Broker, id string) Reason {
	t.Helper()
	r := &ConnectRequest{ClientID: id}
	durable(r)
	_, _, err := b.Connect(t.Context(), r)
	return ReasonOf(err)
}

func TestKeptSessionsAreCapped(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, maxKept(2))
	connect(t, b, "away", durable).Close(Closing{})
	connect(t, b, "here", durable)
	require.Equal(t, QuotaExceeded, refusedConnect(t, b, "new"))
	require.NotContains(t, store.state, "new")
	require.Equal(t, 2, b.Stats().Kept)
	require.EqualValues(t, 1, b.Stats().RefusedKept)

	connect(t, b, "clean")
	_, present := reconnect(t, b, "away", durable)
	require.True(t, present, "a session that is kept is resumed")
	connect(t, b, "here", durable, cleanStart)
	connect(t, b, "here", durable, cleanStart) // a takeover
	require.Equal(t, 2, b.Stats().Kept, "the next session of a client has the place of the last")
	require.Equal(t, QuotaExceeded, refusedConnect(t, b, "clean"), "it had none")

	c, _ := reconnect(t, b, "away", cleanStart)
	require.Equal(t, 1, b.Stats().Kept, "ended for one that is not kept")
	c.Close(Closing{})
	connect(t, b, "new", durable)
	require.Equal(t, QuotaExceeded, refusedConnect(t, b, "away"))
	require.NoError(t, b.Close())

	b = newBroker(t, store, maxKept(1))
	require.Equal(t, 2, b.Stats().Kept, "more than the cap after a restart")
	require.Equal(t, QuotaExceeded, refusedConnect(t, b, "away"))
	_, present = reconnect(t, b, "here", durable)
	require.True(t, present)
	_, present = reconnect(t, b, "new", durable)
	require.True(t, present)
}

func TestExpiredSessionLeavesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore(), maxKept(1))
		defer b.Close()
		connect(t, b, "a", func(r *ConnectRequest) { r.Expiry = time.Minute }).Close(Closing{})
		require.Equal(t, QuotaExceeded, refusedConnect(t, b, "b"))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, b.Stats().Kept)
		c := connect(t, b, "b", durable)
		zero := time.Duration(0)
		c.Close(Closing{Expiry: &zero})
		require.Zero(t, b.Stats().Kept)
	})
}

// However many connect at once, the cap holds, and clients that are known are
// not refused.
func TestConcurrentConnectsCannotExceedTheCap(t *testing.T) {
	const limit, known = 20, 5
	b := newBroker(t, newMemStore(), maxKept(limit))
	for i := range known {
		connect(t, b, fmt.Sprint("known", i), durable)
	}
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 20 {
				r := &ConnectRequest{ClientID: fmt.Sprint("known", i%known), CleanStart: i%2 == 0}
				durable(r)
				if _, _, err := b.Connect(t.Context(), r); err != nil {
					t.Errorf("known client: %v", err)
				}
				if refusedConnect(t, b, fmt.Sprint(w, "/", i)) == Success {
					accepted.Add(1)
				}
				b.mu.Lock()
				if b.kept > limit {
					t.Errorf("%d sessions", b.kept)
				}
				b.mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, limit-known, accepted.Load())
	require.Equal(t, limit, b.Stats().Kept)
	require.Equal(t, limit, b.Stats().Sessions)
}
