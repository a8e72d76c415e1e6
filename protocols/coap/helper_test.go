package coap

import (
	"context"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nullStore keeps nothing; CoAP sessions are not durable.
type nullStore struct{}

func (nullStore) Load(context.Context) (*broker.State, error) { return &broker.State{}, nil }

func (nullStore) Commit(_ context.Context, _ *broker.Batch, done func(error)) error {
	if done != nil {
		done(nil)
	}
	return nil
}

func (nullStore) Queued(string, uint64, int) ([]broker.Queued, error) { return nil, nil }
func (nullStore) Close() error                                        { return nil }

// gate authenticates by a table of passwords; without one everybody may enter.
type gate map[string]string

func (g gate) Authenticate(_ context.Context, r *broker.ConnectRequest) error {
	if g == nil {
		return nil
	}
	if !r.Credentials.HasUsername {
		return &broker.Error{Reason: broker.NotAuthorized}
	}
	if want, ok := g[r.Credentials.Username]; !ok || want != string(r.Credentials.Password) {
		return &broker.Error{Reason: broker.BadCredentials}
	}
	return nil
}

func newBroker(t testing.TB, cfg broker.Config) *broker.Broker {
	t.Helper()
	if cfg.Authenticate == nil {
		cfg.Authenticate = gate(nil)
	}
	b, err := broker.New(t.Context(), cfg, nullStore{}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// run starts a server and stops it at the end of the test.
func run(t testing.TB, s *Server, bugs ...string) *Server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
			require.EqualValues(t, len(bugs), metricValue(t, s.loops[0].metrics.dropped[dropPanic]), "a panic was caught")
		case <-time.After(10 * time.Second):
			t.Error("Run did not return")
		}
	})
	return s
}

func testConfig() Config {
	return Config{Bind: "127.0.0.1:0", Rate: -1, DrainTimeout: 200 * time.Millisecond}
}

func startWith(t testing.TB, cfg Config, core connector) *Server {
	t.Helper()
	s, err := newServer(cfg, core, nil, nil)
	require.NoError(t, err)
	return run(t, s)
}

// start runs a server on a broker of its own.
func start(t testing.TB, cfg Config) (*Server, *broker.Broker) {
	t.Helper()
	b := newBroker(t, broker.Config{})
	return startWith(t, cfg, brokerConnector{b}), b
}

// client is a bare UDP socket.
type client struct {
	t    testing.TB
	conn *net.UDPConn
	mid  uint16
}

func dial(t testing.TB, s *Server) *client {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, s.Addr().(*net.UDPAddr))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn, mid: 1000}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	_, err := c.conn.Write(b)
	require.NoError(c.t, err)
}

const patience = 5 * time.Second

// read waits for one datagram.
func (c *client) read() message.Message {
	c.t.Helper()
	m, ok := c.readFor(patience)
	require.True(c.t, ok, "no datagram came")
	return m
}

func (c *client) readFor(d time.Duration) (m message.Message, ok bool) {
	c.t.Helper()
	buf := make([]byte, 2048)
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(d)))
	n, err := c.conn.Read(buf)
	if err != nil {
		require.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
		return m, false
	}
	m.Options = make(message.Options, 0, 16)
	_, err = coder.DefaultCoder.Decode(buf[:n], &m)
	require.NoError(c.t, err)
	return m, true
}

// silence sends a ping and requires that its RST is the next datagram: the
// server has handled everything before and answered none of it.
func (c *client) silence() {
	c.t.Helper()
	mid := c.nextMID()
	ping := emptyMessage(message.Confirmable, mid)
	c.write(ping[:])
	m := c.read()
	require.Equal(c.t, message.Reset, m.Type, "unexpected %v", m.String())
	require.Equal(c.t, int32(mid), m.MessageID)
}

func (c *client) nextMID() uint16 {
	c.mid++
	return c.mid
}

// req builds a request; path segments and the rest are options.
type req struct {
	typ     message.Type
	code    codes.Code
	mid     uint16
	token   string
	path    []string
	query   []string
	options []message.Option
	payload string
}

func (r req) bytes(t testing.TB) []byte {
	t.Helper()
	var opts message.Options
	for _, s := range r.path {
		opts = opts.Add(message.Option{ID: message.URIPath, Value: []byte(s)})
	}
	for _, s := range r.query {
		opts = opts.Add(message.Option{ID: message.URIQuery, Value: []byte(s)})
	}
	for _, o := range r.options {
		opts = opts.Add(o)
	}
	buf := make([]byte, 4096)
	n, err := coder.DefaultCoder.Encode(message.Message{
		Type: r.typ, Code: r.code, MessageID: int32(r.mid), Token: []byte(r.token), Options: opts, Payload: []byte(r.payload),
	}, buf)
	require.NoError(t, err)
	return buf[:n]
}

// send fills in a message id when there is none and sends the request.
func (c *client) send(r req) uint16 {
	c.t.Helper()
	if r.mid == 0 {
		r.mid = c.nextMID()
	}
	c.write(r.bytes(c.t))
	return r.mid
}

// do sends a request and returns the response, which for a confirmable request
// must be piggybacked.
func (c *client) do(r req) message.Message {
	c.t.Helper()
	mid := c.send(r)
	m := c.read()
	if r.typ == message.Confirmable {
		require.Equal(c.t, message.Acknowledgement, m.Type)
		require.Equal(c.t, int32(mid), m.MessageID)
	}
	require.Equal(c.t, r.token, string(m.Token))
	return m
}

func (c *client) ack(m message.Message) {
	c.t.Helper()
	b := emptyMessage(message.Acknowledgement, uint16(m.MessageID))
	c.write(b[:])
}

