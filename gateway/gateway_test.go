package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testConfig is a gateway on free ports with a bridge whose uplink is away.
func testConfig(t *testing.T) *config.Config {
	t.Helper()
	c := config.Default()
	c.Node, c.DataDir = "test", filepath.Join(t.TempDir(), "data")
	const any = "127.0.0.1:0"
	c.Listeners.MQTT[0].Bind, c.Listeners.CoAP[0].Bind, c.Listeners.HTTP[0].Bind, c.Admin.Bind = any, any, any, any
	c.Bridges = []config.Bridge{{
		Name: "cloud", Type: config.BridgeKafka, Brokers: []config.Addr{"127.0.0.1:1"}, Compression: config.CompressionNone,
		Queue:      config.Queue{MaxBytes: 256 * config.KiB, WhenFull: config.QueueRefuse},
		DeadLetter: config.DeadLetter{MaxBytes: config.MiB},
		Routes:     []config.Route{{Filter: "plant/#", Topic: "${topic[0]}", Key: "${clientid}", Format: config.FormatRaw, Headers: map[string]string{"b": "2", "a": "${protocol}"}}},
	}}
	return c
}

// start runs a gateway until the test ends or stop is called.
func start(t *testing.T, c *config.Config) (g *Gateway, stop func()) {
	t.Helper()
	g, err := New(c, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(stop)
	return g, stop
}

// post publishes by HTTP and returns the status.
func post(t *testing.T, g *Gateway, topic, payload string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Post(fmt.Sprintf("http://%s/v1/topics/%s?retain=true", g.Addrs()["http"], topic), "text/plain", bytes.NewBufferString(payload))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode
}

func operator(t *testing.T, g *Gateway, c *config.Config) *admin.Client {
	t.Helper()
	token, err := admin.ReadToken(c.TokenPath())
	require.NoError(t, err)
	client, err := admin.NewClient(g.Addrs()["admin"].String(), token)
	require.NoError(t, err)
	return client
}

func TestQueuesSurviveARestart(t *testing.T) {
	c := testConfig(t)
	g, stop := start(t, c)
	require.Equal(t, http.StatusOK, post(t, g, "plant/1", "first"))
	require.Equal(t, http.StatusOK, post(t, g, "office/1", "no route"))
	stop()
	g, _ = start(t, c)
	bridges, err := operator(t, g, c).Bridges(t.Context())
	require.NoError(t, err)
	require.Len(t, bridges, 1)
	require.EqualValues(t, 1, bridges[0].QueuedRecords)
	require.Equal(t, "refuse", bridges[0].WhenFull)
	records, err := operator(t, g, c).Peek(t.Context(), "cloud", 10, false)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, "plant", records[0].Topic)
	require.Equal(t, "first", records[0].Payload)
	status, err := operator(t, g, c).Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, status.Retained)
	require.True(t, status.Store.Writable)
}

func TestFullQueueRefusesAndRaisesAlarms(t *testing.T) {
	c := testConfig(t)
	g, stop := start(t, c)
	payload := string(bytes.Repeat([]byte("x"), 10_000))
	codes := map[int]int{}
	for range 60 {
		codes[post(t, g, "plant/1", payload)]++
	}
	require.Greater(t, codes[http.StatusOK], 5)
	require.Greater(t, codes[http.StatusTooManyRequests]+codes[http.StatusServiceUnavailable], 20, "%v", codes)
	stop() // the watch belongs to one goroutine
	g.watch.look(time.Now())
	names := []string{}
	for _, a := range g.alarms.List() {
		names = append(names, a.Name)
	}
	require.Contains(t, names, "bridge_queue_filling:cloud")
	require.Contains(t, names, "bridge_refusing:cloud")
	g.watch.look(time.Now().Add(2 * time.Minute))
	for _, a := range g.alarms.List() {
		require.NotEqual(t, "bridge_refusing:cloud", a.Name, "nothing was refused for two minutes")
	}
}

