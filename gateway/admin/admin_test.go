package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testDeps() Deps {
	return Deps{
		Status: func(context.Context) Status { return Status{Version: "1.2.3", Node: "edge-01"} },
		Ready:  func(context.Context) []string { return nil },
		Bridges: func() []Bridge {
			return []Bridge{{Name: "cloud", Type: "kafka", State: BridgeRetrying, QueuedRecords: 7}}
		},
		Sessions: func() []Session { return nil },
		PauseBridge: func(bridge string, _ bool) error {
			if bridge != "cloud" {
				return ErrUnknownBridge
			}
			return nil
		},
		Kick: func(id string) bool { return id == "known" },
		Delayed: func(after uint64, limit int) []Delayed {
			var list []Delayed
			for id := after + 1; id <= 2500 && len(list) < limit; id++ {
				list = append(list, Delayed{ID: id, Topic: "t", Due: time.Unix(1, 0).UTC()})
			}
			return list
		},
		DeleteDelayed: func(_ context.Context, id uint64) (bool, error) {
			if id == 666 {
				return false, errors.New("disk: secret detail")
			}
			return id <= 2500, nil
		},
		Peek: func(_ context.Context, bridge string, _ int, _ bool) ([]QueuedRecord, error) {
			if bridge != "cloud" {
				return nil, ErrUnknownBridge
			}
			return []QueuedRecord{{Seq: 1, Topic: "a", Payload: []byte("hello")}}, nil
		},
	}
}

type fixture struct {
	server *Server
	url    string
	token  string
	client *Client
}

func start(t *testing.T, deps Deps) *fixture {
	t.Helper()
	file := filepath.Join(t.TempDir(), "data", "admin.token")
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gantry_test_value"}, func() float64 { return 42 }))
	s, err := New(Config{Bind: "127.0.0.1:0", TokenFile: file}, deps, nil, reg)
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- s.Run(ctx) }()
	token, err := ReadToken(file)
	require.NoError(t, err)
	c, err := NewClient(s.Addr().String(), token)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.http.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
	})
	return &fixture{server: s, url: "http://" + s.Addr().String(), token: token, client: c}
}

// ask sends a request; a header "Host" sets the host, a missing
// "Authorization" sends the right token, an empty one none.
func (f *fixture) ask(t *testing.T, method, path string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, f.url+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+f.token)
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// testGuardsAgainstOtherHosts: what needs no token on this machine needs it from elsewhere.
func testGuardsAgainstOtherHosts(t *testing.T, f *fixture) {
	for path, open := range map[string]bool{"/healthz": true, "/readyz": true, "/metrics": true, "/api/v1/status": false} {
		for peer, local := range map[string]bool{"127.0.0.1:5": true, "[::ffff:127.0.0.1]:5": true, "192.0.2.1:5": false, "[2001:db8::1]:5": false} {
			for _, token := range []string{"", "Bearer " + f.token} {
				req := httptest.NewRequest(http.MethodGet, "http://127.0.0.1"+path, http.NoBody)
				req.RemoteAddr = peer
				req.Header.Set("Authorization", token)
				res := httptest.NewRecorder()
				f.server.http.Handler.ServeHTTP(res, req)
				require.Equal(t, token == "" && (!open || !local), res.Code == http.StatusUnauthorized, "%s from %s: %d", path, peer, res.Code)
			}
		}
	}
}

