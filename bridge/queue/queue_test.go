package queue_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/bridge/queue"
	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(i uint64, size int) []byte {
	b := make([]byte, max(size, 8))
	binary.LittleEndian.PutUint64(b, i)
	for j := 8; j < len(b); j++ {
		b[j] = byte(i) + byte(j)
	}
	return b
}

func number(t testing.TB, rec []byte) uint64 {
	t.Helper()
	i := binary.LittleEndian.Uint64(rec)
	require.Equal(t, record(i, len(rec)), rec)
	return i
}

func open(t testing.TB, cfg queue.Config) *queue.Queue {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = "/queue"
	}
	cfg.Name = "test"
	q, err := queue.Open(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// put appends and waits for the commit.
func put(q *queue.Queue, rec []byte) error {
	done := make(chan error, 1)
	if err := q.Append(context.Background(), rec, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// drain reads and confirms all that is there.
func drain(t testing.TB, q *queue.Queue) (numbers []uint64) {
	t.Helper()
	r := q.Reader(q.Frontier())
	for {
		seq, rec, err := r.Next()
		if err == io.EOF { //nolint:errorlint // the contract is io.EOF itself
			return numbers
		}
		require.NoError(t, err)
		numbers = append(numbers, number(t, rec))
		q.Confirm(seq + 1)
	}
}

func dropped(s queue.Stats) (n uint64) {
	for reason, v := range s.Dropped {
		if reason != queue.DroppedDead {
			n += v
		}
	}
	return n
}

func eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	require.Eventually(t, cond, 10*time.Second, time.Millisecond, what)
}

func TestOrderStatsReopen(t *testing.T) {
	cfg := queue.Config{Dir: t.TempDir(), MaxBytes: 4 << 20}
	q := open(t, cfg)
	require.Zero(t, q.Stats().OldestAge)
	began := time.Now()
	for i := range uint64(1000) {
		require.NoError(t, put(q, record(i, 100)))
	}
	s := q.Stats()
	frame := seglog.FrameSize(108)
	require.Equal(t, uint64(1000), s.Records)
	require.Equal(t, 1000*frame, s.Bytes)
	require.Equal(t, uint64(1000), s.Appended)
	require.Equal(t, int64(4<<20), s.MaxBytes)
	require.WithinDuration(t, began, s.Oldest, time.Second)
	require.Positive(t, s.OldestAge)

	r := q.Reader(0)
	for i := range uint64(600) {
		seq, rec, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, i, number(t, rec))
		require.WithinDuration(t, time.Now(), r.Time(), time.Minute)
		q.Confirm(seq + 1)
	}
	s = q.Stats()
	require.Equal(t, uint64(400), s.Records)
	require.Equal(t, 400*frame, s.Bytes)
	require.Equal(t, uint64(600), s.Confirmed)
	require.NoError(t, q.Close())
	require.NoError(t, q.Close())
	_, _, err := r.Next()
	require.ErrorIs(t, err, queue.ErrClosed)
	require.ErrorIs(t, q.Append(context.Background(), record(1, 8), nil), queue.ErrClosed)
	require.ErrorIs(t, q.Bury(1, nil, ""), queue.ErrClosed)

	q = open(t, cfg)
	s = q.Stats()
	require.Equal(t, uint64(400), s.Records)
	require.Equal(t, 400*frame, s.Bytes)
	got := drain(t, q)
	require.Len(t, got, 400)
	require.Equal(t, uint64(600), got[0])
	require.Zero(t, q.Stats().Records)
	require.Zero(t, q.Stats().Bytes)
	require.Zero(t, q.Stats().OldestAge)
}

func TestBadConfig(t *testing.T) {
	for want, cfg := range map[string]queue.Config{
		"no folder":               {MaxBytes: 1 << 20},
		"is below":                {Dir: "x", MaxBytes: 1000},
		"two segments":            {Dir: "x", MaxBytes: 1 << 20, SegmentBytes: 1 << 20},
		"unknown policy":          {Dir: "x", MaxBytes: 1 << 20, WhenFull: "explode"},
		"dead letters":            {Dir: "x", MaxBytes: 1 << 20, DeadMaxBytes: 1},
		"must not be":             {Dir: "x", MaxBytes: 1 << 20, MaxWaitBytes: -1},
		"segment size 131 is out": {Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 131},
	} {
		_, err := queue.Open(cfg, nil)
		require.ErrorContains(t, err, want)
	}
}

func TestTooLarge(t *testing.T) {
	q := open(t, queue.Config{FS: faultfs.New(), MaxBytes: 256 << 10})
	require.ErrorIs(t, put(q, record(1, 64<<10)), queue.ErrTooLarge)
	require.NoError(t, put(q, record(2, 60<<10)))
	require.NoError(t, put(q, nil), "an empty record is a record")
}

func TestCommitErrorReachesDone(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 1 << 20})
	require.NoError(t, put(q, record(1, 100)))
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && strings.HasSuffix(path, ".seg") {
			return faultfs.ErrInjected
		}
		return nil
	})
	require.ErrorIs(t, put(q, record(2, 100)), faultfs.ErrInjected)
	require.ErrorIs(t, q.Writable(), faultfs.ErrInjected)
	require.Equal(t, uint64(1), q.Stats().Failed)
	d.Hook(nil)
	require.NoError(t, put(q, record(3, 100)))
	require.NoError(t, q.Writable())
	require.Equal(t, []uint64{1, 3}, drain(t, q))
}

