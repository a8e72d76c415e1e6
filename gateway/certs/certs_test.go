package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/conformance/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.t = c.t.Add(d)
	c.mu.Unlock()
}

func open(t *testing.T, cfg Config) (*Source, *clock, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	s, err := Open(cfg, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	require.NoError(t, err)
	t.Cleanup(s.Close)
	c := &clock{t: time.Now()}
	s.now, s.checked = c.now, c.t
	return s, c, &log
}

// handshake returns the serial number of the server's certificate.
func handshake(t *testing.T, s *Source, client *tls.Config) (*big.Int, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer a.Close()
	b, err := ln.Accept()
	require.NoError(t, err)
	defer b.Close()
	server := tls.Server(b, s.TLS())
	served := make(chan error, 1)
	go func() {
		err := server.Handshake()
		if err == nil {
			_, err = server.Write([]byte("x"))
		}
		served <- err
		_ = b.Close()
	}()
	c := tls.Client(a, client)
	_, err = c.Read(make([]byte, 1)) // TLS 1.3: the server may refuse after the client's handshake
	if serverErr := <-served; serverErr != nil {
		return nil, serverErr
	}
	require.NoError(t, err)
	return c.ConnectionState().PeerCertificates[0].SerialNumber, nil
}

func TestReplacedFilesAreTakenIntoUse(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	s, clock, log := open(t, Config{Name: "tls", Cert: f.Cert, Key: f.Key})
	client := &tls.Config{RootCAs: a.Pool, ServerName: "127.0.0.1"}
	first, err := handshake(t, s, client)
	require.NoError(t, err)

	a.IssueTo(f, "server", nil)
	same, err := handshake(t, s, client)
	require.NoError(t, err)
	require.Equal(t, first, same, "looked at too soon")
	clock.advance(checkEvery)
	second, err := handshake(t, s, client)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.Contains(t, log.String(), "changed certificate files are in use")
}

func TestBrokenFilesLeaveTheLastGoodOnes(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	s, clock, log := open(t, Config{Name: "tls", Cert: f.Cert, Key: f.Key})
	client := &tls.Config{RootCAs: a.Pool, ServerName: "127.0.0.1"}
	good, err := handshake(t, s, client)
	require.NoError(t, err)
	other := a.Issue("other", nil)
	for name, spoil := range map[string]func(){
		"cut":             func() { require.NoError(t, os.Truncate(f.Cert, 10)) },
		"gone":            func() { require.NoError(t, os.Remove(f.Cert)) },
		"of another key":  func() { copyFile(t, other.Cert, f.Cert) },
		"not PEM at all":  func() { require.NoError(t, os.WriteFile(f.Cert, []byte("x"), 0o600)) },
		"a folder":        func() { _ = os.Remove(f.Cert); require.NoError(t, os.Mkdir(f.Cert, 0o700)) },
		"key and cert in": func() { _ = os.Remove(f.Cert); copyFile(t, other.Key, f.Cert) },
	} {
		spoil()
		log.Reset()
		for range 3 {
			clock.advance(checkEvery)
			got, err := handshake(t, s, client)
			require.NoError(t, err, name)
			require.Equal(t, good, got, name)
		}
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("level=WARN")), "%s: one warning: %s", name, log)
	}
	_ = os.Remove(f.Cert)
	copyFile(t, other.Cert, f.Cert)
	copyFile(t, other.Key, f.Key) // now they fit again
	clock.advance(checkEvery)
	got, err := handshake(t, s, client)
	require.NoError(t, err)
	require.NotEqual(t, good, got)
}

// Tools such as certbot replace a link.
func TestReplacedLink(t *testing.T) {
	a := pki.New(t)
	one, two := a.Issue("one", nil), a.Issue("two", nil)
	dir := t.TempDir()
	live := pki.Files{Cert: filepath.Join(dir, "live.pem"), Key: filepath.Join(dir, "live.key")}
	require.NoError(t, os.Symlink(one.Cert, live.Cert))
	require.NoError(t, os.Symlink(one.Key, live.Key))
	s, clock, _ := open(t, Config{Name: "tls", Cert: live.Cert, Key: live.Key})
	client := &tls.Config{RootCAs: a.Pool, ServerName: "127.0.0.1"}
	first, err := handshake(t, s, client)
	require.NoError(t, err)
	for _, link := range []struct{ to, at string }{{two.Cert, live.Cert}, {two.Key, live.Key}} {
		require.NoError(t, os.Remove(link.at))
		require.NoError(t, os.Symlink(link.to, link.at))
	}
	clock.advance(checkEvery)
	second, err := handshake(t, s, client)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	_ = os.Remove(to)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}

