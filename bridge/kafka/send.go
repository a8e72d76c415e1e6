package kafka

import (
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// answer is what a broker said, or did not say, to one request.
type answer struct {
	round   *round
	batches []int
	resp    *sarama.ProduceResponse
	err     error
}

// inbox takes answers from sarama's goroutines, which must not wait.
type inbox struct {
	mu    sync.Mutex // covers list
	list  []answer
	nudge chan struct{} // has a token when list is not empty
}

func (b *inbox) put(a answer) {
	b.mu.Lock()
	b.list = append(b.list, a)
	b.mu.Unlock()
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

func (b *inbox) takeAll() []answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.list
	b.list = nil
	return list
}

// launch writes the round to the journal and sends it. From then on it is among
// the outstanding rounds, and its records may be in the log of a broker.
func (x *run) launch(r *round) error {
	r.plan.producer, r.plan.epoch = x.producer, x.epoch
	r.plan.frontier = x.frontier
	r.plan.top = max(r.plan.top, x.frontier)
	r.plan.batches = make([]batchPlan, len(r.batches))
	for i := range r.batches {
		t := &r.batches[i]
		r.plan.batches[i] = batchPlan{place: t.place, first: t.first, count: t.count}
	}
	var oldest uint64
	if len(x.outstanding) > 0 {
		oldest = x.outstanding[0].plan.gen
	}
	x.feed.Pin(r.plan.end())
	if err := x.journal.write(&r.plan, oldest); err != nil {
		return err
	}
	x.outstanding = append(x.outstanding, r)
	x.remember()
	for i := range r.batches {
		t := &r.batches[i]
		t.part.next = advance(t.first, t.count)
	}
	x.dispatch(r)
	return nil
}

// remember notes the outstanding rounds for the next run.
func (x *run) remember() {
	x.live = x.live[:0]
	for _, r := range x.outstanding {
		x.live = append(x.live, r.plan)
	}
}

// dispatch sends the batches of the round, one request to each leader. What it
// cannot send is answered at once.
func (x *run) dispatch(r *round) {
	byBroker := map[*sarama.Broker][]int{}
	r.open = len(r.batches)
	for i := range r.batches {
		t := &r.batches[i]
		t.part.batch = -1
		t.part.inFlight++
		leader, err := x.conn.Leader(t.topic, t.partition)
		if err != nil {
			x.pending++
			x.inbox.put(answer{round: r, batches: []int{i}, err: err})
			continue
		}
		byBroker[leader] = append(byBroker[leader], i)
	}
	for leader, indexes := range byBroker {
		request := &sarama.ProduceRequest{
			RequiredAcks: sarama.WaitForAll, Timeout: int32(x.cfg.AckTimeout / time.Millisecond), Version: 7,
		}
		for _, i := range indexes {
			t := &r.batches[i]
			request.AddBatch(t.topic, t.partition, t.encode(&r.plan, x.codec))
		}
		x.pending++
		box := &x.inbox
		err := leader.AsyncProduce(request, func(resp *sarama.ProduceResponse, err error) {
			box.put(answer{round: r, batches: indexes, resp: resp, err: err})
		})
		if err != nil {
			box.put(answer{round: r, batches: indexes, err: err})
		}
	}
	for i := range r.batches {
		r.batches[i].records = nil // encoded; the slab is free again
	}
	x.slab.reset(x.cfg.RoundBytes)
	x.feed.Sent(r.plan.hi)
}

// takeAnswers notes what the brokers said.
func (x *run) takeAnswers() {
	for _, a := range x.inbox.takeAll() {
		x.pending--
		for _, i := range a.batches {
			t := &a.round.batches[i]
			t.part.inFlight--
			t.err = a.errorOf(t)
			t.answer = judge(t.err)
			if t.answer != settled {
				x.trouble = true
				continue
			}
			a.round.open--
			t.part.proven = time.Now()
		}
	}
}

// errorOf is the error for one batch, nil for none.
func (a *answer) errorOf(t *batch) error {
	if a.err != nil {
		return a.err
	}
	block := a.resp.GetBlock(t.topic, t.partition)
	switch {
	case block == nil:
		return sarama.ErrIncompleteResponse
	case block.Err == sarama.ErrNoError:
		return nil
	}
	return block.Err
}

// awaitAnswers waits until no request is without an answer. It is for repeating
// what is in doubt, one round at a time.
func (x *run) awaitAnswers() error {
	for x.pending > 0 {
		select {
		case <-x.inbox.nudge:
			x.takeAnswers()
		case <-x.ctx.Done():
			return x.ctx.Err()
		}
	}
	return nil
}
