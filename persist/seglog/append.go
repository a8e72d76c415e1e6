package seglog

import (
	"context"
	"fmt"
)

// Committed is the outcome of one Append.
type Committed struct {
	First uint64 // sequence number of its first record
	Next  uint64 // one past its last
	Pos   Pos    // where its first record lies; Pos.Add leads to those after it
	Err   error  // why the records are not durable; nil when they are
}

// batch is what one group commit writes: frames in buf, whose appends are tickets.
type batch struct {
	buf     []byte
	tickets []ticket
}

type ticket struct {
	first uint64
	next  uint64
	start int // offset of its first frame in the buffer
	end   int
	done  func(Committed)
	pos   Pos
	err   error
}

// Append adds records, which are copied before it returns, under consecutive sequence numbers and returns the first. They lie in one
// segment, in order; a crash before the commit may keep a prefix of them.
//
// done may be nil. Else it is called exactly once, from the committer goroutine and in the order of appends, with the outcome of the
// commit. It must not block; the only append it may make itself is one with a nil context.
//
// Append blocks while MaxPending bytes wait for the disk, until ctx ends. With a nil ctx it returns ErrBusy instead. When it returns
// an error (also ErrClosed, ErrTooLarge, ErrEmpty) nothing was added and done is not called.
func (l *Log) Append(ctx context.Context, done func(Committed), recs ...[]byte) (first uint64, err error) {
	need := 0
	for _, r := range recs {
		if err := l.checkSize(len(r)); err != nil {
			return 0, err
		}
		need += int(FrameSize(len(r)))
	}
	if need == 0 {
		return 0, ErrEmpty
	}
	if err := l.admit(ctx, need); err != nil {
		return 0, err
	}
	start := len(l.pend.buf)
	for _, r := range recs {
		l.pend.buf = padFrame(append(appendFrame(l.pend.buf, len(r)), r...))
	}
	first = l.enqueue(done, start, uint64(len(recs)))
	l.mu.Unlock()
	nudge(l.kick)
	return first, nil
}

// AppendParts adds one record whose payload is the concatenation of parts: an envelope before a body without copying the body first.
// Everything else is as in Append.
func (l *Log) AppendParts(ctx context.Context, done func(Committed), parts ...[]byte) (seq uint64, err error) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if err := l.checkSize(n); err != nil {
		return 0, err
	}
	if err := l.admit(ctx, int(FrameSize(n))); err != nil {
		return 0, err
	}
	start := len(l.pend.buf)
	buf := appendFrame(l.pend.buf, n)
	for _, p := range parts {
		buf = append(buf, p...)
	}
	l.pend.buf = padFrame(buf)
	seq = l.enqueue(done, start, 1)
	l.mu.Unlock()
	nudge(l.kick)
	return seq, nil
}

func (l *Log) checkSize(n int) error {
	if n == 0 {
		return ErrEmpty
	}
	if n > l.o.MaxRecord {
		return fmt.Errorf("record of %d bytes, limit %d: %w", n, l.o.MaxRecord, ErrTooLarge)
	}
	return nil
}

// admit waits for room and returns with mu held when it succeeds.
func (l *Log) admit(ctx context.Context, need int) error {
	l.mu.Lock()
	for {
		if l.closed {
			l.mu.Unlock()
			return ErrClosed
		}
		// One half of MaxPending is being written while the other fills. An empty buffer takes anything: an append larger than that
		// must not wait for ever.
		if len(l.pend.buf) == 0 || len(l.pend.buf)+need <= l.o.MaxPending/2 {
			return nil
		}
		if ctx == nil {
			l.mu.Unlock()
			return ErrBusy
		}
		space := l.space
		l.waiting++
		l.mu.Unlock()
		nudge(l.kick) // ends a linger
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
		l.mu.Lock()
	}
}

// enqueue needs mu.
func (l *Log) enqueue(done func(Committed), start int, n uint64) (first uint64) {
	first = l.next
	l.next += n
	l.pend.tickets = append(l.pend.tickets, ticket{
		first: first, next: l.next, start: start, end: len(l.pend.buf), done: done,
	})
	return first
}
