package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/bridge/queue"
	"gantry/broker"
)

// StageConfig says what one bridge takes.
type StageConfig struct {
	// Bridge is the name of the bridge. Required.
	Bridge string
	// Node is the name of this gateway; it appears in the Envelope format.
	Node string
	// Routes of the bridge. A message is queued once for each that matches.
	Routes []Route
}

// Stage is the hook that puts messages into the queue of one bridge. The
// acknowledgement of a QoS 1 or 2 message waits until its records are on disk.
// A QoS 0 message never waits and is counted when it is dropped.
type Stage struct {
	cfg      StageConfig
	queue    *queue.Queue
	table    atomic.Pointer[table]
	encoders sync.Pool
	metrics  stageMetrics
}

var (
	_ broker.Hook     = (*Stage)(nil)
	_ broker.Recorder = (*Stage)(nil)
)

// table is one immutable set of routes.
type table struct {
	routes []Route
	match  *matcher
}

// NewStage checks the routes and returns a stage that appends to q, which stays
// the caller's. Reg may be nil.
func NewStage(cfg StageConfig, q *queue.Queue, reg prometheus.Registerer) (*Stage, error) {
	s := &Stage{cfg: cfg, queue: q, encoders: sync.Pool{New: func() any { return &encoder{} }}}
	if err := s.SetRoutes(cfg.Routes); err != nil {
		return nil, err
	}
	if err := s.metrics.register(cfg.Bridge, reg); err != nil {
		return nil, fmt.Errorf("bridge %s: register metrics: %w", cfg.Bridge, err)
	}
	return s, nil
}

// SetRoutes replaces the routes for messages that come from now on. On an error
// the old ones stay. Safe to call while messages flow.
func (s *Stage) SetRoutes(routes []Route) error {
	var problems []error
	filters := make([]string, len(routes))
	for i := range routes {
		if err := routes[i].Validate(); err != nil {
			problems = append(problems, fmt.Errorf("bridge %s: route %d: %w", s.cfg.Bridge, i+1, err))
		}
		filters[i] = routes[i].Filter
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	s.table.Store(&table{routes: append([]Route(nil), routes...), match: newMatcher(filters)})
	return nil
}

// Name returns the name of the bridge.
func (s *Stage) Name() string { return s.cfg.Bridge }

// Record queues the message for every route that matches it.
func (s *Stage) Record(ctx context.Context, p *broker.Publication) broker.Reason {
	t := s.table.Load()
	var space [8]int
	found := t.match.match(space[:0], p.Message.Topic)
	if len(found) == 0 {
		return broker.Success
	}
	p.Matched()
	e := s.encoders.Get().(*encoder)
	defer s.encoders.Put(e)
	for _, i := range found {
		rec := e.encode(&t.routes[i], s.cfg.Node, p.Message)
		if p.Message.QoS == 0 {
			s.offer(rec)
			continue
		}
		if r := s.keep(ctx, p, rec); !r.OK() {
			return r
		}
	}
	return broker.Success
}

// Close removes the metrics of the stage. It does not touch the queue.
func (s *Stage) Close() error {
	s.metrics.unregister()
	return nil
}

// offer queues a record that nobody waits for.
func (s *Stage) offer(rec []byte) {
	if err := s.queue.Append(nil, rec, s.offered); err != nil { //nolint:staticcheck // a nil context means: do not block
		s.metrics.dropped.Inc()
	}
}

func (s *Stage) offered(err error) {
	if err != nil {
		s.metrics.dropped.Inc()
		return
	}
	s.metrics.queued.Inc()
}

// keep queues a record and lets the acknowledgement of p wait for it.
func (s *Stage) keep(ctx context.Context, p *broker.Publication, rec []byte) broker.Reason {
	p.Hold()
	err := s.queue.Append(ctx, rec, func(err error) { p.Done(s.kept(err)) })
	if err == nil {
		return broker.Success
	}
	r := s.kept(err)
	p.Done(r)
	return r
}

// kept counts the outcome of an append and translates it for the publisher.
func (s *Stage) kept(err error) broker.Reason {
	switch {
	case err == nil:
		s.metrics.queued.Inc()
		return broker.Success
	case errors.Is(err, queue.ErrFull):
		s.metrics.refused.WithLabelValues("full").Inc()
		return broker.QuotaExceeded
	case errors.Is(err, queue.ErrTooLarge):
		s.metrics.refused.WithLabelValues("too_large").Inc()
		return broker.PacketTooLarge
	case errors.Is(err, queue.ErrBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		s.metrics.refused.WithLabelValues("busy").Inc()
		return broker.ServerBusy
	case errors.Is(err, queue.ErrClosed):
		s.metrics.refused.WithLabelValues("closed").Inc()
		return broker.ShuttingDown
	}
	s.metrics.refused.WithLabelValues("error").Inc()
	return broker.ServerUnavailable // the disk's trouble: the client may try again
}
