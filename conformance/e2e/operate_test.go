//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// cli runs gantry pub or sub against the gateway.
func (g *gateway) cli(stdin, verb string, args ...string) outcome {
	g.t.Helper()
	host, port := hostPort(g.t, g.mqtt)
	return command(g.t, stdin, append([]string{verb, "-h", host, "-p", port}, args...)...)
}

func TestPubAndSubCommands(t *testing.T) {
	g := startGateway(t, "")
	for _, version := range []string{"5", "311"} {
		var wg sync.WaitGroup
		var heard outcome
		wg.Go(func() {
			heard = g.cli("", "sub", "-V", version, "-t", "a/#", "-q", "1", "-v", "-C", "3", "-W", "20")
		})
		eventually(t, "subscribed", func() bool { return g.subscriptions() == 1 })
		require.Equal(t, outcome{}, g.cli("", "pub", "-V", version, "-t", "a/1", "-q", "1", "-m", "one"))
		require.Equal(t, outcome{}, g.cli("two\nthree\n", "pub", "-V", version, "-t", "a/2", "-q", "2", "-l"))
		wg.Wait()
		require.Equal(t, outcome{out: "a/1 one\na/2 two\na/2 three\n"}, heard)
		eventually(t, "gone", func() bool { return g.subscriptions() == 0 })
	}
}

func (g *gateway) subscriptions() int {
	var s struct {
		Subscriptions int `json:"subscriptions"`
	}
	g.api("/api/v1/status", &s)
	return s.Subscriptions
}

// A persistent session and a retained value, with the gateway's own commands
// and over a crash.
func TestSessionAndRetainedValueOutliveACrash(t *testing.T) {
	g := startGateway(t, "")
	durable := []string{"-t", "jobs/#", "-q", "1", "-c", "-i", "worker"}
	require.Equal(t, outcome{}, g.cli("", "sub", append(durable, "-W", "0.2")...))
	for i := range 3 {
		require.Equal(t, outcome{}, g.cli("", "pub", "-t", "jobs/"+fmt.Sprint(i), "-q", "1", "-m", fmt.Sprint(i)))
	}
	require.Equal(t, outcome{}, g.cli("", "pub", "-t", "state", "-q", "1", "-r", "-m", "open"))
	g.Kill()
	g.Restart()
	require.Equal(t, outcome{out: "0\n1\n2\n"}, g.cli("", "sub", append(durable, "-C", "3", "-W", "20")...))
	require.Equal(t, outcome{out: "open\n"}, g.cli("", "sub", "-t", "state", "-C", "1", "-W", "20"))
	require.Equal(t, "open", g.retained("state"))
	require.Equal(t, outcome{}, g.cli("", "pub", "-t", "state", "-q", "1", "-r", "-n"))
	r := g.cli("", "sub", "-t", "state", "-C", "1", "-W", "0.2")
	require.Equal(t, 1, r.code, "the value was cleared")
}

func TestWills(t *testing.T) {
	t.Parallel() // it mostly waits
	g := startGateway(t, "")
	watcher := hello{version: v5, id: "watcher", expirySecs: 3600}
	sub, _ := g.connect(watcher)
	require.NoError(t, sub.subscribe("wills/#", 1))
	mortal := func(id string) *wire {
		w, _ := g.connect(hello{version: v5, id: id, clean: true, will: publication("wills/"+id, 1, 0, []byte("lost"))})
		return w
	}
	require.NoError(t, mortal("polite").bye())
	require.NoError(t, mortal("cut").conn.Close())
	require.Equal(t, "wills/cut", receive(t, sub).TopicName, "and none of the polite one")

	mortal("crashed")
	g.Kill()
	g.Restart()
	sub, ack := g.connect(watcher)
	require.True(t, ack.SessionPresent)
	topic := receive(t, sub).TopicName
	for topic == "wills/cut" { // what was settled in the moment before the kill may come again
		topic = receive(t, sub).TopicName
	}
	require.Equal(t, "wills/crashed", topic, "the gateway's own crash is no order to forget a will")
}

