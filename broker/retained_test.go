package broker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExpiredRetainedValuesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		b := newBroker(t, store)
		pub := connect(t, b, "pub")
		retain := func(topic string, life time.Duration) {
			m := &Message{Topic: topic, Payload: []byte("v"), QoS: 1, Retain: true}
			if life > 0 {
				m.Expires = time.Now().Add(life).UnixMilli()
			}
			require.Equal(t, Success, pub.publishMessage(m, 0))
		}
		for i := range 10 {
			retain(fmt.Sprint("short/", i), time.Duration(i+1)*time.Second)
		}
		retain("renewed", time.Second)
		retain("renewed", time.Hour)
		retain("renewed", 2*time.Hour)
		retain("shortened", time.Hour)
		retain("shortened", time.Second)
		retain("kept", 0)
		retain("now kept", time.Second)
		retain("now kept", 0)
		retain("cleared", time.Hour)
		pub.publishMessage(&Message{Topic: "cleared", Retain: true}, 0)
		require.Equal(t, 13, waitingExpiries(b), "one for each topic")

		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, int64(3), b.Stats().Retained)
		require.Len(t, store.kept, 3)
		require.Contains(t, store.kept, "renewed")
		require.Equal(t, 1, waitingExpiries(b))
		require.NoError(t, b.Close())

		b = newBroker(t, store)
		defer b.Close()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Len(t, store.kept, 2, "also after a restart")
		require.Zero(t, waitingExpiries(b))
	})
}

func waitingExpiries(b *Broker) int {
	b.expiries.mu.Lock()
	defer b.expiries.mu.Unlock()
	return max(len(b.expiries.queue), len(b.expiries.topics))
}
