package queue_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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

func TestRefuse(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 512 << 10, WhenFull: queue.Refuse})
	var want []uint64
	refused := uint64(0)
	for i := range uint64(5000) {
		err := q.Append(context.Background(), record(i, 200), nil)
		if err == nil {
			want = append(want, i)
			continue
		}
		require.ErrorIs(t, err, queue.ErrFull)
		refused++
	}
	accepted := uint64(len(want))
	require.Greater(t, accepted, uint64(2000))
	eventually(t, func() bool { return q.Stats().Appended == accepted }, "commits")
	s := q.Stats()
	require.Equal(t, refused, s.Refused)
	require.Equal(t, accepted, s.Records)
	require.LessOrEqual(t, d.Peak(), int64(512<<10))
	require.Equal(t, d.UsedIn("/queue"), s.DiskBytes)
	require.Greater(t, s.DiskBytes, int64(500<<10), "the cap is used")

	r := q.Reader(0)
	for range 1000 {
		seq, _, err := r.Next()
		require.NoError(t, err)
		q.Confirm(seq + 1)
	}
	eventually(t, func() bool { return put(q, record(9999, 200)) == nil }, "confirming makes room")
	require.Equal(t, append(want[1000:], 9999), drain(t, q))
	require.Zero(t, dropped(q.Stats()))
}

// TestEmptiedQueueTakesTheNext drains a full queue of records of the largest size: there is always room for one more.
func TestEmptiedQueueTakesTheNext(t *testing.T) {
	for _, policy := range []queue.Policy{queue.Refuse, queue.DropOldest, queue.Block} {
		d := faultfs.New()
		q := open(t, queue.Config{FS: d, MaxBytes: 128 << 10, WhenFull: policy})
		for i := range uint64(40) {
			size := 32<<10 - 16
			if i%3 == 0 {
				size = 100
			}
			eventually(t, func() bool { return put(q, record(i, size)) == nil }, "there is room")
			require.Equal(t, []uint64{i}, drain(t, q))
		}
		require.LessOrEqual(t, d.Peak(), int64(128<<10))
		require.NoError(t, q.Close())
	}
}

func TestDropOldest(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 512 << 10, WhenFull: queue.DropOldest})
	const total = 20_000
	for i := range uint64(total) {
		require.NoError(t, q.Append(context.Background(), record(i, 200), nil))
	}
	eventually(t, func() bool { return q.Stats().Appended == total }, "commits")
	s := q.Stats()
	require.LessOrEqual(t, d.Peak(), int64(512<<10))
	require.Zero(t, s.Refused)
	require.Equal(t, uint64(total), s.Records+dropped(s), "every missing record is counted")
	require.Positive(t, s.DroppedBytes)
	got := drain(t, q)
	require.Len(t, got, int(s.Records))
	for i, n := range got {
		require.Equal(t, total-s.Records+uint64(i), n, "the newest are there, in order")
	}
}

// TestDropSparesWhatIsInFlight: neither what the Reader handed out nor what is pinned goes; the oldest behind it goes instead.
func TestDropSparesWhatIsInFlight(t *testing.T) {
	d := faultfs.New()
	cfg := queue.Config{FS: d, MaxBytes: 1 << 20, WhenFull: queue.DropOldest}
	q := open(t, cfg)
	i := uint64(0)
	for ; i < 1000; i++ {
		require.NoError(t, put(q, record(i, 200)))
	}
	r := q.Reader(0)
	for want := range uint64(500) {
		_, rec, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, want, number(t, rec))
	}
	for ; i < 12_000; i++ {
		require.NoError(t, put(q, record(i, 200)))
	}
	s := q.Stats()
	require.Positive(t, s.Dropped[queue.DroppedOldest])
	require.Equal(t, i, s.Records+dropped(s))

	// The Reader goes on: the rest of the segment it is in, then behind the hole.
	var rest []uint64
	skipped := uint64(0)
	for {
		_, rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		skipped += r.Skipped()
		rest = append(rest, number(t, rec))
	}
	require.Equal(t, s.Records, uint64(len(rest))+500)
	for j := 1; j < len(rest); j++ {
		require.Greater(t, rest[j], rest[j-1])
	}

	// A new Reader lets go; a pin holds on.
	q.Pin(q.Frontier() + 500)
	r = q.Reader(0)
	for ; i < 20_000; i++ {
		require.NoError(t, put(q, record(i, 200)))
	}
	require.NoError(t, q.Close())
	q = open(t, cfg) // the hole and the pinned records survive
	s = q.Stats()
	got := drain(t, q)
	require.Len(t, got, int(s.Records))
	for want := range uint64(500) {
		require.Equal(t, want, got[want])
	}
	require.Equal(t, i-1, got[len(got)-1])
}

