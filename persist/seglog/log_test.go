package seglog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

func TestAppendReadReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "log")
	l := open(t, dir, seglog.Options{SegmentBytes: 8 << 10})
	var want [][]byte
	for i := range uint64(200) {
		c := appendWait(t, l, body(3*i, 10), body(3*i+1, 100), body(3*i+2, 333))
		require.Equal(t, 3*i+1, c.First)
		require.Equal(t, 3*i+4, c.Next)
		want = append(want, body(3*i, 10), body(3*i+1, 100), body(3*i+2, 333))
		_, p, err := l.ReadAt(c.Pos.Add(10).Add(100), nil)
		require.NoError(t, err)
		require.Equal(t, body(3*i+2, 333), p)
	}
	check := func(l *seglog.Log) {
		recs := readAll(t, l, 0)
		require.Len(t, recs, len(want))
		var dst []byte
		for i, r := range recs {
			require.Equal(t, uint64(i+1), r.seq)
			require.Equal(t, want[i], r.payload)
			seq, p, err := l.ReadAt(r.pos, dst)
			require.NoError(t, err)
			require.Equal(t, r.seq, seq)
			require.Equal(t, want[i], p)
			dst = p
		}
		require.Equal(t, uint64(601), l.Next())
		require.Equal(t, uint64(601), l.Durable())
		require.Equal(t, uint64(1), l.First())
		require.Equal(t, uint64(600), l.Records(0, math.MaxUint64))
		require.Equal(t, uint64(599), readAll(t, l, 599)[0].seq)
	}
	check(l)
	require.Greater(t, len(l.Segments()), 5)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err := l.Append(context.Background(), nil, []byte("x"))
	require.ErrorIs(t, err, seglog.ErrClosed)
	_, _, err = l.ReadAt(seglog.Pos{Segment: 1, Offset: 32}, nil)
	require.ErrorIs(t, err, seglog.ErrClosed)
	require.ErrorIs(t, l.SaveCursor(), seglog.ErrClosed)
	check(open(t, dir, seglog.Options{SegmentBytes: 8 << 10}))
}

func TestAppendRefusesWhatItCannotHold(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{MaxRecord: 100})
	for _, recs := range [][][]byte{{}, {{}}, {body(1, 10), nil}} {
		_, err := l.Append(context.Background(), nil, recs...)
		require.ErrorIs(t, err, seglog.ErrEmpty)
	}
	_, err := l.Append(context.Background(), nil, body(1, 10), body(2, 101))
	require.ErrorIs(t, err, seglog.ErrTooLarge)
	_, err = l.AppendParts(context.Background(), nil, body(1, 60), body(2, 60))
	require.ErrorIs(t, err, seglog.ErrTooLarge)
	c := appendWait(t, l, body(3, 100))
	require.Equal(t, uint64(1), c.First, "a refused append takes no number")
}

func TestAppendPartsJoins(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{})
	done := make(chan seglog.Committed, 1)
	seq, err := l.AppendParts(nil, func(c seglog.Committed) { done <- c }, []byte("head"), nil, []byte("body")) //nolint:staticcheck // nil is the contract
	require.NoError(t, err)
	require.Equal(t, uint64(1), seq)
	require.NoError(t, (<-done).Err)
	require.Equal(t, []byte("headbody"), readAll(t, l, 0)[0].payload)
}

func TestDoneInAppendOrder(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{SegmentBytes: 4 << 10})
	var mu sync.Mutex
	var order []uint64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				_, err := l.Append(context.Background(), func(c seglog.Committed) {
					mu.Lock()
					defer mu.Unlock()
					order = append(order, c.First)
				}, body(1, 50))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close())
	require.Len(t, order, 1600)
	for i, seq := range order {
		require.Equal(t, uint64(i+1), seq)
	}
}

