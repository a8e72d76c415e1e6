// Package secure puts TLS under MQTT, and under WebSocket, and says who a client
// is by its certificate.
//
// It guarantees that the handshake runs on the goroutine of its connection,
// within the deadlines that the owner of the connection sets for the first
// packet: a client that does not finish it counts as one that does not send
// CONNECT. Which certificates are shown and accepted is the configuration's
// business.
package secure

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Identity says what of a certificate is the user name of a client.
type Identity string

// None takes no user name from certificates, CommonName the common name of the
// subject.
const (
	None       Identity = "none"
	CommonName Identity = "cn"
)

// Verify refuses a handshake with a certificate that has no usable name. Set it
// as VerifyConnection of the configuration that is given to New.
func (i Identity) Verify(s tls.ConnectionState) error {
	if i != CommonName || len(s.PeerCertificates) == 0 {
		return nil
	}
	_, err := commonName(s.PeerCertificates[0])
	return err
}

// User returns the user that the certificate of a peer stands for, and false if
// it stands for none. The handshake must be complete.
func (i Identity) User(s *tls.ConnectionState) (user string, ok bool) {
	if i != CommonName || !s.HandshakeComplete || len(s.VerifiedChains) == 0 {
		return "", false
	}
	cn, err := commonName(s.PeerCertificates[0])
	return cn, err == nil
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName is the one common name of a certificate. Several, or one that
// could not be a user name of MQTT, are refused: they would be read in
// different ways by different parts.
func commonName(c *x509.Certificate) (string, error) {
	count := 0
	for _, name := range c.Subject.Names {
		if name.Type.Equal(oidCommonName) {
			count++
		}
	}
	cn := c.Subject.CommonName
	switch {
	case count != 1 || cn == "":
		return "", errors.New("client certificate does not have exactly one common name")
	case !utf8.ValidString(cn) || strings.ContainsFunc(cn, unicode.IsControl):
		return "", errors.New("common name of client certificate has control characters or is not UTF-8")
	}
	return cn, nil
}

// closeTimeout bounds the last record of a connection. The library would wait
// five seconds for a client that does not read.
const closeTimeout = 500 * time.Millisecond

// Listener is a net.Listener of TLS connections on another one.
type Listener struct {
	ln       net.Listener
	cfg      *tls.Config
	identity Identity
	log      *slog.Logger
	metrics  *metrics
	once     sync.Once
}

var _ net.Listener = (*Listener)(nil)

// New wraps a listener and owns it from then on, unless an error is returned.
// name is a label of its metrics. log and reg may be nil.
func New(ln net.Listener, cfg *tls.Config, identity Identity, name string, log *slog.Logger, reg prometheus.Registerer) (*Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(name, reg)
	if err != nil {
		return nil, fmt.Errorf("metrics of listener %s: %w", name, err)
	}
	return &Listener{ln: ln, cfg: cfg, identity: identity, log: log, metrics: m}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Accept returns the next connection. Its first Read is the handshake.
func (l *Listener) Accept() (net.Conn, error) {
	nc, err := l.ln.Accept()
	if err != nil {
		return nil, err
	}
	b := &base{Conn: nc}
	return &Conn{Conn: tls.Server(b, l.cfg), base: b, l: l}, nil
}

// Close closes the listener. It is safe to call more than once.
func (l *Listener) Close() error {
	l.once.Do(l.metrics.unregister)
	return l.ln.Close()
}

// Conn is a TLS connection.
type Conn struct {
	*tls.Conn
	base  *base
	l     *Listener
	shook bool  // the handshake has ended, well or not; owned by the reader
	err   error // of the handshake
}

// Read reads; the first time after the handshake. One goroutine at a time may
// call it.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.shook {
		c.shook = true
		if err := c.Handshake(); err != nil {
			c.l.metrics.failed.Inc()
			c.l.log.Debug("TLS handshake did not succeed", "remote", c.RemoteAddr().String(), "err", err)
			// Not a deadline to the caller, who would try again after one.
			c.err = errors.New("TLS handshake: " + err.Error())
			return 0, c.err
		}
		c.l.metrics.ok.Inc()
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// Write writes within the write deadline. One goroutine at a time may call it,
// or CloseWrite.
func (c *Conn) Write(p []byte) (n int, err error) {
	err = c.base.owned(func() error {
		n, err = c.Conn.Write(p)
		return err
	})
	return n, err
}

// CloseWrite tells the client that nothing follows.
func (c *Conn) CloseWrite() error { return c.base.owned(c.Conn.CloseWrite) }

// Identity returns the user that the certificate of the client stands for.
func (c *Conn) Identity() (user string, ok bool) {
	s := c.ConnectionState()
	return c.l.identity.User(&s)
}

// Close tells the client that nothing follows, if it takes that soon, and
// closes.
func (c *Conn) Close() error {
	stop := time.AfterFunc(closeTimeout, func() { _ = c.base.Close() })
	defer stop.Stop()
	return c.Conn.Close()
}
