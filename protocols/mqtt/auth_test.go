package mqtt

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/broker/auth"
	"gantry/protocols/mqtt/wire"
)

// keys are the users of the test's methods.
var keys = map[string]string{"ann": "key of ann", "bob": "key of bob"}

// sign is a client's or the server's answer to a nonce.
func sign(user, what string, nonce []byte) []byte {
	m := hmac.New(sha256.New, []byte(keys[user]))
	m.Write([]byte(what))
	m.Write(nonce)
	return m.Sum(nil)
}

// methods offers, beside one that proves a user by challenge and response, some
// that do what the framework must cope with.
type methods struct {
	auth.Anonymous
	enter chan struct{} // "SLOW" waits for it
}

func (m methods) BeginMethod(_ context.Context, name string, _ *broker.ConnectRequest) (broker.Method, error) {
	switch name {
	case "HMAC":
		return &challenge{}, nil
	case "ENDLESS":
		return stepFunc(func(context.Context, []byte) (broker.Step, error) { return broker.Step{Reply: []byte{}}, nil }), nil
	case "ONCE":
		return stepFunc(func(_ context.Context, data []byte) (broker.Step, error) {
			return broker.Step{Done: true, Username: string(data)}, nil
		}), nil
	case "LARGE":
		return stepFunc(func(_ context.Context, data []byte) (broker.Step, error) {
			return broker.Step{Reply: make([]byte, 300), Done: string(data) == "done"}, nil
		}), nil
	case "SLOW":
		return stepFunc(func(ctx context.Context, data []byte) (broker.Step, error) {
			select {
			case <-m.enter:
				return broker.Step{Done: true, Username: string(data)}, nil
			case <-ctx.Done():
				return broker.Step{}, ctx.Err()
			}
		}), nil
	case "PANIC":
		return stepFunc(func(_ context.Context, data []byte) (broker.Step, error) {
			if len(data) == 0 {
				panic("a bug in the method")
			}
			return broker.Step{Done: true}, nil
		}), nil
	}
	return nil, broker.ErrMethod
}

type stepFunc func(context.Context, []byte) (broker.Step, error)

func (f stepFunc) Step(ctx context.Context, data []byte) (broker.Step, error) { return f(ctx, data) }

// challenge is the server's side of HMAC: name → nonce → signature → signature
// of the server.
type challenge struct {
	user  string
	nonce []byte
}

func (c *challenge) Step(_ context.Context, data []byte) (broker.Step, error) {
	if c.nonce == nil {
		c.user, c.nonce = string(data), []byte(rand.Text())
		return broker.Step{Reply: c.nonce}, nil
	}
	if keys[c.user] == "" || !hmac.Equal(data, sign(c.user, "client", c.nonce)) {
		return broker.Step{}, errors.New("secret: wrong signature")
	}
	return broker.Step{Reply: sign(c.user, "server", c.nonce), Done: true, Username: c.user}, nil
}

func authRig(t *testing.T, cfg Config) (*rig, methods) {
	t.Helper()
	m := methods{Anonymous: auth.Never, enter: make(chan struct{})}
	return newRigOn(t, nil, cfg, broker.Config{Authenticate: auth.Verified{Else: m}}), m
}

// hx is the hex of an MQTT string or binary datum.
func hx[T string | []byte](s T) string { return fmt.Sprintf("%04x%x", len(s), s) }

// methodProps are the properties of a method, with data unless it is nil.
func methodProps(method string, data []byte) string {
	p := "15" + hx(method)
	if data != nil {
		p += "16" + hx(data)
	}
	return p
}

func authPacket(t testing.TB, code byte, method string, data []byte) []byte {
	props := raw(t, methodProps(method, data))
	require.Less(t, len(props), 120)
	return append([]byte{0xf0, byte(len(props) + 2), code, byte(len(props))}, props...)
}

// expectAuth reads an AUTH and returns its data.
func (p *peer) expectAuth(code byte, method string) []byte {
	p.t.Helper()
	h, body := p.packet()
	require.Equal(p.t, wire.AUTH, h.Type)
	a, err := wire.ParseAuth(body)
	require.NoError(p.t, err)
	require.Equal(p.t, code, a.Code)
	require.Equal(p.t, method, a.AuthMethod) // [MQTT-4.12.0-5]
	return a.AuthData
}

// expectRefusal reads a CONNACK with a code and the end of the connection.
func (p *peer) expectRefusal(code byte) {
	p.t.Helper()
	h, body := p.packet()
	require.Equal(p.t, wire.CONNACK, h.Type)
	require.Equal(p.t, hex.EncodeToString([]byte{code}), hex.EncodeToString(body[1:2]))
	require.NotContains(p.t, string(body), "secret")
	p.expectClosed()
}

