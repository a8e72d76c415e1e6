package embedded_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/broker"
	"gantry/persist/embedded"
	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
	"gantry/persist/storetest"
)

// busyCleaner is a configuration on a simulated disk under which the cleaner copies all the time.
func busyCleaner(disk *faultfs.Disk) embedded.Config {
	return embedded.Config{Dir: "/store", FS: disk, SegmentBytes: 4 << 10, CleanAbove: 1}
}

// crasher commits without waiting and knows which batches were acknowledged.
type crasher struct {
	disk  *faultfs.Disk
	store *embedded.Store
	gen   storetest.Generator
	base  *storetest.Model // what was found at the last start
	since [][]broker.Op    // batches committed since then
	acked atomic.Int64     // how many of them were acknowledged
}

func (c *crasher) open(t require.TestingT) {
	s, err := embedded.Open(busyCleaner(c.disk), nil, nil)
	require.NoError(t, err)
	c.store = s
}

func (c *crasher) commit(rt *rapid.T) {
	ops := c.gen.Batch(rt)
	require.NoError(rt, c.store.Commit(context.Background(), &broker.Batch{Ops: ops}, func(err error) {
		if err == nil {
			c.acked.Add(1)
		}
	}))
	c.since = append(c.since, ops)
}

// powerCut cuts the power and looks at what is left: the state after some number of batches in their order, not less than were acknowledged.
func (c *crasher) powerCut(rt *rapid.T) {
	seed := rapid.Uint64().Draw(rt, "seed")
	acked := int(c.acked.Load()) // before the cut: the fsync that runs now may still report success to a machine that has no power
	after := c.disk.PowerCut(rand.New(rand.NewPCG(seed, 1)))
	_ = c.store.Close()
	c.disk = after
	c.open(rt)
	got, err := storetest.Read(c.store)
	require.NoError(rt, err)
	m := c.base.Clone()
	for _, ops := range c.since[:acked] {
		m.Apply(ops...)
	}
	for i := acked; ; i++ {
		if reflect.DeepEqual(m.Snapshot(), got) {
			break
		}
		if i == len(c.since) {
			storetest.Same(rt, m.Snapshot(), got) // what differs from the last of them
			rt.Fatalf("%d of %d batches acknowledged: state is none of those after them", acked, i)
		}
		m.Apply(c.since[i]...)
	}
	c.base, c.since = m, nil
	c.acked.Store(0)
}

func TestPowerCut(t *testing.T) {
	var cleaned uint64
	rapid.Check(t, func(rt *rapid.T) {
		c := &crasher{disk: faultfs.New(), base: storetest.NewModel()}
		c.open(rt)
		defer func() { _ = c.store.Close() }()
		_, err := c.store.Load(t.Context())
		require.NoError(rt, err)
		for range rapid.IntRange(1, 4).Draw(rt, "cuts") {
			for range rapid.IntRange(0, 150).Draw(rt, "batches") {
				c.commit(rt)
			}
			if rapid.Bool().Draw(rt, "let it settle") {
				require.NoError(rt, flush(c.store))
			}
			cleaned += c.store.Stats().Cleaned
			c.powerCut(rt)
		}
		require.NoError(rt, c.store.Close())
		c.open(rt)
		storetest.Check(rt, c.store, c.base)
		require.False(rt, c.store.Damage().Any(), "a power cut is no damage: %+v", c.store.Damage())
	})
	require.Positive(t, cleaned, "the cleaner never worked")
}

// flush waits until everything committed so far is durable.
func flush(s broker.Store) error { return commit(s) }

