package broker

import (
	"context"
	"slices"
	"strings"
)

// Publish accepts a message of this session's client: it validates the topic,
// runs the hooks, retains, routes and hands over to store and recorders. done
// is called exactly once, possibly before Publish returns, and must not block:
// for QoS 0 as soon as the message is accepted in memory, for QoS 1 and 2 when
// it is durable wherever it must be. A Reason that is not OK means that the
// publisher keeps the responsibility for the message.
//
// packetID is the publisher's identifier of a QoS 2 message. Until Release, a
// duplicate is not routed again and gets the outcome of the first
// [MQTT-4.3.3-10]. For other messages, and publishers without identifiers, it
// is 0.
//
// Publish blocks only for back-pressure, until ctx ends; with NoWait it
// answers ServerBusy instead. The message and its payload belong to the broker
// afterwards.
func (s *Session) Publish(ctx context.Context, m *Message, packetID uint16, done func(Reason)) {
	if r := s.admit(m); r != Success {
		s.broker.stats.refused.Add(1)
		answer(done, r)
		return
	}
	s.received.Add(1)
	s.broker.stats.received[m.QoS].Add(1)
	m.ClientID, m.Username, m.Protocol = s.clientID, s.username, s.protocol
	if m.Time == 0 {
		m.Time = nowMillis()
	}
	p := &Publication{Message: m, Session: s, done: done}
	var extra []Op
	if m.QoS == 2 && packetID != 0 {
		var first bool
		if first, extra = s.openInbound(p, packetID); !first {
			return
		}
	}
	s.broker.publish(ctx, p, nil, extra)
}

func (s *Session) admit(m *Message) Reason {
	switch {
	case s.gone.Load():
		return Closed
	case m.QoS > 2:
		return QoSNotSupported
	case ValidTopic(m.Topic) != nil:
		return InvalidTopic
	case m.Topic == "$SYS" || strings.HasPrefix(m.Topic, "$SYS/"):
		return NotAuthorized
	}
	return Success
}

// openInbound notes a QoS 2 publish. For the first of its identifier it wraps
// p.done; for a duplicate it arranges the answer and returns false.
func (s *Session) openInbound(p *Publication, id uint16) (first bool, extra []Op) {
	st := s.state
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		answer(p.done, Closed)
		return false, nil
	}
	if in := st.inbound[id]; in != nil {
		settled, outcome := in.settled, in.outcome
		if !settled {
			in.waiting = append(in.waiting, p.done)
		}
		st.mu.Unlock()
		if settled {
			answer(p.done, outcome)
		}
		return false, nil
	}
	in := &inbound{}
	if st.inbound == nil {
		st.inbound = make(map[uint16]*inbound)
	}
	st.inbound[id] = in
	durable := st.durable()
	st.mu.Unlock()

	done := p.done
	p.done = func(r Reason) { st.settleInbound(id, in, r, done) }
	if durable {
		extra = []Op{{Kind: OpInbound, ClientID: st.id, PacketID: id}}
	}
	return true, extra
}

// settleInbound keeps the outcome for duplicates. A refused message frees its
// identifier: a PUBREC with an error ends the exchange [MQTT-4.3.3-9].
func (s *sessionState) settleInbound(id uint16, in *inbound, r Reason, done func(Reason)) {
	s.mu.Lock()
	in.settled, in.outcome = true, r
	waiting := in.waiting
	in.waiting = nil
	if !r.OK() && s.inbound[id] == in {
		delete(s.inbound, id)
	}
	s.mu.Unlock()
	answer(done, r)
	for _, w := range waiting {
		answer(w, r)
	}
}

// Release ends a QoS 2 publish of this client: its PUBREL came. done is called
// once that is durable, with Success, or with PacketIDNotFound when there is
// no such publish. It must not block.
func (s *Session) Release(packetID uint16, done func(Reason)) {
	st := s.state
	st.mu.Lock()
	_, known := st.inbound[packetID]
	delete(st.inbound, packetID)
	owner, durable := st.owner == s, st.durable()
	st.mu.Unlock()
	switch {
	case !owner:
		answer(done, Closed)
	case !known:
		answer(done, PacketIDNotFound)
	case !durable:
		answer(done, Success)
	default:
		b := Batch{Ops: []Op{{Kind: OpInboundDone, ClientID: st.id, PacketID: packetID}}}
		s.broker.commitOr(s.broker.ctx, &b, done)
	}
}