// begin sends a CONNECT with a method.
func (r *rig) begin(t testing.TB, id, method string, data []byte, extra ...string) *peer {
	t.Helper()
	p := r.dial(wire.V5)
	p.t = t
	props := methodProps(method, data)
	for _, e := range extra {
		props += e
	}
	p.write(connectPacket(t, wire.V5, id, 2, props))
	return p
}

// login connects as a user by challenge and response.
func (r *rig) login(t testing.TB, id, user string) *peer {
	t.Helper()
	p := r.begin(t, id, "HMAC", []byte(user))
	nonce := p.expectAuth(0x18, "HMAC")
	p.write(authPacket(t, 0x18, "HMAC", sign(user, "client", nonce)))
	h, body := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	require.Zero(t, body[1])
	want := raw(t, methodProps("HMAC", sign(user, "server", nonce)))
	require.Equal(t, want, body[len(body)-len(want):], "method and last word in CONNACK")
	return p
}

func TestEnhancedAuthentication(t *testing.T) {
	r, _ := authRig(t, Config{})
	p := r.login(t, "a", "ann")
	p.expectSilence()
	info, _ := r.broker.Session("a")
	require.Equal(t, "ann", info.Username)
	require.Zero(t, r.broker.Stats().RefusedConnects)

	p = r.begin(t, "b", "ONCE", []byte("bob"))
	h, body := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	require.True(t, bytes.HasSuffix(body, raw(t, "15 0004 'ONCE'")), "no data, no property: % x", body)
	p.expectSilence()

	p = r.dial(wire.V5) // without a method the policy for everybody else counts
	p.write(connectPacket(t, wire.V5, "c", 2))
	p.expectRefusal(0x87)
}

// What a client says of itself does not count beside what it has proved.
func TestUsernameOfConnectDoesNotCount(t *testing.T) {
	r, _ := authRig(t, Config{})
	p := r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "a", 0xc2, methodProps("ONCE", []byte("bob")), "0005 'admin' 0002 'pw'"))
	h, _ := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	info, _ := r.broker.Session("a")
	require.Equal(t, "bob", info.Username)
}

func TestAuthenticationThatFails(t *testing.T) {
	r, _ := authRig(t, Config{MaxPacketSize: 64 << 10})
	for _, c := range []struct {
		name  string
		then  func(t *testing.T, p *peer, nonce []byte)
		code  byte
		quiet bool // the connection is closed without an answer
	}{
		{name: "wrong signature", code: 0x87, then: func(t *testing.T, p *peer, nonce []byte) {
			p.write(authPacket(t, 0x18, "HMAC", sign("bob", "client", nonce)))
		}},
		{name: "no data", code: 0x87, then: func(t *testing.T, p *peer, _ []byte) { p.write(authPacket(t, 0x18, "HMAC", nil)) }},
		{name: "another method", code: 0x82, then: func(t *testing.T, p *peer, nonce []byte) {
			p.write(authPacket(t, 0x18, "ONCE", sign("ann", "client", nonce)))
		}},
		{name: "no method", code: 0x82, then: func(_ *testing.T, p *peer, _ []byte) { p.send("f0 02 18 00") }},
		{name: "AUTH without content", code: 0x82, then: func(_ *testing.T, p *peer, _ []byte) { p.send("f0 00") }},
		{name: "re-authenticate", code: 0x82, then: func(t *testing.T, p *peer, nonce []byte) {
			p.write(authPacket(t, 0x19, "HMAC", sign("ann", "client", nonce)))
		}},
		{name: "success from the client", code: 0x82, then: func(t *testing.T, p *peer, nonce []byte) {
			p.write(authPacket(t, 0x00, "HMAC", sign("ann", "client", nonce)))
		}},
		{name: "PUBLISH", code: 0x82, then: func(_ *testing.T, p *peer, _ []byte) { p.send("30 05 0001 't' 00 'x'") }},
		{name: "PINGREQ", code: 0x82, then: func(_ *testing.T, p *peer, _ []byte) { p.send("c0 00") }},
		{name: "CONNECT", code: 0x82, then: func(t *testing.T, p *peer, _ []byte) { p.write(connectPacket(t, wire.V5, "x", 2)) }},
		{name: "reserved flags", code: 0x81, then: func(_ *testing.T, p *peer, _ []byte) { p.send("f1 00") }},
		{name: "packet too large", code: 0x95, then: func(_ *testing.T, p *peer, _ []byte) { p.send("f0 808004") }},
		{name: "data too large", code: 0x97, then: func(t *testing.T, p *peer, _ []byte) {
			data := make([]byte, 17<<10)
			props := raw(t, methodProps("HMAC", data))
			p.write(append(raw(t, "f0 8e8801 18 8a8801"), props...))
		}},
		{name: "DISCONNECT", quiet: true, then: func(_ *testing.T, p *peer, _ []byte) { p.send("e0 00") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := r.begin(t, "x", "HMAC", []byte("ann"))
			c.then(t, p, p.expectAuth(0x18, "HMAC"))
			if c.quiet {
				p.expectClosed()
				return
			}
			p.expectRefusal(c.code)
		})
	}
	require.Empty(t, r.broker.Sessions())
}

