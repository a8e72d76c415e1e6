package embedded_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/persist/embedded"
	"gantry/persist/seglog"
	"gantry/persist/storetest"
)

// Whatever is written, the log stays within CleanAbove or twice what lives, plus what arrives while a segment is cleaned. How much that
// is depends on the machine, so what is published pauses for the cleaner: it must get there without another commit to wake it.
func TestLogStaysSmall(t *testing.T) {
	const segment, above = 64 << 10, 512 << 10
	cfg := embedded.Config{Dir: t.TempDir(), Sync: seglog.SyncNever, SegmentBytes: segment, CleanAbove: above}
	s := open(t, cfg)
	m := storetest.NewModel()
	apply := func(ops ...broker.Op) {
		require.NoError(t, commit(s, ops...))
		m.Apply(ops...)
	}
	apply(put("a"), put("stays"))
	for seq := uint64(1); seq <= 100; seq++ { // never dequeued: has to be carried along
		apply(enqueue("stays", seq, 500))
	}
	var peak, written int64
	for seq := uint64(1); seq <= 8000; seq++ {
		apply(enqueue("a", seq, 800), delay(seq, 200))
		if seq > 50 {
			apply(broker.Op{Kind: broker.OpDequeue, ClientID: "a", Seq: seq - 50}, broker.Op{Kind: broker.OpDelayDone, Seq: seq - 50})
		}
		written += 1100
		peak = max(peak, s.Stats().Bytes)
		if seq%100 == 0 {
			require.Eventually(t, func() bool { return s.Stats().Bytes <= above }, patience, 100*time.Microsecond, "the cleaner stopped short")
		}
	}
	st := s.Stats()
	t.Logf("written %d KiB, peak %d KiB, cleaned %d segments, copied %d KiB", written>>10, peak>>10, st.Cleaned, st.CopiedBytes>>10)
	require.Less(t, peak, int64(above+8*segment))
	require.Less(t, st.LiveBytes, int64(200<<10))
	require.NoError(t, s.Close())
	storetest.Check(t, open(t, cfg), m)
}

// One body with many targets stays one body until the last of them is done.
func TestSharedBodyStaysOne(t *testing.T) {
	cfg := embedded.Config{Dir: t.TempDir(), Sync: seglog.SyncNever, SegmentBytes: 256 << 10, CleanAbove: 1 << 20}
	s := open(t, cfg)
	const clients, bodies = 100, 60
	var ops []broker.Op
	var targets []broker.Target
	for c := range clients {
		id := fmt.Sprintf("client-%d", c)
		ops = append(ops, put(id))
		targets = append(targets, broker.Target{ClientID: id, QoS: 1})
	}
	m := storetest.NewModel()
	apply := func(ops ...broker.Op) {
		require.NoError(t, commit(s, ops...))
		m.Apply(ops...)
	}
	apply(ops...)
	for seq := uint64(1); seq <= bodies; seq++ {
		op := broker.Op{Kind: broker.OpEnqueue, Message: message("t", 50_000)}
		for _, target := range targets {
			target.Seq = seq
			op.Targets = append(op.Targets, target)
		}
		apply(op)
	}
	cleanEverything(t, s, cfg) // 3 MB of bodies go round the log once
	require.Less(t, s.Stats().Bytes, int64(bodies*50_000*5/2))
	for c := range clients - 1 {
		var ops []broker.Op
		for seq := uint64(1); seq <= bodies; seq++ {
			ops = append(ops, broker.Op{Kind: broker.OpDequeue, ClientID: targets[c].ClientID, Seq: seq})
		}
		apply(ops...)
	}
	cleanEverything(t, s, cfg)
	storetest.CheckQueues(t, s, m)
	for seq := uint64(1); seq <= bodies; seq++ {
		apply(broker.Op{Kind: broker.OpDequeue, ClientID: targets[clients-1].ClientID, Seq: seq})
	}
	for s.Stats().Bytes > 5<<18 {
		require.NoError(t, commit(s, broker.Op{Kind: broker.OpUnretain, Topic: "wake the cleaner"}))
	}
	require.NoError(t, s.Close())
	storetest.Check(t, open(t, cfg), m)
}

// The cleaner of a session with very many entries must not hold up commits.
func TestCommitsGoOnWhileCleaning(t *testing.T) {
	s := open(t, embedded.Config{Dir: t.TempDir(), Sync: seglog.SyncNever, SegmentBytes: 1 << 20, CleanAbove: 2 << 20})
	fillSingly(t, s, 30_000, 100)
	require.NoError(t, commit(s, put("b")))
	var worst time.Duration
	for seq := uint64(1); s.Stats().Cleaned < 20; seq++ {
		start := time.Now()
		require.NoError(t, commit(s, enqueue("b", seq, 2000), broker.Op{Kind: broker.OpDequeue, ClientID: "b", Seq: seq}))
		worst = max(worst, time.Since(start))
	}
	t.Logf("longest commit %v, cleaned %d segments", worst, s.Stats().Cleaned)
	require.Less(t, worst, patience)
}

const patience = 10 * time.Second

