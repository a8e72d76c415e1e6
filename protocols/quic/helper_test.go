package quic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
	"gantry/broker/auth"
	"gantry/conformance/pki"
	"gantry/conformance/quicdial"
	"gantry/protocols/mqtt"
	"gantry/protocols/mqtt/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// patience bounds what a test waits for; it only passes when something is broken.
const patience = 10 * time.Second

// memory is a Store that keeps nothing: the core holds the live state. Its
// commits can be held back.
type memory struct {
	mu      sync.Mutex
	held    bool
	waiting []func(error)
}

func (*memory) Load(context.Context) (*broker.State, error)         { return &broker.State{}, nil }
func (*memory) Queued(string, uint64, int) ([]broker.Queued, error) { return nil, nil }
func (*memory) Close() error                                        { return nil }
func (s *memory) Commit(_ context.Context, _ *broker.Batch, done func(error)) error {
	if done == nil {
		return nil
	}
	s.mu.Lock()
	held := s.held
	if held {
		s.waiting = append(s.waiting, done)
	}
	s.mu.Unlock()
	if !held {
		done(nil)
	}
	return nil
}

// hold keeps commits back until hold(false).
func (s *memory) hold(on bool) {
	s.mu.Lock()
	s.held = on
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, done := range waiting {
		done(nil)
	}
}

// rig is an MQTT server over QUIC on a real broker.
type rig struct {
	t      testing.TB
	ln     *Listener
	srv    *mqtt.Server
	store  memory
	broker *broker.Broker
	ca     *pki.Authority
	reg    *prometheus.Registry
}

func newRig(t testing.TB, cfg Config, mc mqtt.Config) *rig {
	t.Helper()
	r := &rig{t: t, ca: pki.New(t), reg: prometheus.NewRegistry()}
	var err error
	r.broker, err = broker.New(t.Context(), broker.Config{Authenticate: auth.Always}, &r.store, nil, nil)
	require.NoError(t, err)
	r.ln = r.listen(cfg)
	r.srv, err = mqtt.NewOn(r.ln, mc, r.broker, nil, r.reg)
	require.NoError(t, err)
	ran := make(chan error, 1)
	go func() { ran <- r.srv.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, r.srv.Close())
		require.NoError(t, <-ran)
		require.NoError(t, r.broker.Close())
	})
	return r
}

// listen opens a listener with a certificate of the rig's authority.
func (r *rig) listen(cfg Config) *Listener {
	r.t.Helper()
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	cfg.Name = "quic"
	if cfg.TLS == nil {
		cfg.TLS = r.serverTLS()
	}
	var reg prometheus.Registerer
	if r.reg != nil {
		reg = r.reg
	}
	ln, err := New(cfg, nil, reg)
	require.NoError(r.t, err)
	return ln
}

func (r *rig) serverTLS() *tls.Config {
	f := r.ca.Issue("server", nil)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(r.t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"mqtt"}}
}

func (r *rig) clientTLS() *tls.Config { return &tls.Config{RootCAs: r.ca.Pool} }

// value is what a counter or gauge of the listener shows.
func (r *rig) value(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			has := 0
			for _, l := range m.Label {
				for _, want := range labels {
					if l.GetValue() == want {
						has++
					}
				}
			}
			if has == len(labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	r.t.Fatalf("there is no metric %s %v", name, labels)
	return 0
}

// client is a version 5 client that leaves every decision to the test.
type client struct {
	t  testing.TB
	nc *quicdial.Conn
	in *bufio.Reader
}

func (r *rig) dial() *client {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	nc, err := quicdial.Dial(ctx, r.ln.Addr().String(), r.clientTLS())
	require.NoError(r.t, err)
	return on(r.t, nc)
}

func on(t testing.TB, nc *quicdial.Conn) *client {
	t.Cleanup(func() { _ = nc.Close() })
	require.NoError(t, nc.SetDeadline(time.Now().Add(2*patience)))
	return &client{t, nc, bufio.NewReader(nc)}
}

// connect opens a session that outlives its connection by a minute if keep.
func (r *rig) connect(id string, keep bool) *client {
	r.t.Helper()
	c := r.dial()
	c.join(id, keep, 60)
	return c
}

func (c *client) join(id string, keep bool, keepAlive byte) (present bool) {
	c.t.Helper()
	flags, props := byte(2), ""
	if keep {
		flags, props = 0, "\x11\x00\x00\x00\x3c"
	}
	c.send(0x10, "\x00\x04MQTT\x05"+string([]byte{flags, 0, keepAlive, byte(len(props))})+props+text(id))
	_, body := c.expect(0x20)
	require.Zero(c.t, body[1], "CONNECT is refused")
	return body[0] == 1
}

// text is a string as MQTT encodes it.
func text(s string) string { return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s }

// send writes one packet.
func (c *client) send(head byte, body string) {
	c.t.Helper()
	require.NoError(c.t, sendOn(c.nc, head, body))
}

func sendOn(w io.Writer, head byte, body string) error {
	p := []byte{head}
	for n := len(body); ; {
		b := byte(n & 0x7f)
		if n >>= 7; n == 0 {
			p = append(p, b)
			break
		}
		p = append(p, b|0x80)
	}
	_, err := w.Write(append(p, body...))
	return err
}

// packet reads one packet.
func packet(in *bufio.Reader) (head byte, body []byte, err error) {
	if head, err = in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(in) // the same encoding
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(in, body)
	return head, body, err
}

// expect reads a packet that must have the first byte head.
func (c *client) expect(head byte) (byte, []byte) {
	c.t.Helper()
	h, body, err := packet(c.in)
	require.NoError(c.t, err)
	require.Equal(c.t, head, h, "% x", body[:min(len(body), 80)])
	return h, body
}

func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.send(0x82, "\x00\x01\x00"+text(filter)+string([]byte{qos}))
	_, body := c.expect(0x90)
	require.Equal(c.t, []byte{0, 1, 0, qos}, body)
}

// publish sends a message with QoS 1 and waits for its acknowledgement.
func (c *client) publish(topic, payload string) {
	c.t.Helper()
	c.send(0x32, text(topic)+"\x00\x07\x00"+payload)
	_, body := c.expect(0x40)
	require.Equal(c.t, []byte{0, 7}, body[:2])
}

// gets reads a message with QoS 0.
func (c *client) gets(topic, payload string) {
	c.t.Helper()
	_, body := c.expect(0x30)
	require.True(c.t, bytes.Equal([]byte(text(topic)+"\x00"+payload), body), "%.80q", body)
}

// ends reads until the server has closed, and returns the code of its
// DISCONNECT; 0 if there was none.
func (c *client) ends() (code byte) {
	c.t.Helper()
	for {
		h, body, err := packet(c.in)
		if err != nil {
			var ne net.Error
			require.False(c.t, errors.As(err, &ne) && ne.Timeout(), "the connection stays open")
			return code
		}
		if wire.Type(h>>4) == wire.DISCONNECT && len(body) > 0 {
			code = body[0]
		}
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 5*time.Millisecond, what)
}
