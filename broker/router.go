package broker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// router finds the sessions whose subscriptions match a topic. Matching costs
// O(levels) for exact filters and is independent of how many sessions hold
// other filters. Readers share a read lock only when their own cached result
// is older than the last change; see matchCache.
type router struct {
	version atomic.Uint64 // grows with every change; read without the lock
	groups  atomic.Int64  // shared subscriptions with members

	mu   sync.RWMutex // covers root and everything below it
	root routerNode
	size int // subscriptions

	shared  int // of them, shared ones
	filters int // nodes with subscriptions
}

type routerNode struct {
	children map[string]*routerNode
	subs     []route
	groups   []*shareGroup // with members; usually there is one at most
}

// subscription is a Subscription in use; ids is shared by all deliveries that
// only it causes.
type subscription struct {
	Subscription
	ids     []uint32
	arrival *arrival // nil when the store had the filter from the start
}

// arrival is the way of a filter to the store, which several Subscribes may be
// on at the same time. Covered by mu of the session.
type arrival struct {
	stored bool // one of them is there
	taken  bool // an exclusive hold began with the first
}

// missing reports whether the store does not have the filter.
func (s *subscription) missing() bool { return s.arrival != nil && !s.arrival.stored }

// route is one subscription at the node of its filter.
type route struct {
	session *sessionState
	sub     *subscription
}

// target is one session that gets a message, with all of its subscriptions
// that match. In a result of match, one without a session stands for a shared
// subscription whose member is still to be chosen; they come last.
type target struct {
	session *sessionState
	first   *subscription
	more    []*subscription // beside first, when several filters overlap
	share   *shareGroup     // the session gets it as a member of this group
}

// add inserts or replaces the subscription of a session.
func (r *router) add(s *sessionState, sub *subscription) {
	filter, shared := MatchedFilter(sub.Filter), IsShared(sub.Filter)
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.make(filter)
	r.version.Add(1)
	if !n.used() {
		r.filters++
	}
	if shared {
		if r.group(n, sub.Filter).join(route{s, sub}) {
			r.size++
			r.shared++
		}
		return
	}
	for i := range n.subs {
		if n.subs[i].session == s && n.subs[i].sub.Filter == sub.Filter {
			n.subs[i].sub = sub
			return
		}
	}
	n.subs = append(n.subs, route{s, sub})
	r.size++
}

// make returns the node of a filter. Caller holds mu.
func (r *router) make(filter string) *routerNode {
	n := &r.root
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*routerNode, 1)
			}
			child = &routerNode{}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	return n
}

// group returns the shared subscription at its node. Caller holds mu.
func (r *router) group(n *routerNode, filter string) *shareGroup {
	if g := n.group(filter); g != nil {
		return g
	}
	g := newShareGroup(filter)
	n.groups = append(n.groups, g)
	r.groups.Add(1)
	return g
}

func (n *routerNode) group(filter string) *shareGroup {
	for _, g := range n.groups {
		if g.filter == filter {
			return g
		}
	}
	return nil
}

// findGroup returns a shared subscription that has members, or nil.
func (r *router) findGroup(shared string) *shareGroup {
	filter, _ := splitShare(shared)
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := &r.root
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if n = n.children[level]; n == nil {
			return nil
		}
	}
	return n.group(shared)
}

