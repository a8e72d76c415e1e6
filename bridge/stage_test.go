package bridge

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"gantry/bridge/queue"
	"gantry/broker"
)

// noStore keeps nothing: the sessions of these tests end with their test.
type noStore struct{}

func (noStore) Load(context.Context) (*broker.State, error) { return &broker.State{}, nil }
func (noStore) Commit(_ context.Context, _ *broker.Batch, done func(error)) error {
	done(nil)
	return nil
}
func (noStore) Queued(string, uint64, int) ([]broker.Queued, error) { return nil, nil }
func (noStore) Close() error                                        { return nil }

// brokerWith returns a broker whose only hook is a stage on q.
func brokerWith(t testing.TB, q *queue.Queue, reg prometheus.Registerer, routes ...Route) *broker.Broker {
	t.Helper()
	s, err := NewStage(StageConfig{Bridge: "b", Node: "edge-01", Routes: routes}, q, reg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.Equal(t, "b", s.Name())
	b, err := broker.New(t.Context(), broker.Config{Hooks: []broker.Hook{s}}, noStore{}, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func publish(t testing.TB, b *broker.Broker, topic string, qos broker.QoS, payload string) broker.Reason {
	t.Helper()
	answer := make(chan broker.Reason, 1)
	b.Inject(t.Context(), &broker.Message{Topic: topic, QoS: qos, Payload: []byte(payload)}, func(r broker.Reason) { answer <- r })
	select {
	case r := <-answer:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
		return 0
	}
}

func route(t testing.TB, filter, topic string) Route {
	return Route{Filter: filter, Topic: template(t, topic), QoS: 1}
}

func TestStageQueuesWhatMatches(t *testing.T) {
	q := openQueue(t)
	b := brokerWith(t, q, nil, route(t, "plant/#", "all"), route(t, "plant/+/temp", "temp.${topic[1]}"))
	require.Equal(t, broker.Success, publish(t, b, "plant/l1/temp", 1, "21"), "a bridge takes it")
	require.Equal(t, broker.Success, publish(t, b, "plant/l1", 2, "x"))
	require.Equal(t, broker.NoSubscribers, publish(t, b, "office", 1, "x"))

	r := q.Reader(q.Frontier())
	var got []string
	for range 3 {
		_, rec, err := r.Next()
		require.NoError(t, err, "acknowledged, so it is on disk")
		var p Record
		require.NoError(t, p.Decode(rec))
		m, err := p.Message()
		require.NoError(t, err)
		require.InDelta(t, time.Now().UnixMilli(), p.Time, 60_000)
		got = append(got, string(p.Topic)+" "+m.Topic+" "+string(p.Value))
	}
	require.Equal(t, []string{"all plant/l1/temp 21", "temp.l1 plant/l1/temp 21", "all plant/l1 x"}, got)
}

func TestStageTellsThePublisherWhenTheQueueIsFull(t *testing.T) {
	q := openQueue(t)
	reg := prometheus.NewRegistry()
	b := brokerWith(t, q, reg, route(t, "#", "x"))
	payload := strings.Repeat("p", 10_000)
	deadline := time.Now().Add(10 * time.Second)
	for publish(t, b, "a", 1, payload) != broker.QuotaExceeded {
		require.True(t, time.Now().Before(deadline))
	}
	require.Contains(t, []broker.Reason{broker.Success, broker.NoSubscribers}, publish(t, b, "a", 0, payload), "QoS 0 is dropped")
	values := map[string]float64{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		values[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	require.EqualValues(t, 1, values["gantry_bridge_dropped_total"])
	require.EqualValues(t, 1, values["gantry_bridge_refused_total"])
	require.NotZero(t, values["gantry_bridge_queued_total"])
}

func TestStageRoutesAreReplaced(t *testing.T) {
	q := openQueue(t)
	_, err := NewStage(StageConfig{Bridge: "b", Routes: []Route{{Filter: "a/#/b"}}}, q, nil)
	require.ErrorContains(t, err, "bridge b: route 1")
	s, err := NewStage(StageConfig{Bridge: "b", Routes: []Route{route(t, "a", "x")}}, q, nil)
	require.NoError(t, err)
	require.Error(t, s.SetRoutes([]Route{{}}))
	record := func(topic string) uint64 {
		before := q.Stats().Records
		require.Equal(t, broker.Success, s.Record(t.Context(), &broker.Publication{Message: &broker.Message{Topic: topic}}))
		await(t, func() bool { return q.Stats().Records > before || topic == "other" })
		return q.Stats().Records - before
	}
	require.EqualValues(t, 1, record("a"), "the old routes stay after an error")
	require.NoError(t, s.SetRoutes([]Route{route(t, "b", "x")}))
	require.EqualValues(t, 1, record("b"))
	require.Zero(t, record("other"))
}

func TestStageAfterClose(t *testing.T) {
	q := openQueue(t)
	b := brokerWith(t, q, nil, route(t, "#", "x"))
	require.NoError(t, q.Close())
	require.Equal(t, broker.ShuttingDown, publish(t, b, "a", 1, "x"))
}
