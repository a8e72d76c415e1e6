package broker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Changes of a retained value follow each other while the disk fails for some:
// memory ends with what the store has.
func TestRetainedFollowsTheStore(t *testing.T) {
	for _, changes := range []string{"ab", "a-", "-b", "--", "a-b", "-b-", "abc", "---"} { // - clears
		for outcome := range 1 << len(changes) {
			store := newMemStore()
			b := newBroker(t, store)
			pub := connect(t, b, "pub")
			send := func(value rune, got chan Reason) {
				m := &Message{Topic: "t", QoS: 1, Retain: true}
				if value != '-' {
					m.Payload = []byte(string(value))
				}
				pub.Publish(t.Context(), m, 0, func(r Reason) { got <- r })
			}
			got := make(chan Reason, 1+len(changes))
			send('0', got)
			require.True(t, (<-got).OK())
			store.hold(true)
			for _, value := range changes {
				send(value, got)
			}
			batch := 0
			store.mu.Lock()
			store.fail = func(*Batch) error {
				batch++
				if outcome>>(batch-1)&1 == 1 {
					return errDisk
				}
				return nil
			}
			store.mu.Unlock()
			store.hold(false)
			for range changes {
				<-got
			}
			stored, have := "", ""
			if m := store.kept["t"]; m != nil {
				stored = string(m.Payload)
			}
			if m := b.retainedValue("t"); m != nil {
				have = string(m.Payload)
			}
			require.Equal(t, stored, have, "%s, outcomes %b", changes, outcome)
			require.Empty(t, b.retained.changes.topics)
			require.Equal(t, int64(len(have)), b.retained.count.Load())
		}
	}
}
