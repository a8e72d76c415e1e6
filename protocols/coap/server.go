package coap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
)

const maxLoops = 64

// Server is one CoAP listener.
type Server struct {
	cfg   Config
	log   *slog.Logger
	loops []*loop

	closing sync.Once
	closed  chan struct{}
}

// New binds the listener's sockets, so that a port 0 in cfg.Bind is known by
// Addr. log and reg may be nil. Nothing is read before Run.
func New(cfg Config, b *broker.Broker, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	return newServer(cfg, brokerConnector{b}, log, reg)
}

func newServer(cfg Config, core connector, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("coap configuration: %w", err)
	}
	cfg.setDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("listener", cfg.Name)
	m, err := newMetrics(cfg.Name, reg)
	if err != nil {
		return nil, err
	}
	sockets, err := listen(context.Background(), cfg.Bind, cfg.Loops, cfg.ReceiveBuffer)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log, closed: make(chan struct{})}
	echo := newEchoGate(cfg.Echo, cfg.Trusted)
	for _, sock := range sockets {
		s.loops = append(s.loops, newLoop(&s.cfg, core, sock, echo, m, log))
	}
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.loops[0].sock.conn.LocalAddr() }

// Run serves until ctx ends or Close is called, and returns when its
// goroutines have ended. When ctx ends it first refuses new requests with
// 5.03, waits up to Config.DrainTimeout for the broker's answers to those
// under way, tells observers that their observations are over and closes the
// sessions. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	for _, l := range s.loops {
		wg.Go(l.read)
		wg.Go(func() { l.work(work) })
	}
	s.log.Info("coap listener runs", "addr", s.Addr())
	select {
	case <-ctx.Done():
		s.drain()
	case <-s.closed:
	}
	for _, l := range s.loops {
		l.endAll()
	}
	err := s.Close()
	stop()
	wg.Wait()
	return err
}

// drain lets requests under way get their answers.
func (s *Server) drain() {
	for _, l := range s.loops {
		l.startDraining()
	}
	deadline := time.NewTimer(s.cfg.DrainTimeout)
	defer deadline.Stop()
	for _, l := range s.loops {
		select {
		case <-l.drained:
		case <-s.closed:
			return
		case <-deadline.C:
			s.log.Warn("coap requests were still unanswered at shutdown")
			return
		}
	}
}

// Close ends the listener at once: Run returns without draining. It is safe to
// call twice, and before Run.
func (s *Server) Close() (err error) {
	s.closing.Do(func() {
		close(s.closed)
		for _, l := range s.loops {
			close(l.closed)
			if e := l.sock.conn.Close(); e != nil && err == nil {
				err = fmt.Errorf("close coap socket: %w", e)
			}
		}
	})
	return err
}

func (l *loop) startDraining() {
	l.turn(false, func() { l.draining = true })
}

// endAll tells every observer that its observation is over and closes all
// sessions.
func (l *loop) endAll() {
	l.turn(false, func() {
		l.draining = true
		for _, p := range l.peers {
			for len(p.sessions) > 0 {
				l.endSession(p.sessions[0], closeShutdown)
			}
			l.forgetPeer(p)
		}
	})
}
