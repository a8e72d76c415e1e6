package embedded

import (
	"bytes"
	"errors"
	"fmt"

	"gantry/broker"
	"gantry/persist/seglog"
)

const (
	readPage = 256 // entries looked up at once
	// readAttempts is how often the cleaner may move a record away from under a reader. It moves each at most once while the log turns
	// over, so the second attempt nearly always finds it.
	readAttempts = 8
)

// Queued implements broker.Store. A client without a session has an empty queue.
func (s *Store) Queued(clientID string, from uint64, limit int) ([]broker.Queued, error) {
	out := make([]broker.Queued, 0, max(0, min(limit, readPage)))
	var buf []byte
	for len(out) < limit {
		page := s.page(clientID, from, min(limit-len(out), readPage))
		if len(page) == 0 {
			break
		}
		from = page[len(page)-1].seq + 1
		for i := range page {
			var (
				q     broker.Queued
				found bool
				err   error
			)
			if q, found, buf, err = s.read(clientID, page[i], buf); err != nil {
				return nil, fmt.Errorf("read queue: %w", err)
			}
			if found {
				out = append(out, q)
			}
		}
		if from == 0 { // the last possible number
			break
		}
	}
	return out, nil
}

func (s *Store) page(clientID string, from uint64, n int) []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[clientID]
	if c == nil {
		return nil
	}
	return c.queue.page(make([]entry, 0, min(n, c.queue.count)), from, n)
}

func (s *Store) entry(clientID string, seq uint64) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[clientID]; c != nil {
		if e := c.queue.find(seq); e != nil {
			return *e, true
		}
	}
	return entry{}, false
}

// read fetches the message of an entry. found is false when the entry was dequeued meanwhile. buf is a buffer for reuse.
func (s *Store) read(clientID string, e entry, buf []byte) (q broker.Queued, found bool, grown []byte, err error) {
	var b []byte
	for range readAttempts {
		_, b, err = s.disk.ReadAt(e.pos(), buf)
		if cap(b) > cap(buf) {
			buf = b
		}
		if err == nil || !errors.Is(err, seglog.ErrGone) {
			break
		}
		now, ok := s.entry(clientID, e.seq)
		if !ok {
			return q, false, buf, nil
		}
		if now.rec == e.rec { // gone for good
			break
		}
		e = now
	}
	q = broker.Queued{Seq: e.seq, QoS: e.qos(), Retain: e.retain(), Released: e.released()}
	if errors.Is(err, seglog.ErrClosed) {
		return q, false, buf, ErrClosed
	}
	if err == nil {
		err = decodeQueued(b, clientID, e, &q)
	}
	if err != nil {
		s.metrics.lost.Inc()
		s.log.Error("queued message cannot be read", "client", clientID, "seq", e.seq, "err", err)
	}
	return q, true, buf, nil
}

func (e *entry) pos() seglog.Pos {
	return seglog.Pos{Segment: e.rec - uint64(e.rel), Offset: int64(e.offset)}
}

// decodeQueued finds the target in the record and fills q.
func decodeQueued(b []byte, clientID string, e entry, q *broker.Queued) error {
	r, err := openRecord(b)
	if err != nil {
		return err
	}
	r.f.off = min(int(e.op), len(b))
	var o op
	if more, err := r.next(&o); err != nil || !more || o.kind != broker.OpEnqueue {
		return errors.Join(errors.New("no enqueue where one was"), err)
	}
	var found *target
	for range o.count {
		if t := o.target(); t.seq == e.seq && bytes.Equal(t.client, []byte(clientID)) {
			found = &t // the last one counts
		}
	}
	_, msg, _, ok := r.message(o.index)
	if found == nil || !ok {
		return errors.New("no such target in the record")
	}
	q.SubscriptionIDs, q.Share = found.subscriptionIDs(), string(found.share)
	q.Message, err = broker.ParseMessage(msg)
	return err
}
