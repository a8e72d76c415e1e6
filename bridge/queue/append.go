package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gantry/persist/seglog"
)

// op carries one append through the log. Ops are pooled: the callback that the log wants is made once per op, not per record.
type op struct {
	q    *Queue
	need int64
	done func(error)
	fn   func(seglog.Committed)
}

func newOp(q *Queue) *op {
	o := &op{q: q}
	o.fn = o.committed
	return o
}

// committed runs on the committer of the log.
func (o *op) committed(c seglog.Committed) {
	q, done := o.q, o.done
	q.release(o.need)
	q.noteCommit(c.Err)
	o.done = nil
	q.ops.Put(o)
	if done != nil {
		done(translate(c.Err))
	}
}

func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, seglog.ErrClosed):
		return ErrClosed
	case errors.Is(err, seglog.ErrBusy):
		return ErrBusy
	}
	return err
}

// Append adds a record, which is copied before it returns. done may be nil; else it is called exactly once, never under a lock of the
// queue, with nil when the record is as durable as Config.Sync says, or with the error of its commit, ErrFull or ErrClosed. It must not
// block. When Append returns an error nothing was added and done is not called.
//
// A full queue does what its policy says. Append also waits, whatever the policy, while too many bytes wait for the disk. With a nil ctx
// it never waits and returns ErrBusy instead.
func (q *Queue) Append(ctx context.Context, rec []byte, done func(error)) error {
	if len(rec) > q.maxRecord {
		return fmt.Errorf("record of %d bytes, limit %d: %w", len(rec), q.maxRecord, ErrTooLarge)
	}
	need := seglog.FrameSize(stampBytes+len(rec)) + seglog.HeaderSize
	now := time.Now()
	for {
		admitted, err := q.admit(need)
		if err != nil {
			return err
		}
		if admitted {
			return q.commit(ctx, now, rec, need, done)
		}
		queued, err := q.full(ctx, now, rec, need, done)
		if queued || err != nil {
			return err
		}
	}
}

// admit reserves room when there is some and nobody waits before us.
func (q *Queue) admit(need int64) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, ErrClosed
	}
	if len(q.waiters) > 0 || q.moving || !q.fits(need) {
		return false, nil
	}
	q.reserved += need
	return true, nil
}

// fits needs mu. A reservation is given back only after its bytes are in the log's account, so the sum never misses any.
func (q *Queue) fits(need int64) bool {
	return q.reserved+q.log.DiskBytes()+seglog.HeaderSize+need <= q.cfg.MaxBytes
}

func (q *Queue) release(need int64) {
	q.mu.Lock()
	q.reserved -= need
	wake := len(q.waiters) > 0
	if q.settling {
		close(q.settled)
		q.settled, q.settling = make(chan struct{}), false
	}
	q.mu.Unlock()
	if wake {
		nudge(q.moverKick)
	}
}

// commit hands a record with its reservation to the log.
func (q *Queue) commit(ctx context.Context, now time.Time, rec []byte, need int64, done func(error)) error {
	o := q.ops.Get().(*op)
	o.need, o.done = need, done
	var at [stampBytes]byte
	binary.LittleEndian.PutUint64(at[:], uint64(now.UnixMilli()))
	_, err := q.log.AppendParts(ctx, o.fn, at[:], rec)
	if err == nil {
		return nil
	}
	o.done = nil
	q.ops.Put(o)
	q.release(need)
	return translate(err)
}

// full does what the policy says. It reports whether it took the record over; without that and without an error the caller tries again.
func (q *Queue) full(ctx context.Context, now time.Time, rec []byte, need int64, done func(error)) (queued bool, err error) {
	switch q.cfg.WhenFull {
	case Block:
		return q.wait(ctx, now, rec, need, done)
	case DropOldest:
		return false, q.makeRoom(ctx, need)
	}
	return false, q.refuse()
}

func (q *Queue) refuse() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tally.refused++
	return ErrFull
}

func splitStamp(p []byte) (at time.Time, rec []byte, ok bool) {
	if len(p) < stampBytes {
		return time.Time{}, nil, false
	}
	return time.UnixMilli(int64(binary.LittleEndian.Uint64(p))), p[stampBytes:], true
}