// remove deletes the subscription and the nodes that nobody needs any more.
func (r *router) remove(s *sessionState, filter string) {
	rest := MatchedFilter(filter)
	drop := func(n *routerNode) bool { return n.drop(s, filter) }
	if IsShared(filter) {
		drop = func(n *routerNode) bool { return r.leave(n, filter, s) }
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.root.remove(rest, func(n *routerNode) bool {
		removed := drop(n)
		if removed && !n.used() {
			r.filters--
		}
		return removed
	}) {
		r.size--
		if IsShared(filter) {
			r.shared--
		}
		r.version.Add(1)
	}
}

func (n *routerNode) remove(filter string, drop func(*routerNode) bool) bool {
	level, rest, more := strings.Cut(filter, "/")
	child := n.children[level]
	if child == nil {
		return false
	}
	var removed bool
	if more {
		removed = child.remove(rest, drop)
	} else {
		removed = drop(child)
	}
	if removed && len(child.subs) == 0 && len(child.groups) == 0 && len(child.children) == 0 {
		delete(n.children, level)
	}
	return removed
}

func (n *routerNode) drop(s *sessionState, filter string) bool {
	for i := range n.subs {
		if n.subs[i].session == s && n.subs[i].sub.Filter == filter {
			last := len(n.subs) - 1
			n.subs[i] = n.subs[last]
			n.subs[last] = route{}
			n.subs = n.subs[:last]
			return true
		}
	}
	return false
}

// leave takes a member out of a group, and the group away with its last one.
// Caller holds mu.
func (r *router) leave(n *routerNode, filter string, s *sessionState) bool {
	g := n.group(filter)
	if g == nil || !g.leave(s) {
		return false
	}
	if len(*g.members.Load()) == 0 {
		n.groups = slices.DeleteFunc(n.groups, func(other *shareGroup) bool { return other == g })
		r.groups.Add(-1)
	}
	return true
}

// match returns the sessions whose subscriptions match topic, each once, and
// behind them the shared subscriptions that do. The result is shared and must
// not be changed.
func (r *router) match(topic string) ([]target, uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := matcher{}
	m.walk(&r.root, topic, strings.HasPrefix(topic, "$"))
	for _, g := range m.groups {
		m.targets = append(m.targets, target{share: g})
	}
	return m.targets, r.version.Load()
}

func (r *router) count() int {
	n, _, _ := r.counts()
	return n
}

func (r *router) counts() (subscriptions, shared, filters int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.size, r.shared, r.filters
}

// used reports whether anybody subscribes with the filter of the node.
func (n *routerNode) used() bool { return len(n.subs)+len(n.groups) > 0 }

// matcher collects targets. A session found by several filters is merged; the
// index that this needs is built only once the list is long.
type matcher struct {
	targets []target
	index   map[*sessionState]int
	groups  []*shareGroup
}

const matcherScan = 16 // up to here a scan is cheaper than a map

func (m *matcher) walk(n *routerNode, topic string, dollar bool) {
	// The # child matches the rest, the parent level included [MQTT-4.7.1-2].
	if hash := n.children["#"]; hash != nil && !dollar {
		m.take(hash)
	}
	level, rest, more := strings.Cut(topic, "/")
	if child := n.children[level]; child != nil && level != "+" && level != "#" {
		m.descend(child, rest, more)
	}
	if plus := n.children["+"]; plus != nil && !dollar {
		m.descend(plus, rest, more)
	}
}

func (m *matcher) descend(n *routerNode, rest string, more bool) {
	if more {
		m.walk(n, rest, false)
		return
	}
	m.take(n)
	if hash := n.children["#"]; hash != nil {
		m.take(hash)
	}
}

func (m *matcher) take(n *routerNode) {
	if len(n.groups) > 0 {
		m.groups = append(m.groups, n.groups...)
	}
	for _, r := range n.subs {
		if i, ok := m.find(r.session); ok {
			m.targets[i].more = append(m.targets[i].more, r.sub)
			continue
		}
		if m.index != nil {
			m.index[r.session] = len(m.targets)
		}
		m.targets = append(m.targets, target{session: r.session, first: r.sub})
	}
}

func (m *matcher) find(s *sessionState) (int, bool) {
	if m.index == nil && len(m.targets) > matcherScan {
		m.index = make(map[*sessionState]int, 2*len(m.targets))
		for i := range m.targets {
			m.index[m.targets[i].session] = i
		}
	}
	if m.index != nil {
		i, ok := m.index[s]
		return i, ok
	}
	for i := range m.targets {
		if m.targets[i].session == s {
			return i, true
		}
	}
	return 0, false
}

// matchCache remembers the routes of the topics that one publisher used last.
// It is owned by one goroutine at a time and is valid as long as the router's
// version did not change.
type matchCache struct {
	version uint64
	topics  map[string][]target
}

// matchCacheTopics bounds the cache: a device publishes to few topics, and a
// publisher of many must not hold memory for all of them.
const matchCacheTopics = 64

// matchCacheTargets bounds one cached result: giving a message to so many
// sessions costs far more than finding them.
const matchCacheTargets = 256

func (c *matchCache) match(r *router, topic string) []target {
	v := r.version.Load()
	if c.version == v {
		if t, ok := c.topics[topic]; ok {
			return t
		}
	}
	t, v2 := r.match(topic)
	if len(t) > matchCacheTargets {
		return t
	}
	if c.topics == nil || c.version != v2 || len(c.topics) >= matchCacheTopics {
		c.topics = make(map[string][]target, 1)
	}
	c.version = v2
	c.topics[topic] = t
	return t
}
