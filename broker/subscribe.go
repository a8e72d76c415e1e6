package broker

import "slices"

// Subscribe makes the session receive what the filters match. done is called
// once, when that is durable, and before any delivery that it causes leaves
// Next; it must not block. Its slices are parallel to subs: the Reason, and
// the granted QoS where the Reason is Success. Retained values follow through
// the outbox, as each subscription's RetainHandling says; a shared
// subscription gets none, and may not have NoLocal.
func (s *Session) Subscribe(subs []Subscription, done func([]Reason, []QoS)) {
	st := s.state
	work := &subscribing{state: st, reasons: make([]Reason, len(subs)), granted: make([]QoS, len(subs))}
	tell := s.tellSubscribed(subs, work)
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		for i := range work.reasons {
			work.reasons[i] = Closed
		}
		done(work.reasons, work.granted)
		return
	}
	st.holds++
	st.handing++
	for i := range subs {
		work.reasons[i] = work.add(&subs[i])
		work.granted[i] = subs[i].QoS
	}
	st.trim()
	st.mu.Unlock()
	defer st.handedOver()

	finish := func(err error) {
		for _, pe := range work.queued {
			st.saved(pe, err)
		}
		if err != nil {
			work.undo(err)
		} else {
			work.settle()
		}
		tell() // first: what the client does after its answer is told later
		done(work.reasons, work.granted)
		st.unhold()
	}
	if !st.durable || len(work.ops) == 0 {
		finish(nil)
		return
	}
	if err := s.broker.commit(s.broker.ctx, &Batch{Ops: work.ops}, finish); err != nil {
		finish(err)
	}
}

// subscribing is the work of one Subscribe.
type subscribing struct {
	state   *sessionState
	reasons []Reason
	granted []QoS
	added   []*subscription // whose filters the store does not have yet
	queued  []*pendingEntry // retained values on their way to the store
	ops     []Op
}

// add puts one subscription into the router. Caller holds state.mu, and keeps
// it until the retained values are queued: a live message that comes at the
// same moment is then queued behind the retained one that it replaces.
func (w *subscribing) add(sub *Subscription) Reason {
	st := w.state
	filter, r := st.owner.named(sub.Filter)
	switch {
	case sub.QoS > 2:
		return QoSNotSupported
	case r != Success:
		return r
	case sub.NoLocal && IsShared(filter):
		return ProtocolError // [MQTT-3.8.3-4]
	}
	kept := &subscription{Subscription: *sub}
	kept.Filter = filter
	if sub.ID != 0 {
		kept.ids = []uint32{sub.ID}
	}
	taken := false
	if IsExclusive(kept.Filter) {
		var ok bool
		if ok, taken = st.broker.exclusive.hold(kept.Filter, st); !ok {
			return QuotaExceeded
		}
	}
	before, existed := st.subs[kept.Filter]
	if existed {
		kept.arrival = before.arrival
	} else {
		kept.arrival = &arrival{taken: taken}
	}
	if st.subs == nil {
		st.subs = make(map[string]*subscription)
	}
	st.subs[kept.Filter] = kept
	st.broker.router.add(st, kept)
	if i := slices.Index(w.added, before); i >= 0 {
		w.added[i] = kept // the same filter twice
	} else if kept.missing() {
		w.added = append(w.added, kept)
	}
	// Devices subscribe anew with each connection. What is stored as it is need
	// not be stored again; another Subscribe on its way may still be undone.
	if !existed || before.Subscription != kept.Subscription || st.holds > 1 {
		w.ops = append(w.ops, Op{Kind: OpSubscribe, ClientID: st.id, Subscription: &kept.Subscription})
	}
	switch {
	case IsShared(kept.Filter): // gets no retained values (MQTT 5 section 4.8.2)
		st.sharing = true
	case sub.RetainHandling == 0 || sub.RetainHandling == 1 && !existed:
		w.retained(kept)
	}
	return Success
}

