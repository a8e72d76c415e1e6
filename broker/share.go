package broker

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
)

// ShareStrategy says which member of a shared subscription gets a message.
// Whatever it says, a message goes to a member that can take it: round_robin
// and random pass over attached members whose window is full as long as
// another one has room; the other three stay with their choice while it is
// attached and its queue has room. Where nobody is attached, a durable session
// that is away gets the message.
type ShareStrategy string

// The strategies.
const (
	ShareRoundRobin   ShareStrategy = "round_robin"   // one after the other
	ShareRandom       ShareStrategy = "random"        //
	ShareSticky       ShareStrategy = "sticky"        // the same member until it cannot take a message
	ShareHashClientID ShareStrategy = "hash_clientid" // by the publisher: all of its messages to one member
	ShareHashTopic    ShareStrategy = "hash_topic"    // by the topic
)

// ShareStrategies lists them, the default first.
func ShareStrategies() []ShareStrategy {
	return []ShareStrategy{ShareRoundRobin, ShareRandom, ShareSticky, ShareHashClientID, ShareHashTopic}
}

// keeps reports whether the choice is worth waiting for.
func (s ShareStrategy) keeps() bool { return s != ShareRoundRobin && s != ShareRandom }

// shareGroup is one shared subscription: a share name and a filter, with the
// members that subscribed to both.
type shareGroup struct {
	filter  string                       // $share/{name}/{filter}
	members atomic.Pointer[[]route]      // ordered by client identifier; replaced, never changed
	turn    atomic.Uint64                // of round_robin
	chosen  atomic.Pointer[sessionState] // of sticky
}

func newShareGroup(filter string) *shareGroup {
	g := &shareGroup{filter: filter}
	g.members.Store(new([]route))
	return g
}

// join adds a member, or replaces its subscription, and reports whether it is
// new. Caller holds the router's mu, as for leave.
func (g *shareGroup) join(r route) bool {
	members := slices.Clone(*g.members.Load())
	at, member := slices.BinarySearchFunc(members, r.session.id, func(m route, id string) int { return cmp.Compare(m.session.id, id) })
	// The id may be that of a session which is just being replaced.
	for i := at; member && i < len(members) && members[i].session.id == r.session.id; i++ {
		if members[i].session == r.session {
			members[i] = r
			g.members.Store(&members)
			return false
		}
	}
	members = slices.Insert(members, at, r)
	g.members.Store(&members)
	return true
}

// leave removes a member and reports whether it was one.
func (g *shareGroup) leave(s *sessionState) bool {
	members := *g.members.Load()
	i := slices.IndexFunc(members, func(m route) bool { return m.session == s })
	if i < 0 {
		return false
	}
	members = slices.Delete(slices.Clone(members), i, i+1)
	g.members.Store(&members)
	g.chosen.CompareAndSwap(s, nil)
	return true
}

// fit says how well a session can take one more message; a higher one is
// better.
type fit uint8

const (
	fitNone   fit = iota // it would not get it
	fitLossy             // attached; it would drop its oldest message from memory
	fitFull              // durable and at its cap: the publisher is refused, or the oldest message goes
	fitAway              // durable, not attached
	fitQueued            // attached; the message would wait in its queue
	fitNow               // attached, with room in its window
)

// fit judges the session for a message of a shared subscription.
func (s *sessionState) fit(sub *subscription, m *Message) fit {
	kept := s.durable && min(sub.QoS, m.QoS) > 0
	c := &s.broker.cfg.Session
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead, s.owner == nil && !kept:
		return fitNone
	case kept && s.bytes+int64(m.size()) > c.QueueBytes:
		return fitFull
	case !kept && s.memory+m.size() > s.memoryLimit():
		return fitLossy
	case s.owner == nil:
		return fitAway
	case s.window.len()+s.queue.len()+s.spill.count+len(s.reserved) < s.owner.receiveMaximum:
		return fitNow
	}
	return fitQueued
}

// pick chooses the member for a message, except one and only among those of
// at least that fit.
func (g *shareGroup) pick(strategy ShareStrategy, m *Message, except *sessionState, least fit) (target, bool) {
	members := *g.members.Load()
	enough := fitNow
	if strategy.keeps() {
		enough = fitQueued
	}
	best, at := fitNone, -1
	for i, n := g.start(strategy, members, m), len(members); n > 0 && best < enough; n-- {
		if r := &members[i]; r.session != except {
			if f := r.session.fit(r.sub, m); f > best {
				best, at = f, i
			}
		}
		if i++; i == len(members) {
			i = 0
		}
	}
	if best == fitNone || best < least {
		return target{}, false
	}
	r := &members[at]
	if strategy == ShareSticky && g.chosen.Load() != r.session {
		g.chosen.Store(r.session)
	}
	return target{session: r.session, first: r.sub, share: g}, true
}

// start is the member that is asked first.
func (g *shareGroup) start(strategy ShareStrategy, members []route, m *Message) int {
	n := uint64(len(members))
	if n < 2 {
		return 0
	}
	switch strategy {
	case ShareRandom:
		return rand.IntN(len(members))
	case ShareSticky:
		chosen := g.chosen.Load()
		if i := slices.IndexFunc(members, func(r route) bool { return r.session == chosen }); i >= 0 {
			return i
		}
		return rand.IntN(len(members))
	case ShareHashClientID:
		return int(hashText(m.ClientID) % n)
	case ShareHashTopic:
		return int(hashText(m.Topic) % n)
	}
	return int((g.turn.Add(1) - 1) % n)
}

// hashText is FNV-1a: the same in every process, so that a restart changes no
// choice.
func hashText(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

const (
	sharePrefix = "$share/"
	queuePrefix = "$queue/"
)

// canonicalFilter turns $queue/{filter} into what it stands for. As in EMQX,
// that is a shared subscription of the group $queue.
func canonicalFilter(filter string) string {
	if strings.HasPrefix(filter, queuePrefix) {
		return sharePrefix + filter
	}
	return filter
}

// splitShare returns the filter behind the share name of a valid and canonical
// filter.
func splitShare(filter string) (rest string, shared bool) {
	if !strings.HasPrefix(filter, sharePrefix) {
		return filter, false
	}
	_, rest, _ = strings.Cut(filter[len(sharePrefix):], "/")
	return rest, true
}

// IsShared reports whether a valid filter is that of a shared subscription:
// $share/{name}/{filter}, or $queue/{filter}.
func IsShared(filter string) bool {
	return strings.HasPrefix(filter, sharePrefix) || strings.HasPrefix(filter, queuePrefix)
}
