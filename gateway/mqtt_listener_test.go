package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"gantry/conformance/pki"
	"gantry/conformance/servers"
	"gantry/gateway/config"
)

const patience = 10 * time.Second

// withListener is a gateway whose only MQTT listener is changed.
func withListener(t *testing.T, change func(c *config.MQTT)) (*config.Config, *config.MQTT) {
	t.Helper()
	c := testConfig(t)
	c.Auth.Anonymous = config.AnonymousNever
	l := &c.Listeners.MQTT[0]
	change(l)
	require.NoError(t, c.Validate())
	return c, l
}

func serverTLS(f pki.Files) *config.ServerTLS {
	return &config.ServerTLS{Cert: f.Cert, Key: f.Key, ClientAuth: config.ClientAuthNone, Identity: config.IdentityNone}
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	require.NoError(t, ctx.Err(), "%s hangs: %s", name, out)
	return string(out), err
}

// Devices with certificates of the plant's authority connect with mosquitto's clients; nobody else does.
func TestMosquittoOverTLSWithCertificates(t *testing.T) {
	pub, sub := servers.Tool(t, "mosquitto_pub"), servers.Tool(t, "mosquitto_sub")
	a, foreign := pki.New(t), pki.New(t)
	c, _ := withListener(t, func(l *config.MQTT) {
		l.TLS = serverTLS(a.Issue("server", nil))
		l.TLS.ClientCA, l.TLS.ClientAuth, l.TLS.Identity = a.CA, config.ClientAuthRequire, config.IdentityCN
	})
	g, _ := start(t, c)
	_, port, err := net.SplitHostPort(g.Addrs()["tcp"].String())
	require.NoError(t, err)
	common := []string{"-h", "localhost", "-p", port, "--cafile", a.CA, "-t", "plant/7", "-q", "1"}
	device := a.Issue("device-7", nil)
	for _, version := range []string{"--tls-version tlsv1.2", "--tls-version tlsv1.3", "--tls-alpn mqtt"} {
		good := append(append([]string{"--cert", device.Cert, "--key", device.Key}, strings.Fields(version)...), common...)
		out, err := run(t, pub, append(good, "-m", version, "-r", "-u", "admin", "-V", "5")...)
		require.NoError(t, err, "%s", out)
		out, err = run(t, sub, append(good, "-C", "1")...)
		require.NoError(t, err, "%s", out)
		require.Equal(t, version+"\n", out)
	}
	for name, args := range map[string][]string{
		"no certificate":      {},
		"of somebody else":    pairArgs(foreign.Issue("device-7", nil)),
		"expired":             pairArgs(a.Issue("old", pki.Expired)),
		"for servers only":    pairArgs(a.Issue("usage", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })),
		"without common name": pairArgs(a.Issue("nameless", func(c *x509.Certificate) { c.Subject.CommonName = "" })),
		"other ALPN":          append(pairArgs(device), "--tls-alpn", "h2"),
	} {
		out, err := run(t, pub, append(append(args, common...), "-m", "x")...)
		require.Error(t, err, "%s: %s", name, out)
	}
	other := append(pairArgs(device), "-h", "localhost", "-p", port, "--cafile", foreign.CA, "-t", "x", "-m", "x")
	out, err := run(t, pub, other...)
	require.Error(t, err, "a client that does not trust us does not connect: %s", out)
}

func pairArgs(f pki.Files) []string { return []string{"--cert", f.Cert, "--key", f.Key} }

// connectTo sends CONNECT and returns the connection and the return code of CONNACK.
func connectTo(t *testing.T, nc net.Conn, id string) byte {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	body := "\x00\x04MQTT\x04\x02\x00\x3c\x00" + string([]byte{byte(len(id))}) + id
	_, err := io.WriteString(nc, "\x10"+string([]byte{byte(len(body))})+body)
	require.NoError(t, err)
	connack := make([]byte, 4)
	_, err = io.ReadFull(nc, connack)
	require.NoError(t, err)
	return connack[3]
}

const (
	accepted      = 0
	notAuthorized = 5
)

