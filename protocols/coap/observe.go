package coap

import (
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// observation is one registration of RFC 7641: one subscription of a session.
type observation struct {
	session *session
	token   token
	filter  string
	key     string // identifies the resource in requests for further blocks
	id      uint32 // Subscription Identifier
	active  bool   // the broker accepted it and the client was told
	removed bool

	sequence  uint64        // of the last notification
	unchecked int           // notifications since the last confirmable one
	checkedAt time.Duration // when the client last showed that it is there
	transfers []*transmission
}

// observe serves GET with Observe 0. A registration is identified by peer and
// token; doing it again, or registering the same filter under another token,
// renews it (RFC 7641 section 4.1).
func (l *loop) observe(ex *exchange, req *request, s *session, filter string, q *params) {
	o := l.observationFor(ex, s, filter)
	if o == nil {
		l.respond(ex, refusal(codes.TooManyRequests, "too many observations"))
		return
	}
	o.key = cacheKey(req)
	sub := broker.Subscription{
		Filter: filter, QoS: q.level(ex.con), NoLocal: q.noLocal,
		RetainAsPublished: q.retainAsPublished, RetainHandling: q.retainHandling, ID: o.id,
	}
	if !hasWildcard(filter) {
		sub.RetainHandling = 2 // the response carries the value
	}
	first := firstRepresentation{accept: req.accept, block2: req.block2, retained: q.retainHandling != 2}
	for _, e := range req.etags {
		first.etags = append(first.etags, slices.Clone(e))
	}
	ex.first = &first
	s.registering++
	l.wait(ex)
	s.handle.Subscribe([]broker.Subscription{sub}, func(reasons []broker.Reason, _ []broker.QoS) {
		l.events.post(event{kind: eventSubscribed, exchange: ex, session: s, observation: o, reason: reasons[0]})
	})
}

// firstRepresentation is what the answer to a registration needs of the
// request, which is gone by then.
type firstRepresentation struct {
	accept   int
	block2   block
	etags    [][]byte
	retained bool // wanted
}

// observationFor finds the observation that a registration renews or makes a
// new one; nil means that the peer has too many.
func (l *loop) observationFor(ex *exchange, s *session, filter string) *observation {
	p := ex.peer
	for _, other := range p.sessions {
		for _, o := range other.observations {
			if o.token == ex.token && (other != s || o.filter != filter) {
				l.removeObservation(o)
				break
			}
		}
	}
	for _, o := range s.observations {
		if o.filter == filter {
			o.token = ex.token
			return o
		}
	}
	if p.observations >= l.cfg.MaxObservationsPerPeer {
		return nil
	}
	s.subscriptionID++
	o := &observation{session: s, token: ex.token, filter: filter, id: s.subscriptionID}
	s.observations = append(s.observations, o)
	p.observations++
	l.metrics.observers.Inc()
	l.pin(p)
	return o
}

// subscribed answers a registration.
func (l *loop) subscribed(e *event) {
	s, o, ex := e.session, e.observation, e.exchange
	s.registering--
	first := ex.first
	ex.first = nil
	if s.closed {
		l.fail(ex, broker.Closed)
		return
	}
	if o.removed { // replaced meanwhile
		l.respond(ex, &response{code: codes.Content})
		l.deliver(s)
		return
	}
	if !e.reason.OK() {
		if o.active { // a renewal: the earlier subscription is still there
			l.removeObservation(o)
		}
		l.dropObservation(o)
		l.fail(ex, e.reason)
		return
	}
	o.active, o.checkedAt = true, l.now
	l.respond(ex, l.firstNotification(o, ex.peer, first))
	l.deliver(s)
}

// firstNotification is the answer to a registration: the retained value if the
// filter names one topic and there is one, else an empty representation.
func (l *loop) firstNotification(o *observation, p *peer, first *firstRepresentation) *response {
	r := &response{code: codes.Content}
	if !hasWildcard(o.filter) && first.retained {
		if m, reason := o.session.handle.Retained(broker.MatchedFilter(o.filter)); reason.OK() && m != nil {
			req := request{accept: first.accept, etags: first.etags, block2: first.block2, key: o.key}
			r = l.represent(&req, p, m)
		}
	}
	if class(r.code) == 2 {
		r.observe, r.hasObserve = o.nextSequence(l.now), true
		return r
	}
	l.removeObservation(o) // 4.06: an error ends the observation (RFC 7641 section 4.2)
	return r
}

// nextSequence returns the 24-bit Observe value of the next notification. It
// follows the clock in steps of 32.768 µs, so that the client can tell newer
// from older for more than the 128 s that RFC 7641 section 4.4 asks for, and
// it is strictly increasing.
func (o *observation) nextSequence(now time.Duration) uint32 {
	o.sequence = max(o.sequence+1, uint64(now)>>15)
	return uint32(o.sequence & 0xFFFFFF)
}

// cancel ends the observation that a GET with Observe 1 names: by its token,
// or by the filter for clients that use a new token.
func (l *loop) cancel(s *session, t token, filter string) bool {
	i := slices.IndexFunc(s.observations, func(o *observation) bool { return o.token == t })
	if i < 0 {
		i = slices.IndexFunc(s.observations, func(o *observation) bool { return o.filter == filter })
	}
	if i < 0 {
		return false
	}
	l.removeObservation(s.observations[i])
	return true
}

// removeObservation ends one observation and its subscription; the session's
// others go on.
func (l *loop) removeObservation(o *observation) {
	if o.removed {
		return
	}
	l.dropObservation(o)
	o.session.handle.Unsubscribe([]string{o.filter}, func([]broker.Reason) {})
}

// dropObservation forgets an observation whose subscription ends by itself.
func (l *loop) dropObservation(o *observation) {
	if o.removed {
		return
	}
	o.removed = true
	s := o.session
	p := s.peer
	if i := slices.Index(s.observations, o); i >= 0 {
		s.observations = slices.Delete(s.observations, i, i+1)
	}
	for len(o.transfers) > 0 {
		t := o.transfers[0]
		o.transfers = o.transfers[1:]
		l.finishTransmission(t, outcomeReset)
	}
	for _, b := range slices.Clone(p.bodies) {
		if b.observation == o {
			l.dropBody(p, b)
		}
	}
	p.observations--
	l.metrics.observers.Dec()
	s.used = l.now
	if p.observations == 0 {
		l.release(p)
	}
}

// checkObserver asks an observer that was silent for long for a sign of life,
// with the empty confirmable message that every endpoint answers with RST.
func (l *loop) checkObserver(p *peer) {
	if p.observations == 0 {
		return
	}
	if due := p.heard + l.cfg.ObserverCheck; due > l.now {
		l.timers.set(&p.check, due)
		return
	}
	mid := p.nextMID()
	ping := emptyMessage(message.Confirmable, mid)
	l.transmit(p, mid, ping[:], func(o outcome) {
		if o != outcomeTimeout {
			l.timers.set(&p.check, l.now+l.cfg.ObserverCheck) // stops there if it observes nothing any more
			return
		}
		for _, s := range slices.Clone(p.sessions) {
			if len(s.observations) > 0 {
				l.endSession(s, closeUnreachable)
			}
		}
	})
}
