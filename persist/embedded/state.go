package embedded

import (
	"gantry/broker"
	"gantry/persist/seglog"
)

// state is what lives: keys with the log record that holds each value. It changes in one place, apply, which recovery and commits share,
// in log order.
type state struct {
	clients  map[string]*client
	retained map[string]*item // pointers, because assigning to an existing key must not allocate the key again
	delayed  map[uint64]*item
	live     int64 // estimate of the log bytes that live; an upper bound once each record was copied or written with its present owners
	queued   int64 // entries of all queues
	replay   bool  // recovery: see client.born
	values   *values
}

// item is a value that only the log holds.
type item struct {
	rec   uint64 // the log record
	op    uint32 // offset of the op in it
	share uint32 // bytes of the log that live because of it
}

// client is one session and what belongs to it.
type client struct {
	id     string
	exists bool // has a session record. Only recovery keeps clients that have none
	record item

	// born is the number of the log record that created the session, bornRec the record that says so: the same one, or an opBorn that
	// the cleaner wrote. When the cleaner moves a session record to the end of the log, what belongs to the session comes to lie before
	// it, and recovery meets it without an owner: it belongs to the session when it is not older than born. Older things were
	// committed for a session that had been deleted, and the commit ignored them.
	born    uint64
	bornOp  uint32 // offset of the op in record born; 0 when that record is gone
	bornRec uint64
	orphans bool       // recovery: something came before the session record
	early   []sentMark // recovery: OpSent before the session record

	deleting uint64 // highest log record that deletes the session, applied or not; kept up while the cleaner works

	subs    map[string]item
	inbound map[uint16]item
	sent    uint64
	sentRec uint64
	queue   queue
}

type sentMark struct {
	seq, rec uint64
	op       uint32
}

// opOverhead is what an op and its share of the record's frame take beside strings and bodies.
const opOverhead = 32

// sessionOverhead is what the cleaner may write for a session beside its record: where it began and what was sent.
const sessionOverhead = 128

func newState() state {
	return state{clients: make(map[string]*client), retained: make(map[string]*item), delayed: make(map[uint64]*item), values: newValues()}
}

// owner returns the client that an op is about, or nil when there is no such session and the op has no effect.
func (s *state) owner(id []byte) *client {
	c := s.clients[string(id)]
	if c != nil || !s.replay {
		return c
	}
	c = &client{id: string(id)}
	s.clients[c.id] = c
	return c
}

// place is where the record that is being applied lies.
type place struct {
	rec uint64
	pos seglog.Pos
}

// apply makes a committed record take effect. What cannot be decoded has none; recovery checks records before.
func (s *state) apply(b []byte, at place) {
	r, err := openRecord(b)
	if err != nil {
		return
	}
	var o op
	for {
		more, err := r.next(&o)
		if err != nil || !more {
			return
		}
		switch o.kind {
		case broker.OpRetain:
			s.retain(&r, &o, at)
		case broker.OpUnretain:
			s.unretain(&o)
		case broker.OpDelay:
			s.delay(&r, &o, at)
		case broker.OpDelayDone:
			s.delayDone(&o)
		case broker.OpEnqueue:
			s.enqueue(&r, &o, at)
		case broker.OpPutSession:
			s.putSession(&o, at)
		case broker.OpDeleteSession:
			s.deleteSession(o.client)
		case opVoid: // recovery looks at it before
		default:
			if c := s.owner(o.client); c != nil {
				s.change(c, &o, at)
			}
		}
	}
}

func (s *state) retain(r *record, o *op, at place) {
	_, msg, _, ok := r.message(o.index)
	if !ok {
		return
	}
	it := item{rec: at.rec, op: uint32(o.off), share: uint32(len(msg) + len(o.body) + opOverhead)}
	cur := s.retained[string(o.key)]
	if cur == nil {
		cur = new(item)
		s.retained[string(o.key)] = cur
	}
	s.set(cur, it)
	s.values.retain(o.key, msg)
}

func (s *state) unretain(o *op) {
	if cur := s.retained[string(o.key)]; cur != nil {
		s.live -= int64(cur.share)
		delete(s.retained, string(o.key))
		s.values.unretain(o.key)
	}
}

func (s *state) enqueue(r *record, o *op, at place) {
	stored, msg, _, ok := r.message(o.index)
	if !ok || o.count == 0 {
		return
	}
	e := entry{
		rec: at.rec, rel: uint32(at.rec - at.pos.Segment), offset: uint32(at.pos.Offset), op: uint32(o.off), stored: uint32(stored),
		share: uint32((len(msg)+len(o.body)+opOverhead)/o.count + 1),
	}
	for range o.count {
		t := o.target()
		c := s.owner(t.client)
		if c == nil {
			continue
		}
		c.orphans = c.orphans || !c.exists
		e.seq, e.flags = t.seq, uint32(t.flags)
		share, count := c.queue.share, c.queue.count
		c.queue.put(e)
		s.live += c.queue.share - share
		s.queued += int64(c.queue.count - count)
	}
}