func commit(s broker.Store, ops ...broker.Op) error {
	done := make(chan error, 1)
	if err := s.Commit(context.Background(), &broker.Batch{Ops: ops}, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// Changes that wait for a slow disk meet the cleaner: what it copies must not bring back what they delete, nor overtake what they put.
func TestCleanerMeetsPendingChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := faultfs.New()
		disk.Hook(func(op faultfs.Op, _ string) error {
			if op == faultfs.OpSync {
				time.Sleep(50 * time.Microsecond)
			}
			return nil
		})
		s, err := embedded.Open(busyCleaner(disk), nil, nil)
		require.NoError(rt, err)
		defer func() { _ = s.Close() }()
		m, gen := storetest.NewModel(), storetest.Generator{}
		for range rapid.IntRange(100, 400).Draw(rt, "batches") {
			ops := gen.Batch(rt)
			require.NoError(rt, s.Commit(t.Context(), &broker.Batch{Ops: ops}, nil))
			m.Apply(ops...)
		}
		require.NoError(rt, flush(s))
		storetest.CheckQueues(rt, s, m)
		require.NoError(rt, s.Close())
		s, err = embedded.Open(busyCleaner(disk), nil, nil)
		require.NoError(rt, err)
		storetest.Check(rt, s, m)
		require.NoError(rt, s.Close())
	})
}

// A commit that failed has no effect, now and after a restart, and those after it work.
func TestFailingDisk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		disk := faultfs.New()
		var failing atomic.Bool
		rate := rapid.IntRange(2, 20).Draw(rt, "one in")
		disk.Hook(func(op faultfs.Op, _ string) error {
			if failing.Load() && (op == faultfs.OpWrite || op == faultfs.OpSync) && rand.IntN(rate) == 0 {
				return faultfs.ErrInjected
			}
			return nil
		})
		s, err := embedded.Open(busyCleaner(disk), nil, nil)
		require.NoError(rt, err)
		defer func() { _ = s.Close() }()
		failing.Store(true)
		m, gen := storetest.NewModel(), storetest.Generator{}
		var mu sync.Mutex
		for range rapid.IntRange(1, 100).Draw(rt, "batches") {
			ops := gen.Batch(rt)
			require.NoError(rt, s.Commit(t.Context(), &broker.Batch{Ops: ops}, func(err error) {
				if err == nil {
					mu.Lock()
					m.Apply(ops...)
					mu.Unlock()
				}
			}))
			if rapid.IntRange(0, 4).Draw(rt, "wait") == 0 {
				_ = flush(s)
			}
		}
		failing.Store(false)
		require.NoError(rt, flush(s))
		storetest.CheckQueues(rt, s, m)
		require.NoError(rt, s.Close())
		s, err = embedded.Open(busyCleaner(disk), nil, nil)
		require.NoError(rt, err)
		storetest.Check(rt, s, m)
		require.NoError(rt, s.Close())
	})
}

// A full disk refuses what is added. Nobody frees space for the store: what its receivers complete must be enough, and the reserve is
// what lets it be noted and cleaned up.
func TestDiskFull(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		disk := faultfs.New()
		testDiskFull(t, disk, disk)
	})
	t.Run("tells its space", func(t *testing.T) {
		disk := faultfs.New()
		testDiskFull(t, disk, tellingFS{disk})
	})
}

const fullAt = 200 << 10

// tellingFS is a disk that tells its space. Its size is larger than its capacity, so that segments are left as they are.
type tellingFS struct{ *faultfs.Disk }

func (d tellingFS) Space(string) (size, free int64, err error) {
	return 1 << 40, fullAt - d.Used(), nil
}

func testDiskFull(t *testing.T, disk *faultfs.Disk, fs seglog.FS) {
	cfg := embedded.Config{Dir: "/store", FS: fs, SegmentBytes: 16 << 10, CleanAbove: 32 << 10, Reserve: 32 << 10}
	s := open(t, cfg)
	m := storetest.NewModel()
	apply := func(ops ...broker.Op) error {
		err := commit(s, ops...)
		if err == nil {
			m.Apply(ops...)
		}
		return err
	}
	again := func(op broker.Op) { // the cleaner works beside this and may be behind
		t.Helper()
		err := apply(op)
		for deadline := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(deadline); err = apply(op) {
			runtime.Gosched()
		}
		require.NoError(t, err)
	}
	require.NoError(t, apply(put("a")))
	require.Eventually(t, func() bool { return disk.Used() > 32<<10 }, 10*time.Second, time.Millisecond, "there is a reserve")
	disk.SetCapacity(fullAt)
	full := uint64(1)
	var err error
	for ; err == nil; full++ {
		err = apply(enqueue("a", full, 1000))
		require.Less(t, full, uint64(1000), "the disk does not get full")
	}
	require.ErrorContains(t, err, "no space")
	require.True(t, s.Stats().DiskFull)
	require.ErrorIs(t, apply(enqueue("a", full, 1000)), embedded.ErrFull, "the reserve is not for more messages")
	storetest.CheckQueues(t, s, m)

	for seq := uint64(1); seq < full; seq++ {
		again(broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq})
	}
	for seq := uint64(2000); seq < 2400; seq++ { // much more than the disk: room comes back
		again(enqueue("a", seq, 1000))
		again(broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq})
	}
	require.NoError(t, s.Close())
	s = open(t, cfg)
	storetest.Check(t, s, m)
}

