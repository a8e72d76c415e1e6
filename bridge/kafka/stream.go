package kafka

import (
	"fmt"
	"time"
)

// stream sends new records until a broker rejects some of them: open tells which
// partitions have to be repaired, up to top. It returns errStopping when it was
// asked to stop and everything is settled.
func (x *run) stream() (open []openPartition, top uint64, err error) {
	x.trouble, x.blocked = false, nil
	x.skipped = x.frontier
	x.rewind(x.frontier)
	defer x.slab.reset(x.cfg.RoundBytes)
	r := &round{}
	linger := time.NewTimer(0)
	defer linger.Stop()
	probe := time.NewTicker(x.cfg.ProbeInterval)
	defer probe.Stop()
	for {
		ready := x.feed.Ready()
		why, err := x.sendRounds(&r, linger)
		if err != nil {
			return nil, 0, err
		}
		x.settle(r)
		if len(x.outstanding) == 0 {
			if x.stopping() {
				return nil, 0, x.finish()
			}
			if why == blocked {
				return nil, 0, x.blocked
			}
			if err := x.trim(r); err != nil {
				return nil, 0, err
			}
		}
		if err := x.await(why, ready, linger, probe.C); err != nil {
			return nil, 0, err
		}
		x.takeAnswers()
		x.settle(r)
		if x.trouble && x.pending == 0 {
			open, err := x.assess()
			return open, x.outstanding[len(x.outstanding)-1].plan.hi, err
		}
	}
}

// sendRounds fills and sends rounds while it may, and says why it ended. The
// round that is being filled stays in *r.
func (x *run) sendRounds(r **round, linger *time.Timer) (pause, error) {
	if x.trouble || x.stopping() {
		return held, nil
	}
	for len(x.outstanding) < maxRounds {
		why, err := x.fill(*r)
		if err != nil {
			return why, err
		}
		if (*r).empty() {
			return why, nil
		}
		if rest := x.cfg.Linger - time.Since(x.lastSend); why == drained && rest > 0 {
			linger.Reset(rest)
			return drained, nil
		}
		if err := x.launch(*r); err != nil {
			return why, err
		}
		x.metrics.rounds.Inc()
		x.lastSend = time.Now()
		*r = &round{}
		x.refresh()
		if why == blocked || why == held {
			return why, nil
		}
	}
	return held, nil
}

// refresh looks whether the topics of the newest round have more partitions now.
// The client keeps the number up to date by itself.
func (x *run) refresh() {
	for i := range x.outstanding[len(x.outstanding)-1].batches {
		t := x.topics.named(x.outstanding[len(x.outstanding)-1].batches[i].topic)
		if n, err := x.conn.partitions(t.name); err == nil {
			t.wanted = n
		}
	}
}

// await waits until there is something to do.
func (x *run) await(why pause, ready <-chan struct{}, linger *time.Timer, probe <-chan time.Time) error {
	var timer <-chan time.Time
	stopping := x.feed.Stopping()
	if x.stopping() {
		stopping = nil // known, now it is the answers that count
	}
	if why == drained {
		timer = linger.C
	} else {
		ready = nil
	}
	if len(x.outstanding) > 0 {
		probe = nil // the answers are signs of life
	}
	select {
	case <-x.inbox.nudge:
	case <-ready:
	case <-timer:
	case <-stopping:
	case <-probe:
		if _, err := x.conn.RefreshController(); err != nil {
			return fmt.Errorf("ask for a sign of life: %w", err)
		}
	case <-x.ctx.Done():
		return x.ctx.Err()
	}
	return nil
}

// settle confirms the rounds at the front that are done. Filling is the round
// that is not sent yet.
func (x *run) settle(filling *round) {
	done, records, bytes := 0, 0, 0
	to := x.frontier
	for done < len(x.outstanding) && x.outstanding[done].open == 0 {
		r := x.outstanding[done]
		records, bytes, to = records+r.records, bytes+r.bytes, r.plan.hi
		done++
	}
	if done > 0 {
		x.outstanding = append(x.outstanding[:0], x.outstanding[done:]...)
		x.remember()
	}
	if len(x.outstanding) == 0 && filling.empty() {
		to = max(to, x.skipped)
	}
	x.confirm(to, records, bytes)
}

// trim forgets all topics when there are too many, while nothing is under way.
// Their sequence numbers are gone then, so it takes a new producer id.
func (x *run) trim(filling *round) error {
	if len(x.topics.byName) <= maxTopics || !filling.empty() {
		return nil
	}
	x.topics = newTopics()
	return x.newProducer()
}

// finish notes in the journal that nothing is under way.
func (x *run) finish() error {
	p := plan{producer: x.producer, epoch: x.epoch, frontier: x.frontier, top: x.frontier, lo: x.frontier, hi: x.frontier}
	if err := x.journal.write(&p, 0); err != nil {
		return err
	}
	return errStopping
}

// assess looks at the outstanding rounds after a bad answer, when all answers
// are in. It returns the partitions of which batches surely did not arrive; an
// error means that it is not sure for at least one.
func (x *run) assess() ([]openPartition, error) {
	var open []openPartition
	seen := map[place]bool{}
	for _, r := range x.outstanding {
		for i := range r.batches {
			t := &r.batches[i]
			if t.answer == settled {
				continue
			}
			if t.answer == unknown {
				return nil, fmt.Errorf("send to topic %s, partition %d: %w", t.topic, t.partition, t.err)
			}
			if seen[t.place] {
				continue // follows from the first
			}
			seen[t.place] = true
			open = append(open, openPartition{place: t.place, from: r.plan.lo})
			x.complain(t)
		}
	}
	return open, nil
}

func (x *run) complain(t *batch) {
	if t.answer == disowned {
		x.resetDedup("the broker does not know the producer: " + t.err.Error())
		return
	}
	x.topics.named(t.topic).known = false // its limits may have changed: ask again
	x.log.Info("a batch was rejected, looking for the record", "topic", t.topic, "partition", t.partition, "records", t.count, "err", t.err)
}
