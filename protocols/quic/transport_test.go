package quic

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"gantry/conformance/pki"
	"gantry/conformance/quicdial"
	"gantry/protocols/mqtt"
)

// try opens a connection without a stream.
func (r *rig) try() (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	return quic.DialAddr(ctx, r.ln.Addr().String(), quicdial.TLS(r.clientTLS()), quicdial.Config())
}

func dialOnly(t testing.TB, r *rig) *quic.Conn {
	t.Helper()
	qc, err := r.try()
	require.NoError(t, err)
	t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
	return qc
}

// deaf is a socket that sends and never receives.
type deaf struct {
	net.PacketConn
	closed chan struct{}
}

func (d deaf) ReadFrom([]byte) (int, net.Addr, error) {
	<-d.closed
	return 0, nil, net.ErrClosed
}

// knock begins a handshake that goes no further, until the test ends.
func (r *rig) knock() {
	r.t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(r.t, err)
	d := deaf{udp, make(chan struct{})}
	tr := &quic.Transport{Conn: d}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = tr.Dial(ctx, r.ln.Addr(), quicdial.TLS(r.clientTLS()), quicdial.Config())
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
		close(d.closed)
		_ = tr.Close()
		_ = udp.Close()
	})
}

// Without load a client need not prove its address; beyond the threshold it
// must, and a real one does so on its own.
func TestAddressIsProvedUnderLoad(t *testing.T) {
	r := newRig(t, Config{RetryAbove: 2, HandshakeTimeout: time.Minute}, mqtt.Config{})
	r.connect("before", false)
	require.Zero(t, r.value("gantry_quic_retries_total"))
	r.knock()
	r.knock()
	eventually(t, "two handshakes run", func() bool { return r.value("gantry_quic_handshakes") == 2 })
	r.connect("under load", false)
	require.NotZero(t, r.value("gantry_quic_retries_total"))
	r.knock() // does not hear the Retry
	eventually(t, "it is asked", func() bool { return r.value("gantry_quic_retries_total") >= 2 })
	require.EqualValues(t, 2, r.value("gantry_quic_handshakes"), "an address that is not proved costs nothing")
}

func TestAddressOfEverybodyIsProved(t *testing.T) {
	r := newRig(t, Config{RetryAbove: -1}, mqtt.Config{})
	r.connect("c", false)
	require.NotZero(t, r.value("gantry_quic_retries_total"))
}

func TestMaxConnections(t *testing.T) {
	r := newRig(t, Config{MaxConnections: 1}, mqtt.Config{})
	c := r.connect("first", false)
	_, err := r.try()
	var refused *quic.TransportError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, quic.ConnectionRefused, refused.ErrorCode)
	require.NotZero(t, r.value("gantry_quic_handshakes_total", "max_connections"))
	c.send(0xC0, "")
	c.expect(0xD0)
	require.NoError(t, c.nc.Close())
	eventually(t, "the place is free", func() bool {
		qc, err := r.try()
		return err == nil && qc.CloseWithError(0, "") == nil
	})
}

// Handshakes are capped, and one that goes no further frees its place.
func TestMaxHandshakes(t *testing.T) {
	r := newRig(t, Config{MaxHandshakes: 1, HandshakeTimeout: 500 * time.Millisecond}, mqtt.Config{})
	r.knock()
	eventually(t, "it runs", func() bool { return r.value("gantry_quic_handshakes") == 1 })
	_, err := r.try()
	var refused *quic.TransportError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, quic.ConnectionRefused, refused.ErrorCode)
	require.NotZero(t, r.value("gantry_quic_handshakes_total", "max_handshakes"))
	eventually(t, "its time is over", func() bool { return r.value("gantry_quic_handshakes") == 0 })
	require.NotZero(t, r.value("gantry_quic_handshakes_total", "failed"))
}

// Only addresses that are proved count by themselves: any other could be
// anybody's.
func TestHandshakesPerAddress(t *testing.T) {
	m, err := newMetrics("g", nil)
	require.NoError(t, err)
	cfg := Config{MaxHandshakesPerAddress: 2}
	cfg.setDefaults()
	g := newGate(&cfg, m)
	enter := func(ip string, proved bool) (*place, error) {
		ctx, err := g.enter(t.Context(), &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.ParseIP(ip), Port: 1}, AddrVerified: proved})
		if err != nil {
			return nil, err
		}
		return ctx.Value(placeKey{}).(*place), nil
	}
	var last *place
	for range 2 {
		last, err = enter("192.0.2.1", true)
		require.NoError(t, err)
	}
	_, err = enter("::ffff:192.0.2.1", true)
	require.ErrorIs(t, err, errFull)
	_, err = enter("192.0.2.1", false)
	require.NoError(t, err)
	_, err = enter("192.0.2.2", true)
	require.NoError(t, err)
	last.shake()
	last.shake()
	_, err = enter("192.0.2.1", true)
	require.NoError(t, err)
	_, err = enter("192.0.2.1", true)
	require.ErrorIs(t, err, errFull)
}

// Only one stream may be opened, also when that one is over; none of one way.
func TestSecondStreamIsRefused(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	c := r.connect("c", false)
	_, err := c.nc.QUIC.OpenStream()
	require.ErrorIs(t, err, &quic.StreamLimitReachedError{})
	_, err = c.nc.QUIC.OpenUniStream()
	require.ErrorIs(t, err, &quic.StreamLimitReachedError{})
}