// Between the copies and the end of the old segment lies a moment in which the log has everything twice.
func TestCrashBetweenCopyAndDelete(t *testing.T) {
	disk := faultfs.New()
	cfg := busyCleaner(disk)
	s := open(t, cfg)
	m := storetest.NewModel()
	apply := func(ops ...broker.Op) {
		t.Helper()
		require.NoError(t, commit(s, ops...))
		m.Apply(ops...)
	}
	var held atomic.Bool
	disk.Hook(func(op faultfs.Op, path string) error {
		if filepath.Base(path) == "cursor" && op == faultfs.OpWrite || op == faultfs.OpRemove {
			held.Store(true)
			return faultfs.ErrInjected
		}
		return nil
	})
	apply(put("a"), put("b"), put("gone"), broker.Op{Kind: broker.OpRetain, Message: message("r", 10)})
	for seq := uint64(1); seq <= 200; seq++ {
		apply(delay(seq, 20), enqueue("a", seq, 100), enqueue("gone", seq, 10), broker.Op{Kind: broker.OpReleased, ClientID: "a", Seq: seq})
		if seq%3 != 0 {
			apply(broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq}, broker.Op{Kind: broker.OpDelayDone, Seq: seq})
		}
	}
	apply(broker.Op{Kind: broker.OpDeleteSession, ClientID: "gone"}, broker.Op{Kind: broker.OpUnretain, Topic: "r"})
	require.Eventually(t, func() bool { return held.Load() && s.Stats().CopiedBytes == 0 && s.Stats().CleanErrors > 0 }, 5*time.Second, time.Millisecond)
	for seq := uint64(3); seq <= 200; seq += 6 { // after the copies
		apply(broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq}, broker.Op{Kind: broker.OpDelayDone, Seq: seq})
	}
	after := disk.PowerCut(rand.New(rand.NewPCG(1, 1)))
	_ = s.Close()
	cfg.FS = after
	s = open(t, cfg)
	storetest.Check(t, s, m)
	require.Eventually(t, func() bool { return s.Stats().Cleaned > 2 }, 5*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	storetest.Check(t, open(t, cfg), m)
}

func TestBusyOnSlowDisk(t *testing.T) {
	disk := faultfs.New()
	gate := make(chan struct{})
	disk.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && filepath.Ext(path) == ".seg" {
			<-gate
		}
		return nil
	})
	s := open(t, embedded.Config{Dir: "/store", FS: disk, MaxPending: 10_000})
	var done atomic.Int64
	count := func(err error) {
		if err == nil {
			done.Add(1)
		}
	}
	taken := int64(0)
	batch := &broker.Batch{Ops: []broker.Op{put("a"), enqueue("a", 1, 1000)}}
	var err error
	for err == nil {
		if err = s.Commit(nil, batch, count); err == nil { //nolint:staticcheck // nil: must not block
			taken++
		}
	}
	require.ErrorIs(t, err, broker.ErrBusy)
	require.Positive(t, taken)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Commit(ctx, batch, count), context.DeadlineExceeded)

	blocked := make(chan error, 8)
	for range cap(blocked) {
		go func() { blocked <- s.Commit(t.Context(), batch, count) }()
	}
	require.Zero(t, done.Load())
	close(gate)
	for range cap(blocked) {
		require.NoError(t, <-blocked)
	}
	require.NoError(t, flush(s))
	require.Equal(t, taken+int64(cap(blocked)), done.Load(), "refused batches are not heard of again")
}

