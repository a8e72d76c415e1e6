package broker

import "sync"

// openInbound notes a QoS 2 publish. For the first of its identifier it lets p
// settle it and returns what is to be stored with the message; the caller calls
// handedOver afterwards. So it does for the first duplicate of one from an
// earlier life, which goes to the recorders only. For other duplicates it
// arranges the answer and returns false.
func (s *Session) openInbound(p *Publication, id uint16) (first bool, ops []Op) {
	st := s.state
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		answer(p.done, Closed)
		return false, nil
	}
	in := st.inbound[id]
	if in != nil && !in.unsure {
		settled, outcome := in.settled, in.outcome
		if !settled {
			in.waiting = append(in.waiting, p.done)
		}
		st.mu.Unlock()
		if settled {
			answer(p.done, outcome)
		}
		return false, nil
	}
	if in != nil {
		in.unsure, in.settled, p.stored = false, false, true
	} else {
		in = newInbound()
		if st.inbound == nil {
			st.inbound = make(map[uint16]*inbound)
		}
		st.inbound[id] = in
	}
	st.handing++
	st.mu.Unlock()

	p.inbound, p.id = in, id
	if st.durable && !p.stored {
		ops = []Op{{Kind: OpInbound, ClientID: st.id, PacketID: id}}
	}
	return true, ops
}

var inbounds = sync.Pool{New: func() any { return &inbound{} }}

func newInbound() *inbound { return inbounds.Get().(*inbound) }

// recycle gives an exchange back that nobody is to settle any more and that no
// session knows. Caller holds mu of the session that knew it.
func (in *inbound) recycle() {
	if in == nil || !in.settled {
		return
	}
	*in = inbound{}
	inbounds.Put(in)
}

// settleInbound keeps the outcome for duplicates. A refused message frees its
// identifier: a PUBREC with an error ends the exchange [MQTT-4.3.3-9]. The
// store may have taken it although a recorder refused the message.
func (s *sessionState) settleInbound(id uint16, in *inbound, r Reason, done func(Reason)) {
	s.mu.Lock()
	in.settled, in.outcome = true, r
	waiting := in.waiting
	in.waiting = nil
	refused := !r.OK() && s.inbound[id] == in
	if refused {
		delete(s.inbound, id)
	}
	s.mu.Unlock()
	if refused && s.durable {
		s.broker.commitSoon(Batch{Ops: []Op{{Kind: OpInboundDone, ClientID: s.id, PacketID: id}}})
	}
	answer(done, r)
	for _, w := range waiting {
		answer(w, r)
	}
}

// Release ends a QoS 2 publish of this client: its PUBREL came. done is called
// once that is durable, with Success, or with PacketIDNotFound when there is
// no such publish. It must not block. With any other Reason the exchange is
// still open, and the client is to send PUBREL again.
func (s *Session) Release(packetID uint16, done func(Reason)) {
	st := s.state
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		answer(done, Closed)
		return
	}
	in, known := st.inbound[packetID]
	delete(st.inbound, packetID)
	if !known || !st.durable {
		in.recycle()
		st.mu.Unlock()
		r := Success
		if !known {
			r = PacketIDNotFound
		}
		answer(done, r)
		return
	}
	st.handing++
	st.mu.Unlock()
	b := Batch{Ops: []Op{{Kind: OpInboundDone, ClientID: st.id, PacketID: packetID}}}
	s.broker.commitOr(s.broker.ctx, &b, func(r Reason) {
		if !r.OK() {
			st.reopenInbound(packetID, in)
		}
		answer(done, r)
	})
	st.handedOver()
}

// reopenInbound puts back an identifier that the store still has: after a
// restart a new message under it would be taken for a duplicate.
func (s *sessionState) reopenInbound(id uint16, in *inbound) {
	s.mu.Lock()
	if s.inbound[id] == nil && !s.dead {
		s.inbound[id] = in
	}
	s.mu.Unlock()
}