// A client moves to another port: its session goes on, and listings show where
// it is.
func TestMigration(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	from, to := socket(t), socket(t)
	qc, err := from.Dial(ctx, r.ln.Addr(), quicdial.TLS(&tls.Config{RootCAs: r.ca.Pool, ServerName: "localhost"}), quicdial.Config())
	require.NoError(t, err)
	nc, err := quicdial.On(ctx, qc)
	require.NoError(t, err)
	c := on(t, nc)
	c.join("c", false, 60)
	c.subscribe("a", 0)
	require.Equal(t, from.Conn.LocalAddr().String(), r.broker.Sessions()[0].RemoteAddr)
	path, err := qc.AddPath(to)
	require.NoError(t, err)
	require.NoError(t, path.Probe(ctx))
	require.NoError(t, path.Switch())
	eventually(t, "the new address is listed", func() bool {
		c.send(0xC0, "")
		c.expect(0xD0)
		return r.broker.Sessions()[0].RemoteAddr == to.Conn.LocalAddr().String()
	})
	require.EqualValues(t, 1, r.value("gantry_quic_migrations_total"))
	r.connect("pub", false).publish("a", "follows")
	c.gets("a", "follows")
}

// socket is a place from which a client may send.
func socket(t *testing.T) *quic.Transport {
	t.Helper()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	tr := &quic.Transport{Conn: udp}
	t.Cleanup(func() {
		_ = tr.Close()
		_ = udp.Close()
	})
	return tr
}

// A listener whose process died without a word is followed by one with the same
// key file: the clients of the old one learn at once that they are forgotten.
func TestStatelessReset(t *testing.T) {
	r := &rig{t: t, ca: pki.New(t)}
	key := filepath.Join(t.TempDir(), "quic.key")
	r.ln = r.listen(Config{KeyFile: key})
	qc := dialOnly(t, r)
	s, err := qc.OpenStream()
	require.NoError(t, err)
	_, err = s.Write([]byte("x"))
	require.NoError(t, err)
	nc, err := r.ln.Accept()
	require.NoError(t, err)
	_, err = nc.Read(make([]byte, 1)) // the client has its connection identifiers by now
	require.NoError(t, err)
	bind := r.ln.Addr().String()
	require.NoError(t, r.ln.udp.Close()) // as the kernel does for a process that is killed
	require.NoError(t, nc.Close())
	_ = r.ln.Close()

	r.ln = r.listen(Config{KeyFile: key, Bind: bind})
	t.Cleanup(func() { _ = r.ln.Close() })
	eventually(t, "the client is told", func() bool {
		_, _ = s.Write(make([]byte, 100)) // large enough for an answer
		return qc.Context().Err() != nil
	})
	var reset *quic.StatelessResetError
	require.ErrorAs(t, context.Cause(qc.Context()), &reset)
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quic.key")
	keys := func() *quic.Transport {
		tr := &quic.Transport{}
		require.NoError(t, useKeys(tr, path, discard))
		return tr
	}
	first := keys()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	require.NotEqual(t, first.StatelessResetKey[:], first.TokenGeneratorKey[:])
	again := keys()
	require.Equal(t, first.StatelessResetKey, again.StatelessResetKey)
	require.Equal(t, first.TokenGeneratorKey, again.TokenGeneratorKey)

	require.NoError(t, os.WriteFile(path, []byte("torn"), 0o600))
	require.NotEqual(t, first.StatelessResetKey, keys().StatelessResetKey)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left behind")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.ErrorContains(t, useKeys(&quic.Transport{}, path, discard), "QUIC keys")
}

// What a client sends before the handshake is complete is not taken: the client
// has to send it again.
func TestNoEarlyData(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	cfg := quicdial.TLS(r.clientTLS())
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	cfg.ServerName = "127.0.0.1"
	got := make(chan struct{})
	cfg.ClientSessionCache = &noticing{cfg.ClientSessionCache, got}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for resumed := range 2 {
		qc, err := quic.DialAddrEarly(ctx, r.ln.Addr().String(), cfg, quicdial.Config())
		require.NoError(t, err)
		nc, err := quicdial.On(ctx, qc)
		require.NoError(t, err)
		on(t, nc).join("c", false, 60)
		require.Equal(t, resumed == 1, qc.ConnectionState().TLS.DidResume)
		require.False(t, qc.ConnectionState().Used0RTT)
		select {
		case <-got:
		case <-ctx.Done():
			t.Fatal("no session ticket")
		}
	}
}

// noticing is a cache that tells of each ticket.
type noticing struct {
	tls.ClientSessionCache
	got chan struct{}
}

func (n *noticing) Put(key string, s *tls.ClientSessionState) {
	n.ClientSessionCache.Put(key, s)
	if s != nil {
		go func() { n.got <- struct{}{} }()
	}
}

// A listener that is closed, or does not come to be, leaves nothing behind.
func TestCloseWithoutAccept(t *testing.T) {
	r := &rig{t: t, ca: pki.New(t)}
	r.ln = r.listen(Config{})
	bind := r.ln.Addr().String()
	_, err := New(Config{Bind: bind, TLS: r.serverTLS()}, nil, nil)
	require.ErrorContains(t, err, "listen for QUIC on "+bind)
	qc := dialOnly(t, r) // complete for the client, and nobody accepts it
	require.NoError(t, r.ln.Close())
	require.NoError(t, r.ln.Close())
	<-qc.Context().Done()
	_, err = r.ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	r.ln = r.listen(Config{Bind: bind})
	require.NoError(t, r.ln.Close())
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{Bind: "127.0.0.1:0"}, nil, nil)
	require.ErrorContains(t, err, "needs certificates")
	_, err = New(Config{Bind: "127.0.0.1:0", TLS: &tls.Config{}, MaxConnections: -1}, nil, nil)
	require.ErrorContains(t, err, "positive")
	_, err = New(Config{Bind: "nowhere", TLS: &tls.Config{}}, nil, nil)
	require.ErrorContains(t, err, "listen for QUIC on nowhere")
}
