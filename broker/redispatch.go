package broker

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
)

// errNobody says that no member of a shared subscription can take a message.
var errNobody = errors.New("no member can take it")

// redispatch gives a message of a shared subscription, which came to one
// member and will not be completed by it, to another one of at least that
// fit. from is the first member, e its entry; what the store has of it is
// removed together with the arrival at the other. done is called once, with
// nil when another member has the message, on disk where it must be. With
// NoWait a goroutine of the broker waits for a store that is busy.
func (b *Broker) redispatch(ctx context.Context, from *sessionState, e entry, least fit, done func(error)) {
	if e.msg.Expired(nowMillis()) {
		b.stats.drop(DropExpired)
		from.settleStored(e.seq)
		done(nil)
		return
	}
	for {
		g := b.router.findGroup(e.share)
		if g == nil {
			break
		}
		t, ok := g.pick(b.cfg.ShareStrategy, e.msg, from, least)
		if !ok {
			break
		}
		next, _ := t.entry(e.msg)
		switch {
		case next.qos > 0 && t.session.durable:
			if b.redispatchDurable(ctx, from, e.seq, &pendingEntry{session: t.session, entry: next}, done) {
				return
			}
		case t.session.keep(next):
			from.settleStored(e.seq)
			done(nil)
			return
		}
	}
	done(errNobody)
}

// redispatchDurable is redispatch to a durable session. It returns false, and
// done is not called, when that one has ended meanwhile.
func (b *Broker) redispatchDurable(ctx context.Context, from *sessionState, seq uint64, pe *pendingEntry, done func(error)) bool {
	s := pe.session
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return false
	}
	pe.entry.seq = s.reserve()
	s.mu.Unlock()
	batch := Batch{Ops: []Op{{Kind: OpEnqueue, Message: pe.entry.msg, Targets: []Target{pe.target()}}}}
	if from.durable && seq != 0 {
		batch.Ops = append(batch.Ops, Op{Kind: OpDequeue, ClientID: from.id, Seq: seq})
	}
	send := func(ctx context.Context) error {
		err := b.commit(ctx, &batch, func(err error) {
			s.saved(pe, err)
			done(err)
		})
		if err == nil {
			b.place(pe)
		}
		return err
	}
	giveUp := func(err error) {
		s.release(pe.entry.seq)
		done(err)
	}
	err := send(ctx)
	if ctx == nil && errors.Is(err, ErrBusy) {
		waits := b.spawn(func() {
			if err := send(b.ctx); err != nil {
				giveUp(err)
			}
		})
		if waits {
			return true
		}
	}
	if err != nil {
		giveUp(err)
	}
	return true
}

// place makes an entry visible to its session. It runs after its batch was
// appended, so that whatever the receiver's acknowledgement appends comes
// behind it.
func (b *Broker) place(pe *pendingEntry) {
	s := pe.session
	s.mu.Lock()
	if s.dead && !pe.failed && pe.entry.share != "" {
		s.mu.Unlock()
		b.inherited(NoWait, s, pe.entry)
		return
	}
	var dropped []uint64
	if s.dead || pe.failed {
		s.abandon(pe.entry.seq)
	} else {
		s.enqueuePending(pe)
		dropped = s.trimDurable()
	}
	wake := s.nudge()
	s.mu.Unlock()
	if len(dropped) > 0 {
		s.settle(dropped...)
	}
	wakeUp(wake)
}

// inherited redispatches an entry of a session that has ended while the entry
// held a reserved number; the end of the session waits for the outcome.
func (b *Broker) inherited(ctx context.Context, s *sessionState, e entry) {
	b.redispatch(ctx, s, e, fitNone, func(err error) {
		if err != nil {
			b.stats.drop(s.lostWith())
		}
		s.release(e.seq)
	})
}

// release takes a number off the list of those that deliveries wait for.
func (s *sessionState) release(seq uint64) {
	s.mu.Lock()
	s.abandon(seq)
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
}

// settleStored tells the store of an entry that left the session, if it has it.
func (s *sessionState) settleStored(seq uint64) {
	if s.durable && seq != 0 {
		s.settle(seq)
	}
}

// passOnChunk bounds what is taken out of a queue at once.
const passOnChunk = 256

// passOn gives what waits of shared subscriptions, and was never sent, to
// other members of at least that fit. What they do not take stays, as does
// what only the store holds. It may wait for the store.
func (s *sessionState) passOn(filters []string, least fit) {
	for _, f := range filters {
		for s.passSome(f, least) {
		}
	}
}

