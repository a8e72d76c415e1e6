package broker

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"
)

// delayedQueue holds the messages that wait for their time. They leave in the
// order of that time, and of their acceptance where it is the same.
type delayedQueue struct {
	mu      sync.Mutex // covers everything below
	all     map[uint64]*delayedMessage
	queue   delayedHeap
	lanes   map[laneKey]*delayedLane
	bytes   int64
	last    uint64 // the number given last
	timer   *time.Timer
	running bool // somebody takes, and sets the timer when nothing is due
	closed  bool // before open and after close: no timer
	logged  int64
}

// delayedMessage is one of them. It is in the heap, or behind another one in a
// lane, or in the hands of whoever commits, publishes or deletes it.
type delayedMessage struct {
	id      uint64
	due     int64 // Unix milliseconds
	at      int64 // when to look at it: due, its expiry before that, or the next attempt
	message *Message
	index   int  // in the heap, -1 = not there
	held    bool // in the list of a lane
	stored  bool // the store has it

	recorded []bool // which recorders have it, so another attempt must not give it to them again; covered by mu of the shot
	attempts int    // that failed
	reason   Reason
}

// laneKey says whose order must not change: that of one publisher and topic.
type laneKey struct{ client, topic string }

// delayedLane exists while a message could not be published. Those behind it
// wait until it could.
type delayedLane struct {
	first   *delayedMessage // is tried again
	pause   time.Duration   // before the next attempt
	waiting []*delayedMessage
}

func (d *delayedMessage) lane() laneKey { return laneKey{d.message.ClientID, d.message.Topic} }

const (
	delayedPause    = time.Second // before the second attempt, doubled for each further one
	delayedMaxPause = 30 * time.Second
	// delayedWatch bounds how long the timer runs: it does not notice when the
	// clock is set.
	delayedWatch = time.Minute
	// delayedRound bounds what is published at once, in messages and bytes.
	delayedRound      = 256
	delayedRoundBytes = 4 << 20
)

func newDelayedQueue() delayedQueue {
	return delayedQueue{all: make(map[uint64]*delayedMessage), lanes: make(map[laneKey]*delayedLane), closed: true}
}

// reserve gives a message its number and its place below the caps, or returns
// nil. It does not wait for its time before wait is called.
func (q *delayedQueue) reserve(m *Message, due int64, c *DelayedConfig) *delayedMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.all) >= c.MaxMessages || q.bytes+int64(m.size()) > c.MaxBytes {
		return nil
	}
	q.last++
	d := &delayedMessage{id: q.last, due: due, message: m, index: -1}
	q.add(d)
	return d
}

// add needs mu.
func (q *delayedQueue) add(d *delayedMessage) {
	d.at = d.due
	if d.message.Expires != 0 {
		d.at = min(d.at, d.message.Expires) // nothing is gained by keeping it longer
	}
	q.all[d.id] = d
	q.bytes += int64(d.message.size())
}

func (q *delayedQueue) restore(stored *Delayed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := &delayedMessage{id: stored.Seq, due: stored.Due, message: stored.Message, index: -1, stored: true}
	q.last = max(q.last, d.id)
	q.add(d)
	heap.Push(&q.queue, d)
}

// open starts the timer. Numbers go on above those of earlier lives, also of
// messages that are gone, so that an operator who deletes by number cannot
// mean another one: they follow the clock, and stay exact in JSON.
func (q *delayedQueue) open(due func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = max(q.last, uint64(nowMillis())*1000)
	q.closed = false
	q.arm(due)
}

// close stops the timer.
func (q *delayedQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
}

// wait lets a message that was reserved wait for its time. due is called in
// its own goroutine when some are due.
func (q *delayedQueue) wait(d *delayedMessage, due func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	heap.Push(&q.queue, d)
	if d.index == 0 {
		q.arm(due)
	}
}

// arm sets the timer for the first message. It needs mu.
func (q *delayedQueue) arm(due func()) {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	if q.closed || q.running || len(q.queue) == 0 {
		return
	}
	left := max(0, q.queue[0].at-nowMillis())
	q.timer = time.AfterFunc(min(time.Duration(min(left, delayedWatch.Milliseconds()))*time.Millisecond, delayedWatch), due)
}

// forget gives up a message: published, expired, deleted or not stored.
func (q *delayedQueue) forget(d *delayedMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(d)
}