// Delivery between the protocols: a value that one sets, the others see.
func TestRetainedValueAcrossProtocols(t *testing.T) {
	g := startGateway(t, "")
	g.retain(7, 8)
	w, _ := g.connect(hello{version: v311, id: "reader", clean: true})
	require.NoError(t, w.subscribe("elsewhere/+", 1))
	p := receive(t, w)
	require.Equal(t, "7", string(p.Payload))
	require.True(t, p.FixedHeader.Retain)
	answer := exchangeUDP(t, g.coap, "\x40\x01\x00\x07\xb2ps\x09elsewhere\x017", false)
	require.Equal(t, "\x60\x45", answer[:2], "2.05 Content")
	require.True(t, strings.HasSuffix(answer, "\xff7"), "%q", answer)
}

// The operator's commands on a running gateway, and on its folder when it is
// down.
func TestOperatorCommands(t *testing.T) {
	u := standIn(t)
	u.away()
	g := startGateway(t, bridgeTo(u, "max_bytes: 64MiB"))
	l := &ledger{}
	a := l.open("meter", 0)
	w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
	for range 5 {
		require.Zero(t, a.offer(t, w, "plant/a"))
	}
	eventually(t, "the bridge says that it retries", func() bool { return g.bridge().State == "retrying" })
	require.Regexp(t, `node +edge-01`, g.operate("status"))
	require.Regexp(t, `connections +1 mqtt`, g.operate("status"))
	require.Regexp(t, `cloud +kafka +retrying +5 `, g.operate("bridges"))
	g.requireQueued(5)
	g.Stop()
	g.requireQueued(5)
	r := command(t, "", "status", "-c", g.file)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "no gateway answers")
	require.Equal(t, 1, strings.Count(r.err, "\n"))

	g.Restart()
	u.back()
	l.settle(g, u).requireExact(t)
	require.Regexp(t, `(?m)^cloud +0 `, g.operate("queue", "ls"))
}

// operate runs a command of the operator, which must go well.
func (g *gateway) operate(args ...string) string {
	g.t.Helper()
	r := command(g.t, "", append(args, "-c", g.file)...)
	require.Zero(g.t, r.code, r.err)
	require.Empty(g.t, r.err)
	return r.out
}

// requireQueued looks into the queue, which holds the first n readings.
func (g *gateway) requireQueued(n int) {
	g.t.Helper()
	require.Regexp(g.t, fmt.Sprintf(`(?m)^cloud +%d `, n), g.operate("queue", "ls"))
	var queues []struct {
		Name    string `json:"name"`
		Records int    `json:"records"`
	}
	require.NoError(g.t, json.Unmarshal([]byte(g.operate("queue", "ls", "--json")), &queues))
	require.Len(g.t, queues, 1)
	require.Equal(g.t, n, queues[0].Records)
	var records []struct {
		Topic   string `json:"topic"`
		Key     string `json:"key"`
		Payload string `json:"payload"`
	}
	require.NoError(g.t, json.Unmarshal([]byte(g.operate("queue", "peek", "cloud", "--json")), &records))
	require.Len(g.t, records, n)
	for i, r := range records {
		require.Equal(g.t, topic, r.Topic)
		require.Equal(g.t, reading{Device: r.Key, N: i}, parseReading(g.t, []byte(r.Payload)))
	}
}

// A client that the gateway believes to be alive is taken over by the next
// connection with its id, and told so.
func TestTakeover(t *testing.T) {
	g := startGateway(t, "")
	old, _ := g.connect(hello{version: v5, id: "twin", clean: true})
	g.connect(hello{version: v5, id: "twin", clean: true})
	p, err := old.read(10 * time.Second)
	require.NoError(t, err)
	require.Equal(t, packets.Disconnect, p.FixedHeader.Type)
	require.EqualValues(t, 0x8E, p.ReasonCode)
}
