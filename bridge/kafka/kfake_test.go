package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"gantry/bridge"
	"gantry/bridge/queue"
	"gantry/conformance/servers"
)

func smallRounds(g *rig) { g.cfg.RoundRecords = 200 }

func TestDelivers(t *testing.T) {
	for _, compression := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(compression, func(t *testing.T) {
			k := servers.Kfake(t)
			k.CreateTopic("t", 4)
			g := newRig(t, k.Addr, smallRounds, func(g *rig) { g.cfg.Compression = compression })
			g.publish("t/a", 3000)
			g.start()
			g.publish("t/a", 2000)
			g.awaitEmpty()
			records := k.Consume("t")
			requireExact(t, records, 5000)
			require.True(t, strings.HasPrefix(headerOf(records[0], msgIDHeader), "edge-01:"))
			require.WithinDuration(t, time.Now(), records[0].Timestamp, time.Minute)
			require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
			require.Equal(t, bridge.Connected, g.forwarder.Status().State)
			require.EqualValues(t, 5000, g.forwarder.Status().Confirmed)
		})
	}
}

// TestFaults is the table of faults that made sarama's own producer lose,
// repeat or reorder records.
func TestFaults(t *testing.T) {
	produce := []kmsg.Key{kmsg.Produce}
	fault := func(err *kerr.Error, count int) func(*kfake.Cluster) {
		return func(c *kfake.Cluster) {
			c.Fault(kfake.Fault{Keys: produce, Topic: "t", Err: err, Count: count})
		}
	}
	for name, inject := range map[string]func(*kfake.Cluster){
		"not leader 5":                          fault(kerr.NotLeaderForPartition, 5),
		"not leader 20":                         fault(kerr.NotLeaderForPartition, 20),
		"timed out though written 5":            fault(kerr.RequestTimedOut, 5),
		"not enough replicas after append 5":    fault(kerr.NotEnoughReplicasAfterAppend, 5),
		"not enough replicas 5":                 fault(kerr.NotEnoughReplicas, 5),
		"storage error 3":                       fault(kerr.KafkaStorageError, 3),
		"out of order 1":                        fault(kerr.OutOfOrderSequenceNumber, 1),
		"unknown producer 1":                    fault(kerr.UnknownProducerID, 1),
		"invalid epoch 1":                       fault(kerr.InvalidProducerEpoch, 1),
		"policy violation 1":                    fault(kerr.PolicyViolation, 1),
		"connection closed instead of answer 1": closeInstead(1),
		"connection closed instead of answer 5": closeInstead(5),
	} {
		t.Run(name, func(t *testing.T) {
			k := servers.Kfake(t, kfake.NumBrokers(3))
			k.CreateTopic("t", 4)
			g := newRig(t, k.Addr, smallRounds)
			g.start()
			g.publish("t/a", 1000)
			inject(k.Fake)
			g.publish("t/a", 5000)
			g.awaitEmpty()
			requireExact(t, k.Consume("t"), 6000)
			require.Zero(t, g.queue.Stats().DeadLetters)
		})
	}
}

// TestFirstBatchTravelsAlone fails the very first batch. Apache Kafka takes any
// sequence number from a producer it does not know, so the second must not come
// before the first is in the log.
func TestFirstBatchTravelsAlone(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 1)
	g := newRig(t, k.Addr, smallRounds)
	g.publish("t/a", 3000)
	var mu sync.Mutex
	var sequences, counts []uint32
	k.Fake.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		mu.Lock()
		defer mu.Unlock()
		const firstSequence, records = 53, 57 // in a record batch
		batch := req.Topics[0].Partitions[0].Records
		sequences = append(sequences, binary.BigEndian.Uint32(batch[firstSequence:]))
		counts = append(counts, binary.BigEndian.Uint32(batch[records:]))
		if len(sequences) == 1 {
			return failed(req, kerr.NotEnoughReplicas), nil, true
		}
		return nil, nil, false
	})
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), 3000)
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, counts[0], counts[1], "the same batch again")
	require.Equal(t, []uint32{0, 0, counts[0]}, sequences[:3], "and nothing beside it")
}

