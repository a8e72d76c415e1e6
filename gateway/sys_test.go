package gateway

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestSysTopics(t *testing.T) {
	g, stop := start(t, testConfig(t))
	value := func(topic string) string {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		res, err := client.Get("http://" + g.Addrs()["http"].String() + "/v1/topics/" + strings.ReplaceAll(topic, " ", "%20"))
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, http.StatusOK, res.StatusCode, topic)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return string(text)
	}
	require.Equal(t, "gantry version "+Version, value("$SYS/broker/version"))
	require.Regexp(t, `^\d+ seconds$`, value("$SYS/broker/uptime"))
	require.Equal(t, "test", value("$SYS/brokers"))
	require.Equal(t, Version, value("$SYS/brokers/test/version"))
	_, err := time.Parse(time.RFC3339, value("$SYS/brokers/test/datetime"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, post(t, g, "plant/1", "x"))

	nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer nc.Close()
	_, err = nc.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c\x32\x06\x00\x01t\x00\x01x"))
	require.NoError(t, err)
	_, err = io.ReadFull(nc, make([]byte, 8)) // CONNACK and PUBACK
	require.NoError(t, err)
	g.sys.look(time.Now()) // the ticker is not due for seconds
	require.Equal(t, "2", value("$SYS/broker/publish/messages/received"))
	require.Equal(t, "1", value("$SYS/broker/retained messages/count"))
	require.NotEqual(t, "0.00", value("$SYS/broker/load/publish/received/1min"))
	stop()
	require.Zero(t, g.broker.Stats().StoreErrors)
}

// The first answer of a client that asks for one topic, and for all.
func TestSysTopicsForMosquitto(t *testing.T) {
	program, err := exec.LookPath("mosquitto_sub")
	if err != nil && os.Getenv("GANTRY_REQUIRE_REAL") != "1" {
		t.Skip("mosquitto_sub is not installed")
	}
	require.NoError(t, err)
	g, _ := start(t, testConfig(t))
	host, port, err := net.SplitHostPort(g.Addrs()["tcp"].String())
	require.NoError(t, err)
	ask := func(args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, append(args, "-h", host, "-p", port)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	require.Equal(t, "gantry version "+Version, ask("-t", "$SYS/broker/version", "-C", "1"))
	lines := strings.Split(ask("-t", "$SYS/#", "-v", "-C", "130"), "\n")
	require.Len(t, lines, 130)
	require.Contains(t, strings.Join(lines, "\n"), "$SYS/broker/")
}

func TestClientEvents(t *testing.T) {
	g, _ := start(t, testConfig(t))
	loopback := netip.MustParseAddrPort("127.0.0.1:9")
	open := func(id string, wake func()) *broker.Session {
		s, _, err := g.broker.Connect(t.Context(), &broker.ConnectRequest{ClientID: id, Protocol: "mqtt", Version: "5.0", RemoteAddr: loopback, KeepAlive: time.Minute, Wake: wake})
		require.NoError(t, err)
		s.Start()
		return s
	}
	watch := open("watch", func() {})
	watch.Subscribe([]broker.Subscription{{Filter: "$SYS/brokers/+/clients/#"}}, func(r []broker.Reason, _ []broker.QoS) {
		require.Equal(t, []broker.Reason{broker.Success}, r)
	})
	open("odd+name", nil).Close(broker.Closing{})
	open("a/device", nil).Close(broker.Closing{Reason: broker.KeepAliveTimeout})
	ds := watch.Next(make([]broker.Delivery, 0, 9))
	require.Len(t, ds, 2)
	for i, want := range []string{"connected", "disconnected"} {
		m := ds[i].Message
		require.Equal(t, "$SYS/brokers/test/clients/a/device/"+want, m.Topic)
		require.False(t, m.Retain)
		var event map[string]any
		require.NoError(t, json.Unmarshal(m.Payload, &event))
		require.Equal(t, "a/device", event["clientid"])
		require.Equal(t, "127.0.0.1", event["ipaddress"])
		require.Contains(t, event, want+"_at")
		if i == 0 {
			require.InDelta(t, 60, event["keepalive"], 0)
			continue
		}
		require.Equal(t, "keepalive_timeout", event["reason"])
	}
	watch.Close(broker.Closing{})
	require.Equal(t, int64(2), g.sys.most.Load())
	require.Zero(t, g.sys.connected.Load())
}

func TestSysTopicsCanBeOff(t *testing.T) {
	c := testConfig(t)
	c.Broker.SysInterval = 0
	g, _ := start(t, c)
	require.Nil(t, g.sys)
	s, _, err := g.broker.Connect(t.Context(), &broker.ConnectRequest{ClientID: "c", RemoteAddr: netip.MustParseAddrPort("127.0.0.1:9")})
	require.NoError(t, err)
	m, r := s.Retained("$SYS/broker/version")
	require.Equal(t, broker.Success, r)
	require.Nil(t, m)
	s.Close(broker.Closing{})
}

// A counter that grows evenly: all three averages come to its rate, the short
// one first.
func TestLoad(t *testing.T) {
	got := map[string]string{}
	var total uint64
	s := &sysTopics{last: map[string]string{}, loads: newLoads(), publish: func(m *broker.Message) broker.Reason {
		got[strings.TrimPrefix(m.Topic, "$SYS/broker/load/")] = string(m.Payload)
		return broker.Success
	}}
	rate := func(minutes string) float64 {
		v, err := strconv.ParseFloat(got["publish/received/"+minutes], 64)
		require.NoError(t, err)
		return v
	}
	now := time.Now()
	for range 7 { // 60 s after the first
		s.load(now, &counts{wire: &s.wire, published: total})
		now, total = now.Add(10*time.Second), total+20
	}
	require.InDelta(t, 120*(1-math.Exp(-1)), rate("1min"), 0.01)
	require.InDelta(t, 120*(1-math.Exp(-0.2)), rate("5min"), 0.01)
	for range 600 {
		s.load(now, &counts{wire: &s.wire, published: total})
		now, total = now.Add(10*time.Second), total+20
	}
	require.InDelta(t, 120, rate("1min"), 0.01)
	require.InDelta(t, 120, rate("15min"), 3)
	s.load(now, &counts{wire: &s.wire, published: total - 20})
	require.Less(t, rate("1min"), 120.0)
}