// fill gives client "a" n queued messages of a size, 100 to a batch.
func fill(t testing.TB, s broker.Store, n, size int) {
	t.Helper()
	require.NoError(t, commit(s, put("a")))
	m := message("plant/7/temperature", size)
	for seq := 1; seq <= n; {
		var ops []broker.Op
		for range min(100, n-seq+1) {
			op := broker.Op{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{{ClientID: "a", Seq: uint64(seq), QoS: 1}}}
			ops = append(ops, op)
			seq++
		}
		require.NoError(t, s.Commit(t.Context(), &broker.Batch{Ops: ops}, nil))
	}
	require.NoError(t, flush(s))
}

func heap() uint64 {
	runtime.GC() // pools give up what they hold at the second one
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryPerEntry(t *testing.T) {
	const n = 1_000_000
	s := open(t, embedded.Config{Dir: t.TempDir(), Sync: seglog.SyncNever})
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, flush(s))
	before := heap()
	fill(t, s, n, 10)
	per := float64(int64(heap())-int64(before)) / n
	t.Logf("%.1f bytes per queued entry", per)
	require.Less(t, per, 48.0)
	runtime.KeepAlive(s)
}

func BenchmarkCommit(b *testing.B) {
	for _, outstanding := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("outstanding=%d", outstanding), func(b *testing.B) {
			s := open(b, embedded.Config{Dir: b.TempDir()})
			require.NoError(b, commit(s, put("a")))
			m := message("plant/7/temperature", 200)
			slots := make(chan struct{}, outstanding)
			done := func(error) { <-slots }
			b.ReportAllocs()
			seq := uint64(0)
			for b.Loop() { // one message in, an old one out
				seq++
				slots <- struct{}{}
				ops := [2]broker.Op{
					{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{{ClientID: "a", Seq: seq, QoS: 1}}},
					{Kind: broker.OpDequeue, ClientID: "a", Seq: seq - 1000},
				}
				if err := s.Commit(context.Background(), &broker.Batch{Ops: ops[:]}, done); err != nil {
					b.Fatal(err)
				}
			}
			require.NoError(b, flush(s))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	const n = 1_000_000
	dir := b.TempDir()
	s := open(b, embedded.Config{Dir: dir, Sync: seglog.SyncNever})
	fillSingly(b, s, n, 200)
	require.NoError(b, s.Close())
	for b.Loop() {
		s := open(b, embedded.Config{Dir: dir})
		st, err := s.Load(b.Context())
		require.NoError(b, err)
		require.Equal(b, n, st.Sessions[0].Count)
		b.StopTimer()
		require.NoError(b, s.Close())
		b.StartTimer()
	}
}

// fillSingly is fill with one batch per message.
func fillSingly(b testing.TB, s broker.Store, n, size int) {
	b.Helper()
	require.NoError(b, commit(s, put("a")))
	m := message("plant/7/temperature", size)
	for seq := range n {
		ops := []broker.Op{{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{{ClientID: "a", Seq: uint64(seq + 1), QoS: 1}}}}
		require.NoError(b, s.Commit(context.Background(), &broker.Batch{Ops: ops}, nil))
	}
	require.NoError(b, flush(s))
}

func BenchmarkQueued(b *testing.B) {
	s := open(b, embedded.Config{Dir: b.TempDir(), Sync: seglog.SyncNever})
	fillSingly(b, s, 100_000, 200)
	var from uint64
	b.ReportAllocs()
	for b.Loop() {
		got, err := s.Queued("a", from, 64)
		require.NoError(b, err)
		from += 64
		if len(got) < 64 {
			from = 0
		}
	}
	b.ReportMetric(float64(b.N*64)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkChurn keeps the cleaner busy: everything is dequeued a thousand messages later.
func BenchmarkChurn(b *testing.B) {
	s := open(b, embedded.Config{Dir: b.TempDir(), SegmentBytes: 4 << 20, CleanAbove: 16 << 20})
	require.NoError(b, commit(s, put("a"), put("stays")))
	for seq := uint64(1); seq <= 20_000; seq++ { // 4 MiB that have to be carried along
		require.NoError(b, s.Commit(b.Context(), &broker.Batch{Ops: []broker.Op{enqueue("stays", seq, 200)}}, nil))
	}
	m := message("plant/7/temperature", 1000)
	slots := make(chan struct{}, 4096)
	done := func(error) { <-slots }
	var peak int64
	seq := uint64(0)
	for b.Loop() {
		seq++
		slots <- struct{}{}
		ops := []broker.Op{
			{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{{ClientID: "a", Seq: seq, QoS: 1}}},
			{Kind: broker.OpDequeue, ClientID: "a", Seq: seq - 1000},
		}
		if err := s.Commit(context.Background(), &broker.Batch{Ops: ops}, done); err != nil {
			b.Fatal(err)
		}
		if seq%256 == 0 {
			peak = max(peak, s.Stats().Bytes)
		}
	}
	st := s.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	b.ReportMetric(float64(st.CopiedBytes)/(1<<20), "copied-MiB")
}
