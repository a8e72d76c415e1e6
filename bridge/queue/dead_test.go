package queue_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/bridge/queue"
	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

func TestBury(t *testing.T) {
	d := faultfs.New()
	cfg := queue.Config{FS: d, MaxBytes: 1 << 20, DeadMaxBytes: 256 << 10}
	q := open(t, cfg)
	require.NoError(t, put(q, record(1, 100)))
	require.Zero(t, q.Stats().DeadLetters)
	q.Reader(0)
	require.NoError(t, q.Bury(1, record(1, 100), "no such topic"))
	require.Equal(t, uint64(1), q.Stats().DeadLetters)
	require.Equal(t, uint64(1), q.Stats().Records, "burying does not confirm")
	snap, err := queue.InspectFS(d, "/queue")
	require.NoError(t, err)
	require.Equal(t, uint64(1), snap.DeadLetters)
	for letter, err := range snap.Dead() {
		require.NoError(t, err)
		require.Equal(t, uint64(1), letter.Seq)
		require.Equal(t, "no such topic", letter.Reason)
		require.Equal(t, record(1, 100), letter.Body)
		require.WithinDuration(t, time.Now(), letter.Time, time.Minute)
	}
	const more = 3000
	for i := range uint64(more) {
		require.NoError(t, q.Bury(i+2, record(i, 200), strings.Repeat("x", 1000)))
	}
	s := q.Stats()
	require.Equal(t, uint64(more+1), s.DeadLetters+s.Dropped[queue.DroppedDead])
	require.Positive(t, s.Dropped[queue.DroppedDead])
	require.LessOrEqual(t, d.UsedIn("/queue/dead"), int64(256<<10))
	require.NoError(t, q.Close())
	q = open(t, cfg)
	require.Equal(t, s.DeadLetters, q.Stats().DeadLetters)
}

// TestBuryIsDurable cuts the power right after Bury returned.
func TestBuryIsDurable(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 1 << 20, Sync: seglog.SyncNever})
	require.NoError(t, put(q, record(1, 100)))
	require.NoError(t, q.Bury(1, record(1, 100), "bad"))
	after := d.PowerCut(worst())
	_ = q.Close()
	snap, err := queue.InspectFS(after, "/queue")
	require.NoError(t, err)
	require.Equal(t, uint64(1), snap.DeadLetters)
}

func TestBuryFails(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 1 << 20})
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && strings.Contains(path, "/dead/") {
			return faultfs.ErrInjected
		}
		return nil
	})
	require.ErrorIs(t, q.Bury(1, record(1, 100), "bad"), faultfs.ErrInjected)
	d.Hook(nil)
	require.NoError(t, q.Bury(1, record(1, 100), "bad"))
	require.Equal(t, uint64(1), q.Stats().DeadLetters)
}
