package httppush

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"

	"gantry/broker"
)

// sessionAttempts is how often a request asks for a session anew when it was
// taken away between finding and using it.
const sessionAttempts = 3

// waiting is a mark in delivery.outcomes: the broker has not answered.
const waiting = ^uint32(0)

// delivery is the messages of one request on their way through the broker. It
// outlives the request when that stops waiting.
type delivery struct {
	outcomes []atomic.Uint32 // Reason of each message, or waiting
	pending  atomic.Int32
	finished chan struct{} // closed after the last answer
	last     func()        // called before finished is closed
}

func newDelivery(n int, last func()) *delivery {
	d := &delivery{outcomes: make([]atomic.Uint32, n), finished: make(chan struct{}), last: last}
	for i := range d.outcomes {
		d.outcomes[i].Store(waiting)
	}
	d.pending.Store(int32(n))
	return d
}

// done takes the answer for message i. It runs in whatever goroutine the
// broker calls it, and does not block.
func (d *delivery) done(i int, r broker.Reason) {
	d.outcomes[i].Store(uint32(r))
	if d.pending.Add(-1) == 0 {
		d.last()
		close(d.finished)
	}
}

// outcome returns the answer for message i; false when there is none yet.
func (d *delivery) outcome(i int) (broker.Reason, bool) {
	v := d.outcomes[i].Load()
	return broker.Reason(v), v != waiting
}

// lost reports that the session was gone before the first message, so that
// nothing was published and all of it can be repeated.
func (d *delivery) lost() bool {
	for i := range d.outcomes {
		if r, ok := d.outcome(i); !ok || r != broker.Closed {
			return false
		}
	}
	return true
}

// publish hands the messages to the client's session, in order, and waits for
// the answers. ctx, the request's, ends a wait for back-pressure; once the
// broker has accepted, a client that leaves changes nothing. It owns the share, and gives it back when the
// broker has answered, even after it returned.
func (s *Server) publish(ctx context.Context, id *identity, messages []*broker.Message, sh *share) (*delivery, error) {
	for attempt := 1; ; attempt++ {
		e, err := s.sessions.acquire(ctx, id)
		if err != nil {
			sh.release()
			return nil, err
		}
		d, err := s.attempt(ctx, e, messages, sh)
		if err != nil || !d.lost() {
			return d, err
		}
		s.sessions.discard(e)
		if attempt == sessionAttempts {
			return d, nil
		}
	}
}

// attempt publishes with one session. When that turns out to be lost the share
// is given back all the same: a repeat is short.
func (s *Server) attempt(ctx context.Context, e *entry, messages []*broker.Message, sh *share) (*delivery, error) {
	defer s.sessions.release(e)
	select {
	case s.slots <- struct{}{}:
	default:
		sh.release()
		s.metrics.refused.WithLabelValues("pending").Inc()
		return nil, refuse(broker.ServerBusy, "too many requests wait for the broker")
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	patience := time.NewTimer(s.cfg.AckTimeout)
	defer patience.Stop()
	start := time.Now()
	d := newDelivery(len(messages), func() {
		<-s.slots
		sh.release()
		s.metrics.ack.Observe(time.Since(start).Seconds())
	})
	for i, m := range messages {
		if ctx.Err() != nil { // nobody waits any more: what is not accepted yet stays the client's
			d.done(i, broker.ServerBusy)
			continue
		}
		e.session.Publish(ctx, m, 0, func(r broker.Reason) { d.done(i, r) })
	}
	select {
	case <-d.finished:
	case <-patience.C:
	case <-s.base.Done():
	}
	return d, nil
}

// unconfirmed is the answer for a message that the broker still works on.
func (s *Server) unconfirmed() *failure {
	if s.base.Err() != nil {
		return refuse(broker.ShuttingDown, "the gateway is shutting down and has not confirmed the message; it may still be delivered")
	}
	return refuse(broker.ServerBusy, "not confirmed within %s; the message may still be delivered", s.cfg.AckTimeout)
}

// newID returns an id for one publish, for the client's own records: 48 bits of
// milliseconds and 80 random ones in hexadecimal, the length of EMQX's.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails
	ms := time.Now().UnixMilli()
	binary.BigEndian.PutUint16(b[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(ms))
	return hex.EncodeToString(b[:])
}
