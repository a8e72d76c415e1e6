package kafka

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"gantry/bridge"
)

// batchOverhead is the size of an empty record batch (header of message format
// 2), by which Kafka judges max.message.bytes.
const batchOverhead = 61

// round is a stretch of the queue that is being filled or under way.
type round struct {
	plan    plan
	batches []batch
	open    int // batches that are not settled
	records int
	bytes   int // of the values
	size    int // of all batches, before compression
	names   int // bytes that the topics and batches take in a plan, at most
}

// batch is the part of a round for one partition. Its records live in the slab
// until the request is encoded; later only the numbers are needed.
type batch struct {
	place
	part    *partition
	first   int32
	records []*sarama.Record
	count   int32
	size    int
	minTime int64
	maxTime int64
	answer  verdict
	err     error // of the last answer
}

func (r *round) empty() bool { return r.records == 0 }

// slab holds the records of the round that is being filled. Sarama encodes a
// request before AsyncProduce returns, so one slab serves all rounds.
type slab struct {
	records []sarama.Record
	headers []sarama.RecordHeader
	refs    []*sarama.RecordHeader
	bytes   []byte
	idText  []byte // value of the gw-msg-id header up to the sequence number
	prefix  int
}

// msgIDHeader names the header that tells apart any two records of all gateways:
// node:journal:sequence number. It stays the same when a record is sent again,
// and when an operator replays it.
const msgIDHeader = "gw-msg-id"

func newSlab(node, journal string) *slab {
	prefix := append([]byte(node), ':')
	prefix = append(append(prefix, journal...), ':')
	return &slab{idText: prefix, prefix: len(prefix)}
}

// reset forgets all records and keeps the memory, unless it is far more than a
// round needs.
func (s *slab) reset(limit int) {
	clear(s.records)
	s.records, s.headers, s.refs = s.records[:0], s.headers[:0], s.refs[:0]
	if s.bytes = s.bytes[:0]; cap(s.bytes) > 4*limit {
		s.bytes = nil
	}
}

// copy returns the bytes in memory of the slab, never nil: Kafka tells an empty
// value from none.
func (s *slab) copy(b []byte) []byte {
	if len(b) == 0 {
		return []byte{}
	}
	start := len(s.bytes)
	s.bytes = append(s.bytes, b...)
	return s.bytes[start:len(s.bytes):len(s.bytes)]
}

// id renders the gw-msg-id of the record at seq, valid until the next call.
func (s *slab) id(seq uint64) []byte {
	s.idText = strconv.AppendUint(s.idText[:s.prefix], seq, 10)
	return s.idText
}

// add makes a sarama record of rec; the delta of its time is filled in later.
func (s *slab) add(seq uint64, rec *bridge.Record) *sarama.Record {
	if len(s.records) == cap(s.records) {
		s.records = make([]sarama.Record, 0, max(256, 2*cap(s.records))) // the old array lives on in the batches
	}
	s.records = append(s.records, sarama.Record{TimestampDelta: time.Duration(rec.Time), Value: s.copy(rec.Value)})
	r := &s.records[len(s.records)-1]
	if len(rec.Key) > 0 {
		r.Key = s.copy(rec.Key)
	}
	first := len(s.refs)
	s.header([]byte(msgIDHeader), s.id(seq))
	for i := range rec.Headers {
		s.header(rec.Headers[i].Name, rec.Headers[i].Value)
	}
	r.Headers = s.refs[first:len(s.refs):len(s.refs)]
	return r
}

func (s *slab) header(name, value []byte) {
	if len(s.headers) == cap(s.headers) {
		s.headers = make([]sarama.RecordHeader, 0, max(512, 2*cap(s.headers)))
	}
	s.headers = append(s.headers, sarama.RecordHeader{Key: s.copy(name), Value: s.copy(value)})
	s.refs = append(s.refs, &s.headers[len(s.headers)-1])
}

// recordSize is what the record at seq adds to a batch before compression, at
// most: only the deltas of offset and time depend on its place in the batch,
// and are counted with their largest size.
func (s *slab) recordSize(seq uint64, rec *bridge.Record) int {
	size := 1 + binary.MaxVarintLen32 + binary.MaxVarintLen64 + fieldSize(len(rec.Key)) + fieldSize(len(rec.Value))
	size += varintSize(1+len(rec.Headers)) + fieldSize(len(msgIDHeader)) + fieldSize(len(s.id(seq)))
	for i := range rec.Headers {
		size += fieldSize(len(rec.Headers[i].Name)) + fieldSize(len(rec.Headers[i].Value))
	}
	return varintSize(size) + size
}

func fieldSize(n int) int { return varintSize(n) + n }

// varintSize is the length of a zigzag varint of n ≥ 0.
func varintSize(n int) int { return (bits.Len64(uint64(n)<<1|1) + 6) / 7 }

// put adds the record to the batch.
func (t *batch) put(r *sarama.Record, at int64, size int) {
	if t.count == 0 {
		t.minTime, t.maxTime = at, at
	}
	t.minTime, t.maxTime = min(t.minTime, at), max(t.maxTime, at)
	r.OffsetDelta = int64(t.count)
	t.records = append(t.records, r)
	t.count++
	t.size += size
}

// encode makes what sarama sends. It is the same for the same records and plan.
func (t *batch) encode(p *plan, codec sarama.CompressionCodec) *sarama.RecordBatch {
	for _, r := range t.records {
		r.TimestampDelta = (r.TimestampDelta - time.Duration(t.minTime)) * time.Millisecond
	}
	return &sarama.RecordBatch{
		Version: 2, Codec: codec, CompressionLevel: sarama.CompressionLevelDefault,
		FirstTimestamp: time.UnixMilli(t.minTime), MaxTimestamp: time.UnixMilli(t.maxTime),
		LastOffsetDelta: t.count - 1, Records: t.records,
		ProducerID: p.producer, ProducerEpoch: p.epoch, FirstSequence: t.first,
	}
}
