package servers

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produce writes each value with a key and a header of its own to one partition.
func produce(t *testing.T, cl *kgo.Client, topic string, partition int32, values ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, v := range values {
		record := &kgo.Record{
			Topic: topic, Partition: partition, Key: []byte("key of " + v), Value: []byte(v),
			Headers: []kgo.RecordHeader{{Key: "header", Value: []byte("header of " + v)}},
		}
		require.NoError(t, cl.ProduceSync(ctx, record).FirstErr())
	}
}

func producer(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := newClient(addr, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// requireRecords checks all that Consume promises about records of produce.
func requireRecords(t *testing.T, got []*kgo.Record, want ...[]string) {
	t.Helper()
	for partition, values := range want {
		for offset, v := range values {
			require.NotEmpty(t, got, "record %d of partition %d", offset, partition)
			r := got[0]
			require.EqualValues(t, partition, r.Partition)
			require.EqualValues(t, offset, r.Offset)
			require.Equal(t, v, string(r.Value))
			require.Equal(t, "key of "+v, string(r.Key))
			require.Equal(t, []kgo.RecordHeader{{Key: "header", Value: []byte("header of " + v)}}, r.Headers)
			got = got[1:]
		}
	}
	require.Empty(t, got)
}

func TestKfakeKeepsItsRecordsThroughACut(t *testing.T) {
	k := Kfake(t)
	k.CreateTopic("readings", 2)
	cl := producer(t, k.Addr)
	produce(t, cl, "readings", 1, "a", "b")
	open, err := net.Dial("tcp", k.Addr)
	require.NoError(t, err)
	defer func() { _ = open.Close() }()

	k.Cut()
	require.NoError(t, open.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = io.ReadAll(open)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the open connection has to be dropped")
	_, err = net.Dial("tcp", k.Addr)
	require.Error(t, err)

	k.Restore()
	produce(t, cl, "readings", 0, "c")
	produce(t, cl, "readings", 1, "d")
	requireRecords(t, k.Consume("readings"), []string{"c"}, []string{"a", "b", "d"})
	requireRecords(t, k.ConsumeAtLeast("readings", 4), []string{"c"}, []string{"a", "b", "d"})
}

func TestConsumeAtLeastWaits(t *testing.T) {
	k := Kfake(t)
	k.CreateTopic("readings", 1)
	require.Empty(t, k.Consume("readings"))
	cl := producer(t, k.Addr)
	asked := k.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Observe: true})
	produced := make(chan error, 1)
	go func() { // only once the topic has been seen empty
		if err := asked.Wait(t.Context(), 1); err != nil {
			produced <- err
			return
		}
		produced <- cl.ProduceSync(t.Context(), &kgo.Record{Topic: "readings", Value: []byte("a")}).FirstErr()
	}()
	records := k.ConsumeAtLeast("readings", 1)
	require.NoError(t, <-produced)
	require.Len(t, records, 1)
	require.Equal(t, "a", string(records[0].Value))
}

func TestCutAndRestoreTwice(t *testing.T) {
	k := Kfake(t, kfake.NumBrokers(3), kfake.SeedTopics(6, "readings"))
	for range 2 {
		k.Cut()
		k.Cut()
		for _, addr := range k.Fake.ListenAddrs() {
			_, err := net.Dial("tcp", addr)
			require.Error(t, err)
		}
		k.Restore()
		k.Restore()
		require.Empty(t, k.Consume("readings"))
	}
}
