package kafka

import (
	"encoding/binary"
	"math"
)

// stickyBits: records without a key change partition after 2^9 places in the
// queue. Long stretches make large batches, and because the choice depends on
// nothing but the place, a round that is built again is the same.
const stickyBits = 9

// choosePartition gives the partition of a record as the default partitioner of
// Kafka's Java client does for the same key.
func choosePartition(key []byte, seq uint64, partitions int32) int32 {
	if len(key) == 0 {
		return int32((seq >> stickyBits) % uint64(partitions))
	}
	return int32(murmur2(key)&math.MaxInt32) % partitions
}

// murmur2 is the 32-bit hash of that partitioner: MurmurHash2 with its own seed.
func murmur2(b []byte) uint32 {
	const (
		seed = 0x9747b28c
		mul  = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * mul
		k = (k ^ k>>24) * mul
		h = h*mul ^ k
	}
	if len(b) > 0 {
		var tail uint32
		for i, c := range b {
			tail |= uint32(c) << (8 * i)
		}
		h = (h ^ tail) * mul
	}
	h = (h ^ h>>13) * mul
	return h ^ h>>15
}

// topicName makes a legal Kafka topic name of a rendered target: levels of an
// MQTT topic are joined by dots, and what Kafka does not allow becomes an
// underscore. Ok is false when nothing legal comes out.
func topicName(target []byte) (name string, ok bool) {
	b := make([]byte, len(target))
	for i, c := range target {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
			b[i] = c
		case c == '/':
			b[i] = '.'
		default:
			b[i] = '_'
		}
	}
	name = string(b)
	return name, name != "" && name != "." && name != ".." && len(name) <= maxTopicName
}

// maxTopicName is Kafka's limit in bytes.
const maxTopicName = 249
