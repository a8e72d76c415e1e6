package embedded

import (
	"fmt"
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
	// Not from the first record: a power cut may bring back files that were given up.
	r := replay{s: s, segs: s.disk.Segments(), next: s.disk.Cursor()}
	if err := r.run(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	s.applied = s.disk.Next()
	s.metrics.undecodable.Add(r.bad)
	s.metrics.missing.Add(r.missing)
	s.voidTail(&r)
	s.replay = false
	for _, c := range s.settleOrphans(r.bad > 0 || r.missing > 0) {
		s.rescueNow(c)
	}
	s.log.Info("store recovered", "dir", s.cfg.Dir, "records", r.records, "sessions", len(s.clients), "queued", s.queued,
		"retained", len(s.retained), "delayed", len(s.delayed), "bytes", s.disk.Bytes(), "undecodable", r.bad, "missing", r.missing, "took", time.Since(start))
	return nil
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
	err := s.commitNow(e)
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
