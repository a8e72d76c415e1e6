package broker

import (
	"slices"
	"time"
)

// Delivery is one message, or one PUBREL, that the adapter is to send now.
type Delivery struct {
	Message         *Message // nil for a Release; shared, read only
	QoS             QoS      // effective
	Retain          bool
	Dup             bool     // it may have reached the peer before
	PacketID        uint16   // 0 for QoS 0
	SubscriptionIDs []uint32 // shared, read only
	Release         bool     // send PUBREL for PacketID again
}

// pageEntries is how many entries of a spilled queue are read at once: enough
// to fill the default window, few enough not to hold much memory.
const pageEntries = 64

// Next appends the deliveries that may be sent now, in order, up to the
// capacity of dst. A QoS 1 or 2 message is in the window from then on and
// leaves it by Acked, Received with a failure, or Discard. Only one goroutine
// may call it at a time. When it appends nothing, Wake is called at the next
// change that makes something sendable.
func (s *Session) Next(dst []Delivery) []Delivery {
	st := s.state
	var w nextWork
	var wake func()
	now := nowMillis()
	start := len(dst)
	st.mu.Lock()
	for st.owner == s && len(dst) < cap(dst) {
		d, ok := st.next(now, &w)
		if ok {
			dst = append(dst, d)
			continue
		}
		if !st.mustLoad() || !st.load() {
			break
		}
	}
	switch {
	case st.owner != s:
		wake = st.nudge() // the next connection may have waited for the page that was read here
	case len(dst) == start:
		st.idle = true
	}
	st.mu.Unlock()
	wakeUp(wake)
	s.delivered.Add(uint64(len(dst) - start))
	s.traffic.send(&w)
	s.broker.report(st, &w)
	return dst
}

// nextWork is what one call of Next owes to the store and the counters.
type nextWork struct {
	messages [3]uint64 // by QoS
	bytes    uint64    // of their payloads
	sent     uint64    // highest new durable sequence number
	settled  []uint64  // expired ones
}

// next takes one delivery. Caller holds mu.
func (st *sessionState) next(now int64, w *nextWork) (Delivery, bool) {
	if !st.started || st.holds > 0 {
		return Delivery{}, false
	}
	for st.resend < st.window.len() {
		e := st.window.at(st.resend)
		if e.done {
			st.resend++
			continue
		}
		if !e.released && !st.quota() {
			return Delivery{}, false
		}
		st.resend++
		return st.send(e, w), true
	}
	for st.queue.len() > 0 {
		e := st.queue.at(0)
		switch {
		case !e.released && e.msg.Expired(now):
			st.expire(w)
		case e.seq == 0:
			taken := st.queue.pop()
			st.forget(&taken)
			w.messages[0]++
			w.bytes += uint64(len(taken.msg.Payload))
			return Delivery{Message: taken.msg, Retain: taken.retain, SubscriptionIDs: taken.ids}, true
		case !st.mayEnter(e):
			return Delivery{}, false
		default:
			st.window.push(st.queue.pop())
			st.resend = st.window.len()
			return st.send(st.window.at(st.resend-1), w), true
		}
	}
	return Delivery{}, false
}

// send turns an entry of the window into a delivery. Caller holds mu.
func (st *sessionState) send(e *entry, w *nextWork) Delivery {
	if e.released {
		return Delivery{PacketID: packetID(e.seq), Release: true}
	}
	d := Delivery{
		Message: e.msg, QoS: e.qos, Retain: e.retain, Dup: e.sent,
		PacketID: packetID(e.seq), SubscriptionIDs: e.ids,
	}
	if !e.sent && st.durable {
		w.sent = max(w.sent, e.seq)
	}
	e.sent, e.counted = true, true
	st.inFlight++
	w.messages[e.qos]++
	w.bytes += uint64(len(e.msg.Payload))
	return d
}

func (st *sessionState) expire(w *nextWork) {
	e := st.queue.pop()
	st.forget(&e)
	st.broker.stats.drop(DropExpired)
	if e.seq != 0 && st.durable {
		w.settled = append(w.settled, e.seq)
	}
}

func (b *Broker) report(st *sessionState, w *nextWork) {
	if w.sent != 0 {
		// Nobody waits for it: lost in a crash, a few messages go out again
		// without DUP.
		op := Batch{Ops: []Op{{Kind: OpSent, ClientID: st.id, Seq: w.sent}}}
		_ = b.commit(NoWait, &op, nil)
	}
	if len(w.settled) > 0 {
		st.settle(w.settled...)
	}
}

