package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/persist/seglog"
)

// stampBytes is the envelope of a record on disk: the time of its Append, Unix milliseconds, little endian.
const stampBytes = 8

// Queue is an open queue. All methods may be called from any goroutine.
type Queue struct {
	cfg       Config
	log       *seglog.Log
	slog      *slog.Logger
	maxRecord int
	metrics   *metrics
	ops       sync.Pool

	// mu guards what follows. It is never held over disk work or a done callback.
	mu        sync.Mutex
	closed    bool
	reserved  int64 // bytes of records on their way to the log
	waiters   []waiter
	waitBytes int
	moving    bool          // the mover has a waiter in its hands
	room      chan struct{} // closed and replaced when waiters left
	settled   chan struct{} // closed and replaced when a reservation was given back, if somebody waits for that
	settling  bool
	pin       uint64 // set by Pin
	readTo    uint64 // numbers below were handed out by the current Reader
	reader    *Reader
	holes     []span // segments dropped by the policy; the log may still list them for a moment
	bad       []span // damaged records that the Reader found, each in one segment and in no hole
	badTo     uint64 // numbers below were searched for damage
	tally     tally

	dropMu    sync.Mutex // one appender at a time makes room
	probe     probe
	dead      deadLetters
	commitErr atomic.Pointer[error]
	moverKick chan struct{}
	moverDone chan struct{}
	stop      context.CancelFunc
	closeOnce sync.Once
	closeErr  error
}

// span is a range of sequence numbers.
type span struct{ from, to uint64 }

func (s span) overlap(from, to uint64) uint64 {
	if lo, hi := max(s.from, from), min(s.to, to); hi > lo {
		return hi - lo
	}
	return 0
}

// Reasons for which records are lost.
const (
	DroppedOldest  = "drop_oldest"      // the policy made room
	DroppedDamaged = "damaged"          // unreadable on disk
	DroppedDead    = "dead_letter_full" // dead letters that made room for newer ones
)

type tally struct {
	confirmed, refused uint64
	buried             uint64
	dropped            map[string]uint64
	droppedBytes       uint64
}

// Open opens or creates a queue and recovers what is in it. It fails for a bad Config, with seglog.ErrLocked when another process has the
// folder, with seglog.ErrVersion for files of a newer program and with I/O errors of the folder; damage and a full disk never make it
// fail. reg may be nil.
func Open(cfg Config, reg prometheus.Registerer) (*Queue, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", cfg.Name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	q := &Queue{
		cfg: cfg, slog: cfg.Log, maxRecord: cfg.maxRecord(), stop: stop,
		room: make(chan struct{}), settled: make(chan struct{}), moverKick: make(chan struct{}, 1), moverDone: make(chan struct{}),
		tally: tally{dropped: map[string]uint64{DroppedOldest: 0, DroppedDamaged: 0, DroppedDead: 0}},
	}
	q.ops.New = func() any { return newOp(q) }
	q.metrics = newMetrics(q)
	if err := q.open(); err != nil {
		stop()
		return nil, fmt.Errorf("open queue %s: %w", cfg.Name, err)
	}
	if err := q.metrics.register(reg); err != nil {
		stop()
		return nil, fmt.Errorf("open queue %s: %w", cfg.Name, errors.Join(err, q.dead.close(), q.log.Close()))
	}
	go q.move(ctx)
	return q, nil
}

func (q *Queue) open() error {
	var err error
	q.log, err = seglog.Open(q.cfg.Dir, seglog.Options{
		SegmentBytes: q.cfg.SegmentBytes,
		MaxPending:   int(min(maxPending, max(minSegment, q.cfg.MaxBytes/8))),
		MaxRecord:    q.maxRecord + stampBytes,
		Sync:         q.cfg.Sync, SyncEvery: q.cfg.SyncEvery, Linger: q.cfg.Linger,
		QuarantineBytes: q.cfg.MaxBytes / 8,
		FS:              q.cfg.FS, Log: q.slog,
		OnCommit: q.metrics.onCommit,
		OnRemove: func(int64) { nudge(q.moverKick) },
	})
	if err != nil {
		return err
	}
	q.tally.dropped[DroppedDamaged] = q.log.Stats().LostRecords
	if err := q.dead.open(q.cfg, q.maxRecord); err != nil {
		return errors.Join(err, q.log.Close())
	}
	return nil
}

// Close commits what was accepted, fails with ErrClosed what still waited for room, saves the frontier and gives up the folder. Safe to
// call twice.
func (q *Queue) Close() error {
	q.closeOnce.Do(func() { q.closeErr = q.close() })
	return q.closeErr
}

func (q *Queue) close() error {
	q.mu.Lock()
	q.closed = true
	close(q.room)
	q.mu.Unlock()
	q.stop()
	<-q.moverDone
	q.mu.Lock()
	left := q.waiters
	q.waiters, q.waitBytes = nil, 0
	q.mu.Unlock()
	for _, w := range left {
		w.finish(ErrClosed)
	}
	err := errors.Join(q.log.Close(), q.dead.close())
	q.mu.Lock()
	r := q.reader
	q.reader = nil
	q.mu.Unlock()
	if r != nil {
		r.close()
	}
	q.probe.close()
	q.metrics.unregister()
	if err != nil {
		return fmt.Errorf("close queue %s: %w", q.cfg.Name, err)
	}
	return nil
}

// Dir returns the folder of the queue.
func (q *Queue) Dir() string { return q.cfg.Dir }

// Ready returns a channel that is closed at the next commit and at Close. To wait without missing one: take the channel, find Next at
// io.EOF, then wait.
func (q *Queue) Ready() <-chan struct{} { return q.log.Ready() }

// Frontier returns the first sequence number that is not confirmed.
func (q *Queue) Frontier() uint64 { return q.log.Cursor() }

// Confirm tells that the receiver has everything below next. Lower values are ignored. It takes effect in memory at once and on disk
// within 100 ms; then whole segments below are deleted.
func (q *Queue) Confirm(next uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := q.log.Cursor()
	next = min(next, q.log.Durable())
	if next <= from {
		return
	}
	q.tally.confirmed += q.live(from, next)
	q.log.SetCursor(next)
	q.holes = prune(q.holes, next)
	q.bad = prune(q.bad, next)
}

// live counts the records in [from, to) that are neither dropped nor known to be damaged. It needs mu.
func (q *Queue) live(from, to uint64) uint64 {
	n := q.log.Records(from, to)
	for _, lost := range [][]span{q.bad, q.holes} {
		for _, s := range lost {
			if lo, hi := max(s.from, from), min(s.to, to); hi > lo {
				n -= min(n, q.log.Records(lo, hi)) // none once the log forgot the segment
			}
		}
	}
	return n
}

func prune(spans []span, below uint64) []span {
	n := 0
	for _, s := range spans {
		if s.to > below {
			spans[n] = s
			n++
		}
	}
	return spans[:n]
}

// Pin keeps everything below next from being dropped by the policy until it is confirmed: it is in flight and has to be sent again as it
// is. What the current Reader handed out is kept anyway. A lower value takes a pin back.
func (q *Queue) Pin(next uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pin = next
}

// Writable returns the error of the newest commit, or nil when it succeeded.
func (q *Queue) Writable() error {
	if p := q.commitErr.Load(); p != nil {
		return *p
	}
	return nil
}

func (q *Queue) noteCommit(err error) {
	if err != nil {
		kept := err // its own variable, so that success allocates nothing
		q.commitErr.Store(&kept)
		return
	}
	if q.commitErr.Load() != nil {
		q.commitErr.Store(nil)
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