// With identity: cn the certificate is the user, and one that may be left out admits nobody by being absent.
func TestCertificateIsTheUser(t *testing.T) {
	a := pki.New(t)
	c, l := withListener(t, func(l *config.MQTT) {
		l.TLS = serverTLS(a.Issue("server", nil))
		l.TLS.ClientCA, l.TLS.ClientAuth, l.TLS.Identity = a.CA, config.ClientAuthRequest, config.IdentityCN
	})
	f := a.Issue("device-7", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	dial := func(t *testing.T, g *Gateway, certs ...tls.Certificate) net.Conn {
		nc, err := tls.Dial("tcp", g.Addrs()["tcp"].String(), &tls.Config{RootCAs: a.Pool, Certificates: certs, NextProtos: []string{"mqtt"}})
		require.NoError(t, err)
		require.Equal(t, "mqtt", nc.ConnectionState().NegotiatedProtocol)
		return nc
	}
	g, stop := start(t, c)
	require.EqualValues(t, accepted, connectTo(t, dial(t, g, pair), "a"))
	require.EqualValues(t, notAuthorized, connectTo(t, dial(t, g), "b"))
	sessions := g.broker.Sessions()
	require.Len(t, sessions, 1)
	require.Equal(t, "device-7", sessions[0].Username)
	stop()
	l.TLS.Identity = config.IdentityNone
	g, _ = start(t, c)
	require.EqualValues(t, notAuthorized, connectTo(t, dial(t, g, pair), "a"), "a certificate alone is no user")
}

func TestReplacedCertificateAndAlarm(t *testing.T) {
	a := pki.New(t)
	f := a.Issue("server", nil)
	c, _ := withListener(t, func(l *config.MQTT) { l.TLS = serverTLS(f) })
	g, stop := start(t, c)
	serial := func() string {
		nc, err := tls.Dial("tcp", g.Addrs()["tcp"].String(), &tls.Config{RootCAs: a.Pool})
		require.NoError(t, err)
		defer nc.Close()
		return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	a.IssueTo(f, "server", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * 24 * time.Hour) })
	require.Eventually(t, func() bool { return serial() != first }, patience, 50*time.Millisecond)
	stop()
	alarmed := func(now time.Time) bool {
		g.watch.look(now)
		for _, alarm := range g.alarms.List() {
			if alarm.Name == "certificate_expires:tcp" {
				return true
			}
		}
		return false
	}
	require.False(t, alarmed(time.Now()))
	require.True(t, alarmed(time.Now().Add(17*24*time.Hour)))
}

func TestBadCertificateFiles(t *testing.T) {
	a := pki.New(t)
	c, l := withListener(t, func(l *config.MQTT) { l.TLS = serverTLS(a.Issue("server", nil)) })
	problems := func() (all []string) {
		CheckFiles(c, func(key, format string, args ...any) { all = append(all, key+": "+fmt.Sprintf(format, args...)) })
		return all
	}
	require.Empty(t, problems())
	l.TLS.Key += ".none"
	l.TLS.ClientAuth, l.TLS.ClientCA = config.ClientAuthRequire, "no-ca.pem"
	require.Equal(t, []string{
		"listeners.mqtt[0].tls.cert: read certificate: open " + l.TLS.Key + ": no such file or directory",
		"listeners.mqtt[0].tls.client_ca: read client authorities: open no-ca.pem: no such file or directory",
	}, problems())
	_, err := New(c, nil)
	require.ErrorContains(t, err, "TLS of listener tcp: read certificate: open "+l.TLS.Key)
	require.NotContains(t, err.Error(), "\n")
}

// webSocketURL starts a gateway with a WebSocket listener and returns its address.
func webSocketURL(t *testing.T, tls *config.ServerTLS) string {
	t.Helper()
	c, _ := withListener(t, func(l *config.MQTT) { l.Transport, l.TLS = config.MQTTOverWebSocket, tls })
	c.Auth.Anonymous = config.AnonymousLoopback
	g, _ := start(t, c)
	scheme := "ws"
	if tls != nil {
		scheme = "wss"
	}
	return fmt.Sprintf("%s://%s/mqtt", scheme, g.Addrs()["tcp"])
}

func TestPahoOverSecureWebSocket(t *testing.T) {
	a := pki.New(t)
	url := webSocketURL(t, serverTLS(a.Issue("server", nil)))
	c := paho3.NewClient(paho3.NewClientOptions().AddBroker(url).SetClientID("wss").SetAutoReconnect(false).SetTLSConfig(&tls.Config{RootCAs: a.Pool}))
	wait := func(tok paho3.Token) {
		t.Helper()
		require.True(t, tok.WaitTimeout(patience))
		require.NoError(t, tok.Error())
	}
	wait(c.Connect())
	defer c.Disconnect(100)
	got := make(chan paho3.Message, 10)
	wait(c.Subscribe("w/#", 2, func(_ paho3.Client, m paho3.Message) { got <- m }))
	for _, size := range []int{0, 126, 20_000, 300_000} {
		for qos := range byte(3) {
			payload := bytes.Repeat([]byte{qos}, size)
			wait(c.Publish("w/x", qos, false, payload))
			select {
			case m := <-got:
				require.True(t, bytes.Equal(payload, m.Payload()))
			case <-time.After(patience):
				require.Fail(t, "nothing received")
			}
		}
	}
}

