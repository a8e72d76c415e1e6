package broker

import (
	"container/heap"
	"sync"
	"time"
)

// expiries knows when retained values run out, one entry per topic, so that a
// value that nobody asks for does not stay for ever. It is never scanned.
type expiries struct {
	mu     sync.Mutex // covers everything below
	queue  expiryQueue
	topics map[string]*expiry
	timer  *time.Timer
}

// expiry is the entry of one topic. The value may live longer than at says:
// then the entry is put back when its time comes.
type expiry struct {
	topic string
	at    int64 // Unix milliseconds
	index int   // in the queue
}

// expiryPause bounds how often values are removed; an expired value is not
// delivered anyway.
const expiryPause = time.Second

// note remembers the expiry of a value that was retained. due is called in its
// own goroutine when some have run out.
func (x *expiries) note(topic string, at int64, due func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.topics[topic]
	switch {
	case e == nil:
		if x.topics == nil {
			x.topics = make(map[string]*expiry)
		}
		e = &expiry{topic: topic, at: at}
		x.topics[topic] = e
		heap.Push(&x.queue, e)
	case at < e.at:
		e.at = at
		heap.Fix(&x.queue, e.index)
	default:
		return
	}
	if e.index == 0 {
		x.arm(due)
	}
}

// arm sets the timer to the first expiry. Caller holds mu.
func (x *expiries) arm(due func()) {
	x.stopTimer()
	if len(x.queue) > 0 {
		wait := time.Duration(x.queue[0].at-nowMillis()) * time.Millisecond
		x.timer = time.AfterFunc(max(wait, expiryPause), due)
	}
}

func (x *expiries) stopTimer() {
	if x.timer != nil {
		x.timer.Stop()
		x.timer = nil
	}
}

// forget drops the entry of a topic whose value was cleared.
func (x *expiries) forget(topic string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.topics[topic]; e != nil {
		delete(x.topics, topic)
		heap.Remove(&x.queue, e.index)
	}
}

// takeDue removes and returns the topics whose time has come.
func (x *expiries) takeDue(now int64, due func()) (topics []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.queue) > 0 && x.queue[0].at <= now {
		e := heap.Pop(&x.queue).(*expiry)
		delete(x.topics, e.topic)
		topics = append(topics, e.topic)
	}
	x.arm(due)
	return topics
}

func (x *expiries) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopTimer()
}

// noteExpiry makes sure that a retained value goes when its time is over.
func (b *Broker) noteExpiry(m *Message) {
	if m.Expires != 0 {
		b.expiries.note(m.Topic, m.Expires, b.retainedDue)
	}
}

func (b *Broker) retainedDue() {
	b.spawn(func() {
		for _, topic := range b.expiries.takeDue(nowMillis(), b.retainedDue) {
			b.expireRetained(topic)
		}
	})
}

// expireRetained removes the value of a topic, unless another one has taken
// its place.
func (b *Broker) expireRetained(topic string) {
	unlock := b.retained.lockTopic(b.ctx, topic)
	if unlock == nil {
		return
	}
	defer unlock()
	m := b.retained.get(topic, 0)
	switch {
	case m == nil:
	case !m.Expired(nowMillis()):
		b.noteExpiry(m)
	default:
		b.retained.clear(topic)
		_ = b.commit(b.ctx, &Batch{Ops: []Op{{Kind: OpUnretain, Topic: topic}}}, nil)
	}
}

// expiryQueue orders entries by time, for container/heap.
type expiryQueue []*expiry

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *expiryQueue) Push(v any) {
	e := v.(*expiry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
