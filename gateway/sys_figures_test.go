package gateway

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/gateway/config"
)

// quiet is a gateway whose topics are refreshed only when a test looks.
func quiet(t *testing.T) *Gateway {
	t.Helper()
	c := testConfig(t)
	c.Broker.SysInterval = config.Duration(time.Hour)
	g, _ := start(t, c)
	return g
}

// expect looks until the figures are as wanted: what a connection counts is
// added to the sums after its packets are handled.
func expect(t *testing.T, g *Gateway, want map[string]string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		g.sys.look(time.Now())
		right := true
		for topic, value := range want {
			right = right && g.sys.last["$SYS/"+topic] == value
		}
		if right || time.Now().After(deadline) {
			break
		}
	}
	for topic, value := range want {
		require.Equal(t, value, g.sys.last["$SYS/"+topic], topic)
	}
}

// dialog sends to a connection and reads what it answers.
func dialog(t *testing.T, nc net.Conn, send, want string) {
	t.Helper()
	require.NoError(t, nc.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := nc.Write([]byte(send))
	require.NoError(t, err)
	got := make([]byte, len(want))
	_, err = io.ReadFull(nc, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func TestFiguresAreExact(t *testing.T) {
	g := quiet(t)
	nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer nc.Close()
	dialog(t, nc, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", "\x20\x02\x00\x00")
	dialog(t, nc, "\x82\x06\x00\x01\x00\x01t\x01", "\x90\x03\x00\x01\x01")
	dialog(t, nc, "\x82\x0f\x00\x02\x00\x0a$share/g/s\x00", "\x90\x03\x00\x02\x00")
	dialog(t, nc, "\x30\x0a\x00\x06nobody12", "")
	dialog(t, nc, "\x33\x06\x00\x01r\x00\x02v", "\x40\x02\x00\x02")
	answers := make([]byte, 14) // PUBACK and the message itself, in any order
	dialog(t, nc, "\x32\x08\x00\x01t\x00\x01xyz", "")
	_, err = io.ReadFull(nc, answers)
	require.NoError(t, err)
	expect(t, g, map[string]string{"broker/messages/inflight": "1", "broker/store/messages/count": "2"})
	dialog(t, nc, "\x40\x02\x00\x01\xc0\x00", "\xd0\x00")
	expect(t, g, map[string]string{
		"broker/clients/connected": "1", "broker/clients/total": "1", "broker/clients/disconnected": "0", "broker/clients/kept": "0",
		"broker/bytes/received": "76", "broker/bytes/sent": "34",
		"broker/messages/received": "8", "broker/messages/sent": "7", "broker/messages/inflight": "0",
		"broker/publish/messages/received": "3", "broker/publish/messages/sent": "1",
		"broker/publish/bytes/received": "6", "broker/publish/bytes/sent": "3",
		"broker/subscriptions/count": "1", "broker/shared_subscriptions/count": "1",
		"broker/retained messages/count": "1", "broker/store/messages/count": "1", "broker/store/messages/bytes": "162",
		"brokers/test/stats/connections/count": "1", "brokers/test/stats/subscriptions/count": "2",
		"brokers/test/stats/subscriptions/shared/count": "1", "brokers/test/stats/topics/count": "2", "brokers/test/stats/subscribers/count": "1",
		"brokers/test/stats/retained/count":             "1",
		"brokers/test/metrics/packets/publish/received": "3", "brokers/test/metrics/packets/publish/sent": "1",
		"brokers/test/metrics/packets/puback/received": "1", "brokers/test/metrics/packets/puback/sent": "2",
		"brokers/test/metrics/packets/subscribe/received": "2", "brokers/test/metrics/packets/suback/sent": "2",
		"brokers/test/metrics/packets/pingreq/received": "1", "brokers/test/metrics/packets/pingresp/sent": "1",
		"brokers/test/metrics/messages/qos0/received": "1", "brokers/test/metrics/messages/qos1/received": "2",
		"brokers/test/metrics/messages/qos1/sent": "1", "brokers/test/metrics/messages/qos0/sent": "0", "brokers/test/metrics/messages/acked": "1",
		"brokers/test/metrics/messages/dropped/no_subscribers": "1",
		"brokers/test/metrics/client/connect":                  "1", "brokers/test/metrics/client/connack": "1", "brokers/test/metrics/client/connected": "1",
	})
	dialog(t, nc, "\xe0\x00", "")
	silent, err := net.Dial("tcp", g.Addrs()["tcp"].String()) // a socket, no CONNECT
	require.NoError(t, err)
	defer silent.Close()
	expect(t, g, map[string]string{
		"broker/bytes/received": "78", "broker/messages/received": "9", "broker/clients/connected": "0", "broker/clients/maximum": "1",
		"broker/subscriptions/count": "0", "broker/shared_subscriptions/count": "0",
		"brokers/test/stats/connections/count": "0", "brokers/test/stats/connections/max": "1", "brokers/test/stats/subscriptions/max": "2",
		"brokers/test/metrics/packets/disconnect/received": "1", "brokers/test/metrics/client/disconnected": "1",
		"brokers/test/metrics/session/created": "1", "brokers/test/metrics/session/terminated": "1", "brokers/test/metrics/session/resumed": "0",
	})
	require.InDelta(t, 2, g.sys.wire.get(sockets, ""), 0)
	require.NotEqual(t, "0.00", g.sys.last["$SYS/broker/load/sockets/1min"])
	require.NotEqual(t, "0.00", g.sys.last["$SYS/broker/load/connections/1min"])
	require.NotEqual(t, "0", g.sys.last["$SYS/broker/heap/current"])
}

func openSession(t *testing.T, g *Gateway, r *broker.ConnectRequest) *broker.Session {
	t.Helper()
	r.RemoteAddr, r.Protocol, r.Version = netip.MustParseAddrPort("127.0.0.1:9"), "mqtt", "3.1.1"
	s, _, err := g.broker.Connect(t.Context(), r)
	require.NoError(t, err)
	s.Start()
	return s
}

func subscribe(t *testing.T, s *broker.Session, filter string) {
	t.Helper()
	s.Subscribe([]broker.Subscription{{Filter: filter}}, func(r []broker.Reason, _ []broker.QoS) {
		require.Equal(t, []broker.Reason{broker.Success}, r)
	})
}

func TestDroppedMessagesAreExact(t *testing.T) {
	g := quiet(t)
	slow := openSession(t, g, &broker.ConnectRequest{ClientID: "slow", MemoryBytes: 64 << 10, Wake: func() {}})
	subscribe(t, slow, "t")
	pub := openSession(t, g, &broker.ConnectRequest{ClientID: "pub"})
	const all = 500
	for range all {
		pub.Publish(t.Context(), &broker.Message{Topic: "t", Payload: make([]byte, 1000)}, 0, nil)
	}
	got := len(slow.Next(make([]broker.Delivery, 0, all)))
	require.Less(t, got, 100)
	expect(t, g, map[string]string{
		"broker/publish/messages/dropped": fmt.Sprint(all - got), "brokers/test/metrics/delivery/dropped/queue_full": fmt.Sprint(all - got),
		"brokers/test/metrics/delivery/dropped": fmt.Sprint(all - got), "broker/publish/messages/sent": fmt.Sprint(got),
		"broker/publish/bytes/sent": fmt.Sprint(got * 1000), "broker/publish/bytes/received": fmt.Sprint(all * 1000),
	})
	slow.Close(broker.Closing{})
	pub.Close(broker.Closing{})
}

// What a listener counted stays in the sums when it is closed, and opened again.
func TestSumsOutliveAListener(t *testing.T) {
	var w wireCounter
	count := func(n float64) *prometheus.Registry {
		reg := prometheus.NewRegistry()
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: packetsIn, Help: "h"}, []string{"type", "listener"})
		reg.MustRegister(c)
		c.WithLabelValues("PUBLISH", "tcp").Add(n)
		c.WithLabelValues("CONNECT", "ws").Add(1)
		return reg
	}
	for _, step := range []struct {
		from *prometheus.Registry
		want float64
	}{{count(5), 5}, {count(8), 8}, {prometheus.NewRegistry(), 8}, {count(2), 10}, {count(3), 11}} {
		w.gather(step.from)
		require.InDelta(t, step.want, w.get(packetsIn, "PUBLISH"), 0)
	}
	require.InDelta(t, 11+2, w.get(packetsIn, ""), 0)
}

// Clients that come and go in masses neither wait for those who watch them, nor
// fill the memory.
func TestFloodOfConnects(t *testing.T) {
	g := quiet(t)
	const limit = 64 << 10
	stuck := openSession(t, g, &broker.ConnectRequest{ClientID: "stuck", MemoryBytes: limit, Wake: func() {}})
	subscribe(t, stuck, "$SYS/brokers/+/clients/#")
	const flood = 5000
	for i := range flood {
		openSession(t, g, &broker.ConnectRequest{ClientID: fmt.Sprint("c", i)}).Close(broker.Closing{})
	}
	topics := len(g.sys.last)
	info, _ := g.broker.Session("stuck")
	require.Less(t, info.Queued*160, limit, "events beyond the cap were dropped")
	require.Greater(t, info.Queued, 50)
	expect(t, g, map[string]string{"broker/clients/maximum": "2", "brokers/test/metrics/client/connected": fmt.Sprint(flood + 1)})
	require.Len(t, g.sys.last, topics, "nothing is kept of an event")
	got := stuck.Next(make([]broker.Delivery, 0, 1))
	require.NotContains(t, got[0].Message.Topic, "/c0/", "the oldest are gone")
	stuck.Close(broker.Closing{})
	published := 0
	g.sys.publish = func(*broker.Message) broker.Reason { published++; return broker.Success }
	openSession(t, g, &broker.ConnectRequest{ClientID: "alone"}).Close(broker.Closing{})
	require.Zero(t, published, "no event is made for nobody")
}