func (c *client) reset(m message.Message) {
	c.t.Helper()
	b := emptyMessage(message.Reset, uint16(m.MessageID))
	c.write(b[:])
}

func opt(id message.OptionID, v ...byte) message.Option { return message.Option{ID: id, Value: v} }

func observeOpt(v uint32) message.Option {
	if v == 0 {
		return opt(message.Observe)
	}
	return opt(message.Observe, byte(v))
}

func put(topic, payload string) req {
	return req{code: codes.PUT, token: "p", path: []string{"ps", topic}, payload: payload}
}

func register(tok, filter string, query ...string) req {
	return req{code: codes.GET, token: tok, path: []string{"ps", filter}, query: query, options: []message.Option{observeOpt(0)}}
}

// fakeCore stands for a broker whose sessions answer as a test wants.
type fakeCore struct {
	mu       sync.Mutex
	requests []*broker.ConnectRequest
	publish  func(m *broker.Message, done func(broker.Reason))
	backlog  []*broker.Message // delivered over and over, QoS 0, 1, 2, 0 …
}

func (f *fakeCore) connect(_ context.Context, r *broker.ConnectRequest) (handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	return &fakeSession{core: f}, nil
}

type fakeSession struct {
	core   *fakeCore
	subs   map[string]uint32
	window uint16
	sent   int
}

func (s *fakeSession) Start() {}
func (s *fakeSession) Publish(_ context.Context, m *broker.Message, _ uint16, done func(broker.Reason)) {
	s.core.publish(m, done)
}
func (s *fakeSession) Release(uint16, func(broker.Reason)) {}
func (s *fakeSession) Subscribe(subs []broker.Subscription, done func([]broker.Reason, []broker.QoS)) {
	if s.subs == nil {
		s.subs = make(map[string]uint32)
	}
	for _, sub := range subs {
		s.subs[sub.Filter] = sub.ID
	}
	done(make([]broker.Reason, len(subs)), make([]broker.QoS, len(subs)))
}

func (s *fakeSession) Unsubscribe(filters []string, done func([]broker.Reason)) {
	for _, f := range filters {
		delete(s.subs, f)
	}
	done(make([]broker.Reason, len(filters)))
}

// Next delivers the core's backlog to all subscriptions, a few at a time.
func (s *fakeSession) Next(dst []broker.Delivery) []broker.Delivery {
	const most = 40
	if len(s.core.backlog) == 0 || len(s.subs) == 0 || s.window != 0 || s.sent >= most {
		return dst
	}
	d := broker.Delivery{Message: s.core.backlog[s.sent%len(s.core.backlog)], QoS: broker.QoS(s.sent % 3)}
	for _, id := range s.subs {
		d.SubscriptionIDs = append(d.SubscriptionIDs, id)
	}
	s.sent++
	if d.QoS > 0 {
		s.window = uint16(s.sent)
		d.PacketID = s.window
	}
	return append(dst, d)
}

func (s *fakeSession) Acked(id uint16) broker.Reason {
	if id != s.window {
		panic("acknowledged what was not delivered")
	}
	s.window = 0
	return broker.Success
}

func (s *fakeSession) Received(_ uint16, _ bool, done func(broker.Reason)) { done(broker.Success) }
func (s *fakeSession) Retained(topic string) (*broker.Message, broker.Reason) {
	for _, m := range s.core.backlog {
		if m.Topic == topic {
			return m, broker.Success
		}
	}
	return nil, broker.Success
}
func (s *fakeSession) Close(broker.Closing) {}

// observer collects what the broker delivers to a session for a filter.
type observer struct {
	t       testing.TB
	session *broker.Session
	woken   chan struct{}
}

func subscribeTo(t testing.TB, b *broker.Broker, filter string) *observer {
	t.Helper()
	o := &observer{t: t, woken: make(chan struct{}, 1)}
	s, _, err := b.Connect(t.Context(), &broker.ConnectRequest{
		Protocol: "mqtt", CleanStart: true, Kick: func(broker.Reason) {},
		Wake: func() {
			select {
			case o.woken <- struct{}{}:
			default:
			}
		},
	})
	require.NoError(t, err)
	o.session = s
	s.Start()
	s.Subscribe([]broker.Subscription{{Filter: filter, QoS: 2, RetainAsPublished: true}}, func(r []broker.Reason, _ []broker.QoS) {
		require.Equal(t, broker.Success, r[0])
	})
	t.Cleanup(func() { s.Close(broker.Closing{KeepWill: true}) })
	return o
}

// poll returns the next message that is there already, nil when there is none.
func (o *observer) poll() *broker.Message {
	d := o.session.Next(make([]broker.Delivery, 0, 1))
	if len(d) == 0 {
		return nil
	}
	switch d[0].QoS {
	case 1:
		o.session.Acked(d[0].PacketID)
	case 2:
		o.session.Received(d[0].PacketID, false, func(broker.Reason) {})
		o.session.Acked(d[0].PacketID)
	}
	return d[0].Message
}

func (o *observer) next() *broker.Message {
	o.t.Helper()
	deadline := time.After(patience)
	for {
		if m := o.poll(); m != nil {
			return m
		}
		select {
		case <-o.woken:
		case <-deadline:
			o.t.Fatal("no message came")
		}
	}
}

// publish brings a message into the broker from elsewhere.
func publish(t testing.TB, b *broker.Broker, m *broker.Message) {
	t.Helper()
	got := make(chan broker.Reason, 1)
	b.Inject(t.Context(), m, func(r broker.Reason) { got <- r })
	require.True(t, (<-got).OK())
}

// metricValue reads a counter or gauge.
func metricValue(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	require.NoError(t, m.Write(&d))
	if d.Counter != nil {
		return d.Counter.GetValue()
	}
	return d.Gauge.GetValue()
}

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx, cancel
}
