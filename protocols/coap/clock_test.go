package coap

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"

	"gantry/broker"
)

// recorder keeps what a loop sends.
type recorder struct{ sent [][]byte }

func (r *recorder) ReadBatch([]ipv4.Message, int) (int, error) { return 0, net.ErrClosed }

func (r *recorder) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	for _, m := range ms {
		r.sent = append(r.sent, append([]byte(nil), m.Buffers[0]...))
	}
	return len(ms), nil
}

// bareLoop is a loop without socket and goroutines, for one unproven peer.
func bareLoop(t testing.TB) (*loop, *recorder, *datagram) {
	t.Helper()
	cfg := Config{Rate: -1}
	cfg.setDefaults()
	m, err := newMetrics("test", nil)
	require.NoError(t, err)
	rec := &recorder{}
	core := &fakeCore{publish: func(_ *broker.Message, done func(broker.Reason)) { done(broker.Success) }}
	l := newLoop(&cfg, core, &socket{batch: rec}, newEchoGate(EchoRequired, nil), m, slog.New(slog.DiscardHandler))
	from := netip.MustParseAddrPort("192.0.2.7:5683")
	return l, rec, &datagram{from: from, addr: net.UDPAddrFromAddrPort(from), to: &local{}}
}

// receive gives a loop one datagram and returns what it sends.
func (r *recorder) receive(l *loop, d *datagram, data []byte) [][]byte {
	r.sent = nil
	d.data = data
	l.turn(false, func() { l.handleGuarded(d) })
	return r.sent
}

// after lets time pass for a loop without goroutines and returns what it sends.
func (r *recorder) after(l *loop, t time.Duration) [][]byte {
	r.sent = nil
	l.base = l.base.Add(-t)
	l.turn(true, l.runTimers)
	return r.sent
}

func decoded(t testing.TB, b []byte) message.Message {
	t.Helper()
	m := message.Message{Options: make(message.Options, 0, 16)}
	_, err := coder.DefaultCoder.Decode(b, &m)
	require.NoError(t, err)
	return m
}

// RFC 7252 section 4.2: 2 s, then doubled four times, then given up.
func TestRetransmissionDoublesAndGivesUp(t *testing.T) {
	l, rec, d := bareLoop(t)
	l.cfg.RandomFactor = 1
	core, release, published := slowCore()
	l.core = core
	published.Add(1)
	require.Empty(t, rec.receive(l, d, put("a", "x").bytes(t)))
	const tolerance = 50 * time.Millisecond // the real clock runs as well
	require.Empty(t, rec.after(l, 100*time.Millisecond-tolerance))
	require.Len(t, rec.after(l, tolerance), 1)
	release(broker.Success)
	first := rec.after(l, 0)
	require.Len(t, first, 1)
	require.Equal(t, message.Confirmable, decoded(t, first[0]).Type)
	for _, gap := range []time.Duration{2, 4, 8, 16} {
		require.Empty(t, rec.after(l, gap*time.Second-tolerance))
		require.Equal(t, first, rec.after(l, tolerance))
	}
	require.Empty(t, rec.after(l, 32*time.Second-tolerance))
	require.Zero(t, metricValue(t, l.metrics.timeouts))
	require.Empty(t, rec.after(l, tolerance))
	require.Equal(t, 1.0, metricValue(t, l.metrics.timeouts))
	require.Equal(t, 4.0, metricValue(t, l.metrics.retransmits))
	require.Zero(t, l.outstanding())
}

func TestRetransmissionIsSpread(t *testing.T) {
	l, _, d := bareLoop(t)
	p := l.peerFor(d)
	seen := map[time.Duration]bool{}
	for range 20 {
		l.turn(false, func() {
			timeout := l.transmit(p, p.nextMID(), []byte{0x40, 0, 0, 0}, func(outcome) {}).timeout
			require.GreaterOrEqual(t, timeout, 2*time.Second)
			require.LessOrEqual(t, timeout, 3*time.Second)
			seen[timeout] = true
		})
	}
	require.Greater(t, len(seen), 10)
}

