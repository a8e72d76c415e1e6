package queue

import (
	"maps"
	"math"
	"sync"
	"time"

	"gantry/persist/seglog"
)

// Stats are the figures of a queue: of now, or since Open where said.
type Stats struct {
	Records   uint64        // on disk and not confirmed
	Bytes     int64         // of them as stored, framing included
	DiskBytes int64         // of the folder without dead letters; at most MaxBytes
	MaxBytes  int64         // cap
	OldestAge time.Duration // since the Append of the oldest record that is not confirmed; 0 when there is none
	Oldest    time.Time     // that Append; zero when there is none

	Waiting      int // records that wait in memory for room (Block)
	WaitingBytes int

	Appended      uint64            // records committed, since Open
	AppendedBytes uint64            // of them, framing included, since Open
	Confirmed     uint64            // records, since Open
	Dropped       map[string]uint64 // records lost by reason, since Open: DroppedOldest, DroppedDamaged, DroppedDead
	DroppedBytes  uint64            // disk freed by DropOldest, since Open
	Refused       uint64            // appends that got ErrFull, since Open
	Failed        uint64            // records whose commit failed, since Open

	DeadLetters uint64 // in the dead-letter folder
	DeadBytes   int64  // of that folder
	Buried      uint64 // since Open

	Commits      uint64        // group commits, since Open
	LastSync     time.Duration // how long the newest fsync took
	SyncErrors   uint64        // since Open
	Segments     int
	CorruptBytes uint64 // damaged bytes that were stepped over, since Open
	Quarantined  uint64 // files set aside, since Open
}

// probe finds the oldest record. It moves with the frontier and reads each record at most once, and only when somebody asks.
type probe struct {
	mu     sync.Mutex
	reader *seglog.Reader
	have   bool
	seq    uint64
	pos    seglog.Pos
	at     time.Time
}

// probeJump is how far the frontier may move before looking for it from its segment's start is cheaper than reading on.
const probeJump = 50_000

func (p *probe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

// reset needs mu.
func (p *probe) reset() {
	if p.reader != nil {
		_ = p.reader.Close()
		p.reader = nil
	}
	p.have = false
}

// find returns where the first record at or above frontier lies and when it was appended.
func (p *probe) find(l *seglog.Log, frontier uint64) (seglog.Pos, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have && p.seq >= frontier && l.Records(p.seq, p.seq+1) == 1 {
		return p.pos, p.at, true
	}
	if p.reader == nil || p.seq >= frontier || frontier-p.seq > probeJump {
		p.reset()
		p.reader, p.seq = l.NewReader(frontier), frontier
	}
	for {
		seq, pos, payload, err := p.reader.Next()
		if err != nil {
			p.have = false
			return seglog.Pos{}, time.Time{}, false
		}
		at, _, _ := splitStamp(payload)
		p.have, p.seq, p.pos, p.at = true, seq, pos, at
		if seq >= frontier {
			return pos, at, true
		}
	}
}

// Stats returns the figures of now. It may read from disk.
func (q *Queue) Stats() Stats {
	ls := q.log.Stats()
	s := Stats{
		DiskBytes: q.log.DiskBytes(), MaxBytes: q.cfg.MaxBytes,
		Appended: ls.Appended, AppendedBytes: ls.AppendedBytes, Failed: ls.Failed,
		Commits: ls.Groups, LastSync: ls.LastSync, SyncErrors: ls.SyncErrors,
		Segments: ls.Segments, CorruptBytes: ls.CorruptBytes, Quarantined: ls.Quarantined,
	}
	q.mu.Lock()
	frontier := q.log.Cursor()
	s.Records = q.live(frontier, math.MaxUint64)
	s.Waiting, s.WaitingBytes = len(q.waiters), q.waitBytes
	if len(q.waiters) > 0 {
		s.Oldest = q.waiters[0].at
	}
	s.Confirmed, s.Refused, s.Buried = q.tally.confirmed, q.tally.refused, q.tally.buried
	s.Dropped, s.DroppedBytes = maps.Clone(q.tally.dropped), q.tally.droppedBytes
	q.mu.Unlock()
	if s.Records > 0 {
		q.measure(&s, frontier)
	} else {
		q.probe.close() // or it keeps a deleted file, and its space on disk, until the next record
	}
	if !s.Oldest.IsZero() {
		s.OldestAge = max(time.Since(s.Oldest), 0)
	}
	if l := q.dead.current(); l != nil {
		s.DeadLetters, s.DeadBytes = l.Records(0, math.MaxUint64), l.DiskBytes()
	}
	return s
}

// measure finds the age of the oldest record and the bytes from it to the end.
func (q *Queue) measure(s *Stats, frontier uint64) {
	pos, at, ok := q.probe.find(q.log, frontier)
	if !ok {
		return
	}
	s.Oldest = at
	s.Bytes = bytesFrom(q.log.Segments(), pos)
}

// bytesFrom returns the bytes of the records from pos to the end.
func bytesFrom(segments []seglog.SegmentInfo, pos seglog.Pos) (n int64) {
	for _, seg := range segments {
		switch {
		case seg.Base == pos.Segment:
			n += seg.Bytes - pos.Offset
		case seg.Base > pos.Segment:
			n += seg.Bytes - seglog.HeaderSize
		}
	}
	return n
}
