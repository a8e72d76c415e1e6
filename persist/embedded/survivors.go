package embedded

import (
	"encoding/binary"

	"gantry/broker"
)

// survivors encodes what lives of a record. It returns false when that cannot be said yet, because a session is being deleted.
// Tombstones are never copied: what one of them deletes lies before it in the log, and before the oldest segment there is nothing.
func (s *Store) survivors(e *encoder, b []byte, at uint64) bool {
	r, err := openRecord(b)
	if err != nil {
		return true
	}
	var o op
	for {
		more, err := r.next(&o)
		if err != nil || !more {
			return true
		}
		known := true
		switch o.kind {
		case broker.OpRetain:
			if it := s.retained[string(o.key)]; it != nil && it.rec == at {
				s.keepRetained(e, &r, &o)
			}
		case broker.OpDelay:
			if it := s.delayed[o.num]; it != nil && it.rec == at {
				keepDelayed(e, &r, &o)
			}
		case broker.OpDelayDone:
		case broker.OpEnqueue:
			known = s.keepTargets(e, &r, &o, at)
		case opVoid: // what it is about lies before it
		default:
			if c := s.clients[string(o.client)]; c != nil {
				known = c.deleting < s.applied
				c.keep(e, &o, at)
			}
		}
		if !known {
			return false
		}
	}
}

func (s *Store) keepRetained(e *encoder, r *record, o *op) {
	_, _, whole, ok := r.message(o.index)
	if !ok {
		return
	}
	e.body = appendBytes(binary.AppendUvarint(e.body[:0], e.rawMessage(whole)), o.key)
	e.put(broker.OpRetain, e.body)
}

// keepTargets copies an enqueue with the targets that still wait for the message.
func (s *Store) keepTargets(e *encoder, r *record, o *op, at uint64) (known bool) {
	n := uint64(0)
	var targets, released []byte
	for range o.count {
		t := o.target()
		c := s.clients[string(t.client)]
		if c == nil {
			continue
		}
		en := c.queue.find(t.seq)
		if en == nil || en.rec != at {
			continue
		}
		if c.deleting >= s.applied {
			return false
		}
		n++
		targets = append(targets, t.whole...)
		if en.released() {
			released = binary.AppendUvarint(appendBytes(released, t.client), t.seq)
		}
	}
	_, _, whole, ok := r.message(o.index)
	if n == 0 || !ok {
		return true
	}
	e.body = append(binary.AppendUvarint(binary.AppendUvarint(e.body[:0], e.rawMessage(whole)), n), targets...)
	e.put(broker.OpEnqueue, e.body)
	for f := (fields{b: released}); f.more(); {
		client, seq := f.bytes(), f.uvarint()
		e.putNumber(broker.OpReleased, client, seq)
	}
	return true
}

// keep copies an op about one client when its value is the present one.
func (c *client) keep(e *encoder, o *op, at uint64) {
	if (o.kind == broker.OpPutSession || o.kind == opBorn) && c.bornRec == at {
		e.putBorn(c.id, c.born)
	}
	switch {
	case o.kind == broker.OpPutSession && c.record.rec == at,
		o.kind == broker.OpSubscribe && c.subs[string(o.key)].rec == at,
		o.kind == broker.OpInbound && c.inbound[uint16(o.num)].rec == at:
		e.put(o.kind, o.body)
	case o.kind == broker.OpSent && c.sentRec == at:
		e.putNumber(broker.OpSent, o.client, c.sent)
	}
}

// touch notes what an appended record will change in the segments that are being cleaned. It needs mu.
func (s *Store) touch(b []byte, by uint64) {
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
		case broker.OpRetain, broker.OpUnretain:
			if it := s.retained[string(o.key)]; it != nil {
				s.pass.touch(it.rec, by)
			}
		case broker.OpDelay, broker.OpDelayDone:
			if it := s.delayed[o.num]; it != nil {
				s.pass.touch(it.rec, by)
			}
		case broker.OpEnqueue:
			for range o.count {
				t := o.target()
				s.touchEntry(s.clients[string(t.client)], t.seq, by)
			}
		case opVoid:
		default:
			s.touchClient(s.clients[string(o.client)], &o, by)
		}
	}
}

func (s *Store) touchEntry(c *client, seq, by uint64) {
	if c == nil {
		return
	}
	if e := c.queue.find(seq); e != nil {
		s.pass.touch(e.rec, by)
	}
}

func (s *Store) touchClient(c *client, o *op, by uint64) {
	if c == nil {
		return
	}
	switch o.kind {
	case broker.OpPutSession:
		s.pass.touch(c.record.rec, by)
	case broker.OpDeleteSession:
		c.deleting = by
	case broker.OpSubscribe, broker.OpUnsubscribe:
		s.pass.touch(c.subs[string(o.key)].rec, by)
	case broker.OpDequeue, broker.OpReleased:
		s.touchEntry(c, o.num, by)
	case broker.OpInbound, broker.OpInboundDone:
		s.pass.touch(c.inbound[uint16(o.num)].rec, by)
	}
}

func (p *pass) touch(rec, by uint64) {
	if p.has(rec) {
		p.touched[rec] = by
	}
}
