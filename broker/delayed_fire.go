package broker

import (
	"context"
	"slices"
	"sync"
	"time"
)

// fireWait bounds how long one round waits for back-pressure, all its messages
// together. Who cannot take one by then gets it with a later attempt.
const fireWait = 2 * time.Second

// shot is one attempt to publish a delayed message.
type shot struct {
	delayed *delayedMessage
	message *Message
	targets []target
	matched bool
	expired bool
	stopped bool // refused, or behind one of its lane that was

	mu     sync.Mutex // covers reason and delayed.recorded, which callbacks may set
	reason Reason
}

// round is one attempt to publish what was due at the same look.
type round struct {
	broker  *Broker
	ctx     context.Context //nolint:containedctx // lives as long as one call of fire
	shots   []*shot
	waiting sync.WaitGroup
	refused map[laneKey]bool // in this step, and at once: who is behind must not overtake
}

// fire publishes messages in two steps. First the recorders get them, such as
// the queues of bridges. When those have them on disk, sessions and retained
// values get them, and what is stored of that comes in one batch with the
// removal of the delayed message. So a crash can make recorders get a message
// twice, and never lose it. What could not be published is tried again later.
// Only a disk that fails under some batches and not under others changes the
// order, as it does for a publisher that sends without waiting.
func (b *Broker) fire(batch []*delayedMessage) {
	ctx, cancel := context.WithTimeout(b.ctx, fireWait)
	defer cancel()
	r := &round{broker: b, ctx: ctx, shots: make([]*shot, len(batch)), refused: make(map[laneKey]bool)}
	now := nowMillis()
	for i, d := range batch {
		m := *d.message
		m.Time = now                     // it is published now; how long it is retained counts from here
		if b.cfg.Retained.tooLarge(&m) { // the limit is a lower one than when it was accepted
			b.noteLimit(limitPayload)
			m.Retain = false
		}
		r.shots[i] = &shot{delayed: d, message: &m, expired: m.Expired(now)}
	}
	r.run(r.record)
	r.stopBehind()
	r.run(r.distribute)
	for _, s := range r.shots {
		b.fired(s)
	}
}

// run takes one step with every message that is not stopped, in order, and
// waits for the outcome.
func (r *round) run(step func(*shot)) {
	clear(r.refused)
	for _, s := range r.shots {
		s.stopped = s.stopped || !s.expired && r.refused[s.delayed.lane()]
		if !s.stopped {
			r.waiting.Add(1)
			step(s)
		}
	}
	r.waiting.Wait()
}

// stopBehind stops what was refused in the first step, and what is behind it.
func (r *round) stopBehind() {
	failed := make(map[laneKey]bool)
	for _, s := range r.shots {
		if lane := s.delayed.lane(); !s.expired {
			s.stopped = s.stopped || failed[lane] || !s.outcome().OK()
			failed[lane] = s.stopped
		}
	}
}

func (s *shot) outcome() Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (r *round) done(s *shot, reason Reason) {
	s.mu.Lock()
	s.reason = reason
	s.mu.Unlock()
	r.waiting.Done()
}

// step makes the publication of one step and runs it. What refuses at once
// holds up the lane.
func (r *round) step(s *shot, f func(*Publication) Reason) {
	p := &Publication{Message: s.message, matched: s.matched}
	p.done = func(reason Reason) { r.done(s, reason) }
	p.Hold()
	reason := f(p)
	s.matched = p.matched
	if !reason.OK() {
		r.refused[s.delayed.lane()] = true
	}
	p.Done(reason)
}

// record is the first step: what accept does before it distributes.
func (r *round) record(s *shot) {
	if s.expired {
		r.done(s, Success)
		return
	}
	b, m := r.broker, s.message
	r.step(s, func(p *Publication) Reason {
		s.targets = b.match(p)
		if reason := b.mayTake(s.targets, m); !reason.OK() {
			return reason
		}
		return r.recordIn(s, p)
	})
}

// recordIn gives the message to the recorders that do not have it. Each answers
// for itself: what one refuses is tried again with that one alone.
func (r *round) recordIn(s *shot, p *Publication) (worst Reason) {
	recorders := r.broker.recorders
	s.mu.Lock()
	if s.delayed.recorded == nil {
		s.delayed.recorded = make([]bool, len(recorders))
	}
	have := slices.Clone(s.delayed.recorded)
	s.mu.Unlock()
	for i, rec := range recorders {
		if have[i] {
			continue
		}
		p.Hold()
		one := &Publication{Message: s.message}
		one.done = func(reason Reason) { p.Done(r.recorded(s, i, reason)) }
		one.Hold()
		reason := rec.Record(r.ctx, one)
		p.matched = p.matched || one.matched
		if !reason.OK() && !r.givesUp(s, reason) {
			worst = reason
		}
		one.Done(reason)
	}
	return worst
}

// recorded notes what a recorder answered, and returns what that means for the
// attempt.
func (r *round) recorded(s *shot, recorder int, reason Reason) Reason {
	if !reason.OK() && !r.givesUp(s, reason) {
		return reason
	}
	s.mu.Lock()
	s.delayed.recorded[recorder] = true
	s.mu.Unlock()
	if !reason.OK() && s.message.QoS > 0 {
		r.broker.stats.drop(DropUnsendable)
		r.broker.log.Error("a delayed message can never be recorded, it goes on without", "id", s.delayed.id, "client", s.message.ClientID,
			"topic", s.message.Topic, "recorder", r.broker.recorders[recorder].(Hook).Name(), "reason", reason)
	}
	return Success
}

// givesUp reports whether a refusal is not worth another attempt: nothing is
// promised with QoS 0, and some do not depend on the moment.
func (r *round) givesUp(s *shot, reason Reason) bool {
	switch reason {
	case PacketTooLarge, InvalidTopic, InvalidPayload, NotAuthorized:
		return true
	}
	return s.message.QoS == 0
}

// distribute is the second step.
func (r *round) distribute(s *shot) {
	b, d := r.broker, s.delayed
	var ops []Op
	if d.stored {
		ops = []Op{{Kind: OpDelayDone, Seq: d.id}}
	}
	if s.expired {
		r.expire(s, ops)
		return
	}
	r.step(s, func(p *Publication) Reason {
		if reason := b.mayTake(s.targets, s.message); !reason.OK() { // those before it may have filled a queue
			return reason
		}
		return b.distribute(r.ctx, p, s.targets, ops)
	})
}

// expire removes a message that ran out before its time.
func (r *round) expire(s *shot, ops []Op) {
	if len(ops) == 0 {
		r.done(s, Success)
		return
	}
	r.broker.commitOr(r.ctx, &Batch{Ops: ops}, func(reason Reason) { r.done(s, reason) })
}

// fired notes the outcome of an attempt.
func (b *Broker) fired(s *shot) {
	d, reason := s.delayed, s.outcome()
	switch {
	case s.stopped || !reason.OK():
		b.postponed(d, reason)
	case s.expired:
		b.stats.drop(DropExpired)
		b.delayed.published(d)
	default:
		b.stats.delayed.published.Add(1)
		b.delayed.published(d)
	}
}

// postponed puts a message back that was not taken, for which reason is not
// OK, or that must not overtake one.
func (b *Broker) postponed(d *delayedMessage, reason Reason) {
	if !reason.OK() {
		b.stats.delayed.retries.Add(1)
	}
	if b.delayed.postpone(d, reason, nowMillis()) {
		b.log.Warn("delayed message was not taken, trying again; others of the next seconds are only counted", "id", d.id,
			"client", d.message.ClientID, "topic", d.message.Topic, "reason", reason, "in", delayedPause)
	}
}