func TestCloseWakesBlockedCommit(t *testing.T) {
	disk := faultfs.New()
	gate := make(chan struct{})
	disk.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && filepath.Ext(path) == ".seg" {
			<-gate
		}
		return nil
	})
	s := open(t, embedded.Config{Dir: "/store", FS: disk, MaxPending: 5000})
	batch := &broker.Batch{Ops: []broker.Op{put("a"), enqueue("a", 1, 4000)}}
	require.NoError(t, s.Commit(t.Context(), batch, nil))
	blocked := make(chan error, 1)
	go func() { blocked <- s.Commit(t.Context(), batch, nil) }()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	require.ErrorIs(t, <-blocked, embedded.ErrClosed)
	close(gate)
	require.NoError(t, <-closed)
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, embedded.Config{Dir: dir})
	_, err := embedded.Open(embedded.Config{Dir: dir}, nil, nil)
	require.ErrorIs(t, err, embedded.ErrLocked)
	require.ErrorContains(t, err, dir)
	require.NoError(t, s.Close())
	require.NoError(t, open(t, embedded.Config{Dir: dir}).Close())
}

func TestMaxBytes(t *testing.T) {
	const limit = 1 << 20
	s := open(t, embedded.Config{Dir: t.TempDir(), Sync: seglog.SyncNever, SegmentBytes: 32 << 10, MaxBytes: limit, CleanAbove: 64 << 10})
	require.NoError(t, commit(s, put("a")))
	var last uint64
	for seq := uint64(1); ; seq++ {
		err := commit(s, enqueue("a", seq, 2000))
		if errors.Is(err, embedded.ErrFull) {
			break
		}
		require.NoError(t, err)
		require.LessOrEqual(t, s.Stats().Bytes, int64(limit))
		last = seq
	}
	require.Greater(t, last, uint64(limit/2000/2), "refused long before the limit")
	require.Positive(t, s.Stats().Refused)
	for seq := uint64(1); seq <= last/2; seq++ { // deleting is always possible
		require.NoError(t, commit(s, broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq}))
	}
	require.Eventually(t, func() bool { return commit(s, enqueue("a", last+1, 2000)) == nil }, 10*time.Second, time.Millisecond)
}

func put(id string) broker.Op {
	return broker.Op{Kind: broker.OpPutSession, ClientID: id, Session: &broker.SessionRecord{ClientID: id, Expiry: time.Hour}}
}

func message(topic string, size int) *broker.Message {
	m := &broker.Message{Topic: topic, QoS: 1}
	for i := range size {
		m.Payload = append(m.Payload, byte('a'+i%26))
	}
	return m
}

func enqueue(id string, seq uint64, size int) broker.Op {
	return broker.Op{
		Kind: broker.OpEnqueue, Message: message("some/topic", size), Targets: []broker.Target{{ClientID: id, Seq: seq, QoS: 1}},
	}
}

func delay(number uint64, size int) broker.Op {
	return broker.Op{Kind: broker.OpDelay, Seq: number, Due: int64(number), Message: message("later", size)}
}

// A commit that fails because no new segment can be begun uses up a number, but loses nothing: a smaller one still fits the old segment.
func TestFailedSegmentIsNoHole(t *testing.T) {
	disk := faultfs.New()
	cfg := embedded.Config{Dir: "/store", FS: disk, SegmentBytes: 4 << 10}
	s := open(t, cfg)
	m := storetest.NewModel()
	first := []broker.Op{put("a"), enqueue("a", 1, 2000)}
	require.NoError(t, commit(s, first...))
	disk.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpOpen && strings.Contains(path, ".seg") {
			return faultfs.ErrInjected
		}
		return nil
	})
	require.ErrorIs(t, commit(s, enqueue("a", 2, 3000)), faultfs.ErrInjected)
	last := enqueue("a", 3, 100)
	require.NoError(t, commit(s, last))
	disk.Hook(nil)
	require.NoError(t, s.Close())
	m.Apply(first...)
	m.Apply(last)
	s = open(t, cfg)
	storetest.Check(t, s, m)
	require.False(t, s.Damage().Any(), "%+v", s.Damage())
}
