package quic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/quic-go/quic-go"
)

// Codes with which a connection is closed, those of EMQX.
const (
	codeOK          = quic.ApplicationErrorCode(0)
	codeControlDown = quic.ApplicationErrorCode(1) // the stream of MQTT has ended
)

// Listener is a net.Listener whose connections are QUIC connections. The socket
// is closed with the last of them.
type Listener struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	gate    *gate
	udp     *net.UDPConn
	tr      *quic.Transport
	ln      *quic.Listener
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc

	mu      sync.Mutex // covers everything below
	closed  bool
	open    int // connections that Accept has returned and that are not closed
	freeing sync.Once
	wg      sync.WaitGroup // connections that linger
}

var _ net.Listener = (*Listener)(nil)

// New binds a UDP socket. log and reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Listener, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("QUIC listener %s: %w", cfg.Name, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Name, reg)
	if err != nil {
		return nil, fmt.Errorf("metrics of QUIC listener %s: %w", cfg.Name, err)
	}
	l := &Listener{cfg: cfg, log: log.With("listener", cfg.Name), metrics: m}
	l.gate = newGate(&l.cfg, m)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.bind(); err != nil {
		l.cancel()
		m.unregister(len(m.all))
		return nil, err
	}
	return l, nil
}

// bind opens the socket and lets QUIC listen on it.
func (l *Listener) bind() error {
	addr, err := net.ResolveUDPAddr("udp", l.cfg.Bind)
	if err != nil {
		return fmt.Errorf("listen for QUIC on %s: %w", l.cfg.Bind, err)
	}
	l.tr = &quic.Transport{
		ConnectionIDLength: connectionIDLength, VerifySourceAddress: l.gate.mustProve, ConnContext: l.gate.enter,
	}
	if err := useKeys(l.tr, l.cfg.KeyFile, l.log); err != nil {
		return err
	}
	if l.udp, err = net.ListenUDP("udp", addr); err != nil {
		return fmt.Errorf("listen for QUIC on %s: %w", l.cfg.Bind, err)
	}
	l.tr.Conn = l.udp
	if l.ln, err = l.tr.Listen(l.cfg.TLS, l.transportConfig()); err != nil {
		return errors.Join(fmt.Errorf("listen for QUIC on %s: %w", l.cfg.Bind, err), l.tr.Close(), l.udp.Close())
	}
	return nil
}

func (l *Listener) transportConfig() *quic.Config {
	streams := int64(1)
	if l.cfg.MultiStream {
		streams += dataStreams
	}
	return &quic.Config{
		HandshakeIdleTimeout: l.cfg.HandshakeTimeout, MaxIdleTimeout: IdleTimeout,
		InitialStreamReceiveWindow: firstStreamWindow, MaxStreamReceiveWindow: maxStreamWindow,
		InitialConnectionReceiveWindow: firstConnectionWindow, MaxConnectionReceiveWindow: maxConnectionWindow,
		// The first stream is never given back: without MultiStream a second one
		// cannot be opened.
		MaxIncomingStreams: streams, RequireStreamCreditRelease: true, MaxIncomingUniStreams: -1,
	}
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.udp.LocalAddr() }

// Accept returns the next connection, whose handshake is complete. The caller
// must close it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		qc, err := l.ln.Accept(l.ctx)
		if l.ctx.Err() != nil {
			if err == nil {
				_ = qc.CloseWithError(codeOK, "")
			}
			return nil, net.ErrClosed
		}
		if err != nil {
			return nil, fmt.Errorf("accept QUIC connection: %w", err)
		}
		if c := l.admit(qc); c != nil {
			return c, nil
		}
	}
}

// admit takes a connection whose handshake is complete.
func (l *Listener) admit(qc *quic.Conn) *Conn {
	if p, ok := qc.Context().Value(placeKey{}).(*place); ok {
		p.shake()
	}
	l.metrics.ok.Inc()
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.open++
	}
	l.mu.Unlock()
	if closed {
		_ = qc.CloseWithError(codeOK, "")
		return nil
	}
	return newConn(l, qc)
}

// background runs f in a goroutine that Close waits for, and reports false when
// it is too late for that. f must end soon after l.ctx.
func (l *Listener) background(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Go(f)
	return true
}

// release is called once for each connection that was admitted.
func (l *Listener) release() {
	l.mu.Lock()
	l.open--
	last := l.closed && l.open == 0
	l.mu.Unlock()
	if last {
		_ = l.free()
	}
}

// Close stops accepting. The connections that Accept has returned go on until
// they are closed, and the socket with them. It is safe to call more than once.
func (l *Listener) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if !first {
		return nil
	}
	l.cancel()
	_ = l.ln.Close()
	l.refuseRest()
	l.metrics.unregister(len(l.metrics.all))
	l.wg.Wait()
	l.mu.Lock()
	idle := l.open == 0
	l.mu.Unlock()
	if idle {
		return l.free()
	}
	return nil
}

// refuseRest closes the connections that nobody has accepted.
func (l *Listener) refuseRest() {
	for {
		qc, err := l.ln.Accept(context.Background())
		if err != nil {
			return
		}
		_ = qc.CloseWithError(codeOK, "")
	}
}

// free closes the socket, and waits for the goroutines of QUIC.
func (l *Listener) free() (err error) {
	l.freeing.Do(func() { err = errors.Join(l.tr.Close(), l.udp.Close()) })
	return err
}
