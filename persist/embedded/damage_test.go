package embedded_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/persist/embedded"
	"gantry/persist/seglog/faultfs"
	"gantry/persist/storetest"
)

// damage flips a bit of the record that contains text, in every segment that has it.
func damage(t *testing.T, disk *faultfs.Disk, text string) {
	t.Helper()
	infos, err := disk.List("/store")
	require.NoError(t, err)
	hits := 0
	for _, info := range infos {
		if filepath.Ext(info.Name) != ".seg" {
			continue
		}
		path := filepath.Join("/store", info.Name)
		b, err := disk.ReadFile(path)
		require.NoError(t, err)
		for off := 0; ; hits++ {
			i := bytes.Index(b[off:], []byte(text))
			if i < 0 {
				break
			}
			b[off+i] ^= 0x10
			off += i + 1
		}
		disk.WriteFile(path, b)
	}
	require.Positive(t, hits, "%q is nowhere on the disk", text)
}

func enqueueText(id string, seq uint64, text string) broker.Op {
	op := enqueue(id, seq, 0)
	op.Message.Payload = []byte(text)
	return op
}

// twoSessions commits one batch each: sessions, subscriptions and ten messages for both, named after their session and number.
func twoSessions(t *testing.T, s broker.Store) *storetest.Model {
	t.Helper()
	m := storetest.NewModel()
	apply := func(ops ...broker.Op) {
		require.NoError(t, commit(s, ops...))
		m.Apply(ops...)
	}
	for _, id := range []string{"alpha", "beta"} {
		op := put(id)
		op.Session.Username = "record-of-" + id
		apply(op)
		sub := broker.Subscription{Filter: "filter-of-" + id, QoS: 1}
		apply(broker.Op{Kind: broker.OpSubscribe, ClientID: id, Subscription: &sub})
		for seq := uint64(1); seq <= 10; seq++ {
			apply(enqueueText(id, seq, fmt.Sprintf("body-%s-%d.", id, seq)))
		}
	}
	return m
}

func TestDamagedBodyLosesOnlyItself(t *testing.T) {
	disk := faultfs.New()
	cfg := embedded.Config{Dir: "/store", FS: disk}
	s := open(t, cfg)
	m := twoSessions(t, s)
	require.NoError(t, s.Close())
	damage(t, disk, "body-alpha-4.")

	reg := prometheus.NewRegistry()
	s, err := embedded.Open(cfg, nil, reg)
	require.NoError(t, err)
	delete(m.Sessions["alpha"].Queue, 4)
	storetest.Check(t, s, m)
	require.True(t, s.Damage().Any())
	require.Positive(t, s.Damage().CorruptBytes)
	require.NoError(t, commit(s, broker.Op{Kind: broker.OpDequeue, ClientID: "alpha", Seq: 4}))
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.NoError(t, s.Close())
	families, err = reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families, "Close takes the metrics away, so that the store can be opened again")
}

func TestBodyDamagedWhileOpen(t *testing.T) {
	disk := faultfs.New()
	s := open(t, embedded.Config{Dir: "/store", FS: disk})
	twoSessions(t, s)
	damage(t, disk, "body-alpha-4.")
	got, err := s.Queued("alpha", 0, 100)
	require.NoError(t, err)
	require.Len(t, got, 10)
	for _, q := range got {
		require.Equal(t, q.Seq == 4, q.Message == nil, "entry %d", q.Seq)
		require.Equal(t, broker.QoS(1), q.QoS)
	}
	require.Equal(t, uint64(1), s.Damage().Lost)
}

// A session whose own record is lost keeps its messages and subscriptions, at once and for good.
func TestDamagedSessionRecord(t *testing.T) {
	disk := faultfs.New()
	cfg := embedded.Config{Dir: "/store", FS: disk, SegmentBytes: 4 << 10, CleanAbove: 8 << 10}
	s := open(t, cfg)
	m := twoSessions(t, s)
	require.NoError(t, s.Close())
	damage(t, disk, "record-of-alpha")

	m.Sessions["alpha"].Record = broker.SessionRecord{ClientID: "alpha", Expiry: 24 * time.Hour, NextSeq: 11}
	s = open(t, cfg)
	storetest.Check(t, s, m)
	require.True(t, s.Damage().Any())
	require.NoError(t, s.Close())
	s = open(t, cfg)
	storetest.Check(t, s, m)
	cleanEverything(t, s, cfg)
	require.NoError(t, s.Close())
	s = open(t, cfg)
	storetest.Check(t, s, m)
	require.False(t, s.Damage().Any(), "the damaged segment is gone: %+v", s.Damage())
}

// The same when the record rots while the store is open and the cleaner comes across it.
func TestSessionRecordDamagedWhileOpen(t *testing.T) {
	disk := faultfs.New()
	cfg := embedded.Config{Dir: "/store", FS: disk, SegmentBytes: 4 << 10, CleanAbove: 8 << 10}
	s := open(t, cfg)
	m := twoSessions(t, s)
	damage(t, disk, "record-of-alpha")
	m.Sessions["alpha"].Record = broker.SessionRecord{ClientID: "alpha", Expiry: 24 * time.Hour, NextSeq: 11}
	cleanEverything(t, s, cfg)
	require.True(t, s.Damage().Any())
	require.NoError(t, s.Close())
	s = open(t, cfg)
	storetest.Check(t, s, m)
}