// retained queues the values that the filter matches, as long as the session's
// cap allows. In a durable session they get their sequence numbers here and
// are stored in the same batch as the subscription; nothing leaves the outbox
// before that is done.
func (w *subscribing) retained(sub *subscription) {
	st := w.state
	limit := st.broker.cfg.Session.QueueBytes
	st.broker.eachRetained(MatchedFilter(sub.Filter), func(m *Message) bool {
		if sub.NoLocal && m.ClientID == st.id {
			return true
		}
		e := entry{msg: m, size: int32(m.size()), ids: sub.ids, qos: min(sub.QoS, m.QoS), retain: true, retained: true}
		switch {
		case e.qos == 0:
			st.enqueue(e, false)
		case !st.durable:
			e.seq = st.reserve()
			st.enqueue(e, false)
		case st.bytes+int64(e.size) > limit:
			st.broker.stats.drop(DropQueueFull)
		default:
			e.seq = st.reserve()
			w.store(e)
		}
		return true
	})
}

// store queues an entry that the batch brings to the store.
func (w *subscribing) store(e entry) {
	t := Target{ClientID: w.state.id, Seq: e.seq, QoS: e.qos, Retain: true, SubscriptionIDs: e.ids}
	w.ops = append(w.ops, Op{Kind: OpEnqueue, Message: e.msg, Targets: []Target{t}})
	pe := &pendingEntry{session: w.state, entry: e}
	w.state.enqueuePending(pe)
	w.queued = append(w.queued, pe)
}

// settle notes that the store has the filters.
func (w *subscribing) settle() {
	w.state.mu.Lock()
	defer w.state.mu.Unlock()
	for _, sub := range w.added {
		sub.arrival.stored = true
	}
}

// undo takes back what the store refused. Filters that were held before stay,
// with the new options, until the client subscribes again; so does one of
// which another Subscribe is on its way.
func (w *subscribing) undo(err error) {
	st := w.state
	st.mu.Lock()
	for _, sub := range w.added {
		if st.subs[sub.Filter] != sub || !sub.missing() {
			continue
		}
		delete(st.subs, sub.Filter)
		st.broker.router.remove(st, sub.Filter)
		if sub.arrival.taken {
			st.broker.exclusive.free(sub.Filter, st)
		}
	}
	st.mu.Unlock()
	for i := range w.reasons {
		if w.reasons[i] == Success {
			w.reasons[i] = storeReason(err)
		}
	}
}

// unhold opens the outbox again after a Subscribe.
func (s *sessionState) unhold() {
	s.mu.Lock()
	s.holds--
	wake := s.nudge()
	s.mu.Unlock()
	wakeUp(wake)
}

// Unsubscribe ends subscriptions. done is called once, when that is durable,
// with Success or NoSubscriptionExisted for each filter; it must not block.
// What is queued already is still delivered [MQTT-3.10.4-3]; what waits of a
// shared subscription and was never sent goes to other members if they can
// take it.
func (s *Session) Unsubscribe(filters []string, done func([]Reason)) {
	st := s.state
	reasons := make([]Reason, len(filters))
	tell := s.tellUnsubscribed(filters, reasons)
	var ops []Op
	var left []string  // shared
	var freed []string // exclusive
	st.mu.Lock()
	owner := st.owner == s
	st.handing++
	for i, f := range filters {
		f, r := s.named(f)
		_, held := st.subs[f]
		if IsExclusive(f) && owner { // held also when the store did not take the end of it
			if held = st.broker.exclusive.holds(f, st) && !slices.Contains(freed, f); held {
				freed = append(freed, f)
			}
		}
		switch {
		case !owner:
			reasons[i] = Closed
		case r != Success:
			reasons[i] = r
		case !held:
			reasons[i] = NoSubscriptionExisted
		default:
			delete(st.subs, f)
			if IsShared(f) {
				left = append(left, f)
			}
			st.broker.router.remove(st, f)
			ops = append(ops, Op{Kind: OpUnsubscribe, ClientID: st.id, Topic: f})
		}
	}
	st.mu.Unlock()
	defer st.passOn(left, fitAway)
	defer st.handedOver()
	finish := func(err error) {
		for i := range reasons {
			if err != nil && reasons[i] == Success {
				reasons[i] = storeReason(err)
			}
		}
		if err == nil {
			st.free(freed)
		}
		tell()
		done(reasons)
	}
	if !st.durable || len(ops) == 0 {
		finish(nil)
		return
	}
	if err := s.broker.commit(s.broker.ctx, &Batch{Ops: ops}, finish); err != nil {
		finish(err)
	}
}
