// Package proxyproto takes the address of a client from the header that a proxy
// puts before its bytes: the PROXY protocol of HAProxy, version 1 and 2.
//
// It guarantees that a header counts only when it comes from an address that is
// trusted, that a connection without one, or with a malformed one, is closed,
// and that a client whose address the proxy does not know has none: it is never
// taken for the proxy itself, which may have rights of its own.
package proxyproto

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config describes one listener. The zero value of a field means its default.
type Config struct {
	// Name of the listener, a label of its metrics.
	Name string
	// Trusted are the addresses of the proxies. Connections from others are
	// closed. At least one.
	Trusted []netip.Prefix
	// HeaderTimeout is how long a proxy may take for its header. Default 3 s:
	// it sends it at once, and a lost packet costs a second or two.
	HeaderTimeout time.Duration
	// MaxPending caps the connections without their header; further ones wait
	// in the kernel. Default 256.
	MaxPending int
}

// Listener is a net.Listener whose connections have given their header.
type Listener struct {
	cfg     Config
	ln      net.Listener
	log     *slog.Logger
	metrics *metrics

	out   chan accepted // handed over to the caller of Accept, never buffered
	slots chan struct{} // one for each connection without its header
	done  chan struct{} // closed by Close
	start sync.Once
	wg    sync.WaitGroup // the accepting loop and one per pending connection

	mu      sync.Mutex // covers everything below
	closed  bool
	pending map[net.Conn]struct{}
}

type accepted struct {
	nc  net.Conn
	err error
}

var _ net.Listener = (*Listener)(nil)

// New wraps a listener and owns it from then on, unless an error is returned.
// log and reg may be nil. Goroutines run from the first Accept to Close.
func New(ln net.Listener, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Listener, error) {
	if len(cfg.Trusted) == 0 {
		return nil, fmt.Errorf("PROXY protocol of listener %s: no address is trusted", cfg.Name)
	}
	if cfg.HeaderTimeout == 0 {
		cfg.HeaderTimeout = 3 * time.Second
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = 256
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Name, reg)
	if err != nil {
		return nil, fmt.Errorf("metrics of listener %s: %w", cfg.Name, err)
	}
	return &Listener{
		cfg: cfg, ln: ln, log: log, metrics: m, out: make(chan accepted), slots: make(chan struct{}, cfg.MaxPending),
		done: make(chan struct{}), pending: make(map[net.Conn]struct{}),
	}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Accept returns the next connection whose header has come. It does not wait
// for the header of a connection while another one is ready.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.closed {
			l.wg.Go(l.accept)
		}
	})
	select {
	case a := <-l.out:
		return a.nc, a.err
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and the connections that have not been accepted. It
// is safe to call more than once.
func (l *Listener) Close() error {
	l.mu.Lock()
	var err error
	if !l.closed {
		l.closed = true
		close(l.done)
		err = l.ln.Close()
		l.metrics.unregister()
	}
	for nc := range l.pending {
		_ = nc.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	return err
}

// accept takes connections until the listener is closed.
func (l *Listener) accept() {
	for {
		nc, err := l.ln.Accept()
		switch {
		case err != nil:
			if !l.hand(nil, err) || errors.Is(err, net.ErrClosed) {
				return
			}
		case !l.trusts(nc.RemoteAddr()):
			l.refuse(nc, "untrusted", errors.New("address is not trusted"))
		case !l.take(nc):
			return
		}
	}
}

// hand gives a result to Accept and reports whether somebody took it.
func (l *Listener) hand(nc net.Conn, err error) bool {
	select {
	case l.out <- accepted{nc, err}:
		return true
	case <-l.done:
		return false
	}
}

func (l *Listener) trusts(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(l.cfg.Trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// take starts waiting for the header of a connection. It waits for a free slot
// and reports false when the listener is closed.
func (l *Listener) take(nc net.Conn) bool {
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		_ = nc.Close()
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = nc.Close()
		return false
	}
	l.pending[nc] = struct{}{}
	l.wg.Go(func() { l.introduce(nc) })
	return true
}

// introduce reads the header of a connection and hands the connection over.
func (l *Listener) introduce(nc net.Conn) {
	c, err := l.readHeader(nc)
	<-l.slots
	if err == nil && l.hand(c, nil) {
		l.forget(nc)
		return
	}
	l.forget(nc)
	if err != nil {
		l.refuse(nc, reasonOf(err), err)
		return
	}
	_ = nc.Close()
}

func (l *Listener) forget(nc net.Conn) {
	l.mu.Lock()
	delete(l.pending, nc)
	l.mu.Unlock()
}

func (l *Listener) readHeader(nc net.Conn) (*Conn, error) {
	if err := nc.SetReadDeadline(time.Now().Add(l.cfg.HeaderTimeout)); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, 256)
	for {
		h, n, err := parse(buf)
		if err == nil {
			return newConn(nc, h, buf[n:]), nc.SetReadDeadline(time.Time{})
		}
		if !errors.Is(err, errShort) {
			return nil, err
		}
		buf = slices.Grow(buf, 256)
		got, err := nc.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return nil, err
		}
		buf = buf[:len(buf)+got]
	}
}

func reasonOf(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, errMalformed):
		return "malformed"
	case errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return "closed"
}

func (l *Listener) refuse(nc net.Conn, reason string, err error) {
	l.metrics.refused[reason].Inc()
	l.log.Debug("connection without a PROXY header that counts is closed", "remote", nc.RemoteAddr().String(), "err", err)
	_ = nc.Close()
}
