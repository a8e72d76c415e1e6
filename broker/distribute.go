package broker

import (
	"context"
	"errors"
	"slices"
)

// distribute retains the message and gives it to the sessions: to the durable
// ones by way of the store first, then at once to those that keep it in
// memory, so that nobody has got a message that the store did not take. ops
// are stored with it.
func (b *Broker) distribute(ctx context.Context, p *Publication, targets []target, ops []Op) Reason {
	m := p.Message
	var h *handover
	if m.Retain || len(ops) > 0 || m.QoS > 0 && anyDurable(targets) {
		h = newHandover(b, p, ops)
	}
	if m.Retain {
		unlock := b.retained.lockTopic(ctx, m.Topic)
		if unlock == nil {
			return ServerBusy
		}
		defer unlock()
		if r := h.retain(); !r.OK() {
			return r
		}
		// Whoever subscribed before the value changed has seen the old one and
		// must get this one.
		targets = b.matchAgain(p, targets)
	}
	if p.will && m.QoS > 0 {
		targets = b.withRoom(targets, m)
	}
	if h != nil {
		if r := h.commit(ctx, targets); !r.OK() {
			return r
		}
	}
	for i := range targets {
		b.deliver(p, &targets[i])
	}
	return Success
}

func anyDurable(targets []target) bool {
	for i := range targets {
		if targets[i].session.durable {
			return true
		}
	}
	return false
}

// deliver gives the message to a session that keeps it in memory. A member of
// a shared subscription that has left since it was chosen is replaced.
func (b *Broker) deliver(p *Publication, t *target) {
	e, ok := t.entry(p.Message)
	if !ok || e.qos > 0 && t.session.durable {
		return
	}
	if t.session.keep(e) {
		p.matched = true
		return
	}
	if t.share == nil {
		return
	}
	p.matched = true
	p.Hold()
	b.redispatch(NoWait, t.session, e, fitNone, func(err error) {
		if errors.Is(err, errNobody) {
			err = nil
		}
		p.Done(storeReason(err))
	})
}

// keep queues an entry that is only in memory, and reports whether the session
// took it.
func (s *sessionState) keep(e entry) bool {
	s.mu.Lock()
	if s.owner == nil {
		s.mu.Unlock()
		return false
	}
	if e.qos > 0 { // nobody has to wait for it: it is queued at once
		e.seq = s.nextSeq
		s.nextSeq++
	}
	s.enqueue(e, false)
	s.trim()
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
	return true
}

// entry merges the target's subscriptions: the highest QoS, all identifiers,
// No Local judged for each [MQTT-3.3.4-2, MQTT-3.3.4-3, MQTT-3.8.3-3].
func (t *target) entry(m *Message) (e entry, ok bool) {
	own := m.ClientID == t.session.id
	e.msg, e.size = m, int32(m.size())
	if t.share != nil {
		e.share = t.share.filter
	}
	if !own || !t.first.NoLocal {
		ok = true
		e.take(t.first, m)
	}
	for _, s := range t.more {
		if !own || !s.NoLocal {
			ok = true
			e.take(s, m)
		}
	}
	return e, ok
}

func (e *entry) take(s *subscription, m *Message) {
	e.qos = max(e.qos, min(s.QoS, m.QoS))
	e.retain = e.retain || s.RetainAsPublished && m.Retain
	switch {
	case len(s.ids) == 0:
	case len(e.ids) == 0:
		e.ids = s.ids
	default:
		e.ids = append(slices.Clip(e.ids), s.ids...)
	}
}

// handover is the work of giving one message to the store and to the durable
// sessions.
type handover struct {
	broker      *Broker
	publication *Publication
	batch       Batch
	entries     []pendingEntry
	retained    *Message // the message that changed the retained value, nil = it did not

	// Room for the usual case, so that it costs one allocation.
	op     [1]Op
	entry  [1]pendingEntry
	target [1]Target
}

func newHandover(b *Broker, p *Publication, ops []Op) *handover {
	h := &handover{broker: b, publication: p, batch: Batch{Ops: ops}}
	if len(ops) == 0 {
		h.batch.Ops = h.op[:0]
	}
	h.entries = h.entry[:0]
	return h
}

// pendingEntry has a sequence number; its batch is not durable yet.
type pendingEntry struct {
	session *sessionState
	entry   entry

	// Covered by session.mu: the commit may end before the entry is queued.
	spilled bool // counted in session.unsaved
	settled bool
	failed  bool
}

// target is what the store is told of the entry.
func (pe *pendingEntry) target() Target {
	e := &pe.entry
	return Target{ClientID: pe.session.id, Seq: e.seq, QoS: e.qos, Retain: e.retain, SubscriptionIDs: e.ids, Share: e.share}
}