func TestDropRefusesWhenAllIsInFlight(t *testing.T) {
	q := open(t, queue.Config{FS: faultfs.New(), MaxBytes: 256 << 10, WhenFull: queue.DropOldest})
	q.Pin(1 << 40)
	accepted := uint64(0)
	for range 5000 {
		if err := put(q, record(accepted, 200)); err != nil {
			require.ErrorIs(t, err, queue.ErrFull)
			continue
		}
		accepted++
	}
	s := q.Stats()
	require.Equal(t, 5000-accepted, s.Refused)
	require.Equal(t, accepted, s.Records)
	require.Zero(t, dropped(s))
	q.Pin(0)
	require.NoError(t, put(q, record(accepted, 200)), "without the pin the oldest go")
	require.Positive(t, dropped(q.Stats()))
}

func TestBlock(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 256 << 10, WhenFull: queue.Block, MaxWaitBytes: 100 << 10})
	const total = 8000
	var mu sync.Mutex
	var acked []uint64
	appended := make(chan error, 1)
	go func() {
		for i := range uint64(total) {
			err := q.Append(context.Background(), record(i, 200), func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acked = append(acked, i)
				}
			})
			if err != nil {
				appended <- err
				return
			}
		}
		appended <- nil
	}()
	count := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return uint64(len(acked))
	}
	const perWaiter = 200 + 128
	var s queue.Stats
	eventually(t, func() bool {
		s = q.Stats()
		return s.WaitingBytes > 100<<10-perWaiter && count() == s.Records && q.Stats().Waiting == s.Waiting
	}, "disk and memory are full, and what is on disk is acknowledged")
	require.LessOrEqual(t, s.WaitingBytes, 100<<10)
	require.ErrorIs(t, q.Append(nil, record(9, 2000), nil), queue.ErrBusy) //nolint:staticcheck // nil is the contract
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, q.Append(ctx, record(9, 2000), nil), context.DeadlineExceeded)
	require.Equal(t, q.Stats().Records, count(), "who waits is not acknowledged")

	r := q.Reader(0)
	for want := uint64(0); want < total; {
		ready := q.Ready()
		seq, rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			<-ready
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, number(t, rec))
		q.Confirm(seq + 1)
		want++
	}
	require.NoError(t, <-appended)
	require.LessOrEqual(t, d.Peak(), int64(256<<10))
	s = q.Stats()
	require.Zero(t, dropped(s))
	require.Zero(t, s.Refused)
	eventually(t, func() bool { return q.Stats().WaitingBytes == 0 }, "no waiter is left")
	eventually(t, func() bool { return count() == total }, "all are acknowledged")
	for i := range uint64(total) {
		require.Equal(t, i, acked[i])
	}
}

