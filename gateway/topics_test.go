package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"gantry/gateway/config"
)

// mounted is a gateway whose listeners have mountpoints, but for one MQTT listener.
func mounted(t *testing.T) *config.Config {
	t.Helper()
	c := testConfig(t)
	site := c.Listeners.MQTT[0]
	site.Name, site.Mountpoint, site.ClientID = "site", "s/${clientid}/", "${listener}-${clientid}"
	c.Listeners.MQTT = append(c.Listeners.MQTT, site)
	c.Listeners.CoAP[0].Mountpoint, c.Listeners.HTTP[0].Mountpoint = "s/${clientid}/", "s/${clientid}/"
	const old = `^s/([^/]+)/old/(.+)$`
	c.Broker.Rewrite = []config.RewriteRule{{Action: config.RewriteAll, Filter: "s/+/old/#", Regex: old, Topic: "s/$1/new/$2"}}
	c.Broker.AutoSubscribe = []config.AutoSubscription{{Filter: "cmd/${clientid}", QoS: 1}}
	require.NoError(t, c.Validate())
	return c
}

// mqttClient connects with a session that is kept. What it gets goes to the channel as "topic payload".
func mqttClient(t *testing.T, addr net.Addr, id string, change ...func(*paho3.ClientOptions)) (paho3.Client, chan string) {
	t.Helper()
	got := make(chan string, 100)
	o := paho3.NewClientOptions().AddBroker("tcp://" + addr.String()).SetClientID(id).SetCleanSession(false).SetAutoReconnect(false)
	o.SetConnectTimeout(patience).SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
		got <- m.Topic() + " " + string(m.Payload())
	})
	for _, f := range change {
		f(o)
	}
	client := paho3.NewClient(o)
	wait(t, client.Connect())
	t.Cleanup(func() { client.Disconnect(0) })
	return client, got
}

func wait(t *testing.T, token paho3.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

func next(t *testing.T, got chan string) string {
	t.Helper()
	select {
	case m := <-got:
		return m
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		return ""
	}
}

// coapPut publishes with a confirmable PUT and returns the code of the answer.
func coapPut(t *testing.T, addr net.Addr, clientID, payload string, levels ...string) byte {
	t.Helper()
	conn, err := net.Dial("udp", addr.String())
	require.NoError(t, err)
	defer conn.Close()
	packet := []byte{0x40, 0x03, 0x12, 0x34, 0xB2, 'p', 's'} // Uri-Path is option 11
	for _, l := range levels {
		packet = append(append(packet, byte(len(l))), l...)
	}
	query := "clientid=" + clientID
	packet = append(append(packet, 0x4D, byte(len(query)-13)), query...) // Uri-Query is option 15, and longer than 12
	packet = append(append(packet, 0xFF), payload...)
	_, err = conn.Write(packet)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 4)
	return answer[1]
}

func httpAs(t *testing.T, g *Gateway, clientID, method, topic, payload string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://%s/v1/topics/%s", g.Addrs()["http"], topic), strings.NewReader(payload))
	require.NoError(t, err)
	r.Header.Set("X-Client-Id", clientID)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

// The names of clients are the gateway's on every protocol: mounted, rewritten, subscribed to automatically, and the same after a
// restart.
func TestTopicsOfMountedClients(t *testing.T) {
	c := mounted(t)
	g, stop := start(t, c)
	all, seen := mqttClient(t, g.Addrs()["tcp"], "all")
	wait(t, all.Subscribe("s/#", 1, nil))

	dev, _ := mqttClient(t, g.Addrs()["site"], "dev")
	wait(t, dev.Subscribe("old/+", 1, nil))
	wait(t, dev.Publish("old/t", 1, true, "mqtt"))
	require.Equal(t, "s/site-dev/new/t mqtt", next(t, seen))
	status, _ := httpAs(t, g, "h", http.MethodPost, "old/t?qos=1&retain=true", "http")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "s/h/new/t http", next(t, seen))
	_, value := httpAs(t, g, "h", http.MethodGet, "old/t", "")
	require.Equal(t, "http", value)
	status, _ = httpAs(t, g, "other", http.MethodGet, "old/t", "")
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, byte(0x44), coapPut(t, g.Addrs()["udp"], "coap-client", "coap", "old", "t"), "2.04")
	require.Equal(t, "s/coap-client/new/t coap", next(t, seen))

	// A will, of a client that is taken over.
	will := func(o *paho3.ClientOptions) { o.SetWill("old/will", "gone", 1, false).SetCleanSession(true) }
	mqttClient(t, g.Addrs()["site"], "w", will)
	mqttClient(t, g.Addrs()["site"], "w", func(o *paho3.ClientOptions) { o.SetCleanSession(true) })
	require.Equal(t, "s/site-w/new/will gone", next(t, seen))

	dev.Disconnect(100)
	wait(t, all.Publish("s/site-dev/new/t", 1, false, "while away"))
	wait(t, all.Publish("s/site-dev/cmd/site-dev", 1, false, "command"))
	all.Disconnect(100)
	stop()

	g, _ = start(t, c)
	dev, got := mqttClient(t, g.Addrs()["site"], "dev")
	require.ElementsMatch(t, []string{"new/t while away", "cmd/site-dev command"}, []string{next(t, got), next(t, got)})
	wait(t, dev.Unsubscribe("old/+"))
	all, _ = mqttClient(t, g.Addrs()["tcp"], "all2")
	wait(t, all.Publish("s/site-dev/new/t", 1, false, "no more"))
	wait(t, all.Publish("s/site-dev/cmd/site-dev", 1, false, "last"))
	require.Equal(t, "cmd/site-dev last", next(t, got))
}

func TestPayloadFormatIsChecked(t *testing.T) {
	for _, check := range []bool{false, true} {
		c := testConfig(t)
		c.Listeners.MQTT[0].CheckFormat = check
		g, _ := start(t, c)
		conn, err := net.Dial("tcp", g.Addrs()["tcp"].String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = conn.Write([]byte("\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c" + "\x32\x09\x00\x01t\x00\x01\x02\x01\x01\xff"))
		require.NoError(t, err)
		head := make([]byte, 2)
		_, err = io.ReadFull(conn, head)
		require.NoError(t, err)
		_, err = io.CopyN(io.Discard, conn, int64(head[1]))
		require.NoError(t, err)
		ack := make([]byte, 5)
		_, err = io.ReadFull(conn, ack)
		require.NoError(t, err)
		require.Equal(t, check, ack[4] == 0x99, "% x", ack)
	}
}

// What a client of 3.1.1 may not publish ends its connection, where the file says so.
func TestDeniedPublishDisconnects(t *testing.T) {
	c := testConfig(t)
	c.Listeners.MQTT[0].MQTT3Denied = config.MQTT3Disconnect
	g, _ := start(t, c)
	lost := make(chan error, 1)
	client, _ := mqttClient(t, g.Addrs()["tcp"], "dev", func(o *paho3.ClientOptions) {
		o.SetConnectionLostHandler(func(_ paho3.Client, err error) { lost <- err })
	})
	wait(t, client.Publish("t", 1, false, "x"))
	client.Publish("$SYS/x", 1, false, "x")
	select {
	case err := <-lost:
		require.Error(t, err)
	case <-time.After(patience):
		require.Fail(t, "still connected")
	}
}
