package kafka

import (
	"errors"
	"fmt"
	"io"
)

// repair settles the partitions in open up to top, when everything else up to
// there is settled. It works with a new producer id, on one batch at a time, and
// halves a batch that is rejected until it has found the records that Kafka
// does not take; those go to the dead-letter file. The journal knows at every
// moment how far it has come.
func (x *run) repair(top uint64, open []openPartition) error {
	if err := x.newProducer(); err != nil {
		return err
	}
	for i := range open {
		if err := x.repairPartition(top, open[i:]); err != nil {
			return err
		}
	}
	x.outstanding, x.live = nil, nil
	x.confirm(top, 0, 0)
	return nil
}

// repairPartition settles open[0].
func (x *run) repairPartition(top uint64, open []openPartition) error {
	o := &open[0]
	most := x.cfg.RoundRecords
	for o.from < top {
		if x.stopping() {
			return errStopping
		}
		r, err := x.gather(*o, top, most)
		if err != nil {
			return err
		}
		if r.empty() {
			o.from = top
			return nil
		}
		r.plan.top, r.plan.open = top, append([]openPartition(nil), open...)
		x.outstanding = nil
		if err := x.launch(r); err != nil {
			return err
		}
		if err := x.awaitAnswers(); err != nil {
			return err
		}
		if most, err = x.afterRepair(r, o, most); err != nil {
			return err
		}
	}
	return nil
}

// afterRepair looks at the answer to a batch of a repair and returns how many
// records to try next.
func (x *run) afterRepair(r *round, o *openPartition, most int) (int, error) {
	t := &r.batches[0]
	switch {
	case t.answer == settled:
		o.from = r.plan.hi
		x.confirm(x.frontier, r.records, r.bytes)
		return min(2*most, x.cfg.RoundRecords), nil
	case t.answer != rejected:
		return 0, fmt.Errorf("repair topic %s, partition %d: %w", t.topic, t.partition, t.err)
	}
	t.part.next = t.first // no number was used
	if most > 1 {
		return max(1, int(t.count)/2), nil
	}
	o.from = r.plan.hi
	return x.cfg.RoundRecords, x.bury(t.err.Error()) // the only record is the last that was read
}

// gather makes a round of the next records of one partition, at most so many.
func (x *run) gather(o openPartition, top uint64, most int) (*round, error) {
	r := &round{}
	part := x.topics.named(o.topic).part(o.partition)
	i := r.begin(o.place, part)
	index := map[place]int{o.place: i}
	divided := map[string]int32{o.topic: o.partitions}
	x.slab.reset(x.cfg.RoundBytes)
	x.rewind(o.from)
	for r.records < most {
		err := x.peek()
		if errors.Is(err, io.EOF) || err == nil && x.seq >= top {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the queue: %w", err)
		}
		if _, ok := x.batchOf(index, divided); ok {
			size := x.slab.recordSize(x.seq, &x.record)
			if !r.empty() && r.size+size > x.cfg.BatchBytes {
				break
			}
			x.take(r, &r.batches[i], size)
		}
		x.have = false
	}
	return r, nil
}
