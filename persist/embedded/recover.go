package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/broker"
)

const (
	// readRetries is how many disk errors in a row recovery and cleaner sit out; the log's reader steps over bytes that stay unreadable.
	readRetries = 8
	// rescueExpiry is given to a session whose record was lost: long enough for its client to come back.
	rescueExpiry = 24 * time.Hour
)

// recover replays the log.
func (s *Store) recover() error {
	start := time.Now()
	s.replay = true
	records, bad, err := s.replayAll()
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	s.replay = false
	s.applied = s.disk.Next()
	s.metrics.undecodable.Add(bad)
	damaged := bad > 0 || s.disk.Stats().CorruptBytes > 0
	lost := s.settleOrphans(damaged)
	for _, c := range lost {
		s.rescueNow(c)
	}
	s.log.Info("store recovered", "dir", s.cfg.Dir, "records", records, "sessions", len(s.clients), "queued", s.queued,
		"retained", len(s.retained), "bytes", s.disk.Bytes(), "undecodable", bad, "took", time.Since(start))
	return nil
}

func (s *Store) replayAll() (records, bad int, err error) {
	r := s.disk.NewReader(0)
	defer r.Close()
	errs := 0
	for {
		seq, pos, b, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return records, bad, nil
		case err != nil:
			if errs++; errs > readRetries {
				return records, bad, err
			}
			continue
		}
		errs = 0
		records++
		err = check(b)
		if errors.Is(err, ErrVersion) {
			return records, bad, err
		}
		if err != nil {
			bad++
			s.log.Error("stored batch cannot be decoded, left out", "dir", s.cfg.Dir, "record", seq, "err", err)
			continue
		}
		s.apply(b, place{rec: seq, pos: pos})
	}
}

// settleOrphans decides about what came before its session record, and returns the clients that have lost theirs. Without damage, things
// without a session are leftovers of deleted sessions, see client.born.
func (s *Store) settleOrphans(damaged bool) (lost []*client) {
	for id, c := range s.clients {
		switch {
		case c.orphans && damaged && c.bornRec != 0 && c.born == c.bornRec:
			// The record that created the session may be among the lost: better too much than too little.
			c.born = 0
			lost = append(lost, c)
		case !c.exists && damaged && c.orphans:
			lost = append(lost, c)
		case !c.exists:
			s.forget(c)
			delete(s.clients, id)
			s.values.drop(id)
			continue
		}
		if c.exists {
			s.adopt(c)
		}
	}
	return lost
}

// rescueNow writes what was lost of a session's own record again. A full disk is no reason not to start: then the session is rescued in
// memory, and again at the next start.
func (s *Store) rescueNow(c *client) {
	s.reportLost(c)
	e := new(encoder)
	c.rescue(e, !c.exists, true)
	e.finish()
	done := make(chan error, 1)
	err := s.submit(context.Background(), e, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.log.Error("store rescued session, keeping it in memory", "dir", s.cfg.Dir, "client", c.id, "err", err)
		s.apply(e.buf, place{})
	}
	s.adopt(c)
}

func (s *Store) reportLost(c *client) {
	s.log.Error("record of a session lost, its subscriptions and messages are kept", "dir", s.cfg.Dir, "client", c.id,
		"queued", c.queue.count, "expiry", rescueExpiry)
	s.metrics.lost.Add(1)
}

// rescue encodes a session record without what only the lost one knew, and where the session began. The messages of a session are worth
// more than its expiry.
func (c *client) rescue(e *encoder, record, born bool) {
	if record {
		e.put(broker.OpPutSession, appendSession(nil, &broker.SessionRecord{
			ClientID: c.id, Expiry: rescueExpiry, NextSeq: max(c.queue.last(), c.sent) + 1,
		}))
	}
	if born {
		e.putBorn(c.id, c.born)
	}
}