func (s *state) putSession(o *op, at place) {
	c := s.clients[string(o.client)]
	if c == nil {
		c = &client{id: string(o.client)}
		s.clients[c.id] = c
	}
	if !c.exists {
		c.exists = true
		if c.bornRec == 0 {
			c.born, c.bornOp, c.bornRec = at.rec, uint32(o.off), at.rec
		}
	}
	s.set(&c.record, item{rec: at.rec, op: uint32(o.off), share: uint32(len(o.body) + opOverhead + sessionOverhead)})
	s.values.session(c.id, o.body)
}

func (s *state) deleteSession(id []byte) {
	c := s.clients[string(id)]
	if c == nil {
		return
	}
	s.forget(c)
	delete(s.clients, c.id)
	s.values.drop(c.id)
}

// forget takes a client's share out of the sums.
func (s *state) forget(c *client) {
	s.live -= int64(c.record.share) + c.queue.share
	for _, it := range c.subs {
		s.live -= int64(it.share)
	}
	for _, it := range c.inbound {
		s.live -= int64(it.share)
	}
	s.queued -= int64(c.queue.count)
}

// set replaces a value.
func (s *state) set(at *item, it item) {
	s.live += int64(it.share) - int64(at.share)
	*at = it
}

// change applies the ops about one client that need no session record of their own.
func (s *state) change(c *client, o *op, at place) {
	it := item{rec: at.rec, op: uint32(o.off), share: uint32(len(o.body) + opOverhead)}
	switch o.kind {
	case broker.OpSubscribe:
		c.orphans = c.orphans || !c.exists
		old := c.subs[string(o.key)]
		s.set(&old, it)
		if c.subs == nil {
			c.subs = make(map[string]item)
		}
		c.subs[string(o.key)] = old
		s.values.subscribe(c.id, o.key, o.body)
	case broker.OpUnsubscribe:
		s.live -= int64(c.subs[string(o.key)].share)
		delete(c.subs, string(o.key))
		s.values.unsubscribe(c.id, o.key)
	case broker.OpDequeue:
		share := c.queue.share
		if c.queue.remove(o.num) {
			s.queued--
			s.live += c.queue.share - share
		}
	case broker.OpReleased:
		if e := c.queue.find(o.num); e != nil {
			e.flags |= entryReleased
		}
	case broker.OpSent:
		c.markSent(sentMark{o.num, at.rec, uint32(o.off)})
	case broker.OpInbound:
		c.orphans = c.orphans || !c.exists
		old := c.inbound[uint16(o.num)]
		s.set(&old, it)
		if c.inbound == nil {
			c.inbound = make(map[uint16]item)
		}
		c.inbound[uint16(o.num)] = old
	case broker.OpInboundDone:
		s.live -= int64(c.inbound[uint16(o.num)].share)
		delete(c.inbound, uint16(o.num))
	case opBorn:
		if c.born != o.num {
			c.born, c.bornOp = o.num, 0
		}
		c.bornRec = at.rec
	}
}

func (c *client) markSent(m sentMark) {
	if !c.exists {
		// Which of them count is known only with born: keep those that no later one exceeds.
		c.orphans = true
		for n := len(c.early); n > 0 && c.early[n-1].seq <= m.seq; n-- {
			c.early = c.early[:n-1]
		}
		c.early = append(c.early, m)
		return
	}
	if m.seq >= c.sent {
		c.sent, c.sentRec = m.seq, m.rec
	}
}

// foreign reports whether what a record holds at an op was committed before the session began.
func (c *client) foreign(rec uint64, op uint32) bool {
	return rec < c.born || rec == c.born && op < c.bornOp
}

// adopt decides at the end of recovery which of the things that came before the session record belong to it.
func (s *state) adopt(c *client) {
	if !c.orphans {
		return
	}
	for _, m := range c.early {
		if !c.foreign(m.rec, m.op) && m.seq >= c.sent {
			c.sent, c.sentRec = m.seq, m.rec
		}
	}
	c.early, c.orphans = nil, false
	for filter, it := range c.subs {
		if c.foreign(it.rec, it.op) {
			s.live -= int64(it.share)
			delete(c.subs, filter)
			s.values.unsubscribe(c.id, []byte(filter))
		}
	}
	for id, it := range c.inbound {
		if c.foreign(it.rec, it.op) {
			s.live -= int64(it.share)
			delete(c.inbound, id)
		}
	}
	for _, seq := range c.queue.pick(func(e *entry) bool { return c.foreign(e.rec, e.op) }) {
		share := c.queue.share
		c.queue.remove(seq)
		s.queued--
		s.live += c.queue.share - share
	}
}
