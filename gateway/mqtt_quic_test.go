package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/pki"
	"gantry/conformance/quicdial"
	"gantry/gateway/config"
)

// dialQUIC opens a connection to the listener that withListener has changed.
func dialQUIC(t *testing.T, g *Gateway, cfg *tls.Config) *quicdial.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc, err := quicdial.Dial(ctx, g.Addrs()["tcp"].String(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// Over QUIC, too, the certificate can be the user, and only TLS 1.3 with the
// name of MQTT gets in.
func TestQUICWithCertificates(t *testing.T) {
	a := pki.New(t)
	c, _ := withListener(t, func(l *config.MQTT) {
		l.Transport, l.TLS = config.MQTTOverQUIC, serverTLS(a.Issue("server", nil))
		l.TLS.ClientCA, l.TLS.ClientAuth, l.TLS.Identity = a.CA, config.ClientAuthRequest, config.IdentityCN
	})
	g, _ := start(t, c)
	f := a.Issue("device-7", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	require.EqualValues(t, accepted, connectTo(t, dialQUIC(t, g, &tls.Config{RootCAs: a.Pool, Certificates: []tls.Certificate{pair}}), "a"))
	require.EqualValues(t, notAuthorized, connectTo(t, dialQUIC(t, g, &tls.Config{RootCAs: a.Pool}), "b"))
	sessions := g.broker.Sessions()
	require.Len(t, sessions, 1)
	require.Equal(t, "device-7", sessions[0].Username)
	require.Equal(t, "tcp", sessions[0].Listener)

	f = pki.New(t).Issue("device-7", nil)
	foreign, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	for name, cfg := range map[string]*tls.Config{
		"other ALPN":       {RootCAs: a.Pool, NextProtos: []string{"h3"}},
		"of somebody else": {RootCAs: a.Pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &foreign, nil }},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		nc, err := quicdial.Dial(ctx, g.Addrs()["tcp"].String(), cfg)
		if err == nil { // TLS 1.3: the client learns of its certificate's fate later
			_, err = nc.Read(make([]byte, 1))
			_ = nc.Close()
		}
		require.Error(t, err, name)
		require.NoError(t, ctx.Err(), name)
		cancel()
	}
}

func TestQUICReplacedCertificate(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	c, _ := withListener(t, func(l *config.MQTT) { l.Transport, l.TLS = config.MQTTOverQUIC, serverTLS(f) })
	g, _ := start(t, c)
	serial := func() string {
		nc := dialQUIC(t, g, &tls.Config{RootCAs: a.Pool})
		defer nc.Close()
		return nc.QUIC.ConnectionState().TLS.PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	a.IssueTo(f, "server", nil)
	require.Eventually(t, func() bool { return serial() != first }, patience, 50*time.Millisecond)
	info, err := os.Stat(filepath.Join(c.DataDir, quicKeyFile))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
}

// A second stream is what multi_stream says.
func TestQUICMultiStream(t *testing.T) {
	for _, multi := range []bool{false, true} {
		c, _ := withListener(t, func(l *config.MQTT) {
			l.Transport, l.TLS, l.MultiStream = config.MQTTOverQUIC, serverTLS(pki.New(t).Issue("server", nil)), multi
		})
		c.Auth.Anonymous = config.AnonymousLoopback
		g, stop := start(t, c)
		nc := dialQUIC(t, g, nil)
		require.EqualValues(t, accepted, connectTo(t, nc, "a"))
		s, err := nc.QUIC.OpenStream()
		require.Equal(t, multi, err == nil, "%v", err)
		if multi {
			require.NoError(t, s.SetDeadline(time.Now().Add(patience)))
			_, err = s.Write([]byte("\x82\x06\x00\x01\x00\x01a\x00"))
			require.NoError(t, err)
			suback := make([]byte, 5)
			_, err = io.ReadFull(s, suback)
			require.NoError(t, err)
			require.Equal(t, "\x90\x03\x00\x01\x00", string(suback))
		}
		stop()
	}
}
