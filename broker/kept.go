package broker

import "errors"

var errTooManyKept = errors.New("as many sessions are kept as the gateway may")

// takePlace counts a session that outlives its connection, if the cap allows
// one more. The session of the same client that it replaces, or that is
// resumed, leaves it its place, so that a client that is known is never
// refused. Caller holds life.
func (b *Broker) takePlace(old *sessionState) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old != nil && old.durable {
		old.leftPlace = true
		return true
	}
	if b.kept >= b.cfg.Session.MaxKept {
		b.stats.refusedKept.Add(1)
		return false
	}
	b.kept++
	return true
}

// freePlace notes that a session that outlived its connection has ended.
// Caller holds mu.
func (b *Broker) freePlace(st *sessionState) {
	if !st.leftPlace {
		b.kept--
	}
}
