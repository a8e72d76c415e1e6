package httppush

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connects counts authentications.
type connects struct {
	users
	mu sync.Mutex
	n  int
}

func (c *connects) Authenticate(ctx context.Context, r *broker.ConnectRequest) error {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.users.Authenticate(ctx, r)
}

func (c *connects) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestRequestsShareASession(t *testing.T) {
	auth := &connects{users: users{"anna": "secret"}}
	f := start(t, func(_ *Config, b *broker.Config) { b.Authenticate = auth })
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			a, err := f.try("POST", "/v1/topics/t", fmt.Sprint(i), "anna:secret@", "X-Client-Id: dev")
			if err != nil || a.StatusCode != 200 {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, auth.count())
	require.Len(t, f.gate.messages(), 40)
	info, ok := f.broker.Session("dev")
	require.True(t, ok)
	require.Equal(t, "anna", info.Username)
	require.Equal(t, "http", info.Protocol)
	require.EqualValues(t, 40, info.Received)
}

func TestDefaultClientIDs(t *testing.T) {
	f := start(t)
	f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, "http-127.0.0.1", f.gate.last().ClientID)
	f.do("POST", "/v1/topics/t", "x", "anna:secret@")
	require.Equal(t, "http-anna@127.0.0.1", f.gate.last().ClientID)
	require.Equal(t, "anna", f.gate.last().Username)
	f.do("POST", "/api/v5/publish", `{"topic":"t","payload":"","clientid":"sensor"}`, jsonType)
	require.Equal(t, "sensor", f.gate.last().ClientID)
	f.do("POST", "/api/v5/publish", `{"topic":"t","payload":"","clientid":"sensor"}`, jsonType, "X-Client-Id: sensor")
	require.Equal(t, "sensor", f.gate.last().ClientID)
}

// Who shares a session must have shown the same credentials.
func TestOthersDoNotGetTheSession(t *testing.T) {
	f := start(t)
	id := "X-Client-Id: dev"
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "anna:secret@", id).StatusCode)
	require.Equal(t, 401, f.do("POST", "/v1/topics/t", "x", "anna:wrong@", id).StatusCode)
	require.Equal(t, 401, f.do("POST", "/v1/topics/t", "x", "anna:@", id).StatusCode)
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "bert:geheim@", id).StatusCode)
	require.Equal(t, "bert", f.gate.last().Username)
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", id).StatusCode)
	require.Empty(t, f.gate.last().Username)
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "anna:secret@", id).StatusCode)
	require.Equal(t, "anna", f.gate.last().Username)
}

func TestKeysDiffer(t *testing.T) {
	k := newDigestKey()
	base := identity{clientID: "c", remote: netip.MustParseAddrPort("192.0.2.1:5"), credentials: broker.Credentials{Username: "u", HasUsername: true, Password: []byte("p"), HasPassword: true}}
	samePeer := base
	samePeer.remote = netip.MustParseAddrPort("192.0.2.1:6")
	require.Equal(t, k.of(&base), k.of(&samePeer), "the port does not matter")
	for name, change := range map[string]func(*identity){
		"address":     func(i *identity) { i.remote = netip.MustParseAddrPort("192.0.2.2:5") },
		"user":        func(i *identity) { i.credentials.Username = "v" },
		"password":    func(i *identity) { i.credentials.Password = []byte("q") },
		"no password": func(i *identity) { i.credentials.HasPassword = false },
		"anonymous":   func(i *identity) { i.credentials = broker.Credentials{} },
	} {
		other := base
		change(&other)
		require.NotEqual(t, k.of(&base), k.of(&other), name)
	}
	other := newDigestKey()
	require.NotEqual(t, k.of(&base), other.of(&base), "digests are worth nothing elsewhere")
}

func TestAnonymousIsAskedForCredentials(t *testing.T) {
	f := start(t, func(_ *Config, b *broker.Config) { b.Authenticate = users{"anonymous": "no", "anna": "secret"} })
	a := f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 401, a.StatusCode)
	require.Contains(t, a.Header.Get("WWW-Authenticate"), "Basic")
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "anna:secret@").StatusCode)
}

func TestKickedSessionIsOpenedAgain(t *testing.T) {
	f := start(t)
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: dev").StatusCode)
	require.True(t, f.broker.Kick("dev", broker.Administrative))
	eventually(t, "the session ends", func() bool { _, ok := f.broker.Session("dev"); return !ok })
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: dev").StatusCode)
	_, ok := f.broker.Session("dev")
	require.True(t, ok)
}