func TestCloseFailsWhoWaits(t *testing.T) {
	q := open(t, queue.Config{FS: faultfs.New(), MaxBytes: 128 << 10, WhenFull: queue.Block, MaxWaitBytes: 10 << 10})
	var mu sync.Mutex
	outcome := map[string]int{}
	n := 0
	for {
		err := q.Append(nil, record(1, 200), func(err error) { //nolint:staticcheck // nil is the contract
			mu.Lock()
			defer mu.Unlock()
			outcome[fmt.Sprint(err)]++
		})
		if errors.Is(err, queue.ErrBusy) && q.Stats().WaitingBytes > 9<<10 {
			break
		}
		if err == nil {
			n++
		}
	}
	blocked := make(chan error, 1)
	go func() { blocked <- q.Append(context.Background(), record(1, 2000), nil) }()
	require.NoError(t, q.Close())
	require.ErrorIs(t, <-blocked, queue.ErrClosed)
	mu.Lock()
	defer mu.Unlock()
	require.Positive(t, outcome[queue.ErrClosed.Error()], "who waited is told")
	require.Equal(t, n, outcome["<nil>"]+outcome[queue.ErrClosed.Error()], "each done was called: %v", outcome)
}

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
	i := uint64(40)
	for rec, err := range snap.All() {
		require.NoError(t, err)
		require.Equal(t, i, number(t, rec.Body))
		require.Equal(t, i+1, rec.Seq)
		require.WithinDuration(t, time.Now(), rec.Time, time.Minute)
		i++
	}
	require.Equal(t, uint64(100), i)
	for range snap.Dead() {
		t.Fatal("there are no dead letters")
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

// TestBlockKeepsOrderBehindTheMover stops the disk so that the last waiting record is on its way from the waiters to the log: a record
// that comes then has to queue up behind it, though nobody is in the list.
func TestBlockKeepsOrderBehindTheMover(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 1 << 20, WhenFull: queue.Block})
	i := uint64(0)
	for q.Stats().Waiting < 3 { // each too large for two to wait for the disk beside a third
		require.NoError(t, q.Append(context.Background(), record(i, 100_000), nil))
		i++
		eventually(t, func() bool { s := q.Stats(); return s.Records+uint64(s.Waiting) == i }, "commits")
	}
	gate := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && strings.HasSuffix(path, ".seg") {
			<-gate
		}
		return nil
	})
	r := q.Reader(0)
	var got []uint64
	for range i - 3 {
		seq, rec, err := r.Next()
		require.NoError(t, err)
		got = append(got, number(t, rec))
		q.Confirm(seq + 1)
	}
	eventually(t, func() bool { s := q.Stats(); return s.Waiting == 0 && s.WaitingBytes > 0 }, "one is in the mover's hands")
	require.NoError(t, q.Append(nil, record(i, 100), nil)) //nolint:staticcheck // nil is the contract
	require.Equal(t, 1, q.Stats().Waiting)
	release()
	eventually(t, func() bool { return q.Stats().Appended == i+1 }, "all are committed")
	for want, n := range append(got, drain(t, q)...) {
		require.Equal(t, uint64(want), n)
	}
}

// TestDropWhileReading drops a segment in the middle of a read of it: what was counted as lost is not handed out.
func TestDropWhileReading(t *testing.T) {
	d := faultfs.New()
	q := open(t, queue.Config{FS: d, MaxBytes: 512 << 10, WhenFull: queue.DropOldest})
	i := uint64(0)
	for ; i < 1500; i++ {
		require.NoError(t, put(q, record(i, 200)))
	}
	r := q.Reader(0)
	reading := false
	d.Hook(func(op faultfs.Op, _ string) error {
		if op != faultfs.OpRead || reading {
			return nil
		}
		reading = true
		for q.Stats().Dropped[queue.DroppedOldest] == 0 {
			if err := put(q, record(i, 200)); err != nil {
				return err
			}
			i++
		}
		return nil
	})
	var got []uint64
	for {
		_, rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		got = append(got, number(t, rec))
	}
	require.True(t, reading)
	require.Equal(t, i, uint64(len(got))+dropped(q.Stats()))
	require.Equal(t, q.Stats().Records, uint64(len(got)))
}
