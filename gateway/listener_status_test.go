package gateway

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

func TestStatusListsTheListeners(t *testing.T) {
	c := testConfig(t)
	unix := c.Listeners.MQTT[0]
	unix.Name, unix.Bind = "local", config.Addr("unix:"+filepath.Join(t.TempDir(), "s"))
	web := c.Listeners.MQTT[0]
	web.Name, web.Transport, web.MaxConnections = "web", config.MQTTOverWebSocket, 7
	c.Listeners.MQTT = append(c.Listeners.MQTT, unix, web)
	g, _ := start(t, c)
	nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer nc.Close()
	dialog(t, nc, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c", "\x20\x02\x00\x00")
	silent, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer silent.Close()
	http1, err := net.Dial("tcp", g.Addrs()["http"].String())
	require.NoError(t, err)
	defer http1.Close()
	open := func(l *admin.Listener) int { return *l.Connections }
	var got []admin.Listener
	require.Eventually(t, func() bool {
		st, err := operator(t, g, c).Status(t.Context())
		require.NoError(t, err)
		got = st.Listeners
		require.Len(t, got, 5)
		return open(&got[0]) == 2 && open(&got[4]) == 1
	}, 10*time.Second, 5*time.Millisecond, "%+v", got)
	for i, want := range []admin.Listener{
		{Name: "tcp", Protocol: "mqtt", Transport: "tcp", Clients: 1, MaxConnections: 10000},
		{Name: "local", Protocol: "mqtt", Transport: "unix", MaxConnections: 10000},
		{Name: "web", Protocol: "mqtt", Transport: "ws", MaxConnections: 7},
		{Name: "udp", Protocol: "coap", Transport: "udp"},
		{Name: "http", Protocol: "http", Transport: "tcp", MaxConnections: 1000},
	} {
		require.Equal(t, g.Addrs()[want.Name].String(), got[i].Address)
		require.Equal(t, want.Protocol != "coap", got[i].Connections != nil, want.Name)
		got[i].Address, got[i].Connections = "", nil
		require.Equal(t, want, got[i])
	}
	require.Equal(t, map[broker.Listener]int{{Protocol: "mqtt", Name: "tcp"}: 1}, g.broker.Stats().Clients)

	families, err := g.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "gantry_gateway_listener_info" {
			require.Len(t, f.GetMetric(), 5)
			return
		}
	}
	t.Fatal("no listener_info")
}

func TestTransportOfMQTT(t *testing.T) {
	tls := &config.ServerTLS{}
	for want, c := range map[string]config.MQTT{
		"tcp":  {Transport: config.MQTTOverTCP, Bind: ":1883"},
		"tls":  {Transport: config.MQTTOverTCP, Bind: ":8883", TLS: tls},
		"unix": {Transport: config.MQTTOverTCP, Bind: "unix:/s"},
		"ws":   {Transport: config.MQTTOverWebSocket, Bind: ":8083"},
		"wss":  {Transport: config.MQTTOverWebSocket, Bind: ":8084", TLS: tls},
		"quic": {Transport: config.MQTTOverQUIC, Bind: ":14567", TLS: tls},
	} {
		require.Equal(t, want, mqttTransport(&c))
	}
}
