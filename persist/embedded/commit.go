package embedded

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"gantry/broker"
	"gantry/persist/seglog"
)

var errNoRoom = errors.New("no room")

// maxKeptBuffer is the largest encoding buffer that is kept for the next batch.
const maxKeptBuffer = 64 << 10

// Commit implements broker.Store. Beside what that says it returns ErrFull (see Config.MaxBytes), ErrClosed, and an error for an op that
// lacks what its kind needs. Ops about a client without a session record have no effect.
func (s *Store) Commit(ctx context.Context, b *broker.Batch, done func(error)) error {
	e := s.encoders.Get().(*encoder)
	if _, err := e.batch(b); err != nil {
		s.release(e)
		return fmt.Errorf("encode batch: %w", err)
	}
	err := s.submit(ctx, e, done)
	if err != nil {
		s.release(e)
	}
	return err
}

// submit appends an encoded batch, waiting for room as Commit says.
func (s *Store) submit(ctx context.Context, e *encoder, done func(error)) error {
	for {
		s.mu.Lock()
		err := s.admit(e)
		if err == nil {
			err = s.append(e, done, true)
		}
		if err == nil {
			s.mu.Unlock()
			return nil
		}
		if ctx != nil && errors.Is(err, errNoRoom) {
			s.waiting = true
		}
		space := s.space
		s.mu.Unlock()
		switch {
		case !errors.Is(err, errNoRoom):
			return err
		case ctx == nil:
			return broker.ErrBusy
		}
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit needs mu.
func (s *Store) admit(e *encoder) error {
	switch {
	case s.closed:
		return ErrClosed
	case s.turn:
		return errNoRoom
	case e.grows && s.cfg.MaxBytes > 0 && s.disk.Bytes()+int64(s.pending+e.size()) > s.cfg.MaxBytes:
		s.metrics.refused.Inc()
		nudge(s.cleanKick)
		return ErrFull
	case e.grows && s.short:
		s.metrics.refused.Inc()
		return ErrFull
	}
	return nil
}

// append adds an encoded record to the log and owns e if it returns nil. changes tells the cleaner of it; its own copies change nothing.
// It needs mu.
func (s *Store) append(e *encoder, done func(error), changes bool) error {
	need := e.size()
	// An empty pipe takes anything: a batch larger than the limit must not wait for ever.
	if s.pending > 0 && s.pending+need > s.cfg.MaxPending {
		return errNoRoom
	}
	e.settle(s.applied)
	first, err := s.disk.Append(nil, func(c seglog.Committed) { s.committed(e, c, done) }, e.buf) //nolint:staticcheck // nil: must not block
	switch {
	case errors.Is(err, seglog.ErrBusy):
		return errNoRoom
	case errors.Is(err, seglog.ErrClosed):
		return ErrClosed
	case err != nil:
		return err
	}
	s.pending += need
	if changes && s.pass != nil {
		s.touch(e.buf, first)
	}
	return nil
}

// committed runs in the log's committer goroutine, in log order.
func (s *Store) committed(e *encoder, c seglog.Committed, done func(error)) {
	s.mu.Lock()
	if c.Err == nil {
		s.apply(e.buf, place{rec: c.First, pos: c.Pos})
	}
	s.applied = c.Next
	s.pending -= e.size()
	if s.waiting && s.pending <= s.cfg.MaxPending/2 {
		s.wake()
	}
	if s.pass != nil {
		nudge(s.pass.progress)
	} else if s.cfg.overfull(s.disk.Bytes(), s.live, s.short) {
		nudge(s.cleanKick)
	}
	if s.cfg.Reserve > 0 && !s.short && errors.Is(c.Err, syscall.ENOSPC) {
		s.short = true
		nudge(s.cleanKick)
	}
	s.mu.Unlock()
	s.release(e)
	s.metrics.committed(c.Err)
	if done != nil {
		done(c.Err)
	}
}

// wake lets those who wait for space try again. It needs mu.
func (s *Store) wake() {
	if s.waiting {
		s.waiting = false
		close(s.space)
		s.space = make(chan struct{})
	}
}

func (s *Store) release(e *encoder) {
	if cap(e.buf) > maxKeptBuffer || cap(e.ops) > maxKeptBuffer || cap(e.body) > maxKeptBuffer {
		return
	}
	e.reset()
	s.encoders.Put(e)
}
