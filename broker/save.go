package broker

import "time"

// save stores a session record, and what the store was too busy for. Nobody
// waits for it: without it the session is found as it was before, and that is
// only older.
func (b *Broker) save(st *sessionState, rec *SessionRecord) {
	st.mu.Lock()
	owed := st.owed
	st.owed = nil
	st.mu.Unlock()
	ops := []Op{{Kind: OpPutSession, ClientID: rec.ClientID, Session: rec}}
	_ = b.commit(b.ctx, &Batch{Ops: append(ops, st.dequeues(owed)...)}, nil)
}

// noteStored takes the outcome of storing the session's record, and reports
// whether the store has one now, be it an older one.
func (st *sessionState) noteStored(err error) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.onDisk = st.onDisk || err == nil
	return st.onDisk
}

// saveRetry is how long to wait before a session record is offered again.
const saveRetry = 5 * time.Second

// saveLater stores the record of a connection's session as soon as the store
// takes it, unless the connection ends before: then the record of that end, or
// of the next connection, is the newer one. Until then a restart would find the
// session as it was before, and count its expiry from an earlier absence.
func (b *Broker) saveLater(s *Session) {
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-time.After(saveRetry):
		}
		if b.saveAttached(s) {
			return
		}
	}
}

// saveAttached offers the record to the store, and reports whether there is
// nothing more to do.
func (b *Broker) saveAttached(s *Session) bool {
	unlock := b.lockLife(s.clientID).Unlock
	st := s.state
	st.mu.Lock()
	if st.owner != s || st.dead {
		st.mu.Unlock()
		unlock()
		return true
	}
	rec := st.record()
	st.mu.Unlock()
	outcome := make(chan error, 1)
	batch := Batch{Ops: []Op{{Kind: OpPutSession, ClientID: st.id, Session: rec}}}
	err := b.commit(b.ctx, &batch, func(err error) { outcome <- err })
	unlock()
	if err != nil {
		return false
	}
	select {
	case err = <-outcome:
		return err == nil
	case <-b.ctx.Done():
		return true
	}
}