func TestQueueThatCannotBeWrittenIsShown(t *testing.T) {
	c := testConfig(t)
	g, stop := start(t, c)
	require.Equal(t, http.StatusOK, post(t, g, "plant/1", "kept"))
	require.NoError(t, os.RemoveAll(QueueDir(c.DataDir, "cloud")))
	require.Eventually(t, func() bool { return post(t, g, "plant/1", "x") != http.StatusOK }, 10*time.Second, 10*time.Millisecond,
		"acknowledged although the folder is gone")
	stop() // the watch belongs to one goroutine
	failing := func(after time.Duration) bool {
		g.watch.look(time.Now().Add(after))
		for _, a := range g.alarms.List() {
			if a.Name == "bridge_queue_failing:cloud" {
				require.NotContains(t, a.Detail, "<nil>")
				require.Contains(t, a.Detail, "newest: ")
				return true
			}
		}
		return false
	}
	require.True(t, failing(0))
	require.NotEmpty(t, g.ready(t.Context()))
	require.False(t, failing(time.Minute), "nothing was tried for a minute")
	require.Empty(t, g.ready(t.Context()), "who gets no messages because it is not ready could never get ready again")
}

func TestReadyAndMetrics(t *testing.T) {
	g, _ := start(t, testConfig(t))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	get := func(path string) (int, string) {
		res, err := client.Get("http://" + g.Addrs()["admin"].String() + path)
		require.NoError(t, err)
		defer res.Body.Close()
		var b bytes.Buffer
		_, err = b.ReadFrom(res.Body)
		require.NoError(t, err)
		return res.StatusCode, b.String()
	}
	code, body := get("/readyz")
	require.Equal(t, http.StatusOK, code, "an uplink that is away does not make the gateway unready")
	var ready admin.Readiness
	require.NoError(t, json.Unmarshal([]byte(body), &ready))
	require.True(t, ready.Ready)
	_, body = get("/metrics")
	for _, name := range []string{
		"gantry_broker_sessions", "gantry_queue_records", "gantry_bridge_", "gantry_coap_", "gantry_mqtt_", "gantry_http_", "gantry_embedded_", "go_goroutines",
	} {
		require.Contains(t, body, name)
	}
}

func TestOneLineForWhatIsWrong(t *testing.T) {
	t.Run("folder in use", func(t *testing.T) {
		c := testConfig(t)
		start(t, c)
		_, err := New(c, nil)
		require.ErrorContains(t, err, "in use by another gateway")
		require.NotContains(t, err.Error(), "\n")
	})
	t.Run("port in use", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer ln.Close()
		c := testConfig(t)
		c.Listeners.MQTT[0].Bind = config.Addr(ln.Addr().String())
		_, err = New(c, nil)
		require.ErrorContains(t, err, "address already in use")
		require.NotContains(t, err.Error(), "\n")
		g, err := New(testConfig(t), nil)
		require.NoError(t, err)
		require.NoError(t, g.Close())
		require.NoError(t, g.Close(), "safe twice")
	})
	t.Run("data folder is a file", func(t *testing.T) {
		c := testConfig(t)
		require.NoError(t, os.WriteFile(c.DataDir, nil, 0o600))
		_, err := New(c, nil)
		require.ErrorContains(t, err, c.DataDir)
	})
}

func TestAPartThatFailsEndsTheGateway(t *testing.T) {
	failed := make(chan error, 1)
	s := newStage(failed)
	s.run("listener x", func(context.Context) error { return os.ErrPermission })
	require.EqualError(t, <-failed, "listener x ended: "+os.ErrPermission.Error())
	s.run("listener y", func(context.Context) error { return nil })
	require.EqualError(t, <-failed, "listener y ended: it stopped by itself")
	s.run("listener z", func(ctx context.Context) error { <-ctx.Done(); return nil })
	s.stop()
	require.Empty(t, failed, "an ordered stop is no failure")
}

