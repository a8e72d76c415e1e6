package queue

import "context"

// makeRoom frees one segment's worth of disk under DropOldest. nil means: try again.
func (q *Queue) makeRoom(ctx context.Context, need int64) error {
	q.dropMu.Lock()
	dropped, settled := q.dropOldest(need)
	q.dropMu.Unlock()
	if dropped {
		return nil
	}
	if settled == nil {
		return q.refuse()
	}
	if ctx == nil {
		return ErrBusy
	}
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dropOldest drops the oldest segment that holds nothing in flight. When there is none it returns a channel to wait for if some of what
// fills the queue is still on its way to the disk, else nil: all is in flight. It needs dropMu.
func (q *Queue) dropOldest(need int64) (dropped bool, settled <-chan struct{}) {
	q.mu.Lock()
	if q.closed || q.fits(need) { // somebody else made room while we waited for dropMu
		q.mu.Unlock()
		return true, nil
	}
	if q.reserved > 0 {
		settled, q.settling = q.settled, true
	}
	q.mu.Unlock()
	v, ok := q.choose()
	if ok && v.newest {
		if q.log.Roll() != nil {
			return false, nil
		}
		v, ok = q.choose() // it may have grown, and the Reader may have come closer
		ok = ok && !v.newest
	}
	if !ok {
		return false, settled
	}
	q.drop(v)
	return true, nil
}

// victim is a segment to drop.
type victim struct {
	base   uint64
	newest bool   // has to be rolled first
	lost   uint64 // records in it that are damaged, and counted as such
}

// choose finds the segment to drop and marks its records as dropped, so that the Reader steps over them from now on. The newest segment
// is only named, not marked.
func (q *Queue) choose() (victim, bool) {
	segs := q.log.Segments()
	q.mu.Lock()
	defer q.mu.Unlock()
	frontier, pinned := q.log.Cursor(), max(q.pin, q.readTo)
	for i, s := range segs {
		inFlight := s.Base < pinned && s.End > frontier
		if inFlight || s.End == s.Base {
			continue
		}
		if i == len(segs)-1 {
			return victim{base: s.Base, newest: true}, true
		}
		return victim{base: s.Base, lost: q.mark(span{s.Base, s.End})}, true
	}
	return victim{}, false
}

// mark makes a segment a hole and returns how many damaged records were known in it. It needs mu.
func (q *Queue) mark(hole span) (lost uint64) {
	kept := q.bad[:0]
	for _, b := range q.bad {
		if n := b.overlap(hole.from, hole.to); n > 0 {
			lost += n
			continue
		}
		kept = append(kept, b)
	}
	q.bad = kept
	q.holes = append(q.holes, hole)
	return lost
}

func (q *Queue) drop(v victim) {
	records, bytes, ok := q.log.Drop(v.base)
	if !ok { // deleted meanwhile because all of it was confirmed: nothing was lost
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	records -= min(records, v.lost)
	q.tally.dropped[DroppedOldest] += records
	if records > 0 {
		q.tally.droppedBytes += uint64(bytes)
	}
}
