package broker

import "context"

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
	due, r := s.broker.cutDelayed(m)
	if r == Success {
		r = s.admit(m)
	}
	if r != Success {
		s.broker.stats.refused.Add(1)
		answer(done, r)
		return
	}
	s.received.Add(1)
	s.traffic.receive(m)
	m.ClientID, m.Username, m.Protocol = s.clientID, s.username, s.protocol
	if m.Time == 0 {
		m.Time = nowMillis()
	}
	p := publications.Get().(*Publication)
	p.Message, p.Session, p.due, p.done, p.lent = m, s, due, done, true
	if m.QoS < 2 || packetID == 0 {
		s.broker.publish(ctx, p, nil)
		return
	}
	if first, ops := s.openInbound(p, packetID); first {
		s.broker.publish(ctx, p, ops)
		s.state.handedOver()
	}
}

// admit decides whether the client may publish m, and gives m the topic under
// which the broker knows it.
func (s *Session) admit(m *Message) Reason {
	switch {
	case s.gone.Load():
		return Closed
	case m.QoS > 2:
		return QoSNotSupported
	case ValidTopic(m.Topic) != nil, IsExclusive(m.Topic):
		return InvalidTopic
	}
	topic, r := s.names.topic(m.Topic)
	switch {
	case r != Success:
		return r
	case isSys(topic):
		return NotAuthorized
	}
	m.Topic = topic
	return Success
}

// commitOr commits and answers with the Reason of the outcome.
func (b *Broker) commitOr(ctx context.Context, batch *Batch, done func(Reason)) {
	if err := b.commit(ctx, batch, func(err error) { answer(done, storeReason(err)) }); err != nil {
		answer(done, storeReason(err))
	}
}

// publish is the way of every message behind the adapter. ops are what is to
// be stored with it.
func (b *Broker) publish(ctx context.Context, p *Publication, ops []Op) {
	p.Hold()
	r := b.accept(ctx, p, ops)
	switch {
	case !r.OK():
		b.stats.refused.Add(1)
	case !p.matched:
		b.stats.unmatched.Add(1)
	}
	p.Done(r)
}

func (b *Broker) accept(ctx context.Context, p *Publication, ops []Op) Reason {
	for _, h := range b.rewriters {
		if r := h.Rewrite(p); !r.OK() {
			return r
		}
	}
	if p.due != 0 {
		r := b.delay(ctx, p, ops)
		if !p.will || r != QuotaExceeded {
			return r
		}
		b.log.Warn("will cannot be delayed, publishing it now", "client", p.Message.ClientID, "topic", p.Message.Topic)
	}
	targets := b.match(p)
	if !p.stored {
		if r := b.mayAccept(p, targets); !r.OK() {
			return r
		}
	}
	if r := b.record(ctx, p); !r.OK() {
		if !p.will || r == ServerBusy {
			return r
		}
		b.log.Warn("will was not recorded, others get it", "client", p.Message.ClientID, "topic", p.Message.Topic, "reason", r)
	}
	if p.stored {
		p.matched = true
		return Success
	}
	return b.distribute(ctx, p, targets, ops)
}

// mayAccept is mayTake, but one session that is full does not keep a will from
// all others.
func (b *Broker) mayAccept(p *Publication, targets []target) Reason {
	if p.will {
		return b.mayRetain(p.Message)
	}
	return b.mayTake(targets, p.Message)
}

// withRoom leaves out, counted, the sessions that have no room for a will. The
// result belongs to the caller.
func (b *Broker) withRoom(targets []target, m *Message) []target {
	var fit []target
	for i := range targets {
		if b.room(targets[i:i+1], m).OK() {
			fit = append(fit, targets[i])
			continue
		}
		b.stats.drop(DropQueueFull)
	}
	return fit
}

// mayTake looks whether there is room for a message whose publisher can be
// told when there is none, as long as nobody has got it.
func (b *Broker) mayTake(targets []target, m *Message) Reason {
	if m.QoS == 0 {
		return Success
	}
	if r := b.room(targets, m); !r.OK() {
		return r
	}
	return b.mayRetain(m)
}

// record gives the message to the recorders.
func (b *Broker) record(ctx context.Context, p *Publication) (refused Reason) {
	for _, rec := range b.recorders {
		r := rec.Record(ctx, p)
		if r.OK() || p.Message.QoS == 0 {
			continue
		}
		if !p.will || r == ServerBusy { // it may block with the next attempt
			return r
		}
		refused = r
	}
	return refused
}

// match finds the sessions for the message as the rewriters left it.
func (b *Broker) match(p *Publication) []target {
	found := b.matchAll(p)
	if !anyShare(found) {
		return found
	}
	return b.choose(found, p.Message)
}

// matchAll leaves the members of shared subscriptions to be chosen.
func (b *Broker) matchAll(p *Publication) []target {
	if p.Session != nil {
		return p.Session.match(p.Message.Topic)
	}
	targets, _ := b.router.match(p.Message.Topic)
	return targets
}

// anyShare reports whether targets has any of a shared subscription, which
// come last.
func anyShare(targets []target) bool {
	n := len(targets)
	return n > 0 && targets[n-1].share != nil
}

// choose puts a member in the place of each shared subscription. The result
// belongs to the caller.
func (b *Broker) choose(found []target, m *Message) []target {
	chosen := make([]target, 0, len(found))
	for i := range found {
		t, ok := found[i], true
		if t.share != nil {
			t, ok = t.share.pick(b.cfg.ShareStrategy, m, nil, fitNone)
		}
		if ok {
			chosen = append(chosen, t)
		}
	}
	return chosen
}

// matchAgain finds the sessions once more, but keeps the members that were
// chosen before.
func (b *Broker) matchAgain(p *Publication, before []target) []target {
	found := b.matchAll(p)
	if !anyShare(found) && !anyShare(before) {
		return found
	}
	again := make([]target, 0, len(found)+len(before))
	for _, t := range found {
		if t.share == nil {
			again = append(again, t)
		}
	}
	for _, t := range before {
		if t.share != nil {
			again = append(again, t)
		}
	}
	return again
}

// room refuses a message that a durable session at its cap could not take, as
// long as nobody has got it: a retry then makes no duplicates.
func (b *Broker) room(targets []target, m *Message) Reason {
	if b.cfg.Session.WhenFull != RefuseNewest {
		return Success
	}
	for i := range targets {
		s := targets[i].session
		if !s.durable {
			continue
		}
		if e, ok := targets[i].entry(m); ok && e.qos > 0 && !s.hasRoom(int64(e.size)) {
			return QuotaExceeded
		}
	}
	return Success
}

// hasRoom reports whether the byte cap leaves room for one more entry. Waiting
// messages whose time has passed make room.
func (s *sessionState) hasRoom(size int64) bool {
	limit, now := s.broker.cfg.Session.QueueBytes, nowMillis()
	var w nextWork
	s.mu.Lock()
	for s.bytes+size > limit && s.waiting() {
		if e := s.queue.at(0); e.released || !e.msg.Expired(now) {
			break
		}
		s.expire(&w)
	}
	room := s.dead || s.bytes+size <= limit
	s.mu.Unlock()
	if len(w.settled) > 0 {
		s.settle(w.settled...)
	}
	return room
}