// commitOr commits and answers with the Reason of the outcome.
func (b *Broker) commitOr(ctx context.Context, batch *Batch, done func(Reason)) {
	if err := b.commit(ctx, batch, func(err error) { answer(done, storeReason(err)) }); err != nil {
		answer(done, storeReason(err))
	}
}

// publish is the way of every message behind the adapter. targets may be nil:
// then the publisher's cache is asked after the rewriters.
func (b *Broker) publish(ctx context.Context, p *Publication, targets []target, extra []Op) {
	p.Hold()
	if r := b.rewrite(p); !r.OK() {
		b.stats.refused.Add(1)
		p.Done(r)
		return
	}
	m := p.Message
	if p.Session != nil {
		targets = p.Session.match(m.Topic)
	}
	if m.QoS > 0 {
		if r := b.room(targets, m); !r.OK() {
			b.stats.refused.Add(1)
			p.Done(r)
			return
		}
	}
	for _, rec := range b.recorders {
		if r := rec.Record(ctx, p); !r.OK() && m.QoS > 0 {
			b.stats.refused.Add(1)
			p.Done(r)
			return
		}
	}
	p.Done(b.distribute(ctx, p, targets, extra))
}

func (b *Broker) rewrite(p *Publication) Reason {
	for _, h := range b.rewriters {
		if r := h.Rewrite(p); !r.OK() {
			return r
		}
	}
	return Success
}

// room refuses a message that a durable session at its cap could not take, as
// long as nobody has got it: a retry then makes no duplicates.
func (b *Broker) room(targets []target, m *Message) Reason {
	if b.cfg.Session.WhenFull != RefuseNewest {
		return Success
	}
	for i := range targets {
		s := targets[i].session
		s.mu.Lock()
		full := s.durable() && !s.dead && s.bytes+int64(m.size()) > b.cfg.Session.QueueBytes
		s.mu.Unlock()
		if full && targets[i].qos(m) > 0 {
			return QuotaExceeded
		}
	}
	return Success
}

// distribute retains the message and gives it to the sessions: at once to
// those that keep it in memory, by way of the store to the durable ones.
func (b *Broker) distribute(ctx context.Context, p *Publication, targets []target, extra []Op) Reason {
	m := p.Message
	d := distribution{broker: b, message: m, ops: extra}
	if m.Retain {
		defer b.retained.lockTopic(m.Topic).Unlock()
		d.retain()
	}
	for i := range targets {
		d.deliver(&targets[i])
	}
	if d.matched {
		p.Matched()
	}
	return d.commit(ctx, p)
}

// distribution is the work of giving one message to its sessions.
type distribution struct {
	broker  *Broker
	message *Message
	matched bool
	ops     []Op
	durable []pendingEntry
}

// pendingEntry has a sequence number but waits for its batch to be appended.
type pendingEntry struct {
	session *sessionState
	entry   entry

	// Covered by session.mu: the commit may end before the entry is queued.
	spilled bool // counted in session.unsaved
	settled bool
	failed  bool
}

func (d *distribution) retain() {
	m := d.message
	if len(m.Payload) == 0 { // clears the value, is delivered, is not kept [MQTT-3.3.1-6]
		if d.broker.retained.clear(m.Topic) {
			d.ops = append(d.ops, Op{Kind: OpUnretain, Topic: m.Topic})
		}
		return
	}
	d.broker.retained.set(m)
	d.ops = append(d.ops, Op{Kind: OpRetain, Message: m})
	d.matched = true
}

// qos is the effective quality of service of a message for the target.
func (t *target) qos(m *Message) QoS {
	q := t.first.QoS
	for _, s := range t.more {
		q = max(q, s.QoS)
	}
	return min(q, m.QoS)
}