func TestUnknownMethodIsRefused(t *testing.T) {
	r, _ := authRig(t, Config{})
	r.begin(t, "a", "hmac", nil).expectRefusal(0x8c) // names are exact
	require.Equal(t, uint64(1), r.broker.Stats().RefusedConnects)
}

func TestAuthenticationHasAnEnd(t *testing.T) {
	r, _ := authRig(t, Config{ConnectTimeout: 300 * time.Millisecond})
	p := r.begin(t, "a", "ENDLESS", nil)
	for range 15 {
		require.NotNil(t, p.expectAuth(0x18, "ENDLESS"), "data of length 0 is data")
		p.write(authPacket(t, 0x18, "ENDLESS", nil))
	}
	p.expectAuth(0x18, "ENDLESS")
	p.write(authPacket(t, 0x18, "ENDLESS", nil))
	p.expectRefusal(0x97)

	p = r.begin(t, "b", "HMAC", []byte("ann"))
	p.expectAuth(0x18, "HMAC")
	p.expectClosed() // in silence: the client may be waiting for another server

	start := time.Now() // packets do not prolong it
	p = r.begin(t, "c", "ENDLESS", nil)
	for range 10 {
		h, _, err := p.next()
		if err != nil || h.Type != wire.AUTH {
			break
		}
		time.Sleep(60 * time.Millisecond)
		if _, err := p.nc.Write(authPacket(t, 0x18, "ENDLESS", nil)); err != nil {
			break
		}
	}
	require.Less(t, time.Since(start), 600*time.Millisecond)

	r.begin(t, "d", "SLOW", []byte("ann")).expectRefusal(0x87)
	require.Empty(t, r.broker.Sessions())
}

func TestMaximumPacketSizeBoundsAuthentication(t *testing.T) {
	r, _ := authRig(t, Config{})
	r.begin(t, "a", "LARGE", nil, "27 00000100").expectRefusal(0x83)
	r.begin(t, "a", "LARGE", []byte("done"), "27 00000100").expectRefusal(0x83)
	require.Empty(t, r.broker.Sessions())
	r.begin(t, "a", "LARGE", nil, "27 00000200").expectAuth(0x18, "LARGE")
}

func TestCloseEndsAnAuthentication(t *testing.T) {
	r, _ := authRig(t, Config{})
	waits := r.begin(t, "a", "HMAC", []byte("ann"))
	waits.expectAuth(0x18, "HMAC")
	thinks := r.begin(t, "b", "SLOW", nil)
	again := r.login(t, "c", "ann")
	again.write(authPacket(t, 0x19, "HMAC", []byte("ann")))
	again.expectAuth(0x18, "HMAC")
	start := time.Now()
	require.NoError(t, r.srv.Close())
	require.Less(t, time.Since(start), 3*time.Second)
	waits.expectClosed()
	_ = thinks.nc.Close()
	again.expectDisconnect(0x8b)
}

func TestReauthentication(t *testing.T) {
	r, _ := authRig(t, Config{})
	p := r.login(t, "a", "ann")
	for range 3 {
		p.send("82 07 0001 00 0001 't' 01")
		p.write(authPacket(t, 0x19, "HMAC", []byte("ann")))
		p.expect("90 04 0001 00 01")
		nonce := p.expectAuth(0x18, "HMAC")
		p.send("32 07 0001 't' 0002 00 'x'") // everything else goes on
		seen := map[wire.Type]bool{}
		for range 2 {
			h, body := p.packet()
			seen[h.Type] = true
			if h.Type == wire.PUBLISH {
				p.send("40 02 " + hex.EncodeToString(body[3:5]))
			}
		}
		require.True(t, seen[wire.PUBLISH] && seen[wire.PUBACK])
		p.expectSilence()
		p.write(authPacket(t, 0x18, "HMAC", sign("ann", "client", nonce)))
		require.Equal(t, sign("ann", "server", nonce), p.expectAuth(0x00, "HMAC"))
		p.expectSilence()
	}
}