func TestInspectWhileInUse(t *testing.T) {
	q := open(t, queue.Config{Dir: t.TempDir(), MaxBytes: 1 << 20})
	for i := range uint64(100) {
		require.NoError(t, put(q, record(i, 100)))
	}
	q.Reader(0)
	q.Confirm(41)
	eventually(t, func() bool {
		snap, err := queue.Inspect(q.Dir())
		return err == nil && snap.Frontier == 41
	}, "the frontier is saved")
	snap, err := queue.Inspect(q.Dir())
	require.NoError(t, err)
	require.Equal(t, uint64(60), snap.Records)
	require.Positive(t, snap.Bytes)
	require.Equal(t, q.Stats().Bytes, snap.Bytes, "a running gateway and one that is off say the same")
	i := uint64(40)
	for rec, err := range snap.All() {
		require.NoError(t, err)
		require.Equal(t, i, number(t, rec.Body))
		require.Equal(t, i+1, rec.Seq)
		require.WithinDuration(t, time.Now(), rec.Time, time.Minute)
		i++
	}
	require.Equal(t, uint64(100), i)
	for letter, err := range snap.Dead() {
		t.Fatalf("there are no dead letters, got %v, %v", letter, err)
	}
}

// TestDamageIsCounted flips bits in records: the receiver gets the rest, the loss is counted once, and the queue runs empty.
func TestDamageIsCounted(t *testing.T) {
	d := faultfs.New()
	cfg := queue.Config{FS: d, MaxBytes: 4 << 20}
	q := open(t, cfg)
	for i := range uint64(2000) {
		require.NoError(t, put(q, record(i, 200)))
	}
	require.NoError(t, q.Close())
	snap, err := seglog.InspectFS(d, "/queue")
	require.NoError(t, err)
	frame := int(seglog.FrameSize(208))
	for k, seg := range snap.Segments {
		b, err := d.ReadFile(seg.Path)
		require.NoError(t, err)
		b[seglog.HeaderSize+20] ^= 1               // its first record
		b[seglog.HeaderSize+(10+k)*frame+50] ^= 1  // one inside
		b[seglog.HeaderSize+(11+k)*frame+100] ^= 1 // and its neighbour
		if k < len(snap.Segments)-1 {
			b[len(b)-20] ^= 1 // its last; in the newest file that would be a torn tail
		}
		d.WriteFile(seg.Path, b)
	}
	bad := uint64(4*len(snap.Segments) - 1)
	q = open(t, cfg)
	for range 2 { // reading twice counts once
		r := q.Reader(0)
		n := uint64(0)
		for {
			_, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 2000-bad, n)
		require.Equal(t, bad, q.Stats().Dropped[queue.DroppedDamaged])
		require.Equal(t, 2000-bad, q.Stats().Records)
	}
	drain(t, q)
	s := q.Stats()
	require.Zero(t, s.Records)
	require.Equal(t, 2000-bad, s.Confirmed)
	require.Positive(t, s.CorruptBytes)
	eventually(t, func() bool { return q.Stats().Quarantined == uint64(len(snap.Segments)-1) }, "damaged segments are kept")
	require.Equal(t, d.UsedIn("/queue"), q.Stats().DiskBytes)
}