// entry merges the target's subscriptions: the highest QoS, all identifiers,
// No Local judged for each [MQTT-3.3.4-2, MQTT-3.3.4-3, MQTT-3.8.3-3].
func (t *target) entry(m *Message) (e entry, ok bool) {
	own := m.ClientID == t.session.id
	take := func(s *subscription) {
		if s.NoLocal && own {
			return
		}
		ok = true
		e.qos = max(e.qos, s.QoS)
		e.retain = e.retain || s.RetainAsPublished && m.Retain
		switch {
		case len(e.ids) == 0:
			e.ids = s.ids
		case len(s.ids) > 0:
			e.ids = append(e.ids[:len(e.ids):len(e.ids)], s.ids...)
		}
	}
	take(t.first)
	for _, s := range t.more {
		take(s)
	}
	e.msg, e.size, e.qos = m, int32(m.size()), min(e.qos, m.QoS)
	return e, ok
}

func (d *distribution) deliver(t *target) {
	e, ok := t.entry(d.message)
	if !ok {
		return
	}
	s := t.session
	s.mu.Lock()
	if !s.accepts(e.qos) {
		s.mu.Unlock()
		return
	}
	d.matched = true
	if e.qos > 0 {
		e.seq = s.reserve()
	}
	if e.qos > 0 && s.durable() {
		s.mu.Unlock()
		d.durable = append(d.durable, pendingEntry{session: s, entry: e})
		return
	}
	s.enqueue(e, false)
	s.trim()
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
}

// commit appends the batch to the store, makes the durable entries visible to
// their sessions in that order, and holds the acknowledgement for QoS 1 and 2.
func (d *distribution) commit(ctx context.Context, p *Publication) Reason {
	if len(d.durable) > 0 {
		targets := make([]Target, len(d.durable))
		for i := range d.durable {
			e := &d.durable[i].entry
			targets[i] = Target{ClientID: d.durable[i].session.id, Seq: e.seq, QoS: e.qos, Retain: e.retain, SubscriptionIDs: e.ids}
		}
		d.ops = append(d.ops, Op{Kind: OpEnqueue, Message: d.message, Targets: targets})
	}
	if len(d.ops) == 0 {
		return Success
	}
	if d.message.QoS == 0 {
		if err := d.broker.commit(ctx, &Batch{Ops: d.ops}, nil); err != nil {
			d.broker.stats.drop(DropStore)
		}
		return Success // a retained QoS 0 message; nobody is promised anything
	}
	p.Hold()
	err := d.broker.commit(ctx, &Batch{Ops: d.ops}, func(err error) {
		d.committed(err)
		p.Done(storeReason(err))
	})
	if err != nil {
		d.drop()
		p.pending.Add(-1)
		return storeReason(err)
	}
	d.enqueue()
	return Success
}

// enqueue runs after the batch was appended, so that whatever the receiver's
// acknowledgement appends comes behind it.
func (d *distribution) enqueue() {
	for i := range d.durable {
		pe := &d.durable[i]
		s := pe.session
		s.mu.Lock()
		if s.dead || pe.failed {
			s.abandon(pe.entry.seq)
			wake := s.nudge()
			s.mu.Unlock()
			wakeUp(wake)
			continue
		}
		if s.enqueue(pe.entry, true) && !pe.settled {
			pe.spilled = true
			at, _ := slices.BinarySearch(s.unsaved, pe.entry.seq)
			s.unsaved = slices.Insert(s.unsaved, at, pe.entry.seq)
		}
		dropped := s.trimDurable()
		wake := s.nudge()
		s.mu.Unlock()
		if len(dropped) > 0 {
			s.settle(dropped...)
		}
		wakeUp(wake)
	}
}

// committed runs when the batch is on disk or was given up. Entries that only
// the store holds can be read from now on.
func (d *distribution) committed(err error) {
	for i := range d.durable {
		pe := &d.durable[i]
		s := pe.session
		s.mu.Lock()
		pe.settled = true
		if pe.spilled {
			s.unsaved = without(s.unsaved, pe.entry.seq)
		}
		if err != nil {
			pe.failed = true
			s.withdraw(pe)
		}
		wake := s.nudge()
		s.mu.Unlock()
		wakeUp(wake)
	}
}

func (d *distribution) drop() {
	for i := range d.durable {
		s := d.durable[i].session
		s.mu.Lock()
		s.abandon(d.durable[i].entry.seq)
		wake := s.nudge()
		s.mu.Unlock()
		wakeUp(wake)
	}
}
