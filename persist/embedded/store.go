package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
	"gantry/persist/seglog"
)

var _ broker.Store = (*Store)(nil)

// Store is an open store. All methods may be called from any goroutine.
type Store struct {
	cfg     Config
	log     *slog.Logger
	disk    *seglog.Log
	metrics *metrics

	// mu covers the state and what follows, and with them the order of the log: a batch is appended under mu, so that the cleaner can
	// append what it found alive with nothing in between. It is never held over I/O, and the callbacks of Commit run without it.
	mu sync.Mutex
	state
	applied uint64        // log records below it took effect or failed
	pending int           // bytes of batches that were appended and are above applied
	space   chan struct{} // closed when pending has gone down
	waiting bool          // somebody waits for space
	closed  bool
	pass    *pass // the cleaner's work, nil when it rests
	turn    bool  // the cleaner found no room: it goes before commits
	short   bool  // the disk was full: the reserve is given up, or about to be

	encoders  sync.Pool
	closing   chan struct{}
	cleanKick chan struct{}
	reserve   reserve       // owned by the cleaner
	cleaned   chan struct{} // closed when the cleaner has ended
	closeOnce sync.Once
	closeErr  error
}

// Open opens or creates the store in cfg.Dir and recovers its state. It fails when another process has the folder (ErrLocked), for
// records of a newer format (ErrVersion) and for I/O errors of the folder itself. Damaged data does not make it fail: what was lost is in Damage, in
// the log and in the metrics. log and reg may be nil.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.fs().MkdirAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	cfg.fitDisk()
	s := &Store{
		cfg: cfg, log: log, metrics: newMetrics(), state: newState(),
		space: make(chan struct{}), closing: make(chan struct{}), cleanKick: make(chan struct{}, 1), cleaned: make(chan struct{}),
	}
	s.reserve = newReserve(&cfg)
	s.encoders.New = func() any { return new(encoder) }
	s.disk, err = seglog.Open(cfg.Dir, seglog.Options{
		SegmentBytes: cfg.SegmentBytes, MaxPending: 2 * cfg.MaxPending, MaxRecord: maxRecord,
		Sync: cfg.Sync, SyncEvery: cfg.SyncEvery, Linger: cfg.Linger, FS: cfg.FS, Log: log, OnCommit: s.metrics.onCommit,
	})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.start(reg); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", cfg.Dir, err), s.disk.Close())
	}
	return s, nil
}

func (s *Store) start(reg prometheus.Registerer) error {
	if err := s.recover(); err != nil {
		return err
	}
	if err := s.metrics.register(reg, s); err != nil {
		return err
	}
	go s.cleanLoop()
	nudge(s.cleanKick)
	return nil
}

// Load implements broker.Store.
func (s *Store) Load(ctx context.Context) (*broker.State, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.values == nil {
		return nil, errors.New("load store: called a second time")
	}
	out, lost := s.values.state(&s.state)
	s.values = nil
	if lost > 0 {
		s.metrics.lost.Add(lost)
		s.log.Error("stored values cannot be decoded, left out", "dir", s.cfg.Dir, "count", lost)
	}
	return out, nil
}

// Close implements broker.Store: what Commit has taken becomes durable and its callbacks run before Close returns.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.wake()
		s.mu.Unlock()
		close(s.closing)
		<-s.cleaned
		if err := s.disk.Close(); err != nil {
			s.closeErr = fmt.Errorf("close store %s: %w", s.cfg.Dir, err)
		}
		s.metrics.unregister()
	})
	return s.closeErr
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
