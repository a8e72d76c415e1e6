package kafka

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// forgetAfter is Kafka's default for producer.id.expiration.ms. A broker that has
// forgotten the producer takes a repeated batch as a new one and does not tell.
const forgetAfter = 24 * time.Hour

// resolve sends again what an earlier run, perhaps of an earlier process, may
// have sent: the same batches with the same numbers, one round at a time. When
// it returns nil, everything below the frontier is settled and nothing is under
// way.
func (x *run) resolve() error {
	if n := len(x.live); n > 0 {
		x.confirm(x.live[n-1].frontier, 0, 0)
	}
	for len(x.live) > 0 && x.live[0].end() <= x.frontier {
		x.live = x.live[1:]
	}
	if len(x.live) == 0 {
		return nil
	}
	top := x.frontier
	var open []openPartition
	records, bytes := 0, 0
	age := time.Since(time.Unix(x.live[0].at, 0))
	for i := range x.live {
		p := &x.live[i]
		r, err := x.rebuild(p)
		if errors.Is(err, errChanged) {
			x.resetDedup(fmt.Sprintf("records %d to %d are not in the queue as they were sent", p.lo, p.hi-1))
			x.producer = -1
			if p.repair() {
				top, open = p.top, p.open
			}
			break
		}
		if err != nil {
			return err
		}
		more, err := x.repeat(r, open)
		if err != nil {
			return err
		}
		open = more
		top = p.end()
		if r.open == 0 {
			records, bytes = records+r.records, bytes+r.bytes
		}
	}
	if age > forgetAfter {
		x.resetDedup(fmt.Sprintf("they were in doubt for %s, and brokers forget a producer after a day", age.Round(time.Minute)))
	}
	if len(open) == 0 {
		x.live = nil
		x.confirm(top, records, bytes)
		return nil
	}
	return x.repair(top, open)
}

// repeat sends a rebuilt round, without the partitions that are open already,
// and returns all that are open then.
func (x *run) repeat(r *round, open []openPartition) ([]openPartition, error) {
	if x.stopping() {
		return nil, errStopping
	}
	if r.plan.repair() {
		open = r.plan.open
	} else {
		r.without(open)
	}
	x.metrics.resent.Add(float64(len(r.batches)))
	x.dispatch(r)
	if err := x.awaitAnswers(); err != nil {
		return nil, err
	}
	x.findHeld(r)
	for i := range r.batches {
		t := &r.batches[i]
		switch {
		case t.answer == unknown:
			return nil, fmt.Errorf("send again to topic %s, partition %d: %w", t.topic, t.partition, t.err)
		case t.answer != settled && !r.plan.repair():
			x.complain(t)
			open = append(open, openPartition{place: t.place, from: r.plan.lo})
		case t.answer == settled && r.plan.repair():
			open[0].from = r.plan.hi
		}
	}
	return open, nil
}

// without drops the batches for partitions that are open: what comes before
// them is missing.
func (r *round) without(open []openPartition) {
	kept := r.batches[:0]
	for _, t := range r.batches {
		missing := false
		for _, o := range open {
			missing = missing || o.place == t.place
		}
		if !missing {
			kept = append(kept, t)
		}
	}
	r.batches = kept
}

// errChanged says that a round cannot be built again as it was.
var errChanged = errors.New("the queue has changed")

// rebuild makes the round of a plan from the queue.
func (x *run) rebuild(p *plan) (*round, error) {
	r := &round{plan: *p}
	index := map[place]int{}
	divided := map[string]int32{} // topic → partitions
	for _, t := range p.batches {
		index[t.place] = len(r.batches)
		divided[t.topic] = t.partitions
		part := x.topics.named(t.topic).part(t.partition)
		r.batches = append(r.batches, batch{place: t.place, part: part, first: t.first, size: batchOverhead, answer: unknown})
	}
	x.slab.reset(x.cfg.RoundBytes)
	x.rewind(p.lo)
	for {
		err := x.peek()
		if errors.Is(err, io.EOF) || err == nil && x.seq >= p.hi {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the queue: %w", err)
		}
		i, ok := x.batchOf(index, divided)
		switch {
		case ok:
			x.take(r, &r.batches[i], x.slab.recordSize(x.seq, &x.record))
		case !p.repair():
			return nil, errChanged
		}
		x.have = false
	}
	for i := range r.batches {
		if r.batches[i].count != p.batches[i].count {
			return nil, errChanged
		}
	}
	r.plan.lo, r.plan.hi = p.lo, p.hi
	return r, nil
}

// batchOf finds the batch of the record at the head.
func (x *run) batchOf(index map[place]int, divided map[string]int32) (int, bool) {
	if _, buried := x.buried[x.seq]; buried || x.flaw != nil {
		return 0, false
	}
	name := x.topics.of(x.record.Topic).name
	n, ok := divided[name]
	if !ok {
		return 0, false
	}
	i, ok := index[place{topic: name, partitions: n, partition: choosePartition(x.record.Key, x.seq, n)}]
	return i, ok
}