// A slow method holds up neither the client's publishes nor its deliveries.
func TestTrafficGoesOnWhileTheMethodThinks(t *testing.T) {
	r, m := authRig(t, Config{})
	p := r.begin(t, "a", "SLOW", []byte("ann"))
	m.enter <- struct{}{}
	h, _ := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	p.write(authPacket(t, 0x19, "SLOW", []byte("ann")))
	p.send("82 07 0001 00 0001 't' 00", "30 05 0001 't' 00 'x'")
	p.expect("90 04 0001 00 00", "30 05 0001 't' 00 'x'")
	p.expectSilence()
	m.enter <- struct{}{}
	p.expectAuth(0x00, "SLOW")
	p.write(authPacket(t, 0x19, "SLOW", []byte("ann"))) // and again
	m.enter <- struct{}{}
	p.expectAuth(0x00, "SLOW")
}

func TestReauthenticationThatFails(t *testing.T) {
	r, _ := authRig(t, Config{})
	begin := func(t *testing.T, p *peer, user string) []byte {
		p.write(authPacket(t, 0x19, "HMAC", []byte(user)))
		return p.expectAuth(0x18, "HMAC")
	}
	for _, c := range []struct {
		name string
		then func(t *testing.T, p *peer)
		code byte
	}{
		{"wrong signature", func(t *testing.T, p *peer) {
			begin(t, p, "ann")
			p.write(authPacket(t, 0x18, "HMAC", []byte("wrong")))
		}, 0x87},
		{"another user", func(t *testing.T, p *peer) {
			nonce := begin(t, p, "bob")
			p.write(authPacket(t, 0x18, "HMAC", sign("bob", "client", nonce)))
		}, 0x87},
		{"another method", func(t *testing.T, p *peer) { p.write(authPacket(t, 0x19, "ONCE", []byte("ann"))) }, 0x82},
		{"another method in the middle", func(t *testing.T, p *peer) {
			begin(t, p, "ann")
			p.write(authPacket(t, 0x18, "ONCE", []byte("ann")))
		}, 0x82},
		{"goes on without a beginning", func(t *testing.T, p *peer) { p.write(authPacket(t, 0x18, "HMAC", nil)) }, 0x82},
		{"begins twice", func(t *testing.T, p *peer) {
			begin(t, p, "ann")
			p.write(authPacket(t, 0x19, "HMAC", []byte("ann")))
		}, 0x82},
		{"success from the client", func(t *testing.T, p *peer) {
			begin(t, p, "ann")
			p.write(authPacket(t, 0x00, "HMAC", nil))
		}, 0x82},
		{"no method", func(_ *testing.T, p *peer) { p.send("f0 00") }, 0x82},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := r.login(t, "x", "ann")
			c.then(t, p)
			h, body := p.packet()
			require.Equal(t, wire.DISCONNECT, h.Type)
			require.Equal(t, hex.EncodeToString([]byte{c.code}), hex.EncodeToString(body[:1]))
			require.NotContains(t, string(body), "secret")
			require.NotContains(t, string(body), "bob")
			p.expectClosed()
		})
	}
}

func TestReauthenticationHasAnEnd(t *testing.T) {
	r, _ := authRig(t, Config{ConnectTimeout: 200 * time.Millisecond})
	p := r.login(t, "a", "ann")
	p.write(authPacket(t, 0x19, "HMAC", []byte("ann")))
	p.expectAuth(0x18, "HMAC")
	p.expectDisconnect(0x87)

	p = r.login(t, "a", "ann") // one that is finished in time leaves nothing behind
	p.write(authPacket(t, 0x19, "HMAC", []byte("ann")))
	p.write(authPacket(t, 0x18, "HMAC", sign("ann", "client", p.expectAuth(0x18, "HMAC"))))
	p.expectAuth(0x00, "HMAC")
	time.Sleep(300 * time.Millisecond)
	p.expectSilence()
}

func TestAuthWhileTheMethodThinks(t *testing.T) {
	r, m := authRig(t, Config{})
	p := r.begin(t, "a", "SLOW", []byte("ann"))
	m.enter <- struct{}{}
	p.packet()
	p.write(authPacket(t, 0x19, "SLOW", []byte("ann")))
	p.write(authPacket(t, 0x18, "SLOW", []byte("ann")))
	p.expectDisconnect(0x82)
}

func TestAuthWithoutMethodInConnect(t *testing.T) {
	r := newRig(t, Config{})
	for _, code := range []byte{0x18, 0x19} {
		p := r.connect(wire.V5, "a", 2)
		p.write(authPacket(t, code, "HMAC", nil))
		p.expectDisconnect(0x82)
	}
}

func TestMethodThatPanics(t *testing.T) {
	r, _ := authRig(t, Config{})
	p := r.begin(t, "a", "PANIC", []byte("x"))
	p.packet()
	p.write(authPacket(t, 0x19, "PANIC", nil))
	p.expectClosed()
	r.begin(t, "b", "PANIC", nil).expectClosed()
	require.Equal(t, 2.0, value(t, r.srv.metrics.panics))
	r.login(t, "c", "ann").expectSilence()
}