// TestQueueDropsOldestAroundRoundsInDoubt fills a small queue while Kafka is
// away: what may have been sent stays as it is, and only what is counted is
// missing.
func TestQueueDropsOldestAroundRoundsInDoubt(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds, func(g *rig) { g.policy, g.maxBytes = queue.DropOldest, 1<<20 })
	g.start()
	g.publish("t/a", 2000)
	g.awaitEmpty()
	k.Fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, nil, true // no answer
	})
	g.publish("t/a", 2000)
	g.await(func() bool { return g.forwarder.Status().OldestUnconfirmed > 0 })
	k.Cut()
	for g.queue.Stats().Dropped[queue.DroppedOldest] < 5000 {
		g.publish("t/a", 1000)
	}
	k.Restore()
	g.awaitEmpty()
	lost, dup, disorder := compare(t, k.Consume("t"), g.published)
	require.EqualValues(t, g.queue.Stats().Dropped[queue.DroppedOldest], lost)
	require.Zero(t, dup)
	require.Zero(t, disorder)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

// closeInstead drops the connection instead of handling count produce requests.
func closeInstead(count int) func(*kfake.Cluster) {
	return func(c *kfake.Cluster) {
		for range count { // a control is used up by one request
			c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				return nil, errors.New("closed by the test"), true
			})
		}
	}
}

func TestLeadersMove(t *testing.T) {
	k := servers.Kfake(t, kfake.NumBrokers(3))
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds)
	g.start()
	for range 15 {
		g.publish("t/a", 500)
		k.Fake.ShufflePartitionLeaders()
	}
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

func TestUplinkCuts(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds)
	g.start()
	for cuts := 0; cuts < 6 || g.counter("gantry_kafka_resent_batches_total") == 0; cuts++ {
		require.Less(t, cuts, 200, "never was anything under way")
		confirmed := g.forwarder.Status().Confirmed
		g.publish("t/a", 1000)
		g.await(func() bool { return g.forwarder.Status().Confirmed > confirmed }) // it is back from the last cut
		g.publish("t/a", 1000)
		k.Cut()
		g.publish("t/a", 300)
		k.Restore()
	}
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

func TestDeadUplinkIsSeenWithoutTraffic(t *testing.T) {
	k := servers.Kfake(t)
	g := newRig(t, k.Addr, func(g *rig) { g.cfg.ProbeInterval = 20 * time.Millisecond })
	g.start()
	g.await(func() bool { return g.forwarder.Status().State == bridge.Connected })
	k.Cut()
	g.await(func() bool { return g.forwarder.Status().State == bridge.Retrying })
	k.Restore()
	g.await(func() bool { return g.forwarder.Status().State == bridge.Connected })
}

func TestKafkaAbsentAtBoot(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	k.Cut()
	g := newRig(t, k.Addr)
	g.start()
	g.publish("t/a", 100)
	g.await(func() bool { return g.forwarder.Status().State == bridge.Retrying })
	require.NotEmpty(t, g.forwarder.Status().LastError)
	k.Restore()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), 100)
}

// TestDroppedAtRandom lets sinks die at random moments, in the middle of what
// they are doing; the next one has only the journal and the queue.
func TestDroppedAtRandom(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	k.CreateTopic("u", 2)
	g := newRig(t, k.Addr, smallRounds)
	g.forward.StopTimeout = time.Nanosecond
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		g.start()
		for range 10 {
			g.publish("t/a", 200)
		}
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond) // a random moment
		g.stop()
	}
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

// disowner lets kfake act like a broker that was killed twice: it disowns all
// batches of its log, and knows the last number of a producer.
type disowner struct {
	fake     *kfake.Cluster
	mu       sync.Mutex         // covers the rest
	last     map[int32]lastSent // by partition
	on       bool
	disowned int
}

type lastSent struct {
	producer int64
	sequence int32
}

func (d *disowner) produce(kreq kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // kfake's order
	d.fake.KeepControl()
	req := kreq.(*kmsg.ProduceRequest)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range req.Topics[0].Partitions {
		const producer, firstSequence, records = 43, 53, 57 // in a record batch
		first := int32(binary.BigEndian.Uint32(p.Records[firstSequence:]))
		now := lastSent{int64(binary.BigEndian.Uint64(p.Records[producer:])), first + int32(binary.BigEndian.Uint32(p.Records[records:])) - 1}
		if was, known := d.last[p.Partition]; d.on && known && was.producer == now.producer && was.sequence >= first {
			d.disowned++
			return failed(req, kerr.OutOfOrderSequenceNumber), nil, true
		}
		d.last[p.Partition] = now
	}
	return nil, nil, false
}

