package kafka

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/IBM/sarama"
)

// pause says why filling a round came to an end.
type pause uint8

const (
	goOn    pause = iota
	drained       // the queue has no more
	full          // the round is complete
	held          // the next record has to wait for rounds under way
	blocked       // the next record's topic cannot be written to; run.blocked says why
)

// planBudget is how many bytes the topics and batches of a round may take in a
// plan. The plan of a repair lists the partitions of up to maxRounds rounds.
const planBudget = (slotBytes - 1024) / (maxRounds + 1)

// planCost of a batch, at most: three varints of an int32 and an index, or
// with a place in the queue.
const planCost = 32

// fill moves records from the feed into the round until something ends it.
func (x *run) fill(r *round) (pause, error) {
	for {
		if err := x.peek(); err != nil {
			if errors.Is(err, io.EOF) {
				return drained, nil
			}
			return goOn, fmt.Errorf("read the queue: %w", err)
		}
		if reason := x.unsendable(); reason != "" {
			if !r.empty() {
				return full, nil // the rounds before it come first
			}
			x.skipped = x.seq + 1
			if err := x.bury(reason); err != nil {
				return goOn, err
			}
			continue
		}
		if why := x.place(r); why != goOn {
			return why, nil
		}
	}
}

// unsendable says why the record at the head can never be sent, if that is known
// without asking.
func (x *run) unsendable() string {
	if x.flaw != nil {
		return x.flaw.Error()
	}
	if t := x.topics.of(x.record.Topic); !t.legal {
		return fmt.Sprintf("%.300q is no topic name for Kafka", x.record.Topic)
	}
	return ""
}

// place puts the record at the head into the round, if it may go there.
func (x *run) place(r *round) pause {
	t := x.topics.of(x.record.Topic)
	if why := x.know(t, r); why != goOn {
		return why
	}
	size := x.slab.recordSize(x.seq, &x.record)
	if x.codec == sarama.CompressionNone && batchOverhead+size > t.maxMessage {
		x.flaw = fmt.Errorf("record of %d bytes, topic %s takes batches of %d", size, t.name, t.maxMessage)
		return goOn // to be buried
	}
	number := choosePartition(x.record.Key, x.seq, t.partitions)
	p := t.part(number)
	if p.batch < 0 {
		if !p.ready(time.Now()) {
			return held
		}
		if cost := len(t.name) + planCost; r.names+cost > planBudget {
			return full
		}
	} else if r.batches[p.batch].size+size > min(x.cfg.BatchBytes, t.maxMessage) {
		return full
	}
	if r.records >= x.cfg.RoundRecords || !r.empty() && r.size+size > x.cfg.RoundBytes {
		return full
	}
	if p.batch < 0 {
		p.batch = r.begin(place{topic: t.name, partitions: t.partitions, partition: number}, p)
	}
	x.take(r, &r.batches[p.batch], size)
	return goOn
}

// begin adds a batch and returns its index.
func (r *round) begin(at place, p *partition) int {
	r.names += len(at.topic) + planCost
	r.size += batchOverhead
	r.batches = append(r.batches, batch{place: at, part: p, first: p.next, size: batchOverhead, answer: unknown})
	return len(r.batches) - 1
}

// take moves the record at the head into the batch.
func (x *run) take(r *round, t *batch, size int) {
	if r.empty() {
		r.plan.lo = x.seq
	}
	t.put(x.slab.add(x.seq, &x.record), x.record.Time, size)
	r.plan.hi = x.seq + 1
	r.records++
	r.bytes += len(x.record.Value)
	r.size += size
	x.have = false
}

// know makes sure that partitions and limits of the topic are known and may be
// used in the round.
func (x *run) know(t *topic, r *round) pause {
	if t.known && t.partitions == t.wanted {
		return goOn
	}
	if !t.known {
		n, err := x.conn.partitions(t.name)
		if err != nil {
			x.blocked = err
			return blocked
		}
		t.known, t.wanted, t.maxMessage = true, n, x.conn.maxMessageBytes(t.name)
	}
	if t.partitions == t.wanted {
		return goOn
	}
	// Rounds under way were divided by the old number and have to end first, so
	// that one stretch of the queue is never divided in two ways.
	if !r.empty() {
		return full
	}
	if len(x.outstanding) > 0 {
		return held
	}
	t.partitions = t.wanted
	return goOn
}
