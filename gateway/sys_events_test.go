package gateway

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/gateway/config"
)

// events takes what a session gets, by the last level of the topic.
func events(t *testing.T, watch *broker.Session, woken chan struct{}, n int) (all []map[string]any) {
	t.Helper()
	for len(all) < n {
		ds := watch.Next(make([]broker.Delivery, 0, n))
		for _, d := range ds {
			var e map[string]any
			require.NoError(t, json.Unmarshal(d.Message.Payload, &e))
			e["event"] = d.Message.Topic[strings.LastIndexByte(d.Message.Topic, '/')+1:]
			all = append(all, e)
		}
		if len(ds) == 0 {
			select {
			case <-woken:
			case <-time.After(10 * time.Second):
				t.Fatalf("%d of %d events came", len(all), n)
			}
		}
	}
	return all
}

// The fields are those of EMQX, and "listener".
func TestEventsHaveTheFieldsOfEMQX(t *testing.T) {
	c := testConfig(t)
	c.Broker.SysInterval, c.Broker.SysEvents.Subscriptions = config.Duration(time.Hour), true
	g, _ := start(t, c)
	woken := make(chan struct{}, 1)
	watch := openSession(t, g, &broker.ConnectRequest{ClientID: "watch", Wake: func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}})
	subscribe(t, watch, "$SYS/brokers/+/clients/c/#")
	nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer nc.Close()
	before := time.Now().UnixMilli()
	dialog(t, nc, "\x10\x12\x00\x04MQTT\x04\x80\x00\x3c\x00\x01c\x00\x03foo", "\x20\x02\x00\x00")
	dialog(t, nc, "\x82\x06\x00\x01\x00\x01t\x01", "\x90\x03\x00\x01\x01")
	dialog(t, nc, "\xa2\x05\x00\x02\x00\x01t", "\xb0\x02\x00\x02")
	dialog(t, nc, "\xe0\x00", "")
	all := events(t, watch, woken, 4)
	for _, e := range all {
		for _, key := range []string{"ts", "connected_at", "disconnected_at"} {
			if at, ok := e[key].(float64); ok {
				require.InDelta(t, before, at, 10_000)
				e[key] = "now"
			}
		}
	}
	port := float64(g.Addrs()["tcp"].(*net.TCPAddr).Port)
	require.Equal(t, []map[string]any{
		{
			"event": "connected", "clientid": "c", "username": "foo", "ts": "now", "sockport": port, "proto_ver": 4.0, "proto_name": "MQTT", "keepalive": 60.0,
			"ipaddress": "127.0.0.1", "expiry_interval": 86400.0, "connected_at": "now", "connack": 0.0, "clean_start": false, "listener": "tcp",
		},
		{
			"event": "subscribed", "clientid": "c", "username": "foo", "ts": "now", "topic": "t", "protocol": "mqtt",
			"subopts": map[string]any{"rh": 0.0, "rap": 0.0, "qos": 1.0, "nl": 0.0, "is_new": true},
		},
		{"event": "unsubscribed", "clientid": "c", "username": "foo", "ts": "now", "topic": "t", "protocol": "mqtt"},
		{
			"event": "disconnected", "clientid": "c", "username": "foo", "ts": "now", "sockport": port, "reason": "normal", "proto_ver": 4.0, "proto_name": "MQTT",
			"ipaddress": "127.0.0.1", "disconnected_at": "now", "listener": "tcp",
		},
	}, all)
	watch.Close(broker.Closing{})
}

func TestEventsCanBeOff(t *testing.T) {
	c := testConfig(t)
	c.Broker.SysInterval, c.Broker.SysEvents = config.Duration(time.Hour), config.SysEvents{}
	g, _ := start(t, c)
	watch := openSession(t, g, &broker.ConnectRequest{ClientID: "watch", Wake: func() {}})
	subscribe(t, watch, "$SYS/brokers/+/clients/#")
	other := openSession(t, g, &broker.ConnectRequest{ClientID: "other"})
	subscribe(t, other, "t")
	other.Close(broker.Closing{})
	require.Empty(t, watch.Next(make([]broker.Delivery, 0, 9)))
	expect(t, g, map[string]string{"broker/clients/maximum": "2"})
	watch.Close(broker.Closing{})
}

func TestNamesOfEMQX(t *testing.T) {
	for version, want := range map[string]int{"3.1": 3, "3.1.1": 4, "5.0": 5} {
		_, got := emqxProtocol("mqtt", version)
		require.Equal(t, want, got)
	}
	for r, want := range map[broker.Reason]string{
		broker.Success: "normal", broker.KeepAliveTimeout: "keepalive_timeout", broker.TakenOver: "takenover", broker.Administrative: "kicked",
		broker.Unspecified: "closed", broker.ShuttingDown: "server_shutting_down",
	} {
		require.Equal(t, want, emqxReason(r))
	}
}
