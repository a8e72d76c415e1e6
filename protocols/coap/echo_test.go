package coap

import (
	"net/netip"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// distrust makes a server treat loopback addresses as any other.
func distrust(s *Server) {
	for _, l := range s.loops {
		l.echo.loopback = false
	}
}

func TestEchoGate(t *testing.T) {
	b := newBroker(t, broker.Config{})
	s, err := New(testConfig(), b, nil, nil)
	require.NoError(t, err)
	distrust(s)
	run(t, s)
	c := dial(t, s)
	require.Equal(t, codes.Changed, c.do(put("a", "x")).Code, "a publish needs no proof")
	require.Equal(t, codes.NotFound, c.do(get("a")).Code)

	m := c.do(register("t", "a"))
	require.Equal(t, codes.Unauthorized, m.Code)
	require.Zero(t, s.observers(t))
	echo := mustBytes(t, m, optionEcho)

	forged := append([]byte(nil), echo...)
	forged[len(forged)-1] ^= 1
	r := register("t", "a")
	r.options = append(r.options, message.Option{ID: optionEcho, Value: forged})
	require.Equal(t, codes.Unauthorized, c.do(r).Code)

	r.options[1].Value = echo
	require.Equal(t, codes.Unauthorized, dial(t, s).do(r).Code, "the proof of another address")
	require.Equal(t, codes.Content, c.do(r).Code)
	require.Equal(t, 1, s.observers(t))
	require.Equal(t, codes.Content, c.do(register("t2", "b")).Code, "proven for a while")
}

func TestEchoForLargeResponses(t *testing.T) {
	b := newBroker(t, broker.Config{})
	s, err := New(testConfig(), b, nil, nil)
	require.NoError(t, err)
	distrust(s)
	run(t, s)
	publish(t, b, &broker.Message{Topic: "big", Payload: testBody(500), Retain: true})
	publish(t, b, &broker.Message{Topic: "small", Payload: testBody(50), Retain: true})
	c := dial(t, s)
	require.Equal(t, codes.Content, c.do(get("small")).Code)
	m := c.do(get("big"))
	require.Equal(t, codes.Unauthorized, m.Code)
	echo := message.Option{ID: optionEcho, Value: mustBytes(t, m, optionEcho)}
	require.Equal(t, testBody(500), c.do(get("big", echo)).Payload)
}

func TestEchoValueExpires(t *testing.T) {
	g := newEchoGate(EchoRequired, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	now := time.Unix(1_700_000_000, 0)
	g.now = func() time.Time { return now }
	a := netip.MustParseAddrPort("192.0.2.1:5683")
	v := g.value(a)
	require.True(t, g.valid(v, a))
	require.False(t, g.valid(v, netip.MustParseAddrPort("192.0.2.1:5684")))
	require.False(t, g.valid(v[:len(v)-1], a))
	require.False(t, g.valid(nil, a))
	now = now.Add(echoFresh)
	require.True(t, g.valid(v, a))
	now = now.Add(time.Second)
	require.False(t, g.valid(v, a))
	now = now.Add(-echoFresh - 10*time.Second)
	require.False(t, g.valid(v, a), "from the future")

	require.True(t, g.trusts(netip.MustParseAddr("127.0.0.1")))
	require.True(t, g.trusts(netip.MustParseAddr("::1")))
	require.True(t, g.trusts(netip.MustParseAddr("10.1.2.3")))
	require.False(t, g.trusts(netip.MustParseAddr("192.0.2.1")))
	require.False(t, g.trusts(netip.MustParseAddr("fe80::1%eth0")))
	require.True(t, newEchoGate(EchoOff, nil).trusts(netip.MustParseAddr("192.0.2.1")))
}
