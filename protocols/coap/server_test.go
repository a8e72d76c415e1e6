package coap

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestConfigValidate(t *testing.T) {
	require.NoError(t, Config{}.Validate())
	bad := Config{
		Bind: "nowhere", Loops: -1, Echo: "sometimes", RandomFactor: 0.5, MaxPeers: -1, SessionIdle: -1, Burst: 0.5,
	}
	err := bad.Validate()
	for _, want := range []string{"bind", "loops", "echo", "random_factor", "max_peers", "session_idle", "burst"} {
		require.ErrorContains(t, err, want)
	}
	_, err = New(bad, nil, nil, nil)
	require.ErrorContains(t, err, "coap configuration")
}

func TestPortInUse(t *testing.T) {
	cfg := testConfig()
	s, b := start(t, cfg)
	cfg.Bind = s.Addr().String()
	for _, loops := range []int{1, 2} {
		cfg.Loops = loops
		_, err := New(cfg, b, nil, nil)
		require.ErrorContains(t, err, "in use")
	}
}

func TestSeveralLoopsShareThePort(t *testing.T) {
	cfg := testConfig()
	cfg.Loops = 4
	s, b := start(t, cfg)
	o := subscribeTo(t, b, "#")
	for i := range 40 {
		c := dial(t, s)
		require.Equal(t, codes.Content, c.do(register("t", fmt.Sprint("to/", i))).Code)
		require.Equal(t, codes.Changed, c.do(put("a", fmt.Sprint(i))).Code)
		require.Equal(t, fmt.Sprint(i), string(o.next().Payload))
		publish(t, b, &broker.Message{Topic: fmt.Sprint("to/", i), Payload: []byte("x")})
		require.Equal(t, "x", string(c.read().Payload))
		o.next()
	}
	used := 0
	for _, l := range s.loops {
		l.mu.Lock()
		if len(l.peers) > 0 {
			used++
		}
		l.mu.Unlock()
	}
	require.Greater(t, used, 1)
}

// On a socket for all addresses the reply must come from the address that the
// request was sent to, or a connected client never sees it.
func TestReplyLeavesFromTheAddressAsked(t *testing.T) {
	cfg := testConfig()
	for _, bind := range []string{":0", "0.0.0.0:0"} {
		cfg.Bind = bind
		s, b := start(t, cfg)
		port := s.Addr().(*net.UDPAddr).Port
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"} {
			if strings.Contains(host, ":") && bind != ":0" {
				continue
			}
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))))
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			c := &client{t: t, conn: conn, mid: 1}
			require.Equal(t, codes.Content, c.do(register("t", "a")).Code, host)
			publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x")})
			require.Equal(t, "x", string(c.read().Payload), host)
			c.silence()
		}
	}
}

func TestBroadcastIsNotAnswered(t *testing.T) {
	cfg := testConfig()
	cfg.Bind = "0.0.0.0:0"
	s, _ := start(t, cfg)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	port := s.Addr().(*net.UDPAddr).Port
	sent, err := conn.WriteToUDP(put("a", "x").bytes(t), &net.UDPAddr{IP: net.IPv4(127, 255, 255, 255), Port: port})
	require.NoError(t, err)
	require.Positive(t, sent)
	c := dialTo(t, port)
	require.Eventually(t, func() bool {
		c.silence()
		return metricValue(t, s.loops[0].metrics.dropped[dropAddress]) == 1
	}, patience, 1)
	require.Zero(t, metricValue(t, s.loops[0].metrics.peers))
}

func dialTo(t testing.TB, port int) *client {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &client{t: t, conn: conn, mid: 1}
}

func TestIsBroadcast(t *testing.T) {
	require.True(t, isBroadcast(net.IPv4bcast))
	require.True(t, isBroadcast(net.IPv4(127, 255, 255, 255)))
	require.False(t, isBroadcast(net.IPv4(127, 0, 0, 1)))
	require.False(t, isBroadcast(net.IPv6loopback))
	_, n, err := net.ParseCIDR("192.168.4.0/22")
	require.NoError(t, err)
	require.True(t, isLast(n, net.IPv4(192, 168, 7, 255).To4()))
	require.False(t, isLast(n, net.IPv4(192, 168, 4, 255).To4()))
}

func TestMetricsOfSeveralListeners(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := newBroker(t, broker.Config{})
	for _, name := range []string{"one", "two"} {
		cfg := testConfig()
		cfg.Name = name
		s, err := New(cfg, b, nil, reg)
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	cfg := testConfig()
	cfg.Name = "one"
	_, err := New(cfg, b, nil, reg)
	require.ErrorContains(t, err, "register coap metrics")
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	for _, f := range families {
		require.True(t, strings.HasPrefix(f.GetName(), "gantry_coap_"), f.GetName())
	}
}