// mustLoad reports whether the next entry is only in the store. Caller holds mu.
func (st *sessionState) mustLoad() bool {
	return st.started && st.holds == 0 && st.queue.len() == 0 && st.resend == st.window.len() &&
		st.spill.count > 0 && !st.loading && (st.quota() || st.window.len() == 0)
}

// reloadAfter is how long a session waits before it reads again after the
// store could not be read.
const reloadAfter = time.Second

// load reads a page of the spilled tail into the queue and reports whether it
// is worth looking again. Caller holds mu, which is given up while the store
// reads.
func (st *sessionState) load() bool {
	// What is not committed must not be passed over, and of what gets its
	// number from now on the page may hold one without its predecessor.
	from, expected, bound := st.spill.from, st.spill.count, st.nextSeq
	whole := len(st.reserved)+len(st.unsaved) == 0
	for _, open := range [][]uint64{st.reserved, st.unsaved} {
		if len(open) > 0 {
			bound = min(bound, open[0])
		}
	}
	if bound <= from {
		return false
	}
	st.loading, st.changed = true, false
	st.mu.Unlock()
	page, err := st.broker.store.Queued(st.id, from, pageEntries)
	st.mu.Lock()
	if st.dead {
		return false
	}
	if err != nil {
		st.reloadLater(err)
		return false
	}
	st.loading = false
	if i := slices.IndexFunc(page, func(q Queued) bool { return q.Seq >= bound }); i >= 0 {
		page = page[:i]
	}
	switch {
	case len(page) > 0:
		st.takePage(page)
	case whole:
		st.lose(expected, bound)
	default:
		return st.changed
	}
	return st.queue.len() > 0 || st.spill.count > 0
}

// reloadLater leaves loading set, so that nobody reads in the meantime.
// Caller holds mu.
func (st *sessionState) reloadLater(err error) {
	st.broker.log.Error("read queued messages, trying again", "client", st.id, "err", err, "in", reloadAfter)
	time.AfterFunc(reloadAfter, func() {
		st.mu.Lock()
		st.loading = false
		wake := st.nudge()
		st.mu.Unlock()
		wakeUp(wake)
	})
}

// lose gives up entries that the store does not know: they were damaged, and
// nothing else can be told of them. Caller holds mu.
func (st *sessionState) lose(n int, next uint64) {
	st.broker.stats.dropped[DropStore].Add(uint64(n))
	st.spill.count -= n
	st.spill.from = next
	st.closeSpill()
}

// closeSpill ends the spilled tail when nothing is left of it. Caller holds mu.
func (st *sessionState) closeSpill() {
	if st.spill.count > 0 {
		return
	}
	st.spill = spill{}
	if st.window.len() == 0 && st.queue.len() == 0 {
		st.bytes, st.memory = 0, 0 // sizes of what could not be read are not known
	}
}

// waiting reports whether an entry waits at the head of the queue, and reads a
// page of the spilled tail if need be. Caller holds mu.
func (st *sessionState) waiting() bool {
	for st.queue.len() == 0 {
		if st.spill.count == 0 || st.loading || !st.load() {
			return false
		}
	}
	return true
}

// takePage moves a page from the spilled tail to the queue. Caller holds mu.
func (st *sessionState) takePage(page []Queued) {
	for i := range page {
		q := &page[i]
		st.spill.count--
		st.spill.from = q.Seq + 1
		if q.Message == nil && !q.Released {
			st.broker.stats.drop(DropStore)
			st.owed = append(st.owed, q.Seq)
			continue
		}
		e := entry{msg: q.Message, ids: q.SubscriptionIDs, seq: q.Seq, qos: q.QoS, retain: q.Retain, released: q.Released, sent: q.Seq <= st.sentMark, share: q.Share}
		if q.Message != nil {
			e.size = int32(q.Message.size())
		}
		if e.released {
			e.msg = nil
		}
		st.memory += e.cost()
		st.queue.push(e)
	}
	st.closeSpill()
}

