package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/bridge/queue"
	"gantry/persist/seglog/faultfs"
)

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
	require.Equal(t, dropped(s), skipped, "the receiver is told of the gap")
	for j := 1; j < len(rest); j++ {
		require.Greater(t, rest[j], rest[j-1])
	}

	// A new Reader lets go; a pin holds on.
	q.Pin(q.Frontier() + 500)
	q.Reader(0)
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
		return s.WaitingBytes > 100<<10-perWaiter && s.DiskBytes > 256<<10-1024 && count() == s.Records && q.Stats().Waiting == s.Waiting
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
