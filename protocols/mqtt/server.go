package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
)

// core is what a listener needs of the broker.
type core interface {
	Connect(context.Context, *broker.ConnectRequest) (*broker.Session, bool, error)
	BeginExchange(context.Context, string, *broker.ConnectRequest) (*broker.Exchange, error)
}

// Server is one MQTT listener.
type Server struct {
	cfg     Config
	broker  core
	log     *slog.Logger
	metrics *metrics
	ln      net.Listener
	maxAcks int

	ctx    context.Context // ends when connections must
	cancel context.CancelFunc

	mu      sync.Mutex // covers everything below
	closing bool
	conns   map[*conn]struct{}
	half    map[netip.Addr]int // connections without a decided CONNECT
	wg      sync.WaitGroup     // one per connection
}

// New binds the address of cfg. b is a *broker.Broker. log and reg may be nil.
func New(cfg Config, b core, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg.setDefaults()
	ln, err := Listen(cfg.Bind)
	if err != nil {
		return nil, err
	}
	s, err := NewOn(ln, cfg, b, log, reg)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return s, nil
}

// NewOn serves a listener that somebody else has opened: TLS, WebSocket, QUIC.
// The server owns it from then on, unless an error is returned. Accept must not
// wait for a peer; a handshake belongs into the first Read of a connection,
// whose deadline is that of CONNECT. Read must go on after a deadline. What a
// connection may have beside net.Conn:
//
//	CloseWrite() error                       it gets a DISCONNECT without the risk of RST
//	Identity() (user string, ok bool)        the user that the transport has proved, after the first Read
//	WriteBuffers(net.Buffers) (int64, error) what is written together travels together
//	Moved() (netip.AddrPort, bool)           the address of a client that goes on from another one, once; called by the reader
func NewOn(ln net.Listener, cfg Config, b core, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("MQTT listener %s: %w", cfg.Name, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Name, reg)
	if err != nil {
		return nil, fmt.Errorf("metrics of MQTT listener %s: %w", cfg.Name, err)
	}
	s := &Server{
		cfg: cfg, broker: b, log: log.With("listener", cfg.Name), metrics: m, ln: ln,
		// A client may also make us answer what it receives: room for that.
		maxAcks: int(cfg.ReceiveMaximum) + 64,
		conns:   make(map[*conn]struct{}), half: make(map[netip.Addr]int),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Connections is how many connections are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Run accepts connections until ctx ends or Close is called. It returns after
// the last connection has ended.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	s.accept()
	return s.Close()
}

// Close stops accepting, tells the clients and waits until their connections
// have ended: within two seconds, save for a store that keeps the core waiting.
// It is safe to call more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	if first {
		_ = s.ln.Close()
		s.metrics.unregister(len(s.metrics.all))
	}
	for _, c := range all {
		c.kick(broker.ShuttingDown)
	}
	s.wg.Wait()
	s.cancel()
	return nil
}

// The pause after an error of the listening socket, such as no free file
// descriptor: it grows, and accepting goes on.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

func (s *Server) accept() {
	pause := minPause
	for {
		nc, err := s.ln.Accept()
		if err == nil {
			pause = minPause
			s.admit(nc)
			continue
		}
		if s.stopping() || errors.Is(err, net.ErrClosed) {
			return
		}
		s.metrics.acceptErr.Inc()
		s.log.Warn("accept connection, trying again", "err", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
		pause = min(2*pause, maxPause)
	}
}

func (s *Server) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// admit starts a connection, or closes it when a limit is reached.
func (s *Server) admit(nc net.Conn) {
	s.metrics.sockets.Inc()
	remote := remoteOf(nc)
	if !s.register(nc, remote) {
		_ = nc.Close()
	}
}

func (s *Server) register(nc net.Conn, remote netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return false
	case len(s.conns) >= s.cfg.MaxConnections:
		s.metrics.overLimit.Inc()
		return false
	case remote.Addr().IsValid() && s.half[remote.Addr()] >= s.cfg.MaxHalfOpenPerAddress:
		s.metrics.halfOpen.Inc()
		return false
	}
	c := newConn(s, nc, remote)
	s.conns[c] = struct{}{}
	s.half[remote.Addr()]++
	s.metrics.open.Inc()
	s.wg.Go(c.serve)
	return true
}

// decided ends the half-open state of a connection.
func (s *Server) decided(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.half[addr]--; s.half[addr] <= 0 {
		delete(s.half, addr)
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.metrics.open.Dec()
}