func TestBackPressure(t *testing.T) {
	disk := faultfs.New()
	gate, entered := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	l := open(t, "/log", seglog.Options{FS: disk, MaxPending: 10_000})
	t.Cleanup(release)
	appendWait(t, l, body(0, 10))
	enter := sync.OnceFunc(func() { close(entered) })
	disk.Hook(func(op faultfs.Op, _ string) error {
		if op == faultfs.OpSync {
			enter()
			<-gate
		}
		return nil
	})
	var done sync.WaitGroup
	n := 1
	done.Add(1)
	_, err := l.Append(nil, func(seglog.Committed) { done.Done() }, body(1, 1000)) //nolint:staticcheck // nil is the contract
	require.NoError(t, err)
	<-entered
	for {
		done.Add(1)
		_, err := l.Append(nil, func(c seglog.Committed) { done.Done() }, body(1, 1000)) //nolint:staticcheck // nil is the contract
		if err != nil {
			done.Done()
			require.ErrorIs(t, err, seglog.ErrBusy)
			break
		}
		n++
	}
	require.LessOrEqual(t, n, 10)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = l.Append(ctx, func(seglog.Committed) { t.Error("done after an error return") }, body(2, 1000))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	blocked := make(chan error, 1)
	done.Add(1)
	go func() {
		_, err := l.Append(context.Background(), func(seglog.Committed) { done.Done() }, body(3, 1000))
		blocked <- err
	}()
	release()
	require.NoError(t, <-blocked)
	done.Wait()
	require.Len(t, readAll(t, l, 0), n+2)
}

func TestAppendLargerThanPendingAndSegment(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{SegmentBytes: 4 << 10, MaxPending: 1000})
	for i := range uint64(5) {
		appendWait(t, l, body(i, 10))
		appendWait(t, l, body(100+i, 20_000), body(200+i, 9000))
	}
	require.Len(t, readAll(t, l, 0), 15)
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, seglog.Options{})
	_, err := seglog.Open(dir, seglog.Options{})
	require.ErrorIs(t, err, seglog.ErrLocked)
	require.NoError(t, l.Close())
	open(t, dir, seglog.Options{})
}

func TestReaderFollows(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{SegmentBytes: 16 << 10})
	const total = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); i < total; i += 10 {
			recs := make([][]byte, 10)
			for j := range recs {
				recs[j] = body(i+uint64(j), 40)
			}
			if _, err := l.Append(context.Background(), nil, recs...); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			r := l.NewReader(0)
			defer r.Close()
			for want := uint64(1); want <= total; {
				ready := l.Ready()
				seq, _, p, err := r.Next()
				if errors.Is(err, io.EOF) {
					<-ready
					continue
				}
				if err != nil || seq != want || !bytes.Equal(p, body(seq-1, 40)) {
					t.Errorf("want %d, got %d: %v", want, seq, err)
					return
				}
				if seq >= l.Durable() {
					t.Errorf("record %d read before it was durable (%d)", seq, l.Durable())
				}
				want++
			}
		})
	}
	wg.Wait()
}

func TestReadyClosesOnClose(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{})
	ready := l.Ready()
	require.NoError(t, l.Close())
	<-ready
	<-l.Ready()
	_, _, _, err := l.NewReader(0).Next()
	require.ErrorIs(t, err, seglog.ErrClosed)
}