func (d *disowner) describe(kreq kmsg.Request) (kmsg.Response, error, bool) { //nolint:revive // kfake's order
	d.fake.KeepControl()
	req := kreq.(*kmsg.DescribeProducersRequest)
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	topic, part := kmsg.NewDescribeProducersResponseTopic(), kmsg.NewDescribeProducersResponseTopicPartition()
	topic.Topic, part.Partition = req.Topics[0].Topic, req.Topics[0].Partitions[0]
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range []lastSent{{producer: 1 << 40, sequence: 1 << 30}, d.last[part.Partition]} {
		state := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		state.ProducerID, state.LastSequence = s.producer, s.sequence
		part.ActiveProducers = append(part.ActiveProducers, state)
	}
	topic.Partitions = append(topic.Partitions, part)
	resp.Topics = append(resp.Topics, topic)
	return resp, nil, true
}

// TestBrokerForgotTheBatches: batches that are in the log and disowned are found
// there, and not sent under new numbers.
func TestBrokerForgotTheBatches(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 1)
	d := &disowner{fake: k.Fake, last: map[int32]lastSent{}}
	k.Fake.ControlKey(int16(kmsg.Produce), d.produce)
	k.Fake.ControlKey(int16(kmsg.DescribeProducers), d.describe)
	g := newRig(t, k.Addr, smallRounds)
	g.forward.StopTimeout = time.Nanosecond
	for unseen := 0; unseen == 0; {
		g.publish("t/a", 4000)
		g.start()
		g.await(func() bool { return len(k.Consume("t")) > 0 })
		g.stop()
		unseen = len(k.Consume("t")) - (g.published - int(g.queue.Stats().Records))
	}
	d.mu.Lock()
	d.on = true
	d.mu.Unlock()
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	require.Positive(t, d.disowned)
}

func TestReached(t *testing.T) {
	const most = 1<<31 - 1
	for _, c := range []struct {
		last, seq int32
		want      bool
	}{
		{0, 0, true}, {9, 9, true}, {10, 9, true}, {9, 10, false}, {3, most - 3, true}, {most - 3, 3, false}, {most, most, true}, {0, most, true}, {most, 0, false},
	} {
		require.Equal(t, c.want, reached(c.last, c.seq), c)
	}
}

// TestDoubtOfMoreThanADay counts that a broker may have forgotten the producer
// of rounds that are sent again after a long time.
func TestDoubtOfMoreThanADay(t *testing.T) {
	resets := func(age time.Duration) float64 {
		k := servers.Kfake(t)
		k.CreateTopic("t", 1)
		g := newRig(t, k.Addr)
		j, err := openJournal(g.cfg.Dir)
		require.NoError(t, err)
		p := planAt(g.queue.Frontier())
		p.batches = []batchPlan{{place: place{topic: "t", partitions: 1}, first: 0, count: 10}}
		require.NoError(t, j.write(&p, 0))
		p.at -= int64(age / time.Second)
		require.NoError(t, j.store(&p))
		require.NoError(t, j.close())
		g.publish("t/a", 10)
		g.await(func() bool { return g.queue.Stats().Appended == 10 })
		g.start()
		g.awaitEmpty()
		requireExact(t, k.Consume("t"), 10)
		return g.counter("gantry_kafka_dedup_resets_total")
	}
	require.InDelta(t, resets(23*time.Hour)+1, resets(25*time.Hour), 0)
}

func TestTopicMissingThenCreated(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr)
	g.start()
	g.publish("t/a", 50)
	g.awaitEmpty()
	g.publish("late/a", 50)
	g.await(func() bool { return g.forwarder.Status().Retries > 2 })
	require.Contains(t, g.forwarder.Status().LastError, "topic late")
	k.CreateTopic("late", 2)
	g.awaitEmpty()
	require.Len(t, k.Consume("late"), 50)
	require.Len(t, k.Consume("t"), 50)
}

func TestManyTopics(t *testing.T) {
	k := servers.Kfake(t)
	for i := range 20 {
		k.CreateTopic(fmt.Sprintf("t%d", i), 3)
	}
	g := newRig(t, k.Addr, smallRounds)
	g.start()
	for i := range 4000 {
		g.put(fmt.Sprintf("t%d/x", i%20), fmt.Sprintf("c%d", i%7), fmt.Sprintf("%d", i/20))
	}
	g.awaitEmpty()
	for i := range 20 {
		requireExact(t, k.Consume(fmt.Sprintf("t%d", i)), 200)
	}
}

func TestTooLargeRecordGoesToTheDeadLetters(t *testing.T) {
	for _, compression := range []string{"none", "gzip"} { // known before it is sent, told by the broker
		t.Run(compression, func(t *testing.T) {
			k := servers.Kfake(t)
			k.CreateTopic("t", 4, "max.message.bytes=2000")
			g := newRig(t, k.Addr, smallRounds, func(g *rig) { g.cfg.Compression = compression })
			g.publish("t/a", 500)
			large := make([]byte, 30_000)
			for i := range large {
				large[i] = byte(rand.Uint32())
			}
			g.put("t/a", "c1", string(large))
			g.publish("t/a", 500)
			g.start()
			g.awaitEmpty()
			requireExact(t, k.Consume("t"), 1000)
			require.EqualValues(t, 1, g.queue.Stats().DeadLetters)
			require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
		})
	}
}

