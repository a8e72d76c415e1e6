package kafka

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"gantry/bridge"
	"gantry/bridge/queue"
	"gantry/broker"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir, os.Getenv(childAddr))
		return
	}
	goleak.VerifyTestMain(m)
}

// rig is a bridge without a broker: a queue in a folder and, while started, a
// forwarder with a sink. The Kafka topic is the first level of the MQTT topic.
type rig struct {
	t       testing.TB
	cfg     Config
	forward bridge.ForwarderConfig
	stage   *bridge.Stage
	queue   *queue.Queue

	policy   queue.Policy
	maxBytes int64

	sink      *Sink
	reg       *prometheus.Registry // of the sink
	total     map[string]float64   // counters of ended sinks
	forwarder *bridge.Forwarder
	cancel    context.CancelFunc
	ended     chan error

	published int    // numbers below it are queued
	appended  uint64 // records given to the open queue
}

func newRig(t testing.TB, addr string, change ...func(*rig)) *rig {
	t.Helper()
	g := &rig{t: t, total: map[string]float64{}, policy: queue.Refuse, maxBytes: 1 << 30}
	g.cfg = Config{
		Bridge: "cloud", Node: "edge-01", Dir: t.TempDir(), Brokers: []string{addr}, MetadataRefresh: 200 * time.Millisecond,
		RequestTimeout: 5 * time.Second, AckTimeout: 3 * time.Second,
	}
	g.forward = bridge.ForwarderConfig{
		Bridge: "cloud", MinBackoff: 5 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, FailedBackoff: 100 * time.Millisecond,
	}
	for _, c := range change {
		c(g)
	}
	t.Cleanup(func() {
		g.stop()
		require.NoError(t, g.queue.Close())
	})
	g.openQueue()
	return g
}

func (g *rig) openQueue() {
	g.t.Helper()
	g.appended = 0
	var err error
	g.queue, err = queue.Open(queue.Config{Dir: g.cfg.Dir, Name: "cloud", MaxBytes: g.maxBytes, WhenFull: g.policy}, nil)
	require.NoError(g.t, err)
	topic, err := bridge.ParseTemplate("${topic[0]}")
	require.NoError(g.t, err)
	key, err := bridge.ParseTemplate("${clientid}")
	require.NoError(g.t, err)
	g.stage, err = bridge.NewStage(bridge.StageConfig{
		Bridge: "cloud", Node: "edge-01", Routes: []bridge.Route{{Filter: "#", Topic: topic, Key: key}},
	}, g.queue, nil)
	require.NoError(g.t, err)
}

// publish queues n numbered messages for topic, of ten clients.
func (g *rig) publish(topic string, n int) {
	g.t.Helper()
	for range n {
		g.put(topic, fmt.Sprintf("c%d", g.published%10), fmt.Sprintf("%d", g.published))
		g.published++
	}
}

func (g *rig) put(topic, client, payload string) {
	g.t.Helper()
	g.putAt(time.Now(), topic, client, payload)
}

func (g *rig) putAt(at time.Time, topic, client, payload string) {
	r := g.stage.Record(context.Background(), &broker.Publication{Message: &broker.Message{
		Topic: topic, ClientID: client, Payload: []byte(payload), Time: at.UnixMilli(), QoS: 1,
	}})
	if r != broker.Success {
		g.t.Fatalf("queue a record: %s", r)
	}
	g.appended++
}

func (g *rig) start() {
	g.t.Helper()
	g.reg = prometheus.NewRegistry()
	var err error
	g.sink, err = New(g.cfg, nil, g.reg)
	require.NoError(g.t, err)
	g.forwarder, err = bridge.NewForwarder(g.forward, g.queue, g.sink, nil, nil)
	require.NoError(g.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.ended = cancel, make(chan error, 1)
	go func(f *bridge.Forwarder, ended chan error) { ended <- f.Run(ctx) }(g.forwarder, g.ended)
}

// stop ends the sink in order.
func (g *rig) stop() {
	g.t.Helper()
	if g.cancel == nil {
		return
	}
	g.cancel()
	require.NoError(g.t, <-g.ended)
	g.cancel = nil
	for name, value := range g.counters() {
		g.total[name] += value
	}
	require.NoError(g.t, g.sink.Close())
}

// counter returns a counter of the sink, summed over all lives of the rig.
func (g *rig) counter(name string) float64 {
	g.t.Helper()
	sum := g.total[name]
	if g.cancel != nil {
		sum += g.counters()[name]
	}
	return sum
}

func (g *rig) counters() map[string]float64 {
	g.t.Helper()
	families, err := g.reg.Gather()
	require.NoError(g.t, err)
	require.NotEmpty(g.t, families)
	values := map[string]float64{}
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	return values
}

// awaitEmpty waits until everything in the queue is confirmed.
func (g *rig) awaitEmpty() {
	g.t.Helper()
	g.await(func() bool {
		s := g.queue.Stats()
		return s.Appended == g.appended && s.Records == 0
	})
}

func (g *rig) await(ok func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			if g.forwarder != nil {
				g.t.Logf("%+v", g.forwarder.Status())
			}
			g.t.Fatal("not in time")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// requireExact checks that the records are the numbers from 0 to below n once
// each, those of one key in ascending order, except the missing ones.
func requireExact(t testing.TB, records []*kgo.Record, n int, missing ...int) {
	t.Helper()
	lost, dup, disorder := compare(t, records, n)
	for _, r := range records {
		i, _, _ := strings.Cut(string(r.Value), "|")
		for _, m := range missing {
			require.NotEqual(t, fmt.Sprint(m), i)
		}
	}
	require.Equal(t, [3]int{len(missing)}, [3]int{lost, dup, disorder}, "lost, duplicate, out of order of %d", n)
}

// compare tells how many of the numbers below n are missing, repeated, and
// before a smaller one of the same key.
func compare(t testing.TB, records []*kgo.Record, n int) (lost, dup, disorder int) {
	t.Helper()
	seen := make([]bool, n)
	last := map[string]int{}
	for _, r := range records {
		var i int
		if _, err := fmt.Sscanf(string(r.Value), "%d", &i); err != nil {
			t.Fatalf("value %q: %v", r.Value, err)
		}
		if seen[i] {
			dup++
		}
		seen[i] = true
		if before, ok := last[string(r.Key)]; ok && before > i {
			disorder++
		}
		last[string(r.Key)] = i
	}
	for _, there := range seen {
		if !there {
			lost++
		}
	}
	return lost, dup, disorder
}

func headerOf(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// ask sends a request with a client of another library.
func ask(t testing.TB, addr string, req kmsg.Request) kmsg.Response {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	require.NoError(t, err)
	defer cl.Close()
	resp, err := cl.Request(t.Context(), req)
	require.NoError(t, err)
	return resp
}
