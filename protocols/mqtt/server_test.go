package mqtt

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{Bind: "127.0.0.1:0", MaxPacketSize: 10, MaxKeepAlive: time.Millisecond, WriteTimeout: -1}, nil, nil, nil)
	require.ErrorContains(t, err, "max packet size 10")
	require.ErrorContains(t, err, "max keep alive 1ms")
	require.ErrorContains(t, err, "timeouts must be positive")
	_, err = New(Config{Bind: "256.0.0.1:0"}, nil, nil, nil)
	require.ErrorContains(t, err, "listen for MQTT on 256.0.0.1:0")
}

func TestCloseTellsTheClients(t *testing.T) {
	r := newRig(t, Config{})
	p5 := r.connect(wire.V5, "v5", 2)
	p3 := r.connect(wire.V311, "v3", 2)
	early := r.dial(0)
	eventually(t, func() bool { return r.srv.Connections() == 3 }, "accepted")
	closed := make(chan error, 2)
	go func() { closed <- r.srv.Close() }()
	go func() { closed <- r.srv.Close() }()
	p5.expect("e0 01 8b")
	p5.expectClosed()
	p3.expectClosed()
	early.expectClosed()
	for range 2 {
		require.NoError(t, <-closed)
	}
	require.Zero(t, r.srv.Connections())
	_, err := net.Dial("tcp", r.srv.Addr().String())
	require.Error(t, err)
}

func TestCloseIsNotHeldUpByAStuckClient(t *testing.T) {
	r := newRig(t, Config{WriteTimeout: time.Minute})
	stuck := r.connect(wire.V5, "stuck", 2)
	require.NoError(t, stuck.nc.(*net.TCPConn).SetReadBuffer(4096))
	stuck.send("82 07 0001 00 0001 't' 00")
	stuck.expect("90 04 0001 00 00")
	pub := r.connect(wire.V311, "pub", 2)
	for range 100 {
		pub.write(publishBytes(t, "t", strings.Repeat("x", 100_000)))
	}
	pub.expectSilence()
	start := time.Now()
	require.NoError(t, r.srv.Close())
	require.Less(t, time.Since(start), 3*time.Second)
}

func TestRunEndsWithItsContext(t *testing.T) {
	r := newRig(t, Config{})
	other, err := New(Config{Name: "second", Bind: "127.0.0.1:0"}, r.broker, nil, r.reg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- other.Run(ctx) }()
	cancel()
	require.NoError(t, <-ran)
}

func TestMaxConnections(t *testing.T) {
	r := newRig(t, Config{MaxConnections: 1})
	first := r.connect(wire.V311, "a", 2)
	second := r.dial(0)
	second.expectClosed()
	first.send("e0 00")
	first.expectClosed()
	eventually(t, func() bool { return r.srv.Connections() == 0 }, "gone")
	r.connect(wire.V311, "b", 2)
}

func TestMaxHalfOpenPerAddress(t *testing.T) {
	r := newRig(t, Config{MaxHalfOpenPerAddress: 2})
	done := r.connect(wire.V311, "a", 2) // does not count any more
	first := r.dial(0)
	r.dial(0)
	eventually(t, func() bool { return r.srv.Connections() == 3 }, "accepted")
	third := r.dial(0)
	third.expectClosed()
	require.NoError(t, first.nc.Close())
	eventually(t, func() bool { return r.srv.Connections() == 2 }, "gone")
	r.connect(wire.V311, "b", 2)
	done.expectSilence()
	addr := done.nc.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	eventually(t, func() bool {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		return r.srv.half[addr] == 1
	}, "only the second counts")
}

// failingListener fails a few times before it accepts.
type failingListener struct {
	net.Listener
	failures atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsDoNotEndTheListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	failing := &failingListener{Listener: ln}
	failing.failures.Store(3)
	r := newRigOn(t, failing, Config{}, broker.Config{})
	r.connect(wire.V311, "a", 2).expectSilence()
	require.Equal(t, 3.0, value(t, r.srv.metrics.acceptErr))
}

// panicking is a hook with a bug.
type panicking struct{}

func (panicking) Name() string { return "panicking" }

func (panicking) Rewrite(p *broker.Publication) broker.Reason {
	if p.Message.Topic == "boom" {
		panic("bug")
	}
	return broker.Success
}

