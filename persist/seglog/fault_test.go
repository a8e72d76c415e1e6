package seglog_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

// failNext makes the next n calls of an operation on segment files fail.
func failNext(op faultfs.Op, n int32) func(faultfs.Op, string) error {
	var left atomic.Int32
	left.Store(n)
	return func(o faultfs.Op, path string) error {
		if o == op && strings.Contains(path, ".seg") && left.Add(-1) >= 0 {
			return faultfs.ErrInjected
		}
		return nil
	}
}

// TestFailedGroup fails a write or an fsync: its appenders are told, what comes later goes to a new segment under new numbers, and what
// failed is never read, neither now nor after a restart, even when the failed tail could not be cut off.
func TestFailedGroup(t *testing.T) {
	for _, tc := range []struct {
		op          faultfs.Op
		truncateToo bool
	}{{faultfs.OpWrite, false}, {faultfs.OpSync, false}, {faultfs.OpSync, true}} {
		t.Run(fmt.Sprintf("%s truncate=%v", tc.op, tc.truncateToo), func(t *testing.T) {
			d := faultfs.New()
			l := open(t, "/log", seglog.Options{FS: d})
			appendWait(t, l, body(0, 100), body(1, 100))
			fail := failNext(tc.op, 1)
			d.Hook(func(op faultfs.Op, path string) error {
				if op == faultfs.OpTruncate && tc.truncateToo {
					return faultfs.ErrInjected
				}
				return fail(op, path)
			})
			c, err := tryAppend(l, body(2, 100), body(3, 100))
			require.ErrorIs(t, err, faultfs.ErrInjected)
			require.Equal(t, uint64(3), c.First)
			require.Len(t, readAll(t, l, 0), 2)
			d.Hook(nil)
			c = appendWait(t, l, body(4, 100))
			require.Equal(t, uint64(5), c.First, "numbers of failed records do not come again")
			require.Len(t, l.Segments(), 2, "a failed segment is not written again")
			require.Equal(t, uint64(2), l.Stats().Failed)
			check := func(l *seglog.Log) {
				recs := readAll(t, l, 0)
				require.Len(t, recs, 3)
				for i, want := range []uint64{0, 1, 4} {
					require.Equal(t, want, checkBody(t, recs[i].payload))
				}
				require.Zero(t, l.Stats().CorruptBytes)
				require.Equal(t, d.UsedIn("/log"), l.Bytes()+seglog.CursorBytes)
				require.Equal(t, uint64(3), l.Records(0, 1<<62))
			}
			check(l)
			require.NoError(t, l.Close())
			check(open(t, "/log", seglog.Options{FS: d}))
		})
	}
}

// TestFsyncIsNotRetried counts the fsyncs of a descriptor after one failed.
func TestFsyncIsNotRetried(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d})
	appendWait(t, l, body(0, 100))
	first := l.Segments()[0].Path
	var mu sync.Mutex
	syncs := 0
	d.Hook(func(op faultfs.Op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if (op == faultfs.OpSync || op == faultfs.OpWrite) && path == first {
			syncs++
			if op == faultfs.OpSync {
				return faultfs.ErrInjected
			}
		}
		return nil
	})
	_, err := tryAppend(l, body(1, 100))
	require.Error(t, err)
	for i := range uint64(10) {
		appendWait(t, l, body(2+i, 100))
	}
	require.NoError(t, l.Close())
	require.Equal(t, 2, syncs, "one write and one fsync that failed, then never again")
}

// TestGroupFailsAsOne: appends that wait together with a failed one fail with it, also those bound for the next segment.
func TestGroupFailsAsOne(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	appendWait(t, l, body(0, 10))
	hold := make(chan struct{})
	var once sync.Once
	held := make(chan struct{})
	fail := failNext(faultfs.OpSync, 1)
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpWrite {
			once.Do(func() { close(held); <-hold })
		}
		return nil
	})
	results := make(chan seglog.Committed, 100)
	add := func(i uint64) {
		_, err := l.Append(context.Background(), func(c seglog.Committed) { results <- c }, body(i, 300))
		require.NoError(t, err)
	}
	add(1)
	<-held
	for i := range uint64(40) { // more than two segments
		add(2 + i)
	}
	d.Hook(fail)
	close(hold)
	require.Error(t, (<-results).Err)
	// The held group was the one that failed; the 40 behind it are a group of their own and succeed in new segments.
	for range 40 {
		require.NoError(t, (<-results).Err)
	}
	require.Len(t, readAll(t, l, 0), 41)
}