func TestPeekShowsAnyBytes(t *testing.T) {
	r := decode(7, []byte("not a record"))
	require.EqualValues(t, 7, r.Seq)
	require.NotEmpty(t, r.Reason)
	require.Equal(t, "not a record", string(r.Payload))
	_, err := PeekQueue(filepath.Join(t.TempDir(), "none"), 5, false)
	require.Error(t, err)
}

func TestClientsOfEveryProtocolAreListedAlike(t *testing.T) {
	c := testConfig(t)
	g, _ := start(t, c)
	addrs := g.Addrs()
	mqttConn, err := net.Dial("tcp", addrs["tcp"].String())
	require.NoError(t, err)
	defer mqttConn.Close()
	_, err = mqttConn.Write([]byte("\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04mqtt"))
	require.NoError(t, err)
	connack := make([]byte, 4)
	_, err = io.ReadFull(mqttConn, connack)
	require.NoError(t, err)
	require.Equal(t, []byte{0x20, 2, 0, 0}, connack)
	coapConn, err := net.Dial("udp", addrs["udp"].String())
	require.NoError(t, err)
	defer coapConn.Close()
	_, err = coapConn.Write([]byte("\x40\x03\x00\x01\xb2ps\x05plant\x46c=coap\xff1")) // PUT /ps/plant?c=coap
	require.NoError(t, err)
	answer := make([]byte, 100)
	require.NoError(t, coapConn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = coapConn.Read(answer)
	require.NoError(t, err)
	require.Equal(t, byte(2<<5|4), answer[1], "2.04")
	require.Equal(t, http.StatusOK, post(t, g, "plant", "1"))

	op := operator(t, g, c)
	sessions, err := op.Clients(t.Context())
	require.NoError(t, err)
	protocols := map[string]string{}
	for _, s := range sessions {
		require.True(t, s.Connected)
		protocols[s.Protocol] = s.ClientID
	}
	require.Equal(t, "mqtt", protocols["mqtt"])
	require.Equal(t, "coap", protocols["coap"])
	require.Contains(t, protocols, "http")
	for _, id := range protocols {
		require.NoError(t, op.Kick(t.Context(), id))
	}
	require.Eventually(t, func() bool {
		sessions, err := op.Clients(t.Context())
		return err == nil && len(sessions) == 0
	}, 10*time.Second, 20*time.Millisecond, "kicked alike")
}

func TestAlarmOnlyForLossesThatNobodyAskedFor(t *testing.T) {
	g, stop := start(t, testConfig(t))
	conn := func(id string, expiry time.Duration) *broker.Session {
		s, _, err := g.broker.Connect(t.Context(), &broker.ConnectRequest{
			ClientID: id, Expiry: expiry, RemoteAddr: netip.MustParseAddrPort("127.0.0.1:1"), Wake: func() {}, Kick: func(broker.Reason) {},
		})
		require.NoError(t, err)
		s.Start()
		s.Subscribe([]broker.Subscription{{Filter: "office/" + id, QoS: 1}}, func([]broker.Reason, []broker.QoS) {})
		return s
	}
	leaves := func(id string, expiry time.Duration) {
		s := conn(id, expiry)
		require.Equal(t, http.StatusOK, post(t, g, "office/"+id, "never confirmed"))
		now := time.Duration(0)
		s.Close(broker.Closing{Expiry: &now})
	}
	names := func() (all []string) {
		g.watch.look(time.Now())
		for _, a := range g.alarms.List() {
			all = append(all, a.Name)
		}
		return all
	}
	leaves("clean", 0)
	leaves("kept", time.Hour)
	stop() // the watch belongs to one goroutine
	require.Equal(t, []string{"session_messages_dropped:session_ended"}, names())
	require.EqualValues(t, 1, g.broker.Stats().Dropped["disconnected"], "a client that keeps no session has lost what it did not confirm")
	require.EqualValues(t, 1, g.broker.Stats().Dropped["session_ended"])
}