// Acked completes a delivery: PUBACK for QoS 1, PUBCOMP for QoS 2 after
// Received. It answers PacketIDNotFound when nothing of that kind is
// outstanding.
func (s *Session) Acked(packetID uint16) Reason {
	st := s.state
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		return Closed
	}
	i := windowIndex(&st.window, packetID)
	if i < 0 || st.window.at(i).qos == 2 && !st.window.at(i).released {
		st.mu.Unlock()
		return PacketIDNotFound
	}
	s.finish(i)
	return Success
}

// finish completes the i-th entry of the window. Caller holds mu; it is
// unlocked on return.
func (s *Session) finish(i int) {
	st := s.state
	seq := st.complete(i)
	wake := st.nudge()
	st.mu.Unlock()
	if seq != 0 {
		st.settle(seq)
	}
	wakeUp(wake)
}

// Received notes the PUBREC for a QoS 2 delivery. done is called with Success
// when the adapter is to send PUBREL, once that step is durable, or with
// PacketIDNotFound; it must not block. failed means that the PUBREC carried a
// reason of 0x80 or above: the delivery is over and done is not called
// [MQTT-4.3.3-4].
func (s *Session) Received(packetID uint16, failed bool, done func(Reason)) {
	st := s.state
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		answer(done, Closed)
		return
	}
	i := windowIndex(&st.window, packetID)
	if i < 0 || st.window.at(i).qos != 2 {
		st.mu.Unlock()
		answer(done, PacketIDNotFound)
		return
	}
	if failed {
		s.finish(i)
		return
	}
	e := st.window.at(i)
	fresh := !e.released
	if fresh {
		st.memory -= e.cost()
		e.released, e.msg = true, nil
		st.memory += e.cost()
	}
	seq := e.seq
	st.mu.Unlock()
	if !fresh || !st.durable {
		answer(done, Success)
		return
	}
	s.broker.commitOr(s.broker.ctx, &Batch{Ops: []Op{{Kind: OpReleased, ClientID: st.id, Seq: seq}}}, done)
}

// Discard completes a delivery that the adapter cannot send, as if the peer
// had acknowledged it [MQTT-3.1.2-25], and counts why.
func (s *Session) Discard(d Delivery, reason DropReason) {
	s.broker.stats.drop(reason)
	st := s.state
	st.mu.Lock()
	i := -1
	if d.PacketID != 0 && st.owner == s {
		i = windowIndex(&st.window, d.PacketID)
	}
	if i < 0 {
		st.mu.Unlock()
		return
	}
	s.finish(i)
}

// trim enforces the memory cap on what is not on disk: QoS 0 at the head goes
// first, then QoS 0 that has just come behind waiting messages; a session that
// is not durable loses its oldest. A message alone may be larger than the cap.
// Caller holds mu.
func (st *sessionState) trim() {
	limit := st.memoryLimit()
	for st.memory > limit && st.queue.len() > 0 && st.queue.len()+st.window.len() > 1 {
		last := st.queue.len() - 1
		var e entry
		switch {
		case st.queue.at(0).qos == 0:
			e = st.queue.pop()
		case st.queue.at(last).qos == 0:
			e = st.queue.remove(last)
		case !st.durable:
			e = st.queue.pop()
		default:
			return
		}
		st.forget(&e)
		st.broker.stats.drop(DropQueueFull)
	}
}

// trimDurable applies drop_oldest to a durable queue over its cap and returns
// what the store must be told. Caller holds mu.
func (st *sessionState) trimDurable() (dropped []uint64) {
	c := &st.broker.cfg.Session
	if c.WhenFull != DropOldest || st.holds > 0 { // what Subscribe queued may not be with the store yet
		return nil
	}
	for st.bytes > c.QueueBytes && st.waiting() && !st.queue.at(0).released {
		e := st.queue.pop()
		st.forget(&e)
		st.broker.stats.drop(DropQueueFull)
		if e.seq != 0 {
			dropped = append(dropped, e.seq)
		}
	}
	return dropped
}

// withdraw takes back an entry whose commit failed and that was not sent yet:
// its publisher has been told and will send it again. Caller holds mu.
func (st *sessionState) withdraw(pe *pendingEntry) {
	if pe.spilled {
		st.bytes -= int64(pe.entry.size)
		st.spill.count--
		st.closeSpill()
		return
	}
	for i := range st.queue.entries() {
		if st.queue.at(i).seq == pe.entry.seq {
			e := st.queue.remove(i)
			st.forget(&e)
			return
		}
	}
}
