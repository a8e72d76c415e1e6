package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// shutdownGrace is how long Run waits for answers that are being written.
const shutdownGrace = 2 * time.Second

// Server is the admin interface on one address.
type Server struct {
	deps   Deps
	log    *slog.Logger
	token  bearer
	hosts  map[string]bool
	ln     net.Listener
	http   *http.Server
	closed atomic.Bool
}

// New reads or creates the token, and binds, so that Addr is known and a bad
// address fails here. gatherer is what /metrics shows; nil shows nothing.
func New(cfg Config, deps Deps, log *slog.Logger, gatherer prometheus.Gatherer) (*Server, error) {
	if err := deps.validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Bind == "" {
		cfg.Bind = defaultBind
	}
	if gatherer == nil {
		gatherer = prometheus.NewRegistry()
	}
	local, err := loopbackOnly(cfg.Bind)
	if err != nil {
		return nil, err
	}
	token, err := loadToken(cfg.TokenFile, local, log)
	if errors.Is(err, os.ErrNotExist) && !local {
		return nil, fmt.Errorf("admin bind %s can be reached from other hosts, so its token file must exist: %w", cfg.Bind, err)
	}
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen for the admin interface: %w", err)
	}
	s := &Server{deps: deps, log: log, token: newBearer(token), hosts: hostSet(cfg.Hosts), ln: ln}
	s.http = &http.Server{
		Handler:           s.handler(gatherer),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addr is the address that the interface listens on.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Run serves until ctx ends or Close is called, and returns nil then. It
// returns when no request is being served any more.
func (s *Server) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.shutdown()
	})
	err := s.http.Serve(s.ln)
	if stop() { // ctx has not ended: Close was called, or the listener broke
		s.shutdown()
	} else {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) || s.closed.Load() {
		return nil
	}
	return fmt.Errorf("serve the admin interface: %w", err)
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
	}
}

// Close stops listening and drops what is being served. Safe to call twice.
func (s *Server) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.http.Close()
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