// A session that the broker has taken away, and that the pool still holds for
// good, is replaced within the request.
func TestLostSessionIsReplaced(t *testing.T) {
	f := start(t)
	lose := func() {
		f.server.sessions.mu.Lock()
		e := f.server.sessions.byID["dev"]
		f.server.sessions.mu.Unlock()
		e.session.Close(broker.Closing{})
	}
	for _, send := range []func() *answer{
		func() *answer { return f.do("POST", "/v1/topics/t?retain=1", "x", "X-Client-Id: dev") },
		func() *answer { return f.do("GET", "/v1/topics/t", "", "X-Client-Id: dev") },
		func() *answer {
			return f.do("POST", "/api/v5/publish/bulk", `[{"topic":"t","payload":"x","retain":true}]`, jsonType, "X-Client-Id: dev")
		},
	} {
		require.Equal(t, 200, send().StatusCode)
		lose()
		require.Equal(t, 200, send().StatusCode)
		lose()
	}
}

// closer answers as if every session were taken over before it can publish.
type closer struct{}

func (closer) Name() string                              { return "closer" }
func (closer) Rewrite(*broker.Publication) broker.Reason { return broker.Closed }

func TestClosedForGoodIsNoSuccess(t *testing.T) {
	f := start(t, func(_ *Config, b *broker.Config) { b.Hooks = append([]broker.Hook{closer{}}, b.Hooks...) })
	a := f.do("POST", "/v1/topics/t", "x", "X-Client-Id: dev")
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
}

func TestClientOfAnotherProtocolIsLeftAlone(t *testing.T) {
	f := start(t)
	kicked := make(chan broker.Reason, 1)
	expiry := time.Hour
	s, _, err := f.broker.Connect(context.Background(), &broker.ConnectRequest{
		ClientID: "plc", Protocol: "mqtt", Expiry: expiry, Kick: func(r broker.Reason) { kicked <- r },
	})
	require.NoError(t, err)
	check := func() {
		a := f.do("POST", "/v1/topics/t", "x", "X-Client-Id: plc")
		require.Equal(t, 409, a.StatusCode)
		require.EqualValues(t, 133, a.json(t)["reason_code"])
		require.Equal(t, 401, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: plc", "anna:wrong@").StatusCode, "a stranger learns nothing")
	}
	check()
	s.Close(broker.Closing{})
	check() // its queue waits for it
	info, ok := f.broker.Session("plc")
	require.True(t, ok)
	require.Equal(t, "mqtt", info.Protocol)
	require.Empty(t, kicked)
}

func TestOtherProtocolTakesOver(t *testing.T) {
	f := start(t)
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: dev").StatusCode)
	_, _, err := f.broker.Connect(context.Background(), &broker.ConnectRequest{ClientID: "dev", Protocol: "mqtt"})
	require.NoError(t, err)
	require.Equal(t, 409, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: dev").StatusCode)
}

func TestIdleSessionEnds(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.SessionIdle = 20 * time.Millisecond })
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	var wg sync.WaitGroup
	begun := time.Now()
	wg.Go(func() { _, _ = f.try("POST", "/v1/topics/t", "x", "X-Client-Id: dev") })
	<-f.gate.entered
	eventually(t, "the idle time passes", func() bool { return time.Since(begun) > 100*time.Millisecond })
	_, ok := f.broker.Session("dev")
	require.True(t, ok, "a session in use is not idle")
	f.gate.open(broker.Success)
	wg.Wait()
	eventually(t, "the unused session ends", func() bool { _, ok := f.broker.Session("dev"); return !ok })
	require.Zero(t, f.server.sessions.count())
}

func TestSessionLimit(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxSessions = 2 })
	f.gate.shut, f.gate.entered = true, make(chan string, 3)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { _, _ = f.try("POST", "/v1/topics/t", "x", fmt.Sprintf("X-Client-Id: c%d", i)) })
		<-f.gate.entered
	}
	require.Equal(t, 503, f.do("POST", "/v1/topics/t", "x", "X-Client-Id: c2").StatusCode)
	f.gate.set(func(g *gate) { g.entered = nil })
	f.gate.open(broker.Success)
	wg.Wait()
	for i := range 5 {
		require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", fmt.Sprintf("X-Client-Id: d%d", i)).StatusCode, "an idle session makes room")
	}
	require.Equal(t, 2, f.server.sessions.count())
	eventually(t, "evicted sessions end", func() bool { return len(f.broker.Sessions()) == 2 })
}

// Two users fight over one client id: every request is answered truthfully,
// and nothing leaks.
func TestContendedClientID(t *testing.T) {
	f := start(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := 0
	for _, creds := range []string{"anna:secret@", "bert:geheim@"} {
		for range 4 {
			wg.Go(func() {
				for range 50 {
					a, err := f.try("POST", "/v1/topics/t", creds, creds, "X-Client-Id: dev")
					if err != nil || a.StatusCode != 200 && a.StatusCode != 503 && a.StatusCode != 409 {
						t.Errorf("%v %v", a, err)
						return
					}
					mu.Lock()
					if a.StatusCode == 200 {
						ok++
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	require.Len(t, f.gate.messages(), ok, "200 and published are the same")
	for _, m := range f.gate.messages() {
		require.Contains(t, string(m.Payload), m.Username, "a message carries the user that sent it")
	}
	require.Positive(t, ok)
	eventually(t, "one session is left", func() bool { return len(f.broker.Sessions()) <= 1 })
}