func TestClientCertificates(t *testing.T) {
	a, foreign := pki.New(t), pki.New(t)
	f := a.Issue("server", nil)
	pair := func(f pki.Files) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		require.NoError(t, err)
		return []tls.Certificate{c}
	}
	good := pair(a.Issue("device", nil))
	for name, tc := range map[string]struct {
		certs           []tls.Certificate
		request, demand string // error of the server, empty = accepted
	}{
		"none":               {nil, "", "client didn't provide a certificate"},
		"good":               {good, "", ""},
		"expired":            {pair(a.Issue("old", pki.Expired)), "expired", "expired"},
		"of somebody else":   {pair(foreign.Issue("device", nil)), "unknown authority", "unknown authority"},
		"for servers only":   {pair(a.Issue("srv", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })), "usage", "usage"},
		"that verify denies": {pair(a.Issue("denied", nil)), "denied", "denied"},
	} {
		for auth, want := range map[tls.ClientAuthType]string{tls.VerifyClientCertIfGiven: tc.request, tls.RequireAndVerifyClientCert: tc.demand} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				s, _, _ := open(t, Config{Name: "tls", Cert: f.Cert, Key: f.Key, ClientCA: a.CA, ClientAuth: auth, VerifyConnection: func(s tls.ConnectionState) error {
					if len(s.PeerCertificates) > 0 && s.PeerCertificates[0].Subject.CommonName == "denied" {
						return errors.New("denied")
					}
					return nil
				}})
				certs := tc.certs
				_, err := handshake(t, s, &tls.Config{
					RootCAs: a.Pool, ServerName: "127.0.0.1", MinVersion: version, MaxVersion: version,
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever the server asks for
						if certs == nil {
							return &tls.Certificate{}, nil
						}
						return &certs[0], nil
					},
				})
				if want == "" {
					require.NoError(t, err, name)
					continue
				}
				require.ErrorContains(t, err, want, name)
			}
		}
	}
}

func TestVersionsAndALPN(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	s, _, _ := open(t, Config{Name: "tls", Cert: f.Cert, Key: f.Key, NextProtos: []string{"mqtt"}})
	base := func() *tls.Config { return &tls.Config{RootCAs: a.Pool, ServerName: "localhost"} }
	for _, offer := range [][]string{nil, {"mqtt"}, {"x", "mqtt"}} {
		c := base()
		c.NextProtos = offer
		_, err := handshake(t, s, c)
		require.NoError(t, err, "%v", offer)
	}
	c := base()
	c.NextProtos = []string{"h2"}
	_, err := handshake(t, s, c)
	require.ErrorContains(t, err, "unsupported application protocols")
	c = base()
	c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, err = handshake(t, s, c)
	require.ErrorContains(t, err, "unsupported versions")
}

// check returns all that Check reports, nil for nothing.
func check(cfg Config) error {
	var all []error
	Check(cfg, func(field string, err error) { all = append(all, fmt.Errorf("%s: %w", field, err)) })
	return errors.Join(all...)
}

// What keeps files from being read may go away without a trace in them.
func TestFailedFilesAreTriedAgain(t *testing.T) {
	a := pki.New(t)
	first, second := a.Issue("first", nil), a.Issue("second", nil)
	s, err := Open(Config{Cert: first.Cert, Key: first.Key}, nil, nil)
	require.NoError(t, err)
	now := time.Now()
	s.now = func() time.Time { now = now.Add(checkEvery); return now }
	var good [2][]byte
	paths := [2]string{first.Cert, first.Key}
	write := func(i int, content []byte) {
		require.NoError(t, os.WriteFile(paths[i], content, 0o600))
		require.NoError(t, os.Chtimes(paths[i], time.Time{}, time.Unix(1_700_000_000, 0)))
	}
	for i, path := range []string{second.Cert, second.Key} {
		good[i], err = os.ReadFile(path)
		require.NoError(t, err)
		write(i, bytes.Repeat([]byte("?"), len(good[i])))
	}
	for range 3 {
		s.Refresh()
		require.ErrorContains(t, s.Problem(), "read certificate")
	}
	write(0, good[0])
	write(1, good[1])
	s.Refresh()
	require.NoError(t, s.Problem())
	require.Equal(t, "second", s.current.Load().Certificates[0].Leaf.Subject.CommonName)
}

func TestOpenErrors(t *testing.T) {
	a := pki.New(t)
	f, other := a.Issue("server", nil), a.Issue("other", nil)
	for want, cfg := range map[string]Config{
		"no such file":                       {Cert: f.Cert + ".none", Key: f.Key},
		"private key does not match":         {Cert: f.Cert, Key: other.Key},
		"read client authorities: open":      {Cert: f.Cert, Key: f.Key, ClientCA: a.CA + ".none", ClientAuth: tls.RequireAndVerifyClientCert},
		"has no certificate in PEM form":     {Cert: f.Cert, Key: f.Key, ClientCA: f.Key, ClientAuth: tls.RequireAndVerifyClientCert},
		"failed to find any PEM data in key": {Cert: f.Cert, Key: "/dev/null"},
	} {
		_, err := Open(cfg, nil, nil)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, check(cfg), want)
	}
	old := a.Issue("old", pki.Expired)
	require.NoError(t, check(Config{Cert: old.Cert, Key: old.Key}))
	s, err := Open(Config{Cert: old.Cert, Key: old.Key}, nil, nil)
	require.NoError(t, err, "a gateway whose clock is wrong after a power cut must start")
	require.True(t, s.NotAfter().Before(time.Now()))
}

// A resumed session is not verified again, so one with a client certificate is never resumed.
func TestResumption(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	for auth, want := range map[tls.ClientAuthType]bool{tls.NoClientCert: true, tls.VerifyClientCertIfGiven: false, tls.RequireAndVerifyClientCert: false} {
		var resumed bool
		s, _, _ := open(t, Config{
			Name: "tls", Cert: f.Cert, Key: f.Key, ClientCA: a.CA, ClientAuth: auth,
			VerifyConnection: func(s tls.ConnectionState) error { resumed = s.DidResume; return nil },
		})
		client := &tls.Config{RootCAs: a.Pool, ServerName: "localhost", Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		for range 2 {
			_, err := handshake(t, s, client)
			require.NoError(t, err)
		}
		require.Equal(t, want, resumed, "%s", auth)
	}
}