// TestLimitIsLowered lowers max.message.bytes below what the sink has learned.
func TestLimitIsLowered(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 1)
	g := newRig(t, k.Addr)
	g.publish("t/a", 10)
	g.start()
	g.awaitEmpty()
	limit := "5000"
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "max.message.bytes", &limit
	resource.Configs = append(resource.Configs, config)
	req.Resources = append(req.Resources, resource)
	resp := ask(t, k.Addr, req).(*kmsg.IncrementalAlterConfigsResponse)
	require.Zero(t, resp.Resources[0].ErrorCode)
	g.publish("t/a", 5000)
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.queue.Stats().DeadLetters, "smaller batches will do")
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

func TestIllegalTopicGoesToTheDeadLetters(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 1)
	g := newRig(t, k.Addr)
	g.start()
	g.put("/starts/empty", "c1", "x")
	g.publish("t/a", 10)
	g.put("../b", "c1", "x")
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), 10)
	require.EqualValues(t, 2, g.queue.Stats().DeadLetters)
}

// TestRejectedRecordIsFound lets the broker reject every batch that holds a
// certain record.
func TestRejectedRecordIsFound(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds)
	poison := []byte("|poison")
	rejectWith(k.Fake, poison)
	g.publish("t/a", 2345)
	bad := g.published
	g.put("t/a", "c1", fmt.Sprintf("%d|poison", bad))
	g.published++
	g.publish("t/a", 2000)
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published, bad)
	require.EqualValues(t, 1, g.queue.Stats().DeadLetters)
}

// TestDroppedDuringRepair lets sinks die while they look for rejected records.
func TestDroppedDuringRepair(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds)
	g.forward.StopTimeout = time.Nanosecond
	rejectWith(k.Fake, []byte("|poison"))
	var bad []int
	for range 20 {
		for range 2 {
			g.publish("t/a", 150)
			bad = append(bad, g.published)
			g.put("t/a", fmt.Sprintf("c%d", g.published%10), fmt.Sprintf("%d|poison", g.published))
			g.published++
		}
		g.start()
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond) // a random moment
		g.stop()
	}
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published, bad...)
	require.GreaterOrEqual(t, int(g.queue.Stats().DeadLetters), len(bad))
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
}

// rejectWith answers INVALID_RECORD to each batch that contains the bytes, as a
// broker does that validates records: the batch is not written.
func rejectWith(c *kfake.Cluster, poison []byte) {
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		bad := false
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				bad = bad || strings.Contains(string(p.Records), string(poison))
			}
		}
		if !bad {
			return nil, nil, false
		}
		return failed(req, kerr.InvalidRecord), nil, true
	})
}

// failed answers a request with the same error for each partition.
func failed(req *kmsg.ProduceRequest, err *kerr.Error) *kmsg.ProduceResponse {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, err.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestPartitionsAreAdded(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 2)
	g := newRig(t, k.Addr, smallRounds)
	g.start()
	g.publish("t/a", 1000)
	g.awaitEmpty()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = "t", 8
	req.Topics = append(req.Topics, rt)
	ask(t, k.Addr, req)
	deadline := time.Now().Add(20 * time.Second)
	for partitions := 0; partitions < 8; {
		g.publish("t/a", 200)
		g.awaitEmpty()
		seen := map[int32]bool{}
		for _, r := range k.Consume("t") {
			seen[r.Partition] = true
		}
		if partitions = len(seen); partitions > 5 {
			break // ten keys need not hit all eight
		}
		require.True(t, time.Now().Before(deadline), "only %d partitions are used", partitions)
	}
	seen := map[string]bool{}
	for _, r := range k.Consume("t") {
		require.False(t, seen[string(r.Value)], "twice")
		seen[string(r.Value)] = true
	}
	require.Len(t, seen, g.published)
}

func TestFrozenKafka(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, smallRounds, func(g *rig) {
		g.cfg.RequestTimeout, g.cfg.AckTimeout = 300*time.Millisecond, 200*time.Millisecond
	})
	g.start()
	g.publish("t/a", 1000)
	g.awaitEmpty()
	k.Fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		return nil, nil, true // no answer, ever
	})
	g.publish("t/a", 1000)
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.NotZero(t, g.forwarder.Status().Retries)
}
