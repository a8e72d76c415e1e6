package seglog

import (
	"errors"
	"io"
)

const (
	scanWindow   = 256 << 10
	scanBlock    = 4 << 10 // unit that is given up when the disk cannot read it
	scanAttempts = 3       // reads of the same place before its blocks are given up
)

// scanner reads the records of one segment file in order. After damage it looks for the next valid record at every multiple of the
// alignment: one pass over the bytes, because only a header whose CRC holds makes it look at a payload.
// Any bytes in the file are legal input.
type scanner struct {
	f     io.ReaderAt
	salt  uint32
	base  uint64
	limit int64  // bytes that may be read
	end   uint64 // sequence numbers from here on do not exist

	off      int64  // where the next record is looked for
	want     uint64 // lowest sequence number that may come next
	bad      int64  // bytes stepped over since the last record
	buf      []byte // buf[:have] holds the file from bufOff
	bufOff   int64
	have     int
	attempts int
}

type scanned struct {
	seq     uint64
	off     int64
	payload []byte // valid until the next call
	skipped int64  // damaged bytes before it
}

func newScanner(f io.ReaderAt, salt uint32, base uint64, limit int64, end uint64) *scanner {
	return &scanner{f: f, salt: salt, base: base, limit: limit, end: end, off: segmentHeader, want: base}
}

// next returns the next valid record. io.EOF means none up to limit and end, both of which may be raised afterwards.
// Other errors are those of the disk; after scanAttempts of them the unreadable blocks count as damage.
func (s *scanner) next() (scanned, error) {
	for s.want < s.end && s.off+recordHeader <= s.limit {
		seq, p, ok, err := s.try()
		if err != nil {
			return scanned{}, err
		}
		if !ok {
			s.off += alignment
			s.bad += alignment
			continue
		}
		rec := scanned{seq: seq, off: s.off, payload: p, skipped: s.bad}
		s.off += FrameSize(len(p))
		s.want, s.bad = seq+1, 0
		return rec, nil
	}
	return scanned{}, io.EOF
}

func (s *scanner) try() (seq uint64, payload []byte, ok bool, err error) {
	h, err := s.view(s.off, recordHeader)
	if err != nil {
		return 0, nil, false, err
	}
	n, rel, crc, ok := decodeFrame(h, s.salt)
	seq = s.base + uint64(rel)
	if !ok || seq < s.want || seq >= s.end || s.off+recordHeader+n > s.limit {
		return 0, nil, false, nil
	}
	b, err := s.view(s.off, recordHeader+n)
	if err != nil {
		return 0, nil, false, err
	}
	if p := b[recordHeader:]; payloadValid(p, s.salt, crc) {
		return seq, p, true, nil
	}
	return 0, nil, false, nil
}

// view returns n bytes at off, which lie below limit.
func (s *scanner) view(off, n int64) ([]byte, error) {
	if i := off - s.bufOff; i >= 0 && i+n <= int64(s.have) {
		return s.buf[i : i+n : i+n], nil
	}
	size := min(max(n, scanWindow), s.limit-off)
	if int64(len(s.buf)) < size {
		s.buf = make([]byte, size)
	}
	s.bufOff, s.have = off, 0
	m, err := s.f.ReadAt(s.buf[:size], off)
	switch {
	case int64(m) >= n:
		s.have = m
	case err == nil || errors.Is(err, io.EOF): // the file is shorter than it was: what is missing reads as zeros, never as a record
		clear(s.buf[m:size])
		s.have = int(size)
	default:
		if s.attempts++; s.attempts < scanAttempts {
			return nil, err
		}
		s.readBlocks(off, size)
	}
	s.attempts = 0
	return s.buf[:n:n], nil
}

// readBlocks fills the window block by block and puts zeros where the disk fails.
func (s *scanner) readBlocks(off, size int64) {
	for i := int64(0); i < size; {
		n := min(scanBlock-(off+i)%scanBlock, size-i)
		block := s.buf[i : i+n]
		if m, err := s.f.ReadAt(block, off+i); err != nil {
			clear(block[m:])
		}
		i += n
	}
	s.have = int(size)
}

// persist calls next until it gives a record or the end: for recovery, where nobody can come back later.
func (s *scanner) persist() (scanned, bool) {
	for {
		rec, err := s.next()
		if err == nil {
			return rec, true
		}
		if errors.Is(err, io.EOF) {
			return scanned{}, false
		}
	}
}