func TestCursorFreesSegments(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, seglog.Options{SegmentBytes: 4 << 10})
	for i := range uint64(100) {
		appendWait(t, l, body(i, 200))
	}
	before := l.Segments()
	require.Greater(t, len(before), 4)
	r := l.NewReader(0)
	defer r.Close()
	_, pos, _, err := r.Next()
	require.NoError(t, err)
	_, _, err = l.ReadAt(pos, nil)
	require.NoError(t, err)

	l.SetCursor(51)
	l.SetCursor(20) // never backwards
	require.Equal(t, uint64(51), l.Cursor())
	eventually(t, func() bool { return l.First() > before[0].Base }, "segments below the cursor go")
	require.LessOrEqual(t, l.First(), uint64(51))
	_, _, err = l.ReadAt(pos, nil)
	require.ErrorIs(t, err, seglog.ErrGone)
	seq, _, _, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, l.First(), seq, "a reader steps over deleted segments")

	l.SetCursor(1 << 40)
	require.Equal(t, uint64(101), l.Cursor(), "the cursor stops at what is durable")
	require.NoError(t, l.SaveCursor())
	require.Len(t, l.Segments(), 1)
	require.NoError(t, l.Close())
	l = open(t, dir, seglog.Options{SegmentBytes: 4 << 10})
	require.Equal(t, uint64(101), l.Cursor())
	require.Equal(t, uint64(101), appendWait(t, l, body(1, 1)).First)
}

func TestCursorSavedLazily(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{})
	for i := range uint64(10) {
		appendWait(t, l, body(i, 20))
	}
	saves := l.Stats().CursorSaves
	for i := range uint64(9) {
		l.SetCursor(i + 2)
	}
	eventually(t, func() bool { return l.Stats().SavedCursor == 10 }, "the cursor reaches the disk by itself")
	require.LessOrEqual(t, l.Stats().CursorSaves-saves, uint64(3), "not one write per confirmation")
}

func TestDropOldest(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{SegmentBytes: 4 << 10})
	_, _, ok := l.DropOldest(math.MaxUint64)
	require.False(t, ok, "nothing to drop")
	appendWait(t, l, body(0, 100), body(1, 100))
	n, size, ok := l.DropOldest(math.MaxUint64)
	require.True(t, ok, "the active segment is rolled first")
	require.Equal(t, uint64(2), n)
	require.Equal(t, seglog.HeaderSize+2*seglog.FrameSize(100), size)
	require.Equal(t, uint64(3), l.Cursor())
	require.Empty(t, readAll(t, l, 0))

	for i := range uint64(100) {
		appendWait(t, l, body(i, 200))
	}
	segs := l.Segments()
	_, _, ok = l.DropOldest(segs[0].Base + 1)
	require.False(t, ok, "pinned")
	l.SetCursor(segs[0].Base + 3)
	n, size, ok = l.DropOldest(math.MaxUint64)
	require.True(t, ok)
	require.Equal(t, segs[0].End-segs[0].Base-3, n, "confirmed records are not losses")
	require.Equal(t, segs[0].Bytes, size)
	require.Equal(t, segs[1].Base, readAll(t, l, 0)[0].seq)
	require.Equal(t, segs[1].Base, l.Cursor())
}

func TestDropInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, seglog.Options{SegmentBytes: 4 << 10})
	for i := range uint64(100) {
		appendWait(t, l, body(i, 200))
	}
	segs := l.Segments()
	r := l.NewReader(0)
	defer r.Close()
	_, _, _, err := r.Next()
	require.NoError(t, err)
	for _, victim := range segs[1:3] {
		n, _, ok := l.Drop(victim.Base)
		require.True(t, ok)
		require.Equal(t, victim.End-victim.Base, n)
	}
	_, _, ok := l.Drop(segs[len(segs)-1].Base)
	require.False(t, ok, "the newest stays")
	dropped := segs[2].End - segs[1].Base
	require.Equal(t, uint64(1), l.Cursor())
	check := func(l *seglog.Log) {
		recs := readAll(t, l, 0)
		require.Len(t, recs, 100-int(dropped))
		require.Equal(t, 100-dropped, l.Records(0, math.MaxUint64))
		for _, rec := range recs {
			require.False(t, rec.seq >= segs[1].Base && rec.seq < segs[2].End)
			require.Equal(t, rec.seq-1, checkBody(t, rec.payload))
		}
		require.Zero(t, l.Stats().CorruptBytes)
	}
	check(l)
	for want := uint64(2); ; want++ {
		if want == segs[1].Base {
			want = segs[2].End
		}
		seq, _, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, want, seq, "an open reader steps over the hole")
	}
	require.NoError(t, l.Close())
	check(open(t, dir, seglog.Options{SegmentBytes: 4 << 10}))
}