func TestRollFails(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	appendWait(t, l, body(0, 3000))
	for _, op := range []faultfs.Op{faultfs.OpOpen, faultfs.OpWrite, faultfs.OpSync, faultfs.OpRename} {
		d.Hook(failNext(op, 1))
		_, err := tryAppend(l, body(1, 3000))
		require.ErrorIs(t, err, faultfs.ErrInjected, op)
		d.Hook(nil)
	}
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSyncDir {
			return faultfs.ErrInjected
		}
		return nil
	})
	_, err := tryAppend(l, body(1, 3000))
	require.ErrorIs(t, err, faultfs.ErrInjected)
	d.Hook(nil)
	appendWait(t, l, body(2, 3000))
	recs := readAll(t, l, 0)
	require.Len(t, recs, 2)
	require.Equal(t, d.UsedIn("/log"), l.Bytes()+seglog.CursorBytes, "no half-made files are left")
}

func TestUnlinkFails(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	for i := range uint64(50) {
		appendWait(t, l, body(i, 200))
	}
	d.Hook(failNext(faultfs.OpRemove, 3))
	l.SetCursor(51)
	require.NoError(t, l.SaveCursor())
	require.Equal(t, d.UsedIn("/log"), l.Bytes()+seglog.CursorBytes, "what could not be deleted still counts")
	d.Hook(nil)
	eventually(t, func() bool { return d.UsedIn("/log") < 4<<10+seglog.CursorBytes }, "deleting is tried again")
	require.Equal(t, d.UsedIn("/log"), l.Bytes()+seglog.CursorBytes)
}

// TestCursorBeforeUnlink watches the order of calls.
func TestCursorBeforeUnlink(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	for i := range uint64(50) {
		appendWait(t, l, body(i, 200))
	}
	var mu sync.Mutex
	var calls []string
	d.Hook(func(op faultfs.Op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, string(op)+path[strings.LastIndex(path, "/"):])
		return nil
	})
	l.SetCursor(40)
	require.NoError(t, l.SaveCursor())
	_, _, ok := l.DropOldest(1 << 62)
	require.True(t, ok)
	mu.Lock()
	defer mu.Unlock()
	synced := false
	removed := 0
	for _, c := range calls {
		if strings.HasPrefix(c, "remove") {
			require.True(t, synced, "%v", calls)
			removed++
		}
		synced = synced || c == "sync/cursor"
	}
	require.Greater(t, removed, 1)
}

func TestCursorFsyncFails(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	for i := range uint64(50) {
		appendWait(t, l, body(i, 200))
	}
	segs := len(l.Segments())
	d.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && strings.HasSuffix(path, "cursor") {
			return faultfs.ErrInjected
		}
		return nil
	})
	l.SetCursor(40)
	require.Error(t, l.SaveCursor())
	require.Len(t, l.Segments(), segs, "nothing is deleted before the cursor is safe")
	d.Hook(nil)
	eventually(t, func() bool { return len(l.Segments()) < segs }, "the keeper tries again")
	require.NoError(t, l.Close())
	require.Equal(t, uint64(40), open(t, "/log", seglog.Options{FS: d}).Cursor())
}

func TestOnCommitSeesSlowDisk(t *testing.T) {
	d := faultfs.New()
	var slow atomic.Int64
	l := open(t, "/log", seglog.Options{FS: d, OnCommit: func(c seglog.CommitInfo) {
		if c.Synced && c.Err == nil && c.Records == 1 {
			slow.Store(int64(c.Sync))
		}
	}})
	d.Hook(func(op faultfs.Op, _ string) error {
		if op == faultfs.OpSync {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	appendWait(t, l, body(1, 10))
	require.GreaterOrEqual(t, slow.Load(), int64(20*time.Millisecond))
	require.GreaterOrEqual(t, l.Stats().LastSync, 20*time.Millisecond)
}

// TestSyncInterval: done does not wait for the fsync, the fsync comes by itself, and Close does one.
func TestSyncInterval(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, Sync: seglog.SyncInterval, SyncEvery: time.Millisecond})
	appendWait(t, l, body(0, 10))
	eventually(t, func() bool { return l.Stats().Syncs == 1 }, "periodic fsync")
	require.Len(t, readAll(t, l, 0), 1)
	require.NoError(t, l.Close())

	l = open(t, "/log", seglog.Options{FS: d, Sync: seglog.SyncNever})
	appendWait(t, l, body(1, 10))
	require.Zero(t, l.Stats().Syncs)
	require.NoError(t, l.Close())
	require.Equal(t, uint64(1), l.Stats().Syncs)
	l = open(t, "/log", seglog.Options{FS: d})
	require.Equal(t, uint64(3), l.Next(), "nothing is skipped after a clean close")
}

func TestSyncIntervalFails(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, Sync: seglog.SyncInterval, SyncEvery: time.Millisecond})
	appendWait(t, l, body(0, 10))
	eventually(t, func() bool { return l.Stats().Syncs == 1 }, "periodic fsync")
	d.Hook(failNext(faultfs.OpSync, 1))
	appendWait(t, l, body(1, 10))
	eventually(t, func() bool { return l.Stats().SyncErrors == 1 }, "fsync fails")
	d.Hook(nil)
	appendWait(t, l, body(2, 10))
	require.Len(t, l.Segments(), 2, "the descriptor is given up")
	require.Len(t, readAll(t, l, 0), 3)
}

