package httppush

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
)

// lastAnswers is how long Run waits, after it gave up on the broker, until the
// clients have been told.
const lastAnswers = time.Second

// Server is one HTTP listener.
type Server struct {
	cfg      Config
	log      *slog.Logger
	metrics  *metrics
	sessions *sessions
	guard    guard
	conns    conns
	bytes    budget        // of bodies that are read or wait
	slots    chan struct{} // one for each request that waits for the broker
	ln       net.Listener
	http     *http.Server

	base    context.Context // of every request; ends when Run gives up on them
	giveUp  context.CancelFunc
	closing chan struct{} // closed by Close
	once    sync.Once     // of Close

	mu       sync.Mutex // covers ended and the growth of requests
	ended    bool
	requests sync.WaitGroup
}

// New checks the configuration and binds. Run serves.
func New(cfg Config, b *broker.Broker, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("http listener %s: %w", cfg.Name, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen for http %s: %w", cfg.Name, err)
	}
	s := &Server{
		cfg: cfg, log: log, metrics: m, guard: newGuard(&cfg),
		slots: make(chan struct{}, cfg.MaxPending), ln: ln, closing: make(chan struct{}),
	}
	s.bytes.max = int64(cfg.MaxPendingBytes)
	s.base, s.giveUp = context.WithCancel(context.Background())
	s.sessions = newSessions(s.base, b, &cfg, s.log)
	s.conns = conns{max: cfg.MaxConnections, fresh: make(map[net.Conn]struct{}), refused: m.refused.WithLabelValues("connections").Inc}
	s.http = s.newHTTP()
	return s, nil
}

func (s *Server) newHTTP() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		TLSConfig:         s.cfg.TLS.Clone(),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         s.conns.state,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},
	}
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Connections is how many connections are open.
func (s *Server) Connections() int { return s.conns.count() }

// Run serves until ctx ends or Close is called, and returns nil then. It stops
// accepting, lets the requests that wait for the broker finish within
// DrainTimeout, answers the others 503, and ends the sessions. It returns when
// its goroutines have ended.
func (s *Server) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { s.sessions.run(background) })
	served := make(chan error, 1)
	wg.Go(func() { served <- s.serve() })

	var err error
	select {
	case <-ctx.Done():
	case <-s.closing:
	case err = <-served:
	}
	s.drain()
	stop()
	wg.Wait()
	s.sessions.close()
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve http %s: %w", s.cfg.Name, err)
}

func (s *Server) serve() error {
	if s.cfg.TLS != nil {
		return s.http.ServeTLS(s.ln, "", "")
	}
	return s.http.Serve(s.ln)
}

// drain ends every request.
func (s *Server) drain() {
	s.conns.drain()
	if !s.shutdown(s.cfg.DrainTimeout) {
		s.giveUp()
		if !s.shutdown(lastAnswers) {
			s.log.Warn("http clients do not take their answers, closing", "after", s.cfg.DrainTimeout+lastAnswers)
			s.http.Close()
		}
	}
	s.giveUp()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.requests.Wait()
}

func (s *Server) shutdown(timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.http.Shutdown(ctx) == nil
}

// Close makes Run end; without Run it closes the listener. Safe to call twice.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.closing) })
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// enter counts a request, unless Run is past waiting for any.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.requests.Add(1)
	return true
}
