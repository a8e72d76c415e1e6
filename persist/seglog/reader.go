package seglog

import (
	"errors"
	"io"
)

// Reader reads durable records in order. It belongs to one goroutine; any number of Readers may be open.
type Reader struct {
	l    *Log
	seg  *segment
	file File
	sc   *scanner
	want uint64
}

// NewReader returns a Reader whose first record is the one with sequence number from, or the next that exists.
func (l *Log) NewReader(from uint64) *Reader { return &Reader{l: l, want: from} }

// Next returns the next durable record. The payload is valid until the next call. io.EOF means caught up: more may come, see Log.Ready.
// Sequence numbers jump where records were dropped, damaged or failed. Another error is one of the disk; calling again tries again, and
// bytes that stay unreadable are stepped over like damage. After Log.Close it returns ErrClosed.
func (r *Reader) Next() (seq uint64, pos Pos, payload []byte, err error) {
	for {
		if r.l.isClosed.Load() {
			return 0, Pos{}, nil, ErrClosed
		}
		if r.seg == nil || r.seg.gone.Load() {
			if err := r.advance(); err != nil {
				return 0, Pos{}, nil, err
			}
		}
		s := r.seg
		r.sc.end = s.end.Load() // before size: size then covers end
		r.sc.limit = s.size.Load()
		rec, err := r.sc.next()
		if err == nil {
			r.l.noteDamage(s, rec)
			if rec.seq < r.want {
				continue
			}
			r.want = rec.seq + 1
			return rec.seq, Pos{Segment: s.base, Offset: rec.off}, rec.payload, nil
		}
		if !errors.Is(err, io.EOF) {
			return 0, Pos{}, nil, err
		}
		if err := r.advance(); err != nil {
			return 0, Pos{}, nil, err
		}
	}
}

// advance goes to the first segment that can hold the wanted record and comes after the current one. io.EOF means there is none yet, and
// the current one, if any, may still grow.
func (r *Reader) advance() error {
	l := r.l
	for {
		l.mu.Lock()
		i := l.search(r.want)
		for r.seg != nil && i < len(l.segs) && (l.segs[i] == r.seg || l.segs[i].base < r.seg.base) {
			i++
		}
		if i == len(l.segs) {
			l.mu.Unlock()
			return io.EOF
		}
		s := l.segs[i]
		l.mu.Unlock()
		if r.seg != nil && !r.seg.gone.Load() {
			if r.sc.end != r.seg.end.Load() { // it grew before its successor was begun
				return nil
			}
			if r.sc.want < r.sc.end { // its last records are damaged
				l.countDamage(r.seg, r.sc.off-r.sc.bad, r.sc.limit)
			}
		}
		f, err := l.openSegment(s)
		if err != nil {
			return err
		}
		if f == nil { // deleted meanwhile
			continue
		}
		r.closeFile()
		r.seg, r.file = s, f
		r.want = max(r.want, s.base)
		r.sc = reuseScanner(r.sc, f, s)
		return nil
	}
}

func reuseScanner(old *scanner, f File, s *segment) *scanner {
	sc := newScanner(f, s.salt, s.base, 0, 0)
	if old != nil {
		sc.buf = old.buf
	}
	return sc
}

func (r *Reader) closeFile() {
	if r.file != nil {
		_ = r.file.Close() // opened for reading: nothing can be lost
		r.file = nil
	}
}

// Close gives up the open file.
func (r *Reader) Close() error {
	r.closeFile()
	r.seg, r.sc = nil, nil
	return nil
}
