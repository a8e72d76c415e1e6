package kafka

import (
	"encoding/binary"
	"errors"
)

// plan is what has to be known of a round to send exactly the same batches
// again.
type plan struct {
	gen    uint64 // of this plan, from 1
	oldest uint64 // of the oldest round that was under way beside it
	at     int64  // when it was made, Unix seconds

	producer int64
	epoch    int16

	// Everything below frontier is settled, and everything from frontier to top
	// except what open lists. Top is frontier in normal work, and open is empty.
	frontier, top uint64
	open          []openPartition

	// The round takes the records from lo to below hi that belong to one of the
	// batches.
	lo, hi  uint64
	batches []batchPlan
}

// batchPlan is one batch of a round.
type batchPlan struct {
	place
	first int32 // sequence number of its first record
	count int32
}

// place is a partition, with the number of partitions its topic had when the
// records were assigned.
type place struct {
	topic      string
	partitions int32
	partition  int32
}

// openPartition is a partition of which the records from a place in the queue
// on are not settled.
type openPartition struct {
	place
	from uint64
}

// repair says that the round belongs to the repair of open partitions.
func (p *plan) repair() bool { return p.top > p.frontier }

// end is the first record behind the plan.
func (p *plan) end() uint64 { return max(p.hi, p.top) }

// Stored form: | gen | oldest | at | producer | epoch | frontier | top-frontier | lo | hi-lo |
// n × topic s | n × open | n × batch |, all numbers and counts unsigned varints.
// Topics are named once and referred to by index.

func (p *plan) append(b []byte) []byte {
	for _, v := range [...]uint64{
		p.gen, p.oldest, uint64(p.at), uint64(p.producer), uint64(uint16(p.epoch)),
		p.frontier, p.top - p.frontier, p.lo, p.hi - p.lo,
	} {
		b = binary.AppendUvarint(b, v)
	}
	names, index := p.topics()
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.open)))
	for _, o := range p.open {
		b = o.append(b, index)
		b = binary.AppendUvarint(b, o.from)
	}
	b = binary.AppendUvarint(b, uint64(len(p.batches)))
	for _, t := range p.batches {
		b = t.append(b, index)
		b = binary.AppendUvarint(b, uint64(uint32(t.first)))
		b = binary.AppendUvarint(b, uint64(uint32(t.count)))
	}
	return b
}

func (p *plan) topics() (names []string, index map[string]int) {
	index = map[string]int{}
	add := func(name string) {
		if _, ok := index[name]; !ok {
			index[name] = len(names)
			names = append(names, name)
		}
	}
	for _, o := range p.open {
		add(o.topic)
	}
	for _, t := range p.batches {
		add(t.topic)
	}
	return names, index
}

func (p place) append(b []byte, index map[string]int) []byte {
	b = binary.AppendUvarint(b, uint64(index[p.topic]))
	b = binary.AppendUvarint(b, uint64(uint32(p.partitions)))
	return binary.AppendUvarint(b, uint64(uint32(p.partition)))
}

var errPlan = errors.New("malformed plan")

// decode reads what append wrote. Any bytes are legal input.
func (p *plan) decode(b []byte) error {
	r := planReader{b: b}
	*p = plan{gen: r.num(), oldest: r.num(), at: int64(r.num()), producer: int64(r.num()), epoch: int16(r.num()), frontier: r.num()}
	p.top = p.frontier + r.num()
	p.lo = r.num()
	p.hi = p.lo + r.num()
	names := make([]string, r.count())
	for i := range names {
		names[i] = r.text()
	}
	for n := r.count(); n > 0; n-- {
		p.open = append(p.open, openPartition{place: r.place(names), from: r.num()})
	}
	for n := r.count(); n > 0; n-- {
		p.batches = append(p.batches, batchPlan{place: r.place(names), first: int32(r.num()), count: int32(r.num())})
	}
	if r.bad || len(r.b) > 0 || p.gen == 0 || p.oldest > p.gen || p.gen-p.oldest >= slotCount || p.hi < p.lo || p.top < p.frontier {
		return errPlan
	}
	return nil
}

type planReader struct {
	b   []byte
	bad bool
}

func (r *planReader) num() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count of things that take a byte each at least.
func (r *planReader) count() uint64 {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return n
}

func (r *planReader) text() string {
	n := r.count()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *planReader) place(names []string) place {
	i := r.num()
	p := place{partitions: int32(r.num()), partition: int32(r.num())}
	if i >= uint64(len(names)) || p.partitions <= 0 || p.partition < 0 || p.partition >= p.partitions {
		r.b, r.bad = nil, true
		return place{}
	}
	p.topic = names[i]
	return p
}
