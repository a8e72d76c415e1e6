package kafka

import "time"

// topic is a topic that this sink writes to.
type topic struct {
	name  string
	legal bool

	// From the brokers, valid for one connection.
	known      bool
	wanted     int32 // number of partitions
	maxMessage int   // bytes of a batch

	partitions int32 // by which records are divided at present

	parts []*partition // by number; grows with the number of partitions
}

// partition is what the present producer id has done in a partition.
type partition struct {
	next     int32     // next sequence number
	proven   time.Time // when the broker last took a batch, zero for never
	inFlight int       // batches under way
	batch    int       // index in the round that is being filled, -1 for none
}

// provenFor is how long after a batch the broker surely still knows the
// producer. Brokers forget after producer.id.expiration.ms, a day by default and
// hardly ever less than an hour.
const provenFor = 10 * time.Minute

// ready reports whether another batch may follow one that is under way. A broker
// that does not know the producer takes any sequence number, so that, when the
// first batch got lost, it would take the second without the first. Therefore
// the first travels alone.
func (p *partition) ready(now time.Time) bool {
	return p.inFlight == 0 || now.Sub(p.proven) < provenFor
}

// advance is the sequence number n records later; it wraps to 0 behind the
// largest int32, as brokers expect.
func advance(seq, n int32) int32 { return int32((uint32(seq) + uint32(n)) & (1<<31 - 1)) }

// topics are all topics by rendered target and by name.
type topics struct {
	byTarget map[string]*topic
	byName   map[string]*topic
}

// maxTopics bounds the memory for targets that are rendered from messages.
const maxTopics = 10_000

func newTopics() *topics {
	return &topics{byTarget: map[string]*topic{}, byName: map[string]*topic{}}
}

// of returns the topic for a rendered target.
func (ts *topics) of(target []byte) *topic {
	if t, ok := ts.byTarget[string(target)]; ok {
		return t
	}
	name, legal := topicName(target)
	t := ts.named(name)
	t.legal = legal
	if len(ts.byTarget) >= maxTopics {
		clear(ts.byTarget)
	}
	ts.byTarget[string(target)] = t
	return t
}

func (ts *topics) named(name string) *topic {
	t, ok := ts.byName[name]
	if !ok {
		t = &topic{name: name}
		ts.byName[name] = t
	}
	return t
}

// part returns partition number i.
func (t *topic) part(i int32) *partition {
	for int(i) >= len(t.parts) {
		t.parts = append(t.parts, &partition{batch: -1})
	}
	return t.parts[i]
}

// forgetProducer is for a new producer id: all sequences begin at 0.
func (ts *topics) forgetProducer() {
	for _, t := range ts.byName {
		t.parts = nil
	}
}

// forgetConnection is for a new connection: the brokers are asked again.
func (ts *topics) forgetConnection() {
	for _, t := range ts.byName {
		t.known = false
		for _, p := range t.parts {
			p.inFlight, p.batch = 0, -1
		}
	}
}
