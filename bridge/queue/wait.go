package queue

import (
	"bytes"
	"context"
	"time"
)

// waiterOverhead is what a waiting record costs in memory beside its bytes.
const waiterOverhead = 128

// waiter is a record that waits in memory for room on disk.
type waiter struct {
	at   time.Time
	rec  []byte
	need int64
	done func(error)
}

func (w waiter) finish(err error) {
	if w.done != nil {
		w.done(err)
	}
}

// wait lets a record wait in memory, or its appender when the memory is used up. It reports whether it took the record over.
func (q *Queue) wait(ctx context.Context, now time.Time, rec []byte, need int64, done func(error)) (queued bool, err error) {
	size := len(rec) + waiterOverhead
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false, ErrClosed
	}
	if len(q.waiters) == 0 || q.waitBytes+size <= q.cfg.MaxWaitBytes {
		q.waiters = append(q.waiters, waiter{at: now, rec: bytes.Clone(rec), need: need, done: done})
		q.waitBytes += size
		q.mu.Unlock()
		nudge(q.moverKick)
		return true, nil
	}
	room := q.room
	q.mu.Unlock()
	if ctx == nil {
		return false, ErrBusy
	}
	select {
	case <-room:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// move brings waiting records to the log in their order whenever there is room. It ends when ctx does.
func (q *Queue) move(ctx context.Context) {
	defer close(q.moverDone)
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.moverKick:
		}
		for q.moveOne(ctx) {
		}
	}
}

func (q *Queue) moveOne(ctx context.Context) bool {
	q.mu.Lock()
	if q.closed || len(q.waiters) == 0 || !q.fits(q.waiters[0].need) {
		q.mu.Unlock()
		return false
	}
	w := q.waiters[0]
	q.reserved += w.need
	q.moving = true // nobody overtakes while the record is in no list
	q.waiters[0] = waiter{}
	q.waiters = q.waiters[1:]
	q.mu.Unlock()

	err := q.commit(ctx, w.at, w.rec, w.need, w.done)

	q.mu.Lock()
	q.moving = false
	q.waitBytes -= len(w.rec) + waiterOverhead
	if !q.closed {
		close(q.room)
		q.room = make(chan struct{})
	}
	q.mu.Unlock()
	if err != nil { // the queue is closing: Append already returned, so done has to tell
		w.finish(ErrClosed)
	}
	return err == nil
}