func TestGuards(t *testing.T) {
	f := start(t, testDeps())
	t.Run("from another host", func(t *testing.T) { testGuardsAgainstOtherHosts(t, f) })
	for name, c := range map[string]struct {
		method, path string
		header       map[string]string
		status       int
	}{
		"health without token":    {"GET", "/healthz", map[string]string{"Authorization": ""}, 200},
		"ready without token":     {"GET", "/readyz", map[string]string{"Authorization": ""}, 200},
		"metrics without token":   {"GET", "/metrics", map[string]string{"Authorization": ""}, 200},
		"api without token":       {"GET", "/api/v1/status", map[string]string{"Authorization": ""}, 401},
		"api with wrong token":    {"GET", "/api/v1/status", map[string]string{"Authorization": "Bearer " + strings.Repeat("x", 52)}, 401},
		"api with basic":          {"GET", "/api/v1/status", map[string]string{"Authorization": "Basic " + f.token}, 401},
		"scheme in other case":    {"GET", "/api/v1/status", map[string]string{"Authorization": "bearer " + f.token}, 200},
		"token in the query":      {"GET", "/api/v1/status?token=" + f.token, map[string]string{"Authorization": ""}, 401},
		"unknown path, no token":  {"GET", "/api/v2/x", map[string]string{"Authorization": ""}, 401},
		"unknown path":            {"GET", "/api/v2/x", nil, 404},
		"wrong method":            {"POST", "/api/v1/status", nil, 405},
		"wrong method, no token":  {"POST", "/api/v1/status", map[string]string{"Authorization": ""}, 401},
		"rebound name":            {"GET", "/metrics", map[string]string{"Host": "evil.example:18083"}, 421},
		"rebound name, api":       {"GET", "/api/v1/status", map[string]string{"Host": "evil.example"}, 421},
		"localhost":               {"GET", "/healthz", map[string]string{"Host": "LocalHost:1"}, 200},
		"ipv6 host":               {"GET", "/healthz", map[string]string{"Host": "[::1]:1"}, 200},
		"name that looks like us": {"GET", "/healthz", map[string]string{"Host": "localhost.evil.example"}, 421},
		"page of another origin":  {"DELETE", "/api/v1/clients/known", map[string]string{"Origin": "http://evil.example"}, 403},
		"cross-site fetch":        {"DELETE", "/api/v1/clients/known", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"pause":                   {"POST", "/api/v1/bridges/cloud/pause", nil, 204},
		"pause nothing":           {"POST", "/api/v1/bridges/other/pause", nil, 404},
		"resume nothing":          {"POST", "/api/v1/bridges/other/resume", nil, 404},
		"kick":                    {"DELETE", "/api/v1/clients/known", nil, 204},
		"kick nobody":             {"DELETE", "/api/v1/clients/other", nil, 404},
		"peek":                    {"GET", "/api/v1/bridges/cloud/peek?n=5&dead=true", nil, 200},
		"peek too many":           {"GET", "/api/v1/bridges/cloud/peek?n=101", nil, 400},
		"peek none":               {"GET", "/api/v1/bridges/cloud/peek?n=0", nil, 400},
		"peek nonsense":           {"GET", "/api/v1/bridges/cloud/peek?n=five", nil, 400},
		"peek misspelt":           {"GET", "/api/v1/bridges/cloud/peek?N=5", nil, 400},
		"peek twice":              {"GET", "/api/v1/bridges/cloud/peek?n=5&n=6", nil, 400},
		"peek dead or not":        {"GET", "/api/v1/bridges/cloud/peek?dead=maybe", nil, 400},
		"peek unknown":            {"GET", "/api/v1/bridges/other/peek", nil, 404},
		"bad query":               {"GET", "/api/v1/clients?after=%zz", nil, 400},
		"bad limit":               {"GET", "/api/v1/clients?limit=-1", nil, 400},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := f.ask(t, c.method, c.path, c.header)
			require.Equal(t, c.status, res.StatusCode, body)
			require.NotContains(t, body, f.token)
			if res.StatusCode < 400 {
				return
			}
			require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
			var p Problem
			require.NoError(t, json.Unmarshal([]byte(body), &p))
			require.Equal(t, c.status, p.Status)
			require.NotEmpty(t, p.Detail)
			if c.status == 405 {
				require.Equal(t, "GET, HEAD", res.Header.Get("Allow"))
			}
			if c.status == 401 {
				require.Contains(t, res.Header.Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
}

// A peer that is not this machine needs the token for the open routes too.
func TestOpenRoutesAreClosedToOtherHosts(t *testing.T) {
	f := start(t, testDeps())
	for _, peer := range []string{"192.0.2.7:4000", "[2001:db8::1]:4000", "", "nonsense"} {
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			require.False(t, fromLoopback(&http.Request{RemoteAddr: peer}), path)
		}
	}
	for _, peer := range []string{"127.0.0.1:4000", "[::1]:4000", "[::ffff:127.0.0.1]:4000"} {
		require.True(t, fromLoopback(&http.Request{RemoteAddr: peer}))
	}
	served := false
	h := f.server.authorize(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true }), true)
	r, err := http.NewRequest("GET", "/metrics", http.NoBody)
	require.NoError(t, err)
	r.RemoteAddr = "192.0.2.7:4000"
	h.ServeHTTP(discard{}, r)
	require.False(t, served)
	r.Header.Set("Authorization", "Bearer "+f.token)
	h.ServeHTTP(discard{}, r)
	require.True(t, served)
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

func TestClientSeesWhatTheGatewaySays(t *testing.T) {
	deps := testDeps()
	alarms, err := NewAlarms(nil, nil)
	require.NoError(t, err)
	alarms.Raise("store_read_only", "disk is full")
	deps.Alarms = alarms
	f := start(t, deps)
	ctx := context.Background()

	st, err := f.client.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, "1.2.3", st.Version)
	require.Equal(t, "store_read_only", st.Alarms[0].Name)
	require.Positive(t, st.Process.Goroutines)
	require.Positive(t, st.Process.MemoryBytes)

	bridges, err := f.client.Bridges(ctx)
	require.NoError(t, err)
	require.Equal(t, BridgeRetrying, bridges[0].State)
	require.EqualValues(t, 7, bridges[0].QueuedRecords)

	records, err := f.client.Peek(ctx, "cloud", 0, false)
	require.NoError(t, err)
	require.Equal(t, "hello", records[0].Payload)

	_, err = f.client.Peek(ctx, "../status", 1, false)
	var api *APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, 404, api.Status)
	require.Contains(t, err.Error(), ErrUnknownBridge.Error())

	require.NoError(t, f.client.PauseBridge(ctx, "cloud"))
	require.NoError(t, f.client.ResumeBridge(ctx, "cloud"))
	require.ErrorAs(t, f.client.PauseBridge(ctx, "gone"), &api)
	require.ErrorAs(t, f.client.ResumeBridge(ctx, "gone"), &api)

	require.NoError(t, f.client.Kick(ctx, "known"))
	require.ErrorAs(t, f.client.Kick(ctx, "gone"), &api)

	_, body := f.ask(t, "GET", "/metrics", nil)
	require.Contains(t, body, "gantry_test_value 42")
}