func TestLinger(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{Linger: 5 * time.Millisecond})
	var wg sync.WaitGroup
	for i := range uint64(100) {
		wg.Add(1)
		_, err := l.Append(context.Background(), func(seglog.Committed) { wg.Done() }, body(i, 20))
		require.NoError(t, err)
	}
	wg.Wait()
	require.LessOrEqual(t, l.Stats().Groups, uint64(20), "groups grow")
	_, err := l.Append(context.Background(), nil, body(1, 20))
	require.NoError(t, err)
	require.NoError(t, l.Close(), "close commits what lingers")
	require.Equal(t, uint64(101), l.Stats().Appended)
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	_, err := seglog.Inspect(filepath.Join(dir, "none"))
	require.Error(t, err)
	l := open(t, dir, seglog.Options{SegmentBytes: 4 << 10})
	for i := range uint64(100) {
		appendWait(t, l, body(i, 200))
	}
	l.SetCursor(30)
	require.NoError(t, l.SaveCursor())
	snap, err := seglog.Inspect(dir)
	require.NoError(t, err)
	require.True(t, snap.CursorOK)
	require.Equal(t, uint64(30), snap.Cursor)
	require.Equal(t, uint64(71), snap.Records(snap.Cursor))
	segs := l.Segments()
	require.Len(t, snap.Segments, len(segs))
	for i := range segs {
		require.Equal(t, segs[i].Base, snap.Segments[i].Base)
		require.Equal(t, segs[i].End, snap.Segments[i].End)
		require.Equal(t, segs[i].Bytes, snap.Segments[i].Bytes)
	}
	r := snap.Reader(snap.Cursor)
	defer r.Close()
	l.SetCursor(60) // segments vanish under the snapshot
	require.NoError(t, l.SaveCursor())
	var last uint64
	for {
		seq, pos, p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, seq-1, checkBody(t, p))
		_, at, err := l.ReadAt(pos, nil)
		require.NoError(t, err)
		require.Equal(t, p, at)
		last = seq
	}
	require.Equal(t, uint64(100), last)
	require.Zero(t, r.BadBytes())
}

func TestAppendAllocates(t *testing.T) {
	l := open(t, t.TempDir(), seglog.Options{Sync: seglog.SyncNever})
	rec := body(1, 200)
	done := func(seglog.Committed) {}
	for range 20_000 { // grow the buffers
		_, err := l.Append(context.Background(), done, rec)
		require.NoError(t, err)
	}
	n := testing.AllocsPerRun(20_000, func() { _, _ = l.Append(context.Background(), done, rec) })
	require.Less(t, n, 0.5, "appending allocates nothing per record")
}

// TestEmptySessions: sessions without appends, and a reader that waits since before the first, leave nothing in the way.
func TestEmptySessions(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d})
	appendWait(t, l, body(0, 10))
	path := l.Segments()[0].Path
	require.NoError(t, l.Close())
	b, err := d.ReadFile(path)
	require.NoError(t, err)
	d = faultfs.New()
	d.WriteFile(path, b[:seglog.HeaderSize]) // a crash right after the segment was begun
	l = open(t, "/log", seglog.Options{FS: d})
	r := l.NewReader(0)
	defer r.Close()
	_, _, _, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
	c := appendWait(t, l, body(1, 10))
	require.Equal(t, uint64(1), c.First)
	seq, _, p, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, uint64(1), seq)
	require.Equal(t, body(1, 10), p)
	_, p, err = l.ReadAt(c.Pos, nil)
	require.NoError(t, err)
	require.Equal(t, body(1, 10), p)
	require.Len(t, l.Segments(), 1)
}