// remove needs mu.
func (q *delayedQueue) remove(d *delayedMessage) {
	if q.all[d.id] != d {
		return
	}
	delete(q.all, d.id)
	q.bytes -= int64(d.message.size())
}

// begin reports whether the caller is the one that takes now.
func (q *delayedQueue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		return false
	}
	q.running = true
	return true
}

func (q *delayedQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running = false
}

// take returns what is due, in order, up to the bounds of a round. When there
// is nothing it ends what begin began, and sets the timer.
func (q *delayedQueue) take(now int64, due func()) (batch []*delayedMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	bytes := 0
	for len(q.queue) > 0 && q.queue[0].at <= now && len(batch) < delayedRound && bytes < delayedRoundBytes {
		d := heap.Pop(&q.queue).(*delayedMessage)
		if l := q.lanes[d.lane()]; l != nil && l.first != d {
			l.hold(d)
			continue
		}
		batch = append(batch, d)
		bytes += d.message.size()
	}
	if len(batch) == 0 {
		q.running = false
		q.arm(due)
	}
	return batch
}

func (l *delayedLane) hold(d *delayedMessage) {
	d.held = true
	l.waiting = append(l.waiting, d)
}

// published ends the wait of a message and of those behind it.
func (q *delayedQueue) published(d *delayedMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(d)
	q.dissolve(d)
}

// dissolve lets those behind a message go on. It needs mu.
func (q *delayedQueue) dissolve(d *delayedMessage) {
	l := q.lanes[d.lane()]
	if l == nil || l.first != d {
		return
	}
	delete(q.lanes, d.lane())
	for _, next := range l.waiting {
		next.held = false
		heap.Push(&q.queue, next)
	}
}

// delayedLogEvery bounds how often it is logged that messages were not taken.
const delayedLogEvery = 10 * time.Second

// postpone puts a message back that could not be published; those of its lane
// must be put back in their order. It reports whether that should be logged.
func (q *delayedQueue) postpone(d *delayedMessage, reason Reason, now int64) (tell bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !reason.OK() {
		d.attempts++
		d.reason = reason
	}
	l := q.lanes[d.lane()]
	switch {
	case l == nil:
		l = &delayedLane{first: d, pause: delayedPause}
		q.lanes[d.lane()] = l
		if since := now - q.logged; since < 0 || since >= delayedLogEvery.Milliseconds() {
			q.logged, tell = now, true
		}
	case l.first == d:
		l.pause = min(2*l.pause, delayedMaxPause)
	default:
		l.hold(d)
		return false
	}
	d.at = now + l.pause.Milliseconds()
	heap.Push(&q.queue, d)
	return tell
}

// takeOut removes a message that waits, so that it can be deleted. It returns
// nil for one that there is not, or that is being published.
func (q *delayedQueue) takeOut(id uint64) *delayedMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.all[id]
	switch {
	case d == nil:
		return nil
	case d.index >= 0:
		heap.Remove(&q.queue, d.index)
		q.dissolve(d)
		return d
	case !d.held:
		return nil
	}
	l := q.lanes[d.lane()]
	i := slices.Index(l.waiting, d)
	l.waiting = slices.Delete(l.waiting, i, i+1)
	d.held = false
	return d
}

// page lists up to limit messages with numbers above after.
func (q *delayedQueue) page(after uint64, limit int) []DelayedInfo {
	q.mu.Lock()
	ids := make([]uint64, 0, len(q.all))
	for id := range q.all {
		if id > after {
			ids = append(ids, id)
		}
	}
	q.mu.Unlock()
	slices.Sort(ids) // publishers need not wait for that
	list := make([]DelayedInfo, 0, min(limit, len(ids)))
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		if len(list) == limit {
			break
		}
		if d := q.all[id]; d != nil {
			list = append(list, d.info())
		}
	}
	return list
}

// delayedHeap orders by at, for container/heap.
type delayedHeap []*delayedMessage

func (h delayedHeap) Len() int { return len(h) }

func (h delayedHeap) Less(i, j int) bool {
	x, y := h[i], h[j]
	return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.due, y.due), cmp.Compare(x.id, y.id)) < 0
}

func (h delayedHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *delayedHeap) Push(v any) {
	d := v.(*delayedMessage)
	d.index = len(*h)
	*h = append(*h, d)
}

func (h *delayedHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	d.index = -1
	return d
}
