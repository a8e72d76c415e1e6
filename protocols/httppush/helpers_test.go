package httppush

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// nullStore keeps nothing: every commit is done at once.
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

// gate is a recorder that takes every message and confirms it when it is told.
type gate struct {
	mu      sync.Mutex
	shut    bool
	block   bool          // Record waits for its context
	reason  broker.Reason // of the next confirmations
	only    string        // reason is for this topic only
	held    []*broker.Publication
	seen    []*broker.Message
	entered chan string // topics, when somebody listens
}

func (*gate) Name() string { return "gate" }

func (g *gate) Record(ctx context.Context, p *broker.Publication) broker.Reason {
	g.mu.Lock()
	g.seen = append(g.seen, p.Message)
	reason, shut, block := g.reason, g.shut, g.block
	if g.only != "" && g.only != p.Message.Topic {
		reason = broker.Success
	}
	if shut {
		p.Hold()
		g.held = append(g.held, p)
	}
	g.mu.Unlock()
	if g.entered != nil {
		g.entered <- p.Message.Topic
	}
	if block {
		<-ctx.Done()
		return broker.ServerBusy
	}
	return reason
}

func (g *gate) set(f func(*gate)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

// open confirms what is held, and from now on everything at once.
func (g *gate) open(r broker.Reason) {
	g.mu.Lock()
	held := g.held
	g.held, g.shut = nil, false
	g.mu.Unlock()
	for _, p := range held {
		p.Done(r)
	}
}

func (g *gate) messages() []*broker.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.seen)
}

func (g *gate) last() *broker.Message {
	all := g.messages()
	return all[len(all)-1]
}

// users is an authenticator: user name → password, anonymous from loopback.
type users map[string]string

func (u users) Authenticate(_ context.Context, r *broker.ConnectRequest) error {
	c := r.Credentials
	switch {
	case !c.HasUsername && u["anonymous"] == "no":
		return &broker.Error{Reason: broker.NotAuthorized}
	case c.HasUsername && (u[c.Username] == "" || u[c.Username] != string(c.Password)):
		return &broker.Error{Reason: broker.BadCredentials}
	}
	return nil
}

type fixture struct {
	t      *testing.T
	gate   *gate
	broker *broker.Broker
	server *Server
	url    string
	http   *http.Client
	reg    *prometheus.Registry
	stop   func() error // ends Run and returns what it returned
}

func start(t *testing.T, change ...func(*Config, *broker.Config)) *fixture {
	t.Helper()
	g := &gate{}
	cfg := Config{Bind: "127.0.0.1:0"}
	bcfg := broker.Config{Hooks: []broker.Hook{g}, Authenticate: users{"anna": "secret", "bert": "geheim"}}
	for _, f := range change {
		f(&cfg, &bcfg)
	}
	b, err := broker.New(context.Background(), bcfg, nullStore{}, nil, nil)
	require.NoError(t, err)
	reg := prometheus.NewPedanticRegistry()
	s, err := New(cfg, b, nil, reg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	f := &fixture{
		t: t, gate: g, broker: b, server: s, reg: reg,
		url: "http://" + s.Addr().String(), http: &http.Client{Transport: transport, Timeout: patience},
		stop: sync.OnceValue(func() error { cancel(); return <-ended }),
	}
	t.Cleanup(func() {
		g.open(broker.Success)
		transport.CloseIdleConnections()
		require.NoError(t, f.stop())
		require.NoError(t, s.Close())
		require.NoError(t, b.Close())
		require.Zero(t, s.bytes.used.Load(), "bytes of bodies that were not given back")
		require.Empty(t, s.slots, "slots that were not given back")
	})
	return f
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

func (a *answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.body), &v), a.body)
	return v
}

// do sends a request; headers are "Name: value". "Host: x" sets the host,
// "user:password@" gives Basic credentials.
func (f *fixture) do(method, path, body string, headers ...string) *answer {
	f.t.Helper()
	a, err := f.try(method, path, body, headers...)
	require.NoError(f.t, err)
	return a
}

func (f *fixture) try(method, path, body string, headers ...string) (*answer, error) {
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, h := range headers {
		if creds, ok := strings.CutSuffix(h, "@"); ok {
			user, password, _ := strings.Cut(creds, ":")
			req.SetBasicAuth(user, password)
			continue
		}
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	res, err := f.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return &answer{res, string(b)}, err
}

const jsonType = "Content-Type: application/json"

// raw writes bytes to a new connection and returns the answers as they come.
func (f *fixture) raw(text string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.server.Addr().String())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { conn.Close() })
	require.NoError(f.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, text)
	require.NoError(f.t, err)
	return conn, bufio.NewReader(conn)
}

func (f *fixture) readAnswer(r *bufio.Reader, method string) *answer {
	f.t.Helper()
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	require.NoError(f.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(f.t, err)
	return &answer{res, string(b)}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen in time: %s", what)
		}
	}
}

// subscriber is a client of another protocol that takes everything.
func (f *fixture) subscriber(filter string) *broker.Session {
	f.t.Helper()
	s, _, err := f.broker.Connect(context.Background(), &broker.ConnectRequest{ClientID: "subscriber", Protocol: "mqtt"})
	require.NoError(f.t, err)
	s.Start()
	s.Subscribe([]broker.Subscription{{Filter: filter, QoS: 2}}, func([]broker.Reason, []broker.QoS) {})
	return s
}

// metric returns the value of a metric with one label value, "" for none; of a
// histogram the number of its samples.
func (f *fixture) metric(name, label string) float64 {
	f.t.Helper()
	families, err := f.reg.Gather()
	require.NoError(f.t, err)
	for _, family := range families {
		for _, m := range family.Metric {
			if family.GetName() != name || label != "" && m.Label[0].GetValue() != label {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}
