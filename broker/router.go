package broker

import (
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

	mu   sync.RWMutex // covers root and everything below it
	root routerNode
	size int
}

type routerNode struct {
	children map[string]*routerNode
	subs     []route
}

// subscription is a Subscription in use; ids is shared by all deliveries that
// only it causes.
type subscription struct {
	Subscription
	ids []uint32
}

// route is one subscription at the node of its filter.
type route struct {
	session *sessionState
	sub     *subscription
}

// target is one session that gets a message, with all of its subscriptions
// that match.
type target struct {
	session *sessionState
	first   *subscription
	more    []*subscription // beside first, when several filters overlap
}

// add inserts or replaces the subscription of a session.
func (r *router) add(s *sessionState, sub *subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &r.root
	for rest, more := sub.Filter, true; more; {
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
	r.version.Add(1)
	for i := range n.subs {
		if n.subs[i].session == s {
			n.subs[i].sub = sub
			return
		}
	}
	n.subs = append(n.subs, route{s, sub})
	r.size++
}

// remove deletes the subscription and the nodes that nobody needs any more.
func (r *router) remove(s *sessionState, filter string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.root.remove(s, filter) {
		r.size--
		r.version.Add(1)
	}
}

func (n *routerNode) remove(s *sessionState, filter string) bool {
	level, rest, more := strings.Cut(filter, "/")
	child := n.children[level]
	if child == nil {
		return false
	}
	var removed bool
	if more {
		removed = child.remove(s, rest)
	} else {
		removed = child.drop(s)
	}
	if removed && len(child.subs) == 0 && len(child.children) == 0 {
		delete(n.children, level)
	}
	return removed
}

func (n *routerNode) drop(s *sessionState) bool {
	for i := range n.subs {
		if n.subs[i].session == s {
			last := len(n.subs) - 1
			n.subs[i] = n.subs[last]
			n.subs[last] = route{}
			n.subs = n.subs[:last]
			return true
		}
	}
	return false
}

// match returns the sessions whose subscriptions match topic, each once. The
// result is shared and must not be changed.
func (r *router) match(topic string) ([]target, uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m := matcher{}
	m.walk(&r.root, topic, strings.HasPrefix(topic, "$"))
	return m.targets, r.version.Load()
}

func (r *router) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.size
}

// matcher collects targets. A session found by several filters is merged; the
// index that this needs is built only once the list is long.
type matcher struct {
	targets []target
	index   map[*sessionState]int
}

const matcherScan = 16 // up to here a scan is cheaper than a map

func (m *matcher) walk(n *routerNode, topic string, dollar bool) {
	// The # child matches the rest, the parent level included [MQTT-4.7.1-2].
	if hash := n.children["#"]; hash != nil && !dollar {
		m.take(hash.subs)
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
	m.take(n.subs)
	if hash := n.children["#"]; hash != nil {
		m.take(hash.subs)
	}
}

func (m *matcher) take(subs []route) {
	for _, r := range subs {
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
