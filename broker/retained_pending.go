package broker

import "sync"

// retainedChanges knows, for each topic whose retained value is on its way to
// the store, the value that the store has: changes that are refused are undone
// to that one, however many of them follow each other.
type retainedChanges struct {
	mu     sync.Mutex // taken before that of the values
	topics map[string]*retainedChange
}

type retainedChange struct {
	stored  *Message // nil = the store has no value
	newest  *Message // of the changes
	waiting int      // changes of which the outcome is not known
}

// change makes m the retained value of its topic, or clears it if m has no
// payload. changed is false when there is nothing to change. Each change needs
// one settle. Caller holds the topic's turn.
func (r *retained) change(m *Message, limits retainedLimits) (changed bool, refused retainedLimit) {
	c := &r.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[m.Topic]
	var old *Message
	if len(m.Payload) == 0 {
		if old = r.clear(m.Topic); old == nil && p == nil {
			return false, limitNone
		}
	} else if old, refused = r.put(m, limits); refused != limitNone {
		return false, refused
	}
	if p == nil {
		if c.topics == nil {
			c.topics = make(map[string]*retainedChange)
		}
		p = &retainedChange{stored: old}
		c.topics[m.Topic] = p
	}
	p.newest = m
	p.waiting++
	return true, limitNone
}

// settle notes the outcome of the change that m made; outcomes come in the
// order of the changes. Unless keep, a change that failed is undone when no
// other one followed it. It returns the value that is there again, if any.
func (r *retained) settle(m *Message, stored, keep bool) (again *Message) {
	c := &r.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[m.Topic]
	switch {
	case stored && len(m.Payload) == 0:
		p.stored = nil
	case stored:
		p.stored = m
	case p.newest == m && !keep:
		again = p.stored
		r.reset(m.Topic, again)
	}
	if p.waiting--; p.waiting == 0 {
		delete(c.topics, m.Topic)
	}
	return again
}

// reset makes m the value of a topic whatever the limits, nil = it has none.
func (r *retained) reset(topic string, m *Message) {
	if m == nil {
		r.clear(topic)
		return
	}
	r.set(m)
}
