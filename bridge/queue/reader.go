package queue

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gantry/persist/seglog"
)

// Reader hands out the records of a queue in order. It belongs to one goroutine. What it handed out is in flight until confirmed.
type Reader struct {
	q       *Queue
	mu      sync.Mutex // covers log against Queue.Close and a newer Reader
	log     *seglog.Reader
	want    uint64
	at      time.Time
	skipped uint64
}

// Reader returns a Reader whose first record is the one with sequence number from, or the next that exists. A queue has one Reader: the
// one before gets ErrClosed, and what it handed out is in flight no longer unless Pin says so.
func (q *Queue) Reader(from uint64) *Reader {
	from = max(from, q.Frontier())
	r := &Reader{q: q, log: q.log.NewReader(from), want: from}
	q.mu.Lock()
	old := q.reader
	q.reader, q.readTo = r, from
	if q.closed {
		q.reader = nil
	}
	q.mu.Unlock()
	if old != nil {
		old.close()
	}
	return r
}

func (r *Reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log != nil {
		_ = r.log.Close()
		r.log = nil
	}
}

// Next returns the next record, which is valid until the next call. io.EOF means caught up: more may come, see Queue.Ready. Sequence
// numbers ascend; they jump where records were lost, see Skipped, and where appends failed. Another error is one of the disk; calling
// again tries again.
func (r *Reader) Next() (seq uint64, rec []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log == nil {
		return 0, nil, ErrClosed
	}
	r.skipped = 0
	for {
		seq, payload, err := r.next()
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF // as it is: callers compare
		}
		if err != nil {
			return 0, nil, r.failed(err)
		}
		gap, ok := r.q.handOut(r.want, seq)
		r.skipped += gap
		r.want = seq + 1
		if !ok {
			continue
		}
		at, rec, ok := splitStamp(payload)
		if !ok { // not ours; sound bytes of an unknown origin are damage too
			r.q.noteBad(seq)
			r.skipped++
			continue
		}
		r.at = at
		return seq, rec, nil
	}
}

// next reads from the log. At its end it makes sure that what lies between the last record and the end is counted as damage, as the
// receiver would wait for it in vain.
func (r *Reader) next() (uint64, []byte, error) {
	seq, _, payload, err := r.log.Next()
	if !errors.Is(err, io.EOF) {
		return seq, payload, err
	}
	end := r.q.log.End()
	if end <= r.want {
		return 0, nil, err
	}
	seq, _, payload, err = r.log.Next() // sees everything below end
	if errors.Is(err, io.EOF) {
		r.skipped += r.q.skip(r.want, end)
		r.want = end
	}
	return seq, payload, err
}

func (r *Reader) failed(err error) error {
	if errors.Is(err, seglog.ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("read queue %s: %w", r.q.cfg.Name, err)
}

// Time returns when the record that Next returned was appended.
func (r *Reader) Time() time.Time { return r.at }

// Skipped returns how many records were lost between the one that Next returned and the one before it.
func (r *Reader) Skipped() uint64 { return r.skipped }

// handOut marks a record as in flight. It returns how many records were lost since want, and false when the record itself was dropped
// while it was being read.
func (q *Queue) handOut(want, seq uint64) (lost uint64, ok bool) {
	if seq > want {
		lost = q.skip(want, seq)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.holes {
		if seq >= h.from && seq < h.to {
			return lost + 1, false
		}
	}
	q.readTo = max(q.readTo, seq+1)
	return lost, true
}

// skip accounts for the numbers in [from, to) that the log did not return: dropped by the policy, or damaged, which is counted here and
// once. It returns how many records that were.
func (q *Queue) skip(from, to uint64) (lost uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.holes {
		lost += h.overlap(from, to)
	}
	for _, b := range q.bad {
		lost += b.overlap(from, to)
	}
	if from = max(from, q.badTo); from >= to {
		return lost
	}
	q.badTo = to
	for _, s := range q.log.Segments() {
		lost += q.markBad(max(from, s.Base), min(to, s.End))
	}
	return lost
}

func (q *Queue) noteBad(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if seq >= q.badTo {
		q.badTo = seq + 1
		q.markBad(seq, seq+1)
	}
}

// markBad counts the records in [from, to), which lie in one segment, as damaged, unless that segment was dropped. It needs mu.
func (q *Queue) markBad(from, to uint64) (records uint64) {
	if from >= to {
		return 0
	}
	for _, h := range q.holes {
		if h.overlap(from, to) > 0 { // holes are whole segments
			return 0
		}
	}
	q.bad = append(q.bad, span{from, to})
	q.tally.dropped[DroppedDamaged] += to - from
	q.slog.Error("queued records are damaged and lost", "queue", q.cfg.Name, "from", from, "to", to)
	return to - from
}