func TestPanicDropsOnlyThatPeer(t *testing.T) {
	r := newRig(t, Config{}, panicking{})
	other := r.connect(wire.V311, "other", 2)
	p := r.connect(wire.V311, "p", 2)
	p.send("30 07 0004 'boom' 'x'")
	p.expectClosed()
	other.expectSilence()
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "dropped")
	require.Equal(t, 1.0, value(t, r.srv.metrics.panics))
}

// plainListener hides everything but net.Conn, as other transports do; writes
// of a marked connection panic.
type plainListener struct {
	net.Listener
	panics atomic.Bool
}

type plainConn struct {
	net.Conn
	panics *atomic.Bool
}

func (l *plainListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{plainConn{nc, &l.panics}}, nil
}

func (c plainConn) Write(b []byte) (int, error) {
	if c.panics.Swap(false) {
		panic("bug")
	}
	return c.Conn.Write(b)
}

func TestServesAnyListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	plain := &plainListener{Listener: ln}
	r := newRigOn(t, plain, Config{}, broker.Config{})
	p := r.connect(wire.V5, "a", 2)
	p.expectSilence()
	r.connect(wire.V5, "a", 2)
	p.expectDisconnect(0x8e)

	p = r.connect(wire.V311, "b", 2)
	plain.panics.Store(true)
	p.send("c000")
	p.expectClosed()
	require.Equal(t, 1.0, value(t, r.srv.metrics.panics))
}

// value reads a counter or gauge.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	require.NoError(t, m.Write(&out))
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func TestMetrics(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect(wire.V311, "a", 2)
	p.send("30 04 0001 't' 'x'", "30 04 0001 't' 'x'")
	p.expectSilence()
	bad := r.connect(wire.V5, "b", 2)
	bad.send("c1 00")
	bad.expectDisconnect(0x81)
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "gone")
	m := r.srv.metrics
	require.Equal(t, 1.0, value(t, m.open))
	require.Equal(t, 2.0, value(t, m.packetsIn[wire.PUBLISH]))
	require.Equal(t, 2.0, value(t, m.packetsIn[wire.CONNECT]))
	require.Equal(t, 1.0, value(t, m.packetsOut[wire.PINGRESP]))
	require.Equal(t, 2.0, value(t, m.packetsOut[wire.CONNACK]))
	require.Equal(t, 1.0, value(t, m.packetsOut[wire.DISCONNECT]))
	require.Equal(t, 1.0, value(t, m.violations))
	require.Equal(t, 2.0, value(t, m.accepted))
	families, err := r.reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	for _, f := range families {
		require.Regexp(t, "^gantry_mqtt_", f.GetName())
	}

	_, err = New(Config{Bind: "127.0.0.1:0"}, r.broker, nil, r.reg)
	require.ErrorContains(t, err, "metrics of MQTT listener mqtt")
	require.NoError(t, r.srv.Close())
	again, err := New(Config{Bind: "127.0.0.1:0"}, r.broker, nil, r.reg) // after a reload
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

// watchedListener shows how large the buffer of the last Read was.
type watchedListener struct {
	net.Listener
	room atomic.Int64
}

type watchedConn struct {
	net.Conn
	room *atomic.Int64
}

func (l *watchedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return watchedConn{nc, &l.room}, nil
}

func (c watchedConn) Read(b []byte) (int, error) {
	c.room.Store(int64(len(b)))
	return c.Conn.Read(b)
}

// The receive buffer is small for a client that is quiet, also after it was busy.
func TestQuietConnectionHasASmallBuffer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	watched := &watchedListener{Listener: ln}
	r := newRigOn(t, watched, Config{}, broker.Config{})
	p := r.connect(wire.V311, "p", 2)
	p.expectSilence()
	eventually(t, func() bool { return watched.room.Load() <= smallBuffer }, "small")
	p.write(publishBytes(t, "t", strings.Repeat("x", 20_000)))
	p.expectSilence()
	eventually(t, func() bool { return watched.room.Load() == largeBuffer }, "large while it is busy")
	eventually(t, func() bool { return watched.room.Load() <= smallBuffer }, "small again")
	p.expectSilence()
}