func TestSilentPeersAndSessionsAreForgotten(t *testing.T) {
	l, rec, d := bareLoop(t)
	l.echo.policy = EchoOff
	require.Len(t, rec.receive(l, d, put("a", "x").bytes(t)), 1)
	watcher := *d
	watcher.from = netip.MustParseAddrPort("192.0.2.8:1")
	require.Len(t, rec.receive(l, &watcher, register("t", "a").bytes(t)), 1)
	counts := func() (peers, sessions float64) {
		return metricValue(t, l.metrics.peers), metricValue(t, l.metrics.sessions)
	}
	rec.after(l, 4*time.Minute)
	d.data = nil
	require.Len(t, rec.receive(l, d, req{code: codes.GET, mid: 9}.bytes(t)), 1) // keeps the peer, not the session
	rec.after(l, 2*time.Minute)
	peers, sessions := counts()
	require.Equal(t, 2.0, peers)
	require.Equal(t, 1.0, sessions, "the observer's stays")
	rec.after(l, 4*time.Minute)
	peers, sessions = counts()
	require.Equal(t, 1.0, peers)
	require.Equal(t, 1.0, sessions)

	cancel := req{code: codes.GET, mid: 10, token: "t", path: []string{"ps", "a"}, options: []message.Option{observeOpt(1)}}
	require.Len(t, rec.receive(l, &watcher, cancel.bytes(t)), 1)
	rec.after(l, 6*time.Minute)
	rec.after(l, time.Minute)
	peers, sessions = counts()
	require.Zero(t, peers)
	require.Zero(t, sessions)
	require.Empty(t, l.timers, "a loop without peers sleeps")
}

func TestKeptBodiesAreForgotten(t *testing.T) {
	l, rec, d := bareLoop(t)
	l.echo.policy = EchoOff
	l.core.(*fakeCore).backlog = []*broker.Message{{Topic: "a", Payload: testBody(3000)}}
	require.Len(t, rec.receive(l, d, get("a").bytes(t)), 1)
	require.Len(t, l.peers[d.from].bodies, 1)
	rec.after(l, bodyLifetime+time.Second)
	require.Empty(t, l.peers[d.from].bodies)
}

// failing refuses datagrams to one address, as the system does without a route.
type failing struct{ sent, refused int }

func (f *failing) ReadBatch([]ipv4.Message, int) (int, error) { return 0, net.ErrClosed }

func (f *failing) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	for i, m := range ms {
		if m.Addr.(*net.UDPAddr).Port == 1 {
			f.refused++
			return i, errors.New("no route")
		}
		f.sent++
	}
	return len(ms), nil
}

func TestRefusedDatagramDoesNotHoldOthers(t *testing.T) {
	f := &failing{}
	lost := 0
	o := newOutbox(f, func(error) { lost++ })
	for i := range 3 * batchSize {
		o.put(&net.UDPAddr{Port: 1 + i%3}, &local{}, []byte{1})
	}
	o.flush()
	require.Equal(t, batchSize, lost)
	require.Equal(t, batchSize, f.refused)
	require.Equal(t, 2*batchSize, f.sent)
}

func TestTimers(t *testing.T) {
	var h timers
	var all []*timer
	for i := range 1000 {
		tm := &timer{}
		all = append(all, tm)
		h.set(tm, time.Duration(i*7919%1000))
	}
	for i := 0; i < 1000; i += 3 {
		h.stop(all[i])
		h.stop(all[i])
	}
	for i := 1; i < 1000; i += 3 {
		h.set(all[i], time.Duration(i*31%1000))
	}
	var last time.Duration
	n := 0
	require.Nil(t, h.due(-1))
	for tm := h.due(1000); tm != nil; tm = h.due(1000) {
		require.GreaterOrEqual(t, tm.at, last)
		require.Zero(t, tm.slot)
		last = tm.at
		n++
	}
	require.Equal(t, 666, n)
	require.Empty(t, h)
}

func TestAckQueue(t *testing.T) {
	var q ackQueue
	ex := make([]exchange, 5)
	for i := range ex {
		q.remove(&ex[i]) // not in it
		q.push(&ex[i])
	}
	for _, i := range []int{2, 0, 4, 4, 3, 1} {
		q.remove(&ex[i])
	}
	require.Nil(t, q.head)
	require.Nil(t, q.tail)
	q.push(&ex[0])
	require.Same(t, &ex[0], q.head)
}
