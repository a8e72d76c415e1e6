package broker

import (
	"context"
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// retained holds the last retained message of each topic. Replacing the value
// of a known topic needs only the read lock; the tree is locked for writing
// when a topic appears or goes.
type retained struct {
	mu    sync.RWMutex // covers the tree; values are atomic
	root  retainedNode
	count atomic.Int64
	bytes atomic.Int64

	changes retainedChanges

	// order makes "set the value and hand it to the store" one step per topic,
	// so that memory and disk agree about which of two messages is the last.
	// One slot each; a channel, because a writer may wait for the disk while it
	// holds it, and the next one must be able to give up.
	order [64]chan struct{}
	seed  maphash.Seed
}

type retainedNode struct {
	children map[string]*retainedNode
	message  atomic.Pointer[Message]
}

func newRetained() *retained {
	r := &retained{seed: maphash.MakeSeed()}
	for i := range r.order {
		r.order[i] = make(chan struct{}, 1)
	}
	return r
}

// orderSpins is how often a caller that must not block looks for its turn. A
// writer that does not wait for the disk is done long before.
const orderSpins = 200

// lockTopic serialises writers of one topic (and of those that share its
// stripe). It returns nil when ctx ends first, or with NoWait when another
// writer waits for the disk.
func (r *retained) lockTopic(ctx context.Context, topic string) (unlock func()) {
	slot := r.order[maphash.String(r.seed, topic)%uint64(len(r.order))]
	unlock = func() { <-slot }
	if ctx != nil {
		select {
		case slot <- struct{}{}:
			return unlock
		case <-ctx.Done():
			return nil
		}
	}
	for range orderSpins {
		select {
		case slot <- struct{}{}:
			return unlock
		default:
			runtime.Gosched()
		}
	}
	return nil
}

// set stores m as the retained value of its topic, whatever the limits.
func (r *retained) set(m *Message) { r.put(m, noLimits) }

// put stores m as the retained value of its topic and returns the value that
// it replaces, nil when there was none. What would exceed a limit is not
// stored. Callers that must not exceed one hold the topic's turn.
func (r *retained) put(m *Message, limits retainedLimits) (old *Message, refused retainedLimit) {
	r.mu.RLock()
	if n := r.find(m.Topic); n != nil {
		old = n.message.Load() // clearing it takes the write lock
	}
	if old != nil {
		refused = r.replace(m, old, limits)
		r.mu.RUnlock()
		return old, refused
	}
	r.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.find(m.Topic); n != nil {
		old = n.message.Load()
	}
	if old != nil {
		return old, r.replace(m, old, limits)
	}
	if r.count.Load() >= limits.count {
		return nil, limitCount
	}
	if !r.grow(m.size(), limits.bytes) {
		return nil, limitBytes
	}
	r.count.Add(1)
	r.make(m.Topic).message.Store(m)
	return nil, limitNone
}

// replace stores m in the place of old. Caller holds mu, for reading at least.
func (r *retained) replace(m, old *Message, limits retainedLimits) (refused retainedLimit) {
	if !r.grow(m.size()-old.size(), limits.bytes) {
		return limitBytes
	}
	r.find(m.Topic).message.Store(m)
	return limitNone
}

// grow counts more bytes, or less, unless that exceeds a limit.
func (r *retained) grow(more int, limit int64) bool {
	for {
		now := r.bytes.Load()
		next := now + int64(more)
		if more > 0 && next > limit {
			return false
		}
		if r.bytes.CompareAndSwap(now, next) {
			return true
		}
	}
}

// clear removes the retained value of a topic and returns it, nil when there
// was none.
func (r *retained) clear(topic string) (old *Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clearLocked(topic)
}

func (r *retained) clearLocked(topic string) (old *Message) {
	if old = r.root.clear(topic); old != nil {
		r.count.Add(-1)
		r.bytes.Add(-int64(old.size()))
	}
	return old
}

func (n *retainedNode) clear(topic string) *Message {
	level, rest, more := strings.Cut(topic, "/")
	child := n.children[level]
	if child == nil {
		return nil
	}
	var old *Message
	if more {
		old = child.clear(rest)
	} else {
		old = child.message.Swap(nil)
	}
	if len(child.children) == 0 && child.message.Load() == nil {
		delete(n.children, level)
	}
	return old
}

func (r *retained) find(topic string) *retainedNode {
	n := &r.root
	for rest, more := topic, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if n = n.children[level]; n == nil {
			return nil
		}
	}
	return n
}

func (r *retained) make(topic string) *retainedNode {
	n := &r.root
	for rest, more := topic, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*retainedNode, 1)
			}
			child = &retainedNode{}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	return n
}

// get returns the retained value of one topic, nil when there is none or it
// has expired.
func (r *retained) get(topic string, now int64) *Message {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.find(topic)
	if n == nil {
		return nil
	}
	if m := n.message.Load(); m != nil && !m.Expired(now) {
		return m
	}
	return nil
}

// match calls visit for every retained value that a filter matches, until
// visit returns false. visit runs under the read lock and must not block.
func (r *retained) match(filter string, now int64, visit func(*Message) bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.root.match(filter, true, now, visit)
}

func (n *retainedNode) match(filter string, top bool, now int64, visit func(*Message) bool) bool {
	level, rest, more := strings.Cut(filter, "/")
	switch level {
	case "#":
		return n.all(top, now, visit)
	case "+":
		for name, child := range n.children {
			if top && strings.HasPrefix(name, "$") {
				continue
			}
			if !child.follow(rest, more, now, visit) {
				return false
			}
		}
		return true
	}
	if child := n.children[level]; child != nil {
		return child.follow(rest, more, now, visit)
	}
	return true
}

func (n *retainedNode) follow(rest string, more bool, now int64, visit func(*Message) bool) bool {
	if !more {
		return n.show(now, visit)
	}
	return n.match(rest, false, now, visit)
}

// all visits the node itself, for a/# matches a, and everything below it.
func (n *retainedNode) all(top bool, now int64, visit func(*Message) bool) bool {
	if !n.show(now, visit) {
		return false
	}
	for name, child := range n.children {
		if top && strings.HasPrefix(name, "$") {
			continue
		}
		if !child.all(false, now, visit) {
			return false
		}
	}
	return true
}

func (n *retainedNode) show(now int64, visit func(*Message) bool) bool {
	m := n.message.Load()
	return m == nil || m.Expired(now) || visit(m)
}