// cleanEverything makes garbage until the cleaner has gone once round the log.
func cleanEverything(t *testing.T, s *embedded.Store, cfg embedded.Config) {
	t.Helper()
	start := s.Stats()
	rounds := uint64(start.Bytes/cfg.SegmentBytes) + 3
	for s.Stats().Cleaned < start.Cleaned+rounds {
		require.NoError(t, commit(s, broker.Op{Kind: broker.OpRetain, Message: message("garbage", 1000)}))
	}
	require.NoError(t, commit(s, broker.Op{Kind: broker.OpUnretain, Topic: "garbage"}))
}

// Every byte of a segment destroyed in turn: the store opens, says so, and what it returns is what was committed.
func TestAnyDamage(t *testing.T) {
	disk := faultfs.New()
	cfg := embedded.Config{Dir: "/store", FS: disk}
	s := open(t, cfg)
	m := twoSessions(t, s)
	require.NoError(t, s.Close())
	infos, err := disk.List("/store")
	require.NoError(t, err)
	var path string
	var whole []byte
	for _, info := range infos {
		if filepath.Ext(info.Name) == ".seg" && info.Size > int64(len(whole)) {
			path = filepath.Join("/store", info.Name)
			whole, err = disk.ReadFile(path)
			require.NoError(t, err)
		}
	}
	require.Greater(t, len(whole), 1000)
	for off := 0; off < len(whole); off += 61 {
		sub := faultfs.New()
		b := bytes.Clone(whole)
		for i := off; i < min(off+40, len(b)); i++ {
			b[i] ^= 0xa5
		}
		sub.WriteFile(path, b)
		s, err := embedded.Open(embedded.Config{Dir: "/store", FS: sub}, nil, nil)
		require.NoError(t, err, "bytes from %d", off)
		got, err := storetest.Read(s)
		require.NoError(t, err)
		for id, queue := range got.Queues {
			require.GreaterOrEqual(t, len(queue), 7, "bytes from %d cost more than the records they hit", off)
			for _, q := range queue {
				require.Equal(t, m.Sessions[id].Queue[q.Seq], q)
			}
		}
		require.Len(t, got.State.Sessions, 2, "bytes from %d", off)
		require.NoError(t, s.Close())
	}
}

// lastWrite gives the disk as a power cut can leave it in the middle of a write of three batches, the first of which is lost. All that
// was acknowledged is in the model.
func lastWrite(t *testing.T, damaged string) (*faultfs.Disk, *storetest.Model) {
	t.Helper()
	disk := faultfs.New()
	entered, proceed := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	disk.Hook(func(op faultfs.Op, path string) error {
		if op == faultfs.OpSync && filepath.Ext(path) == ".seg" && held.Load() {
			entered <- struct{}{}
			<-proceed
		}
		return nil
	})
	s := open(t, embedded.Config{Dir: "/store", FS: disk})
	m := twoSessions(t, s)
	held.Store(true)
	async := func(ops ...broker.Op) { require.NoError(t, s.Commit(t.Context(), &broker.Batch{Ops: ops}, nil)) }
	ops := enqueueText("alpha", 50, "acknowledged")
	async(ops)
	m.Apply(ops)
	<-entered // its fsync is held up, so what follows goes into one write
	async(enqueueText("alpha", 51, "lost."))
	async(enqueueText("alpha", 52, "kept by chance"))
	async(broker.Op{Kind: broker.OpDeleteSession, ClientID: "beta"})
	proceed <- struct{}{}
	<-entered // now they are written and not fsynced
	infos, err := disk.List("/store")
	require.NoError(t, err)
	after := faultfs.New()
	for _, info := range infos {
		b, err := disk.ReadFile(filepath.Join("/store", info.Name))
		require.NoError(t, err)
		after.WriteFile(filepath.Join("/store", info.Name), b)
	}
	held.Store(false)
	proceed <- struct{}{}
	require.NoError(t, s.Close())
	damage(t, after, damaged)
	return after, m
}

// Batches take effect in order also over a power cut: what follows a lost one has none, now and later.
func TestHoleInLastWrite(t *testing.T) {
	disk, m := lastWrite(t, "lost.")
	cfg := embedded.Config{Dir: "/store", FS: disk, SegmentBytes: 4 << 10, CleanAbove: 8 << 10}
	for range 3 {
		s := open(t, cfg)
		storetest.Check(t, s, m)
		require.False(t, s.Damage().Any(), "a power cut is no damage: %+v", s.Damage())
		op := enqueueText("beta", uint64(60+len(m.Sessions["beta"].Queue)), "later")
		require.NoError(t, commit(s, op)) // from now on the hole looks settled
		m.Apply(op)
		require.NoError(t, s.Close())
	}
	s := open(t, cfg)
	cleanEverything(t, s, cfg)
	require.NoError(t, s.Close())
	storetest.Check(t, open(t, cfg), m)
}

// The same hole among acknowledged batches is damage, and those behind it count.
func TestHoleBeforeLastWrite(t *testing.T) {
	disk, m := lastWrite(t, "body-alpha-4.")
	delete(m.Sessions["alpha"].Queue, 4)
	m.Apply(enqueueText("alpha", 51, "lost."), enqueueText("alpha", 52, "kept by chance"), broker.Op{Kind: broker.OpDeleteSession, ClientID: "beta"})
	s := open(t, embedded.Config{Dir: "/store", FS: disk})
	storetest.Check(t, s, m)
	require.Equal(t, uint64(1), s.Damage().Missing)
}