// TestPowerCut runs random work, cuts the power at a random moment, keeps a random part of what was not fsynced, and opens again, many
// times over. Acknowledged records are there; nothing is read that was not appended; no number names two records, not even one that a
// reader saw before the cut; the cursor never lies beyond what was confirmed.
func TestPowerCut(t *testing.T) {
	for _, sync := range []seglog.Sync{seglog.SyncAlways, seglog.SyncNever} {
		t.Run(sync.String(), func(t *testing.T) {
			for seed := range uint64(40) {
				powerCutRun(t, sync, seed)
			}
		})
	}
}

type powerModel struct {
	seen      map[uint64]uint64 // sequence number → record that was read or acknowledged under it
	acked     map[uint64]bool
	confirmed uint64
	n         uint64
}

func powerCutRun(t *testing.T, sync seglog.Sync, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 77))
	disk := faultfs.New()
	m := &powerModel{seen: map[uint64]uint64{}, acked: map[uint64]bool{}}
	for range 6 {
		var calls atomic.Int64
		cutAt := int64(20 + r.IntN(150))
		var cut atomic.Bool
		disk.Hook(func(op faultfs.Op, _ string) error {
			if calls.Add(1) > cutAt {
				cut.Store(true)
				return faultfs.ErrInjected
			}
			return nil
		})
		l, err := seglog.Open("/log", seglog.Options{FS: disk, SegmentBytes: 4 << 10, Sync: sync})
		if err != nil {
			require.True(t, cut.Load(), "seed %d: %v", seed, err)
			disk = disk.PowerCut(r)
			continue
		}
		m.verify(t, l, sync, seed)
		m.work(t, l, r, &cut)
		next := disk.PowerCut(r)
		_ = l.Close() // on the dead disk: only ends the goroutines
		disk = next
	}
	disk.Hook(nil)
	l := open(t, "/log", seglog.Options{FS: disk, SegmentBytes: 4 << 10, Sync: sync})
	m.verify(t, l, sync, seed)
	require.NoError(t, l.Close())
}

func (m *powerModel) work(t *testing.T, l *seglog.Log, r *rand.Rand, cut *atomic.Bool) {
	t.Helper()
	for !cut.Load() {
		recs := make([][]byte, 1+r.IntN(5))
		for j := range recs {
			recs[j] = body(m.n, 8+r.IntN(700))
			m.n++
		}
		c, err := tryAppend(l, recs...)
		if err != nil {
			continue
		}
		for j := range recs {
			m.note(t, c.First+uint64(j), m.n-uint64(len(recs)-j))
			m.acked[c.First+uint64(j)] = true
		}
		if r.IntN(4) == 0 && c.First > 20 {
			m.confirmed = max(m.confirmed, c.First-20)
			l.SetCursor(m.confirmed)
			_ = l.SaveCursor()
		}
	}
}

func (m *powerModel) note(t *testing.T, seq, i uint64) {
	t.Helper()
	if old, ok := m.seen[seq]; ok && old != i {
		t.Fatalf("number %d named record %d and now %d", seq, old, i)
	}
	m.seen[seq] = i
}

func (m *powerModel) verify(t *testing.T, l *seglog.Log, sync seglog.Sync, seed uint64) {
	t.Helper()
	require.LessOrEqual(t, l.Cursor(), max(m.confirmed, 1, l.First()), "seed %d", seed)
	found := map[uint64]bool{}
	rd := l.NewReader(0)
	defer rd.Close()
	for {
		seq, _, p, err := rd.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return // the cut came while reading
		}
		m.note(t, seq, checkBody(t, p))
		found[seq] = true
	}
	if sync != seglog.SyncAlways {
		return
	}
	for seq := range m.acked {
		if seq >= m.confirmed && !found[seq] {
			t.Fatalf("seed %d: acknowledged record %d is missing (confirmed %d, first %d)", seed, seq, m.confirmed, l.First())
		}
	}
}