// retain makes the message the retained value of its topic, if the limits
// allow it. Caller holds the topic's turn.
func (h *handover) retain() Reason {
	b, m := h.broker, h.publication.Message
	if len(m.Payload) == 0 { // clears the value, is delivered, is not kept [MQTT-3.3.1-6]
		if changed, _ := b.retained.change(m, noLimits); changed {
			h.retained = m
			b.expiries.forget(m.Topic)
			h.batch.Ops = append(h.batch.Ops, Op{Kind: OpUnretain, Topic: m.Topic})
		}
		return Success
	}
	c := &b.cfg.Retained
	kept := c.keepable(m)
	var refused retainedLimit
	if c.tooLarge(m) {
		refused = limitPayload
	} else {
		_, refused = b.retained.change(kept, c.limits())
	}
	if refused != limitNone {
		b.noteLimit(refused)
		if m.QoS == 0 {
			return Success // delivered all the same
		}
		return refused.reason()
	}
	h.retained = kept
	b.noteExpiry(kept)
	h.batch.Ops = append(h.batch.Ops, Op{Kind: OpRetain, Message: kept})
	h.publication.matched = true
	return Success
}

// reserve gives the message its number in every durable session that is to
// get it.
func (h *handover) reserve(targets []target) {
	m := h.publication.Message
	for i := range targets {
		t := &targets[i]
		for !h.reserveIn(t, m) { // ended since it was chosen
			other, ok := t.share.pick(h.broker.cfg.ShareStrategy, m, t.session, fitNone)
			if !ok {
				break
			}
			*t = other
		}
	}
	if len(h.entries) == 0 {
		return
	}
	h.publication.matched = true
	queues := slices.Grow(h.target[:0], len(h.entries))
	for i := range h.entries {
		queues = append(queues, h.entries[i].target())
	}
	h.batch.Ops = append(h.batch.Ops, Op{Kind: OpEnqueue, Message: m, Targets: queues})
}

// reserveIn is reserve for one session. It returns false for a member of a
// shared subscription in whose place another one must get the message.
func (h *handover) reserveIn(t *target, m *Message) bool {
	s := t.session
	if !s.durable {
		return true
	}
	e, ok := t.entry(m)
	if !ok || e.qos == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return t.share == nil
	}
	e.seq = s.reserve()
	h.entries = append(h.entries, pendingEntry{session: s, entry: e})
	return true
}

// commit appends the batch to the store, makes the durable entries visible to
// their sessions in that order, and holds the acknowledgement for QoS 1 and 2.
func (h *handover) commit(ctx context.Context, targets []target) Reason {
	p := h.publication
	if p.Message.QoS == 0 { // retained, perhaps; nobody is promised anything
		if len(h.batch.Ops) == 0 {
			return Success
		}
		if err := h.broker.commit(ctx, &h.batch, h.settleRetained); err != nil {
			h.broker.stats.drop(DropStore)
			h.settleRetained(err)
		}
		return Success
	}
	h.reserve(targets)
	if len(h.batch.Ops) == 0 {
		return Success
	}
	p.Hold()
	if err := h.broker.store.Commit(ctx, &h.batch, h.committed); err != nil {
		h.broker.refusedBatch(err)
		h.takeBack()
		p.pending.Add(-1)
		return storeReason(err)
	}
	h.enqueue()
	return Success
}

// enqueue runs after the batch was appended.
func (h *handover) enqueue() {
	for i := range h.entries {
		h.broker.place(&h.entries[i])
	}
}

// committed runs when the batch is on disk or was given up. Entries that only
// the store holds can be read from now on.
func (h *handover) committed(err error) {
	h.broker.noteCommit(err)
	h.settleRetained(err)
	for i := range h.entries {
		h.entries[i].session.saved(&h.entries[i], err)
	}
	h.publication.Done(storeReason(err))
}

// takeBack undoes what was prepared for a batch that the store did not take.
func (h *handover) takeBack() {
	h.settleRetained(ErrBusy)
	for i := range h.entries {
		s := h.entries[i].session
		s.mu.Lock()
		s.abandon(h.entries[i].entry.seq)
		wake := s.nudge()
		s.mu.Unlock()
		wakeUp(wake)
	}
}

// settleRetained notes what became of the change of the retained value. One
// whose publisher is told that it failed is undone; with QoS 0, which promises
// nothing, the value stays in memory.
func (h *handover) settleRetained(err error) {
	if h.retained == nil {
		return
	}
	if again := h.broker.retained.settle(h.retained, err == nil, h.retained.QoS == 0); again != nil {
		h.broker.noteExpiry(again)
	}
}

// enqueuePending queues an entry whose batch is on its way to the store. From
// the queue it may be sent before it is durable, except with QoS 2. Caller
// holds mu.
func (s *sessionState) enqueuePending(pe *pendingEntry) {
	spilled := s.enqueue(pe.entry, true)
	switch {
	case pe.settled:
	case spilled:
		pe.spilled = true
		s.unsaved = with(s.unsaved, pe.entry.seq)
	case pe.entry.qos == 2:
		s.early = with(s.early, pe.entry.seq)
	}
}

// saved notes the outcome of an entry's batch. An entry that failed is taken
// back if it was not sent yet: its publisher has been told and will send it
// again.
func (s *sessionState) saved(pe *pendingEntry, err error) {
	s.mu.Lock()
	pe.settled = true
	if pe.spilled {
		s.unsaved = without(s.unsaved, pe.entry.seq)
		s.drain()
	}
	s.early = without(s.early, pe.entry.seq)
	pe.failed = err != nil
	if pe.failed && !s.dead {
		s.withdraw(pe)
	}
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
}
