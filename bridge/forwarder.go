package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/bridge/queue"
)

// ForwarderConfig says how a sink is supervised. The zero value of a duration
// is its default.
type ForwarderConfig struct {
	// Bridge is the name of the bridge. Required.
	Bridge string
	// MinBackoff is the pause before the first new try, 250 ms by default. It
	// doubles with every try that brings no progress.
	MinBackoff time.Duration
	// MaxBackoff is the longest pause, 30 s by default: an uplink that comes
	// back is used within that time.
	MaxBackoff time.Duration
	// FailedBackoff is the pause after a permanent error, 60 s by default.
	FailedBackoff time.Duration
	// StopTimeout is how long a stop or a pause waits for confirmations, 5 s by
	// default. What is not confirmed by then is sent again after the next start.
	StopTimeout time.Duration
}

func (c *ForwarderConfig) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.MinBackoff, 250 * time.Millisecond},
		{&c.MaxBackoff, 30 * time.Second},
		{&c.FailedBackoff, time.Minute},
		{&c.StopTimeout, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
}

// Forwarder runs the sink of a bridge and starts it again, for ever, when it
// fails or panics.
type Forwarder struct {
	cfg     ForwarderConfig
	queue   *queue.Queue
	sink    Sink
	log     *slog.Logger
	ledger  ledger
	metrics forwarderMetrics

	mu      sync.Mutex // covers the rest
	paused  bool
	changed chan struct{} // closed and replaced when paused changes
	cancel  context.CancelFunc
	ended   chan struct{} // closed when Run has returned; nil before Run
	closed  bool
}

// NewForwarder returns a forwarder from q to sink, which stay the caller's. Log
// and reg may be nil.
func NewForwarder(cfg ForwarderConfig, q *queue.Queue, sink Sink, log *slog.Logger, reg prometheus.Registerer) (*Forwarder, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.setDefaults()
	f := &Forwarder{cfg: cfg, queue: q, sink: sink, log: log.With("bridge", cfg.Bridge), changed: make(chan struct{})}
	f.ledger.set(Stopped)
	if err := f.metrics.register(f, reg); err != nil {
		return nil, fmt.Errorf("bridge %s: register metrics: %w", cfg.Bridge, err)
	}
	return f, nil
}

// Status returns the present state. Safe for concurrent use.
func (f *Forwarder) Status() Status {
	s := f.ledger.status(time.Now())
	s.Bridge, s.Queue = f.cfg.Bridge, f.queue.Stats()
	return s
}

// Pause stops the sink in order; records are queued meanwhile. It does not wait.
func (f *Forwarder) Pause() { f.setPaused(true) }

// Resume ends a pause. While the forwarder waits for its next try, Resume
// makes it try at once.
func (f *Forwarder) Resume() { f.setPaused(false) }

func (f *Forwarder) setPaused(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = yes
	close(f.changed)
	f.changed = make(chan struct{})
}

// pausing returns whether the bridge is paused and a channel that is closed at
// the next Pause or Resume.
func (f *Forwarder) pausing() (bool, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.paused, f.changed
}

// Run forwards until ctx ends or Close is called. It then gives the sink
// StopTimeout for its outstanding confirmations and returns nil. It must be
// called at most once.
func (f *Forwarder) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	if f.ended != nil || f.closed {
		f.mu.Unlock()
		return errors.New("bridge " + f.cfg.Bridge + ": the forwarder was run or closed before")
	}
	f.cancel, f.ended = cancel, make(chan struct{})
	f.mu.Unlock()
	defer close(f.ended)
	defer f.ledger.set(Stopped)

	for tries := 0; ctx.Err() == nil; {
		paused, changed := f.pausing()
		if paused {
			f.ledger.set(Paused)
			f.wait(ctx, changed, nil)
			continue
		}
		err := f.attempt(ctx)
		if err == nil {
			tries = 0
			continue // stopped or paused
		}
		if f.ledger.failed(err) {
			tries = 0
		}
		f.metrics.retries.Inc()
		pause := f.backoff(tries, err)
		tries++
		f.log.Warn("bridge cannot deliver, retrying", "err", err, "in", pause.Round(time.Millisecond))
		f.ledger.tryAt(time.Now().Add(pause))
		f.pause(ctx, pause)
	}
	return nil
}

// Close stops Run, waits for it and removes the metrics. Safe to call twice.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	f.closed = true
	cancel, ended := f.cancel, f.ended
	f.mu.Unlock()
	if ended != nil {
		cancel()
		<-ended
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.metrics.unregister()
	return nil
}

// attempt runs the sink once. It returns nil when the sink was asked to stop.
func (f *Forwarder) attempt(ctx context.Context) error {
	f.ledger.begin()
	feed := &Feed{queue: f.queue, stopping: make(chan struct{}), log: &f.ledger, events: f.log, metrics: &f.metrics}
	feed.Rewind(f.queue.Frontier())
	runCtx, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { f.stopInOrder(ctx, feed, abort, ended) })
	err := f.guarded(runCtx, feed)
	close(ended)
	watcher.Wait()
	select {
	case <-feed.stopping:
		if err != nil && !errors.Is(err, context.Canceled) {
			f.log.Info("sink stopped with sends unconfirmed, they will be repeated", "err", err)
		}
		return nil
	default:
	}
	if err == nil {
		return errors.New("the sink ended without a reason")
	}
	return err
}

// stopInOrder waits for the end of ctx or a pause, tells the sink, and ends it
// by force when it takes too long.
func (f *Forwarder) stopInOrder(ctx context.Context, feed *Feed, abort context.CancelFunc, ended <-chan struct{}) {
	for ctx.Err() == nil {
		paused, changed := f.pausing()
		if paused {
			break
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
		case <-changed:
		}
	}
	close(feed.stopping)
	timer := time.NewTimer(f.cfg.StopTimeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		abort()
	}
}

// guarded runs the sink and turns a panic into an error.
func (f *Forwarder) guarded(ctx context.Context, feed *Feed) (err error) {
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("BUG: sink panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("sink panicked: %v", p)
		}
	}()
	return f.sink.Run(ctx, feed)
}

// backoff is a random pause between half and all of a doubling limit.
func (f *Forwarder) backoff(tries int, err error) time.Duration {
	limit := f.cfg.FailedBackoff
	if !IsPermanent(err) {
		limit = min(f.cfg.MinBackoff<<min(tries, 20), f.cfg.MaxBackoff)
	}
	return limit/2 + rand.N(limit/2+1)
}

// pause waits until the time is over, ctx ends or an operator intervenes.
func (f *Forwarder) pause(ctx context.Context, d time.Duration) {
	paused, changed := f.pausing()
	if paused {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	f.wait(ctx, changed, timer.C)
}

func (f *Forwarder) wait(ctx context.Context, changed <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer:
	}
}
