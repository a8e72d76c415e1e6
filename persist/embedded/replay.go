package embedded

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sort"

	"gantry/persist/seglog"
)

// replay reads the log at Open and applies it.
//
// A gap in the numbers of a segment has one of two reasons. A power cut can keep a later part of the last write and not an earlier one:
// then nothing behind the gap was acknowledged, and applying it would skip batches. Or a sector went bad: then what lies behind the
// gap is as good as ever. A later record tells: one that was appended when the missing ones had been settled, so they were acknowledged.
// Until such a record comes, what lies behind the gap is held back. If none comes it is left out, and an opVoid is written that says
// so to the next replay, because from then on records follow that know the gap as settled.
type replay struct {
	s       *Store
	segs    []seglog.SegmentInfo
	next    uint64     // the record that should come next
	tail    seglog.Pos // where it should lie if it is in the same segment
	records int
	bad     int // records that cannot be decoded
	missing int // acknowledged records that are damaged
	open    gap // the gap behind which records are held; n is 0 when there is none
	held    []heldRecord
}

type gap struct {
	from uint64
	n    int // records that should be there
}

type heldRecord struct {
	b      []byte
	at     place
	before gap
}

func (r *replay) run() error {
	reader := r.s.disk.NewReader(r.next)
	defer reader.Close()
	errs := 0
	for {
		seq, pos, b, err := reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			if r.open.n == 0 {
				r.missing += r.between(r.next, math.MaxUint64)
			}
			return nil
		case err != nil:
			if errs++; errs > readRetries {
				return err
			}
			continue
		}
		errs = 0
		r.records++
		rec := heldRecord{b: b, at: place{rec: seq, pos: pos}}
		if seq != r.next {
			rec.before = gap{from: r.next, n: r.lostBefore(rec.at)}
		}
		r.next, r.tail = seq+1, pos.Add(len(b))
		if err := r.take(rec); err != nil {
			return err
		}
	}
}

// lostBefore returns how many records are missing between the last one and the one at a place. Where no bytes are missing there were no
// records: the numbers belong to commits that failed before they were written.
func (r *replay) lostBefore(at place) int {
	switch {
	case at.pos == r.tail:
		return 0
	case at.pos.Segment == r.tail.Segment:
		return int(at.rec - r.next)
	}
	n := r.between(r.next, at.pos.Segment)
	if at.pos.Offset != seglog.HeaderSize {
		n += int(at.rec - max(r.next, at.pos.Segment))
	}
	return n
}

// between returns how many records of [from, to) should be there. Numbers between two segments were never written.
func (r *replay) between(from, to uint64) (n int) {
	i := sort.Search(len(r.segs), func(i int) bool { return r.segs[i].End > from })
	for ; i < len(r.segs) && r.segs[i].Base < to; i++ {
		if lo, hi := max(from, r.segs[i].Base), min(to, r.segs[i].End); hi > lo {
			n += int(hi - lo)
		}
	}
	return n
}

// take checks a record and feeds it, with memory that is valid until the next one.
func (r *replay) take(rec heldRecord) error {
	err := check(rec.b)
	if errors.Is(err, ErrVersion) {
		return err
	}
	if err != nil {
		r.bad++
		r.s.log.Error("stored batch cannot be decoded, left out", "dir", r.s.cfg.Dir, "record", rec.at.rec, "err", err)
		return nil
	}
	r.feed(rec)
	return nil
}

func (r *replay) feed(rec heldRecord) {
	if r.open.n == 0 {
		r.open = rec.before
		rec.before = gap{}
	}
	if r.open.n == 0 {
		r.s.apply(rec.b, rec.at)
		return
	}
	if from, to, ok := voidRange(rec.b); ok && from <= r.open.from && r.open.from < to {
		r.open, r.held = gap{}, nil
		return
	}
	if settled(rec.b) <= r.open.from {
		rec.b = bytes.Clone(rec.b)
		r.held = append(r.held, rec)
		return
	}
	r.missing += r.open.n
	r.release()
	r.feed(rec)
}

// release goes on behind the open gap; the held records may have further ones between them.
func (r *replay) release() {
	held := r.held
	r.open, r.held = gap{}, nil
	for _, h := range held {
		r.feed(h)
	}
}

// voidTail settles a gap that is open at the end.
func (s *Store) voidTail(r *replay) {
	if r.open.n == 0 {
		return
	}
	s.log.Warn("a power cut kept parts of the last write, leaving out what follows the first lost one", "dir", s.cfg.Dir,
		"first", r.open.from, "left_out", len(r.held))
	e := new(encoder)
	e.putVoid(r.open.from, r.next)
	e.finish()
	if err := s.commitNow(e); err != nil {
		// Left out now, they would come back at the next start. They were not acknowledged, so they may as well count from now on.
		s.log.Error("note records that were left out, taking them", "dir", s.cfg.Dir, "err", err)
		for r.open.n > 0 {
			r.release()
		}
	}
}

// commitNow commits an encoded record and waits.
func (s *Store) commitNow(e *encoder) error {
	done := make(chan error, 1)
	if err := s.submit(context.Background(), e, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

// voidRange returns what an opVoid record leaves out.
func voidRange(b []byte) (from, to uint64, ok bool) {
	r, err := openRecord(b)
	if err != nil {
		return 0, 0, false
	}
	var o op
	if more, err := r.next(&o); err != nil || !more || o.kind != opVoid {
		return 0, 0, false
	}
	return o.num, o.index, true
}
