package broker

import (
	"strings"
	"sync"
)

// exclusivePrefix marks an exclusive subscription, $exclusive/{filter}: only
// one session at a time may hold it. It competes with those that ask for the
// same {filter} by the same prefix; others may subscribe to {filter} itself,
// and to overlapping ones. This is an extension of EMQX, not of MQTT.
const exclusivePrefix = "$exclusive/"

// IsExclusive reports whether a valid filter is that of an exclusive
// subscription.
func IsExclusive(filter string) bool { return strings.HasPrefix(filter, exclusivePrefix) }

// MatchedFilter returns what a valid filter compares topics with: the filter
// without $share/{group}/, $queue/ or $exclusive/.
func MatchedFilter(filter string) string {
	rest, _ := splitShare(canonicalFilter(filter))
	return strings.TrimPrefix(rest, exclusivePrefix)
}

// extended reports whether a topic or filter begins with a word that asks the
// broker for something, so that it may not be what another such word applies to.
func extended(s string) bool {
	for _, word := range []string{"$share", "$queue", "$exclusive", "$delayed"} {
		if s == word || strings.HasPrefix(s, word) && s[len(word)] == '/' {
			return true
		}
	}
	return false
}

// holders knows which session has each exclusive subscription. A hold begins
// before the subscription goes to the store, and ends when its removal is
// there: a restart finds one holder at most.
type holders struct {
	mu      sync.Mutex // covers everything below; taken last
	filters map[string]*sessionState
	held    map[*sessionState][]string // the same the other way round, for the end of a session
}

// hold gives the filter to the session unless another one has it, and reports
// whether the session has it now, and whether that is new.
func (h *holders) hold(filter string, s *sessionState) (ok, taken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.filters[filter] {
	case s:
		return true, false
	case nil:
	default:
		return false, false
	}
	if h.filters == nil {
		h.filters, h.held = make(map[string]*sessionState), make(map[*sessionState][]string)
	}
	h.filters[filter] = s
	h.held[s] = append(h.held[s], filter)
	return true, true
}

// holds reports whether the session has the filter.
func (h *holders) holds(filter string, s *sessionState) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.filters[filter] == s
}

// free ends a hold; where the session has none it does nothing.
func (h *holders) free(filter string, s *sessionState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.filters[filter] != s {
		return
	}
	delete(h.filters, filter)
	mine := h.held[s]
	for i := range mine {
		if mine[i] == filter {
			mine[i] = mine[len(mine)-1]
			mine = mine[:len(mine)-1]
			break
		}
	}
	if h.held[s] = mine; len(mine) == 0 {
		delete(h.held, s)
	}
}

// freeAll ends the holds of a session that has ended.
func (h *holders) freeAll(s *sessionState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.held[s] {
		delete(h.filters, f)
	}
	delete(h.held, s)
}

// free ends the holds of subscriptions whose removal is with the store, unless
// the session has subscribed again.
func (s *sessionState) free(filters []string) {
	if len(filters) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range filters {
		if s.subs[f] == nil {
			s.broker.exclusive.free(f, s)
		}
	}
}

// heldTwice ends a stored subscription that another session has too: the store
// could not take the end of one of them. Which one stays does not matter.
func (b *Broker) heldTwice(s *sessionState, filter string) {
	b.log.Warn("two stored sessions hold an exclusive subscription, one of them loses it", "client", s.id, "filter", filter)
	b.commitSoon(Batch{Ops: []Op{{Kind: OpUnsubscribe, ClientID: s.id, Topic: filter}}})
}