// TestDestroyedSegmentIsCounted destroys whole files, one of them partly confirmed: what was not confirmed is counted as lost, once.
func TestDestroyedSegmentIsCounted(t *testing.T) {
	d := faultfs.New()
	cfg := queue.Config{FS: d, MaxBytes: 4 << 20}
	q := open(t, cfg)
	for i := range uint64(8000) {
		require.NoError(t, put(q, record(i, 200)))
	}
	snap, err := seglog.InspectFS(d, "/queue")
	require.NoError(t, err)
	require.Greater(t, len(snap.Segments), 3)
	oldest, third := snap.Segments[0], snap.Segments[2]
	q.Confirm(oldest.Base + 10)
	require.NoError(t, q.Close())
	for _, seg := range []seglog.SegmentInfo{oldest, third} {
		d.WriteFile(seg.Path, bytes.Repeat([]byte{0xa5}, int(seg.Bytes)))
	}
	lost := oldest.End - oldest.Base - 10 + third.End - third.Base
	for _, counted := range []uint64{lost, 0} { // the figures are since Open
		q = open(t, cfg)
		require.Equal(t, counted, q.Stats().Dropped[queue.DroppedDamaged])
		require.Equal(t, 8000-10-lost, q.Stats().Records)
		require.NoError(t, q.Close())
	}
}

func TestSecondReaderEndsTheFirst(t *testing.T) {
	q := open(t, queue.Config{FS: faultfs.New(), MaxBytes: 1 << 20})
	require.NoError(t, put(q, record(1, 100)))
	first := q.Reader(0)
	_, _, err := first.Next()
	require.NoError(t, err)
	second := q.Reader(0)
	_, _, err = first.Next()
	require.ErrorIs(t, err, queue.ErrClosed)
	_, rec, err := second.Next()
	require.NoError(t, err)
	require.Equal(t, uint64(1), number(t, rec))
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	d := faultfs.New()
	open := func(name string) *queue.Queue {
		q, err := queue.Open(queue.Config{Dir: "/" + name, Name: name, MaxBytes: 128 << 10, FS: d}, reg)
		require.NoError(t, err)
		return q
	}
	a, b := open("a"), open("b")
	defer b.Close()
	defer a.Close()
	for i := range uint64(1000) {
		if err := put(a, record(i, 200)); err != nil {
			require.ErrorIs(t, err, queue.ErrFull)
		}
	}
	_, err := queue.Open(queue.Config{Dir: "/c", Name: "a", MaxBytes: 128 << 10, FS: d}, reg)
	require.ErrorContains(t, err, "duplicate", "one name, one queue")

	families, err := reg.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += "," + l.GetName() + "=" + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	s := a.Stats()
	require.Equal(t, float64(s.Records), values["gantry_queue_records,queue=a"])
	require.Equal(t, float64(s.Bytes), values["gantry_queue_bytes,queue=a"])
	require.Equal(t, float64(s.Refused), values["gantry_queue_refused_total,queue=a"])
	require.Equal(t, float64(s.Appended), values["gantry_queue_appended_total,queue=a"])
	require.Positive(t, values["gantry_queue_fsync_seconds,queue=a"])
	require.Positive(t, values["gantry_queue_oldest_age_seconds,queue=a"])
	for _, key := range []string{
		"gantry_queue_dropped_total,queue=b,reason=drop_oldest", "gantry_queue_confirmed_total,queue=b",
		"gantry_queue_dead_letters_total,queue=b",
	} {
		require.Contains(t, values, key)
	}
	require.NoError(t, a.Close())
	a = open("a") // its metrics made room
	require.NoError(t, a.Close())
}
