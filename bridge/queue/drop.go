package queue

import (
	"context"
	"slices"

	"gantry/persist/seglog"
)

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
	q.log.Drop(v.base) // a no from the log means that the segment went meanwhile
	return true, nil
}

// victim is a segment to drop.
type victim struct {
	base   uint64
	newest bool // has to be rolled first
}

// choose finds the segment to drop, marks its records as dropped, so that the Reader steps over them from now on, and counts them: once
// marked they are lost, even when a confirmation passes them before the file is gone. The newest segment is only named.
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
		if s.End > frontier {
			q.lose(s)
		}
		return victim{base: s.Base}, true
	}
	return victim{}, false
}

// lose makes a segment a hole and counts the loss. It needs mu.
func (q *Queue) lose(s seglog.SegmentInfo) {
	from := max(s.Base, q.log.Cursor())
	q.tally.dropped[DroppedOldest] += q.live(from, s.End)
	q.tally.droppedBytes += uint64(s.Bytes)
	q.bad = slices.DeleteFunc(q.bad, func(b span) bool { return b.overlap(s.Base, s.End) > 0 })
	q.holes = append(q.holes, span{s.Base, s.End})
}
