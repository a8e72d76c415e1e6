package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzDeadLetter decodes any bytes: no panic, and what decodes has the header that it was read from.
func FuzzDeadLetter(f *testing.F) {
	whole := append(DeadLetter{Seq: 7, Time: time.UnixMilli(1700000000123), Reason: "no such topic"}.header(), "body"...)
	for n := range len(whole) + 1 {
		f.Add(whole[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDead(b)
		if err != nil {
			require.ErrorIs(t, err, errDeadLetter)
			return
		}
		require.Equal(t, len(b), deadHeader+len(d.Reason)+len(d.Body))
		if len(d.Reason) <= maxReason {
			require.Equal(t, b[:deadHeader+len(d.Reason)], d.header())
		}
	})
}
