package broker

// Subscribe makes the session receive what the filters match. done is called
// once, when that is durable, and before any delivery that it causes leaves
// Next; it must not block. Its slices are parallel to subs: the Reason, and
// the granted QoS where the Reason is Success. Retained values follow through
// the outbox, as each subscription's RetainHandling says.
func (s *Session) Subscribe(subs []Subscription, done func([]Reason, []QoS)) {
	st := s.state
	work := subscribing{state: st, reasons: make([]Reason, len(subs)), granted: make([]QoS, len(subs))}
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
	for i := range subs {
		work.reasons[i] = work.add(&subs[i])
		work.granted[i] = subs[i].QoS
	}
	st.trim()
	durable := st.durable()
	st.mu.Unlock()

	finish := func(err error) {
		if err != nil {
			work.undo(err)
		}
		done(work.reasons, work.granted)
		st.unhold()
	}
	if !durable || len(work.ops) == 0 {
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
	added   []string // filters that were not held before
	ops     []Op
}

// add puts one subscription into the router. Caller holds state.mu, and keeps
// it until the retained values are queued: a live message that comes at the
// same moment is then queued behind the retained one that it replaces.
func (w *subscribing) add(sub *Subscription) Reason {
	switch {
	case sub.QoS > 2:
		return QoSNotSupported
	case ValidFilter(sub.Filter) != nil:
		return InvalidFilter
	case isShared(sub.Filter):
		return SharedNotSupported
	}
	st := w.state
	kept := &subscription{Subscription: *sub}
	if sub.ID != 0 {
		kept.ids = []uint32{sub.ID}
	}
	_, existed := st.subs[sub.Filter]
	if st.subs == nil {
		st.subs = make(map[string]*subscription)
	}
	st.subs[sub.Filter] = kept
	st.broker.router.add(st, kept)
	if !existed {
		w.added = append(w.added, sub.Filter)
	}
	w.ops = append(w.ops, Op{Kind: OpSubscribe, ClientID: st.id, Subscription: &kept.Subscription})
	if sub.RetainHandling == 0 || sub.RetainHandling == 1 && !existed {
		w.retained(kept)
	}
	return Success
}

// retained queues the values that the filter matches. In a durable session
// they get their sequence numbers here and are stored in the same batch as the
// subscription; nothing leaves the outbox before that is done.
func (w *subscribing) retained(sub *subscription) {
	st := w.state
	st.broker.retained.match(sub.Filter, nowMillis(), func(m *Message) bool {
		if sub.NoLocal && m.ClientID == st.id {
			return true
		}
		e := entry{msg: m, size: int32(m.size()), ids: sub.ids, qos: min(sub.QoS, m.QoS), retain: true, shared: true}
		if e.qos > 0 {
			e.seq = st.reserve()
			if st.durable() {
				t := Target{ClientID: st.id, Seq: e.seq, QoS: e.qos, Retain: true, SubscriptionIDs: e.ids}
				w.ops = append(w.ops, Op{Kind: OpEnqueue, Message: m, Targets: []Target{t}})
			}
		}
		st.enqueue(e, false)
		return true
	})
}

// undo takes back what the store refused. Filters that were held before stay,
// with the new options, until the client subscribes again.
func (w *subscribing) undo(err error) {
	st := w.state
	st.mu.Lock()
	for _, f := range w.added {
		delete(st.subs, f)
	}
	st.mu.Unlock()
	for _, f := range w.added {
		st.broker.router.remove(st, f)
	}
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
// What is queued already is still delivered [MQTT-3.10.4-3].
func (s *Session) Unsubscribe(filters []string, done func([]Reason)) {
	st := s.state
	reasons := make([]Reason, len(filters))
	var ops []Op
	st.mu.Lock()
	owner, durable := st.owner == s, st.durable()
	for i, f := range filters {
		switch _, held := st.subs[f]; {
		case !owner:
			reasons[i] = Closed
		case ValidFilter(f) != nil:
			reasons[i] = InvalidFilter
		case !held:
			reasons[i] = NoSubscriptionExisted
		default:
			delete(st.subs, f)
			st.broker.router.remove(st, f)
			ops = append(ops, Op{Kind: OpUnsubscribe, ClientID: st.id, Topic: f})
		}
	}
	st.mu.Unlock()
	finish := func(err error) {
		for i := range reasons {
			if err != nil && reasons[i] == Success {
				reasons[i] = storeReason(err)
			}
		}
		done(reasons)
	}
	if !durable || len(ops) == 0 {
		finish(nil)
		return
	}
	if err := s.broker.commit(s.broker.ctx, &Batch{Ops: ops}, finish); err != nil {
		finish(err)
	}
}
