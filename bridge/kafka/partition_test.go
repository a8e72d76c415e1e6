package kafka

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"github.com/stretchr/testify/require"
)

// TestMurmur2 has the values of Kafka's own test for its Java client.
func TestMurmur2(t *testing.T) {
	for text, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		require.Equal(t, want, int32(murmur2([]byte(text))), text)
	}
}

func TestChoosePartition(t *testing.T) {
	partitioner := sarama.NewMurmur2Partitioner("t")
	for i := range 1000 {
		key := strings.Repeat("k", i%9) + fmt.Sprint(i)
		want, err := partitioner.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, 7)
		require.NoError(t, err)
		require.Equal(t, want, choosePartition([]byte(key), 1, 7), key)
	}
	require.Equal(t, choosePartition(nil, 0, 3), choosePartition(nil, 511, 3), "a long stretch")
	used := map[int32]bool{}
	for seq := range uint64(3 << stickyBits) {
		used[choosePartition(nil, seq, 3)] = true
	}
	require.Len(t, used, 3)
}

func TestTopicName(t *testing.T) {
	for target, want := range map[string]string{
		"plant/line 3/temp": "plant.line_3.temp", "a.b-c_D9": "a.b-c_D9", "größe": "gr____e", "/x": ".x",
	} {
		name, ok := topicName([]byte(target))
		require.True(t, ok, target)
		require.Equal(t, want, name)
	}
	for _, target := range []string{"", ".", "/", "..", strings.Repeat("x", 250)} {
		_, ok := topicName([]byte(target))
		require.False(t, ok, target)
	}
}

func TestSequenceWraps(t *testing.T) {
	require.EqualValues(t, 7, advance(3, 4))
	require.EqualValues(t, 0, advance(math.MaxInt32, 1))
	require.EqualValues(t, 9, advance(math.MaxInt32-10, 20))
}
