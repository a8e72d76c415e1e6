// Package certs gives TLS listeners their certificates, and takes replaced
// files into use without a restart.
//
// It guarantees that a listener always has a certificate that fits its key:
// files that cannot be read or do not fit, such as in the moment between the
// replacement of the one and the other, leave the last good ones in use.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config names the files of one listener.
type Config struct {
	// Name of the listener, in logs and metrics.
	Name string
	// Cert and Key are PEM files: the certificate with those between it and its
	// authority, and its private key.
	Cert, Key string
	// ClientCA is a PEM file with the authorities of client certificates. Needed
	// unless ClientAuth is tls.NoClientCert.
	ClientCA string
	// ClientAuth says whether clients must have a certificate. The zero value
	// does not ask for one.
	ClientAuth tls.ClientAuthType
	// NextProtos are the ALPN names of the service. A client that offers none is
	// welcome, one that offers only others is refused.
	NextProtos []string
	// VerifyConnection is a last check of a handshake; nil = none.
	VerifyConnection func(tls.ConnectionState) error
}

// checkEvery is how often the files are looked at, at most: with a stat per
// file, when a client comes.
const checkEvery = time.Second

// Source has the certificates of one listener. All methods are safe for
// concurrent use.
type Source struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	server  *tls.Config
	current atomic.Pointer[tls.Config]

	mu      sync.Mutex // covers everything below; held while files are read
	checked time.Time
	seen    []stamp // the files that are in use
	failed  []stamp // those of the last attempt to read others; nil = it succeeded
	problem atomic.Pointer[error]
}

// Open reads the files. log and reg may be nil.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, log: log.With("listener", cfg.Name), now: time.Now}
	s.server = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: cfg.NextProtos, GetConfigForClient: s.forClient}
	s.checked, s.seen = s.now(), s.stamps()
	c, err := load(&cfg)
	if err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Name, reg); err != nil {
		return nil, fmt.Errorf("metrics of certificates of listener %s: %w", cfg.Name, err)
	}
	s.use(c)
	return s, nil
}

// Check reads the files and reports everything that Open would refuse, with the
// field of the files: cert or client_ca. That a certificate has expired is not
// among it: the clock may be what is wrong.
func Check(cfg Config, report func(field string, err error)) {
	if _, err := loadPair(&cfg); err != nil {
		report("cert", err)
	}
	if cfg.ClientAuth == tls.NoClientCert {
		return
	}
	if _, err := loadAuthorities(&cfg); err != nil {
		report("client_ca", err)
	}
}

// TLS returns the configuration of a server, TLS 1.2 or newer, always the same
// one. It follows the files for as long as it is used, and has the keys of
// session tickets, so that a client can resume its session after a change.
func (s *Source) TLS() *tls.Config { return s.server }

// forClient is the configuration that a handshake goes on with.
func (s *Source) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	s.Refresh()
	return s.current.Load(), nil
}

// NotAfter is when the certificate in use expires.
func (s *Source) NotAfter() time.Time { return s.current.Load().Certificates[0].Leaf.NotAfter }

// Problem is why the files on disk are not the ones in use, nil when they are.
func (s *Source) Problem() error {
	if err := s.problem.Load(); err != nil {
		return *err
	}
	return nil
}

// Close takes the metrics back. It is safe to call more than once.
func (s *Source) Close() { s.metrics.unregister() }

// Refresh reads the files again if they have changed since they were read well:
// what keeps them from being read, such as their rights, may change without
// a trace in them. It does so once a second at most. Only one caller waits for
// that; the others go on with what there is. Handshakes call it, too.
func (s *Source) Refresh() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.checked) < checkEvery {
		return
	}
	s.checked = now
	// Before reading: a file that changes meanwhile is read again next time.
	stamps := s.stamps()
	if same(stamps, s.seen) {
		s.failed = nil
		s.problem.Store(nil)
		return
	}
	c, err := load(&s.cfg)
	if err != nil {
		s.noteFailure(stamps, err)
		return
	}
	s.seen, s.failed = stamps, nil
	s.problem.Store(nil)
	s.use(c)
	s.metrics.reloaded.Inc()
	s.log.Info("changed certificate files are in use", "expires", s.NotAfter())
}

// noteFailure tells once about files that cannot be read. Caller holds mu.
func (s *Source) noteFailure(stamps []stamp, err error) {
	s.problem.Store(&err)
	if s.failed != nil && same(stamps, s.failed) {
		return
	}
	s.failed = stamps
	s.metrics.failed.Inc()
	s.log.Warn("read changed certificate files, the last good ones stay in use", "err", err)
}

func (s *Source) use(c *tls.Config) {
	s.current.Store(c)
	s.metrics.notAfter.Set(float64(s.NotAfter().Unix()))
}

// load reads the files into a configuration.
func load(cfg *Config) (*tls.Config, error) {
	pair, err := loadPair(cfg)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: cfg.NextProtos,
		ClientAuth: cfg.ClientAuth, VerifyConnection: cfg.VerifyConnection,
		// A resumed session is not verified again, so it would outlive a change
		// of the authorities and the certificate of the client.
		SessionTicketsDisabled: cfg.ClientAuth != tls.NoClientCert,
	}
	if cfg.ClientAuth == tls.NoClientCert {
		return c, nil
	}
	c.ClientCAs, err = loadAuthorities(cfg)
	return c, err
}

func loadPair(cfg *Config) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return pair, fmt.Errorf("read certificate: %w", err)
	}
	return pair, nil
}

func loadAuthorities(cfg *Config) (*x509.CertPool, error) {
	pem, err := os.ReadFile(cfg.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read client authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read client authorities: %s has no certificate in PEM form", cfg.ClientCA)
	}
	return pool, nil
}

// stamp is what a file looks like from outside.
type stamp struct {
	info os.FileInfo // nil = cannot be looked at
}

func (s *Source) stamps() []stamp {
	var all []stamp
	for _, path := range []string{s.cfg.Cert, s.cfg.Key, s.cfg.ClientCA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			info = nil
		}
		all = append(all, stamp{info})
	}
	return all
}

// same compares files: a link that leads elsewhere is another file.
func same(a, b []stamp) bool {
	for i := range a {
		x, y := a[i].info, b[i].info
		if (x == nil) != (y == nil) {
			return false
		}
		if x != nil && (!os.SameFile(x, y) || x.Size() != y.Size() || !x.ModTime().Equal(y.ModTime())) {
			return false
		}
	}
	return true
}