func TestClientIDsSurviveThePath(t *testing.T) {
	deps := testDeps()
	var mu sync.Mutex
	var got string
	deps.Kick = func(id string) bool { mu.Lock(); defer mu.Unlock(); got = id; return true }
	f := start(t, deps)
	for _, id := range []string{"a/b", "..", ".", "a//b", "Käfer 7", "100%", "a?b#c", "%2F", `"\`, "+"} {
		require.NoError(t, f.client.Kick(context.Background(), id), id)
		mu.Lock()
		require.Equal(t, id, got)
		mu.Unlock()
	}
}

func TestClientWithoutTokenIsTold(t *testing.T) {
	f := start(t, testDeps())
	c, err := NewClient(f.url, "")
	require.NoError(t, err)
	defer c.http.CloseIdleConnections()
	_, err = c.Status(context.Background())
	var api *APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, http.StatusUnauthorized, api.Status)
	_, err = NewClient("ftp://x", "")
	require.Error(t, err)
}

func TestReadiness(t *testing.T) {
	deps := testDeps()
	deps.Ready = func(context.Context) []string { return []string{"listener mqtt/tcp is down"} }
	f := start(t, deps)
	r, err := f.client.Ready(context.Background())
	require.NoError(t, err)
	require.Equal(t, &Readiness{Problems: []string{"listener mqtt/tcp is down"}}, r)
	res, _ := f.ask(t, "GET", "/readyz", nil)
	require.Equal(t, 503, res.StatusCode)
	res, _ = f.ask(t, "GET", "/healthz", nil)
	require.Equal(t, 200, res.StatusCode, "a process that is not ready is still alive")
}

func TestClientsPageByPage(t *testing.T) {
	deps := testDeps()
	deps.Sessions = func() []Session {
		all := make([]Session, 2500)
		for i := range all {
			all[len(all)-1-i].ClientID = fmt.Sprintf("c%04d", i)
		}
		return all
	}
	f := start(t, deps)
	all, err := f.client.Clients(context.Background())
	require.NoError(t, err)
	require.Len(t, all, 2500)
	require.Equal(t, "c0000", all[0].ClientID)
	require.Equal(t, "c2499", all[2499].ClientID)
}

func TestPeekFailureIsNotShown(t *testing.T) {
	deps := testDeps()
	deps.Peek = func(context.Context, string, int, bool) ([]QueuedRecord, error) {
		return nil, errors.New("open /secret/path: no")
	}
	f := start(t, deps)
	res, body := f.ask(t, "GET", "/api/v1/bridges/cloud/peek", nil)
	require.Equal(t, 500, res.StatusCode)
	require.NotContains(t, body, "secret")
}

func TestPreview(t *testing.T) {
	long := strings.Repeat("ä", previewBytes) // two bytes each
	for name, c := range map[string]struct {
		payload, shown, encoding string
		truncated                bool
	}{
		"text":        {"hello", "hello", EncodingUTF8, false},
		"empty":       {"", "", EncodingUTF8, false},
		"binary":      {"\xff\x00", "/wA=", EncodingBase64, false},
		"long text":   {long, long[:previewBytes], EncodingUTF8, true},
		"split rune":  {"x" + long, "x" + long[:previewBytes-2], EncodingUTF8, true},
		"half a rune": {"\xc3", "ww==", EncodingBase64, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := Preview(&QueuedRecord{Payload: []byte(c.payload)})
			require.Equal(t, c.shown, r.Payload)
			require.Equal(t, c.encoding, r.Encoding)
			require.Equal(t, c.truncated, r.Truncated)
			require.Equal(t, len(c.payload), r.Size)
		})
	}
}

func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "admin.token")
	open := func(bind string) error {
		s, err := New(Config{Bind: bind, TokenFile: file}, testDeps(), nil, nil)
		if err == nil {
			require.NoError(t, s.Close())
		}
		return err
	}
	err := open("0.0.0.0:0")
	require.ErrorContains(t, err, "can be reached from other hosts")
	require.NoFileExists(t, file)
	require.ErrorContains(t, open(":0"), "can be reached from other hosts")

	require.NoError(t, open("127.0.0.1:0"))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	first, err := ReadToken(file)
	require.NoError(t, err)
	require.NoError(t, open("localhost:0"))
	again, err := ReadToken(file)
	require.NoError(t, err)
	require.Equal(t, first, again, "an existing token is kept")
	require.NoError(t, open("0.0.0.0:0"), "with a token file the operator may expose it")

	for _, bad := range []string{"", "short", "sixteen letters with spaces", "two\nlines0123456789"} {
		require.NoError(t, os.WriteFile(file, []byte(bad), 0o600))
		require.Error(t, open("127.0.0.1:0"), bad)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file stays behind")
}

func TestNewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t")
	_, err := New(Config{Bind: "127.0.0.1:0"}, testDeps(), nil, nil)
	require.ErrorContains(t, err, "token file")
	_, err = New(Config{Bind: "nonsense", TokenFile: file}, testDeps(), nil, nil)
	require.ErrorContains(t, err, "admin bind")
	_, err = New(Config{Bind: "127.0.0.1:0", TokenFile: file}, Deps{}, nil, nil)
	require.ErrorContains(t, err, "every function")
}

func TestLoopbackOnly(t *testing.T) {
	for bind, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "[::ffff:127.0.0.1]:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "edge-01:1": false, "192.0.2.1:1": false,
	} {
		got, err := loopbackOnly(bind)
		require.NoError(t, err)
		require.Equal(t, want, got, bind)
	}
}

func TestCloseBeforeAndDuringRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t")
	s, err := New(Config{Bind: "127.0.0.1:0", TokenFile: file}, testDeps(), nil, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Run(context.Background()))

	s, err = New(Config{Bind: "127.0.0.1:0", TokenFile: file}, testDeps(), nil, nil)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	require.NoError(t, s.Close())
	require.NoError(t, <-ended)
}

func TestAlarms(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	a, err := NewAlarms(nil, reg)
	require.NoError(t, err)
	require.Empty(t, a.List())
	a.Raise("first", "one")
	since := a.List()[0].Since
	a.Raise("second", "x")
	a.Raise("first", "two")
	all := a.List()
	require.Len(t, all, 2)
	require.Equal(t, Alarm{Name: "first", Since: since, Detail: "two"}, all[0])
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Equal(t, 2.0, families[0].Metric[0].Gauge.GetValue())
	a.Clear("first")
	a.Clear("first")
	require.Len(t, a.List(), 1)

	var none *Alarms
	none.Raise("x", "y")
	none.Clear("x")
	require.Empty(t, none.List())
}

type description struct {
	Paths      map[string]map[string]any `yaml:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

// Every route is described, and everything described is a route; every field
// of an answer is in its schema, and the other way round.
func TestOpenAPIMatchesTheCode(t *testing.T) {
	var d description
	require.NoError(t, yaml.Unmarshal(openAPI, &d))
	described, real := map[string]bool{}, map[string]bool{}
	for path, operations := range d.Paths {
		for method := range operations {
			described[strings.ToUpper(method)+" "+path] = true
		}
	}
	for _, r := range (&Server{}).routes(prometheus.NewRegistry()) {
		real[r.method+" "+r.path] = true
	}
	require.Equal(t, real, described)

	for _, v := range []any{Problem{}, Readiness{}, Status{}, MessageCounts{}, StoreStatus{}, Alarm{}, Process{}, Bridge{}, Record{}, SessionPage{}, Session{}, DelayedPage{}, Delayed{}} {
		typ := reflect.TypeOf(v)
		schema, ok := d.Components.Schemas[typ.Name()]
		require.True(t, ok, typ.Name())
		fields := map[string]bool{}
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields[name] = true
		}
		shown := map[string]bool{}
		for name := range schema.Properties {
			shown[name] = true
		}
		require.Equal(t, fields, shown, typ.Name())
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	f := start(t, testDeps())
	res, body := f.ask(t, "GET", "/api/v1/openapi.yaml", nil)
	require.Equal(t, 200, res.StatusCode)
	require.True(t, strings.HasPrefix(body, "openapi: 3"))
}

// A status must be answered while another request hangs in the gateway.
func TestSlowRequestDelaysNobodyElse(t *testing.T) {
	deps := testDeps()
	entered, release := make(chan struct{}), make(chan struct{})
	deps.Bridges = func() []Bridge { close(entered); <-release; return nil }
	f := start(t, deps)
	done := make(chan error, 1)
	go func() { _, err := f.client.Bridges(context.Background()); done <- err }()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := f.client.Status(ctx)
	require.NoError(t, err)
	close(release)
	require.NoError(t, <-done)
}
