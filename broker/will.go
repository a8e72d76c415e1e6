package broker

import "time"

// willGrace is how long a client that was connected when the gateway ended
// may take to come back before its will is published: about the reconnect
// delay of usual client libraries, so that a restart of the gateway does not
// report every device as lost.
const willGrace = 10 * time.Second

// publishWill sends a will on the way of every message, hooks included. It
// does not block: when there is back-pressure, a goroutine of the broker waits
// in its place.
func (b *Broker) publishWill(w *Will) {
	m := *w.Message
	m.Time = 0
	if m.Expires != 0 {
		m.Expires += nowMillis()
	}
	b.stats.wills.Add(1)
	b.sendWill(m)
}

// sendWill publishes a will. Nobody will send it again: where its value cannot be
// retained, or one receiver has no room, the others get it all the same.
func (b *Broker) sendWill(m Message) {
	done := func(r Reason) {
		switch {
		case r.OK():
		case m.Retain && (r == QuotaExceeded || r == PacketTooLarge):
			b.log.Warn("will cannot be retained, delivering it only", "client", m.ClientID, "topic", m.Topic, "reason", r)
			delivered := m
			delivered.Retain = false
			b.sendWill(delivered)
		default:
			b.log.Warn("will was not accepted", "client", m.ClientID, "topic", m.Topic, "reason", r)
		}
	}
	first := m
	b.inject(NoWait, &first, true, func(r Reason) {
		if r != ServerBusy {
			done(r)
			return
		}
		b.spawn(func() {
			again := m
			b.inject(b.ctx, &again, true, done)
		})
	})
}

// willDue publishes a delayed will, unless the client came back.
func (b *Broker) willDue(st *sessionState, epoch uint64) {
	defer b.lockLife(st.id).Unlock()
	st.mu.Lock()
	if st.owner != nil || st.dead || st.will == nil || st.epoch != epoch {
		st.mu.Unlock()
		return
	}
	will := st.will
	st.will, st.willing = nil, nil
	lives := st.expiry > 0
	rec := st.record()
	st.mu.Unlock()
	b.publishWill(will)
	if !lives {
		b.end(st)
		return
	}
	b.save(st, rec)
}
