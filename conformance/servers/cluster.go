package servers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// askWithin bounds every question put to a Kafka cluster.
const askWithin = 60 * time.Second

// Cluster asks a Kafka cluster, real or not, what a test wants to know. It uses
// a client library other than the bridge's own. Its methods end the test on an
// error, so they belong to the goroutine that runs it.
type Cluster struct {
	// Addr is the bootstrap address, host:port, without TLS and SASL.
	Addr string

	t testing.TB
}

// CreateTopic makes a topic of one replica and waits until each of its
// partitions has a leader. Configs are topic settings as "name=value", such as
// "max.message.bytes=2000".
func (c *Cluster) CreateTopic(name string, partitions int32, configs ...string) {
	c.t.Helper()
	ctx, cl, done := c.client()
	defer done()
	if err := createTopic(ctx, cl, name, partitions, configs); err != nil {
		c.t.Fatalf("create topic %s: %v", name, err)
	}
}

// Consume returns every record that the topic holds at the moment of the call,
// by partition and then by offset. Records of open and aborted transactions are
// among them; control records are not.
func (c *Cluster) Consume(topic string) []*kgo.Record {
	c.t.Helper()
	ctx, cl, done := c.client()
	defer done()
	held, err := topicOffsets(ctx, cl, topic)
	if err != nil {
		c.t.Fatalf("ask for the offsets of topic %s: %v", topic, err)
	}
	return c.read(ctx, topic, held)
}

// ConsumeAtLeast is Consume that first waits, for up to a minute, until the
// topic holds n records or more.
func (c *Cluster) ConsumeAtLeast(topic string, n int) []*kgo.Record {
	c.t.Helper()
	ctx, cl, done := c.client()
	defer done()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var held offsets
	for {
		var err error
		if held, err = topicOffsets(ctx, cl, topic); err == nil && held.records() >= int64(n) {
			return c.read(ctx, topic, held)
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("wait for %d records in topic %s: it holds %d: %v", n, topic, held.records(), err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) client() (context.Context, *kgo.Client, func()) {
	c.t.Helper()
	cl, err := newClient(c.Addr)
	if err != nil {
		c.t.Fatalf("make a Kafka client: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	return ctx, cl, func() { cancel(); cl.Close() }
}

func newClient(addr string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addr),
		kgo.DialTimeout(time.Second),
		kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.FetchMaxWait(100 * time.Millisecond),
	}, opts...)...)
}

func createTopic(ctx context.Context, cl *kgo.Client, name string, partitions int32, configs []string) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	for _, line := range configs {
		key, value, err := cutSetting(line)
		if err != nil {
			return err
		}
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, &value
		topic.Configs = append(topic.Configs, config)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(askWithin.Milliseconds())
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	return awaitLeaders(ctx, cl, name)
}

// cutSetting splits "name=value".
func cutSetting(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, "=")
	if !ok {
		return "", "", fmt.Errorf("setting %q is not name=value", line)
	}
	return name, value, nil
}

func awaitLeaders(ctx context.Context, cl *kgo.Client, topic string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := topicOffsets(ctx, cl, topic)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// span is the range of offsets that a partition holds: first inclusive, end not.
type span struct{ first, end int64 }

// offsets is the span of each partition of a topic.
type offsets map[int32]span

func (o offsets) records() (n int64) {
	for _, s := range o {
		n += s.end - s.first
	}
	return n
}

func topicOffsets(ctx context.Context, cl *kgo.Client, topic string) (offsets, error) {
	partitions, err := partitionsOf(ctx, cl, topic)
	if err != nil {
		return nil, err
	}
	const earliest, latest = -2, -1
	first, err := listOffsets(ctx, cl, topic, partitions, earliest)
	if err != nil {
		return nil, err
	}
	end, err := listOffsets(ctx, cl, topic, partitions, latest)
	if err != nil {
		return nil, err
	}
	held := offsets{}
	for _, p := range partitions {
		held[p] = span{first: first[p], end: end[p]}
	}
	return held, nil
}

func partitionsOf(ctx context.Context, cl *kgo.Client, topic string) ([]int32, error) {
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = new(topic)
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	var partitions []int32
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, err
			}
			partitions = append(partitions, p.Partition)
		}
	}
	if len(partitions) == 0 {
		return nil, errors.New("it has no partitions")
	}
	return partitions, nil
}

func listOffsets(ctx context.Context, cl *kgo.Client, topic string, partitions []int32, at int64) (map[int32]int64, error) {
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	for _, p := range partitions {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = p, at
		asked.Partitions = append(asked.Partitions, part)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	req.Topics = append(req.Topics, asked)
	found := map[int32]int64{}
	for _, shard := range cl.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, err
				}
				found[p.Partition] = p.Offset
			}
		}
	}
	return found, nil
}

// read consumes the topic up to the ends in held.
func (c *Cluster) read(ctx context.Context, topic string, held offsets) []*kgo.Record {
	c.t.Helper()
	starts, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, s := range held {
		if s.end > s.first {
			starts[p], left[p] = kgo.NewOffset().At(s.first), s.end
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := newClient(c.Addr, kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}))
	if err != nil {
		c.t.Fatalf("make a Kafka consumer: %v", err)
	}
	defer cl.Close()
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			c.t.Fatalf("consume topic %s, %d partitions unfinished: %v", topic, len(left), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < held[r.Partition].end && !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if r.Offset+1 >= held[r.Partition].end {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortFunc(records, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return records
}