// passSome reports whether there may be more to pass on.
func (s *sessionState) passSome(filter string, least fit) bool {
	taken := s.takeUnsent(filter)
	var stays atomic.Bool
	for _, e := range taken {
		if stays.Load() {
			s.takeBack(e)
			continue
		}
		s.broker.redispatch(s.broker.ctx, s, e, least, func(err error) {
			if err == nil {
				s.release(e.seq)
				return
			}
			stays.Store(true)
			s.takeBack(e)
		})
	}
	return len(taken) == passOnChunk && !stays.Load()
}

// unsent reports whether an entry of the queue can go to another member.
func (e *entry) unsent() bool { return e.share != "" && e.qos > 0 && !e.sent && !e.released }

// takeUnsent takes entries of a shared subscription out of the queue. They
// keep their numbers, which deliveries wait for, until takeBack or release.
func (s *sessionState) takeUnsent(filter string) (taken []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := func(e entry) bool { return e.share == filter && e.unsent() }
	if s.dead || !slices.ContainsFunc(s.queue.entries(), wanted) {
		return nil
	}
	kept := fifo{}
	for _, e := range s.queue.entries() {
		if len(taken) == passOnChunk || !wanted(e) {
			kept.push(e)
			continue
		}
		s.forget(&e)
		s.reserved = with(s.reserved, e.seq)
		taken = append(taken, e)
	}
	s.queue = kept
	return taken
}

// takeBack queues again what nobody else took.
func (s *sessionState) takeBack(e entry) {
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		s.broker.inherited(NoWait, s, e)
		return
	}
	s.enqueue(e, false)
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
}

// sharedQueued lists the shared subscriptions of which something waits that
// was never sent. Caller holds mu.
func (s *sessionState) sharedQueued() (filters []string) {
	if !s.sharing {
		return nil
	}
	for _, e := range s.queue.entries() {
		if e.unsent() && !slices.Contains(filters, e.share) {
			filters = append(filters, e.share)
		}
	}
	return filters
}

// estate is what a session leaves that has ended.
type estate struct {
	entries []entry // of shared subscriptions, in memory
	spill   spill
	open    []uint64 // their batches are on the way; place looks after them
	lost    int      // messages that its client has not confirmed, all of the above included
}

// estate lists what is left of the session. Caller holds mu.
func (s *sessionState) estate() *estate {
	x := &estate{lost: s.unconfirmed()}
	if !s.sharing {
		return x
	}
	x.spill, x.open = s.spill, slices.Clone(s.reserved)
	for _, f := range []*fifo{&s.window, &s.queue} {
		for _, e := range f.entries() {
			if e.msg != nil && e.inheritable() {
				x.entries = append(x.entries, e)
			}
		}
	}
	return x
}

// inheritable reports whether another member may get the entry when its
// session ends. A QoS 2 message that was sent may not [MQTT-4.8.2-5].
func (e *entry) inheritable() bool {
	return e.share != "" && !e.released && (e.qos == 1 || e.qos == 2 && !e.sent)
}

// inherit gives what a session that has ended held of shared subscriptions to
// other members, and counts the rest as lost. It waits for the store, so that
// the end of the session comes behind it there.
func (b *Broker) inherit(s *sessionState, x *estate) {
	passed := 0
	pass := func(e entry) {
		passed++
		b.redispatch(b.ctx, s, e, fitNone, func(err error) {
			if err != nil {
				b.stats.drop(s.lostWith())
			}
		})
	}
	for _, e := range x.entries {
		pass(e)
	}
	if x.spill.count > 0 && b.router.groups.Load() > 0 {
		b.eachSpilled(s, x, pass)
	}
	b.stats.dropped[s.lostWith()].Add(uint64(max(0, x.lost-passed)))
}

// lostWith is how the messages are counted that nobody has got when the session
// ends.
func (s *sessionState) lostWith() DropReason {
	if s.durable {
		return DropSessionEnded
	}
	return DropDisconnected
}

// eachSpilled reads the part of the estate that only the store has.
func (b *Broker) eachSpilled(s *sessionState, x *estate, pass func(entry)) {
	for from := x.spill.from; ; {
		page, err := b.store.Queued(s.id, from, pageEntries)
		if err != nil {
			b.log.Error("read messages of a session that has ended", "client", s.id, "err", err)
			return
		}
		if len(page) == 0 {
			return
		}
		for i := range page {
			q := &page[i]
			from = q.Seq + 1
			e := entry{msg: q.Message, seq: q.Seq, qos: q.QoS, share: q.Share, released: q.Released, sent: q.Seq <= s.sentMark}
			if _, open := slices.BinarySearch(x.open, q.Seq); !open && e.msg != nil && e.inheritable() {
				pass(e)
			}
		}
	}
}
