package secure

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/conformance/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

func TestCommonName(t *testing.T) {
	a := pki.New(t)
	cn := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.Subject = pkix.Name{Organization: []string{"plant"}}
			for _, n := range names {
				c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: oidCommonName, Value: n})
			}
		}
	}
	for name, tc := range map[string]struct {
		names []string
		want  string
		bad   string
	}{
		"plain":        {[]string{"device-7"}, "device-7", ""},
		"with spaces":  {[]string{"Prüfstand 3, Halle 7"}, "Prüfstand 3, Halle 7", ""},
		"none":         {nil, "", "exactly one common name"},
		"empty":        {[]string{""}, "", "exactly one common name"},
		"two":          {[]string{"device-7", "admin"}, "", "exactly one common name"},
		"line end":     {[]string{"device-7\nadmin"}, "", "control characters"},
		"NUL in it":    {[]string{"admin\x00.example"}, "", "control characters"},
		"C1 character": {[]string{"admin\u0085"}, "", "control characters"},
	} {
		t.Run(name, func(t *testing.T) {
			f := a.Issue("c", cn(tc.names...))
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			require.NoError(t, err)
			state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}}
			require.NoError(t, None.Verify(state))
			got, err := commonName(pair.Leaf)
			if tc.bad != "" {
				require.ErrorContains(t, err, tc.bad)
				require.ErrorContains(t, CommonName.Verify(state), tc.bad)
				return
			}
			require.NoError(t, err)
			require.NoError(t, CommonName.Verify(state))
			require.Equal(t, tc.want, got)
		})
	}
	require.NoError(t, CommonName.Verify(tls.ConnectionState{}), "no certificate is for the configuration to judge")
}

// accept returns the server's end of a connection to a listener with the given identity.
func accept(t *testing.T, a *pki.Authority, identity Identity, client *tls.Config) (server net.Conn, c net.Conn, reg *prometheus.Registry) {
	t.Helper()
	f := a.Issue("server", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	reg = prometheus.NewRegistry()
	l, err := New(raw, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: a.Pool, ClientAuth: tls.VerifyClientCertIfGiven}, identity, "tls", nil, reg)
	require.NoError(t, err)
	c, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	if client != nil {
		client.RootCAs, client.ServerName = a.Pool, "localhost"
		c = tls.Client(c, client)
	}
	t.Cleanup(func() {
		_ = server.Close()
		_ = c.Close()
		require.NoError(t, l.Close())
		require.ErrorIs(t, l.Close(), net.ErrClosed)
	})
	return server, c, reg
}

func TestIdentity(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("device-7", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		identity Identity
		certs    []tls.Certificate
		want     string
	}{
		"certificate":              {CommonName, []tls.Certificate{pair}, "device-7"},
		"no certificate":           {CommonName, nil, ""},
		"certificate without name": {None, []tls.Certificate{pair}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server, c, _ := accept(t, a, tc.identity, &tls.Config{Certificates: tc.certs})
			go func() { _, _ = c.Write([]byte("hello")) }()
			_, ok := server.(*Conn).Identity()
			require.False(t, ok, "nothing is known before the handshake")
			_, err := io.ReadFull(server, make([]byte, 5))
			require.NoError(t, err)
			user, ok := server.(*Conn).Identity()
			require.Equal(t, tc.want != "", ok)
			require.Equal(t, tc.want, user)
		})
	}
}

// A handshake that fails is final: it must not look like a deadline, after which the caller would read again.
func TestHandshakeThatDoesNotCome(t *testing.T) {
	server, _, reg := accept(t, pki.New(t), None, nil)
	require.NoError(t, server.SetReadDeadline(time.Now()))
	for range 2 {
		_, err := server.Read(make([]byte, 1))
		require.ErrorContains(t, err, "TLS handshake")
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, m := range families[0].Metric {
		require.Equal(t, strings.Contains(m.String(), "failed"), m.Counter.GetValue() == 1, "%s", m)
	}
}

// A deadline after the handshake is none of the kind that ends the connection.
func TestReadGoesOnAfterADeadline(t *testing.T) {
	server, c, _ := accept(t, pki.New(t), None, &tls.Config{})
	go func() { _, _ = c.Write([]byte("a")) }()
	buf := make([]byte, 1)
	_, err := server.Read(buf)
	require.NoError(t, err)
	require.NoError(t, server.SetReadDeadline(time.Now()))
	_, err = server.Read(buf)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, server.SetReadDeadline(time.Now().Add(patience)))
	go func() { _, _ = c.Write([]byte("b")) }()
	_, err = server.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "b", string(buf))
}

// Close does not wait for a client that does not read.
func TestCloseIsSoon(t *testing.T) {
	server, c, _ := accept(t, pki.New(t), None, &tls.Config{})
	go func() { _, _ = c.Write([]byte("a")) }()
	_, err := server.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, server.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	for err == nil {
		_, err = server.Write(make([]byte, 64<<10))
	}
	began := time.Now()
	_ = server.Close()
	require.Less(t, time.Since(began), 2*time.Second)
}
