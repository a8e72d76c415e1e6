package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
	"gantry/broker/auth"
	"gantry/protocols/mqtt/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; it only passes when something is broken.
const patience = 5 * time.Second

// fakeStore is a Store whose commits can be held back or made to fail. It
// keeps nothing: the core holds the live state.
type fakeStore struct {
	mu      sync.Mutex
	held    bool
	err     error
	waiting []func(error)
}

func (*fakeStore) Load(context.Context) (*broker.State, error)         { return &broker.State{}, nil }
func (*fakeStore) Queued(string, uint64, int) ([]broker.Queued, error) { return nil, nil }
func (*fakeStore) Close() error                                        { return nil }
func (s *fakeStore) Commit(_ context.Context, _ *broker.Batch, done func(error)) error {
	s.mu.Lock()
	if s.held && done != nil {
		s.waiting = append(s.waiting, done)
		s.mu.Unlock()
		return nil
	}
	err := s.err
	s.mu.Unlock()
	if done != nil {
		done(err)
	}
	return nil
}

func (s *fakeStore) hold() {
	s.mu.Lock()
	s.held = true
	s.mu.Unlock()
}

// release lets everything through that was held, in order.
func (s *fakeStore) release() {
	s.mu.Lock()
	s.held = false
	waiting, err := s.waiting, s.err
	s.waiting = nil
	s.mu.Unlock()
	for _, done := range waiting {
		done(err)
	}
}

func (s *fakeStore) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
}

// rig is one server on a real broker.
type rig struct {
	t      testing.TB
	store  *fakeStore
	broker *broker.Broker
	srv    *Server
	reg    *prometheus.Registry
}

func newRig(t testing.TB, cfg Config, hooks ...broker.Hook) *rig {
	t.Helper()
	return newRigOn(t, nil, cfg, broker.Config{Hooks: hooks})
}

func newRigOn(t testing.TB, ln net.Listener, cfg Config, bc broker.Config) *rig {
	t.Helper()
	r := &rig{t: t, store: &fakeStore{}, reg: prometheus.NewRegistry()}
	if bc.Authenticate == nil {
		bc.Authenticate = auth.Always
	}
	var err error
	r.broker, err = broker.New(context.Background(), bc, r.store, nil, nil)
	require.NoError(t, err)
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	if ln == nil {
		r.srv, err = New(cfg, r.broker, nil, r.reg)
	} else {
		r.srv, err = NewOn(ln, cfg, r.broker, nil, r.reg)
	}
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- r.srv.Run(context.Background()) }()
	t.Cleanup(func() {
		r.store.release()
		require.NoError(t, r.srv.Close())
		require.NoError(t, <-ran)
		require.NoError(t, r.broker.Close())
	})
	return r
}

// peer is a client that sends and expects bytes.
type peer struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	v  wire.Version
}

func (r *rig) dial(v wire.Version) *peer {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.srv.Addr().String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = nc.Close() })
	return &peer{t: r.t, nc: nc, r: bufio.NewReader(nc), v: v}
}

// connect opens a session. rest is the CONNECT behind the keep alive, with
// properties in version 5.
func (r *rig) connect(v wire.Version, id string, flags byte, rest ...string) *peer {
	r.t.Helper()
	p := r.dial(v)
	p.write(connectPacket(r.t, v, id, flags, rest...))
	h, body := p.packet()
	require.Equal(r.t, wire.CONNACK, h.Type)
	require.Zero(r.t, body[1], "refused: % x", body)
	return p
}

// connectPacket builds a CONNECT. The first of extra are the properties.
func connectPacket(t testing.TB, v wire.Version, id string, flags byte, extra ...string) []byte {
	t.Helper()
	body := bytes.NewBuffer(raw(t, "0004 'MQTT'"))
	body.Write([]byte{byte(v), flags, 0, 0})
	if v == wire.V5 {
		var props []byte
		if len(extra) > 0 {
			props = raw(t, extra[0])
			extra = extra[1:]
		}
		body.WriteByte(byte(len(props)))
		body.Write(props)
	}
	body.Write([]byte{0, byte(len(id))})
	body.WriteString(id)
	for _, e := range extra {
		body.Write(raw(t, e))
	}
	return append([]byte{0x10, byte(body.Len())}, body.Bytes()...)
}

// raw turns readable hex into bytes; 'text' stands for itself.
func raw(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		require.NoError(t, err, "bad hex %q", part)
		out = append(out, b...)
	}
	return out
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	require.NoError(p.t, p.nc.SetWriteDeadline(time.Now().Add(patience)))
	_, err := p.nc.Write(b)
	require.NoError(p.t, err)
}

// send writes packets given as hex.
func (p *peer) send(packets ...string) {
	p.t.Helper()
	for _, s := range packets {
		p.write(raw(p.t, s))
	}
}

// expect reads exactly the packets given as hex.
func (p *peer) expect(packets ...string) {
	p.t.Helper()
	for _, s := range packets {
		want := raw(p.t, s)
		got := make([]byte, len(want))
		require.NoError(p.t, p.nc.SetReadDeadline(time.Now().Add(patience)))
		n, err := io.ReadFull(p.r, got)
		require.NoError(p.t, err, "want % x, got % x", want, got[:n])
		require.Equal(p.t, hex.EncodeToString(want), hex.EncodeToString(got))
	}
}

// packet reads one packet.
func (p *peer) packet() (wire.Header, []byte) {
	p.t.Helper()
	h, body, err := p.next()
	require.NoError(p.t, err)
	return h, body
}

func (p *peer) next() (h wire.Header, body []byte, err error) {
	if err := p.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return h, nil, err
	}
	var head []byte
	for ok := false; !ok; {
		b, err := p.r.ReadByte()
		if err != nil {
			return h, nil, err
		}
		head = append(head, b)
		if h, ok, err = wire.ParseHeader(head, p.v); err != nil {
			return h, nil, err
		}
	}
	body = make([]byte, h.Length)
	_, err = io.ReadFull(p.r, body)
	return h, body, err
}

// expectClosed expects the end of the connection and nothing before it.
func (p *peer) expectClosed() {
	p.t.Helper()
	require.NoError(p.t, p.nc.SetReadDeadline(time.Now().Add(patience)))
	rest, err := io.ReadAll(p.r)
	if err != nil {
		require.False(p.t, errors.Is(err, context.DeadlineExceeded) || timedOut(err), "still open")
	}
	require.Empty(p.t, hex.EncodeToString(rest))
}

// expectDisconnect expects a DISCONNECT with code, any reason string, and the end.
func (p *peer) expectDisconnect(code byte) {
	p.t.Helper()
	h, body := p.packet()
	require.Equal(p.t, wire.DISCONNECT, h.Type)
	require.Equal(p.t, hex.EncodeToString([]byte{code}), hex.EncodeToString(body[:1]))
	p.expectClosed()
}

// expectSilence proves that nothing is on the way: the answer to a PINGREQ is
// the next thing that comes.
func (p *peer) expectSilence() {
	p.t.Helper()
	p.send("c000")
	p.expect("d000")
}

func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond, what)
}