// MQTT.js is what pages use.
func TestMQTTJS(t *testing.T) {
	node, path := servers.Node(t, servers.MQTTJS)
	t.Setenv("NODE_PATH", path)
	a := pki.New(t)
	for name, url := range map[string]string{"ws": webSocketURL(t, nil), "wss": webSocketURL(t, serverTLS(a.Issue("server", nil)))} {
		out, err := run(t, node, "testdata/mqttjs.js", url, a.CA)
		require.NoError(t, err, "%s: %s", name, out)
		require.Equal(t, "ok\n", out)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	c, l := withListener(t, func(l *config.MQTT) { l.Bind = config.Addr("unix:" + path) })
	c.Auth.Anonymous = config.AnonymousLoopback
	dial := func(t *testing.T) net.Conn {
		nc, err := net.Dial("unix", path)
		require.NoError(t, err)
		return nc
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	_, err = New(c, nil)
	require.ErrorContains(t, err, "somebody listens there already")
	left.SetUnlinkOnClose(false) // as a gateway that was killed
	require.NoError(t, left.Close())

	g, stop := start(t, c)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	require.EqualValues(t, accepted, connectTo(t, dial(t), "a"), "a client on this machine is as one from loopback")
	require.Len(t, g.broker.Sessions(), 1)
	stop()
	_, err = os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	c.Auth.Anonymous = config.AnonymousNever
	_, stop = start(t, c)
	require.EqualValues(t, notAuthorized, connectTo(t, dial(t), "a"))
	stop()

	require.NoError(t, os.WriteFile(path, []byte("something of value"), 0o600))
	_, err = New(c, nil)
	require.ErrorContains(t, err, "is no socket")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "something of value", string(text))
	l.Bind = "unix:/nowhere/at/all.sock"
	_, err = New(c, nil)
	require.ErrorContains(t, err, "listen for MQTT on unix:/nowhere/at/all.sock")
}

// The address that counts is the one in the header: for who may connect, and in listings.
func TestProxyProtocol(t *testing.T) {
	trust := func(network string) *config.ProxyProtocol {
		return &config.ProxyProtocol{Trusted: []config.Network{{Prefix: netip.MustParsePrefix(network)}}}
	}
	c, l := withListener(t, func(l *config.MQTT) { l.ProxyProtocol = trust("127.0.0.0/8") })
	c.Auth.Anonymous = config.AnonymousLoopback
	g, stop := start(t, c)
	dial := func(header string) net.Conn {
		nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
		require.NoError(t, err)
		_, err = io.WriteString(nc, header)
		require.NoError(t, err)
		return nc
	}
	require.EqualValues(t, accepted, connectTo(t, dial("PROXY TCP4 127.0.0.9 127.0.0.1 4711 1883\r\n"), "a"))
	require.Equal(t, "127.0.0.9:4711", g.broker.Sessions()[0].RemoteAddr)
	require.EqualValues(t, notAuthorized, connectTo(t, dial("PROXY TCP4 192.0.2.1 127.0.0.1 4711 1883\r\n"), "b"))
	require.EqualValues(t, notAuthorized, connectTo(t, dial("PROXY UNKNOWN\r\n"), "c"), "nobody is taken for the proxy")
	closed := func(nc net.Conn) {
		t.Helper()
		defer nc.Close()
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(patience)))
		_, err := nc.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	closed(dial("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d"))
	stop()

	a := pki.New(t)
	l.Transport, l.TLS = config.MQTTOverWebSocket, serverTLS(a.Issue("server", nil))
	g, stop = start(t, c)
	nc := tls.Client(dial("PROXY TCP6 2001:db8::1 ::1 4711 1883\r\n"), &tls.Config{RootCAs: a.Pool, ServerName: "localhost"})
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(nc, "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	require.NoError(t, err)
	answer := make([]byte, len("HTTP/1.1 101"))
	_, err = io.ReadFull(nc, answer)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 101", string(answer), "header, TLS and HTTP follow each other")
	stop()

	l.Transport, l.TLS, l.ProxyProtocol = config.MQTTOverTCP, nil, trust("192.0.2.0/24")
	g, _ = start(t, c)
	closed(dial("PROXY TCP4 127.0.0.9 127.0.0.1 4711 1883\r\n"))
}
