package seglog

import (
	"fmt"
	"slices"
)

// maxHandles is how many segments stay open for ReadAt.
const maxHandles = 64

// ReadAt reads the durable record at a position that Committed or Reader gave, into dst when it is large enough. It returns ErrGone when
// the segment was deleted, ErrCorrupt when no valid record lies there, ErrClosed after Close.
func (l *Log) ReadAt(p Pos, dst []byte) (seq uint64, payload []byte, err error) {
	s, err := l.segmentAt(p.Segment)
	if err != nil {
		return 0, nil, err
	}
	size := s.size.Load()
	if p.Offset < segmentHeader || p.Offset+recordHeader > size {
		return 0, nil, fmt.Errorf("segment %016x offset %d: %w", p.Segment, p.Offset, ErrCorrupt)
	}
	s.readMu.RLock()
	if s.read == nil {
		s.readMu.RUnlock()
		if err := l.openRead(s); err != nil {
			return 0, nil, err
		}
		s.readMu.RLock()
	}
	defer s.readMu.RUnlock()
	if s.read == nil {
		return 0, nil, l.whyGone()
	}
	rel, payload, err := readRecord(s, p.Offset, size, dst)
	if err != nil {
		return 0, nil, fmt.Errorf("segment %016x offset %d: %w", p.Segment, p.Offset, err)
	}
	return s.base + uint64(rel), payload, nil
}

func readRecord(s *segment, off, size int64, dst []byte) (rel uint32, payload []byte, err error) {
	var h [recordHeader]byte
	if _, err := s.read.ReadAt(h[:], off); err != nil {
		return 0, nil, err
	}
	n, rel, crc, ok := decodeFrame(h[:], s.salt)
	if !ok || off+recordHeader+n > size || s.base+uint64(rel) >= s.end.Load() {
		return 0, nil, ErrCorrupt
	}
	if int64(cap(dst)) < n {
		dst = make([]byte, n)
	}
	dst = dst[:n]
	if _, err := s.read.ReadAt(dst, off+recordHeader); err != nil {
		return 0, nil, err
	}
	if !payloadValid(dst, s.salt, crc) {
		return 0, nil, ErrCorrupt
	}
	return rel, dst, nil
}

func (l *Log) segmentAt(base uint64) (*segment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	// An empty segment that a crash left has the same base as the one after it, which has the records.
	i, _ := slices.BinarySearchFunc(l.segs, base, func(s *segment, b uint64) int {
		if s.base <= b {
			return -1
		}
		return 1
	})
	if i == 0 || l.segs[i-1].base != base {
		return nil, fmt.Errorf("segment %016x: %w", base, ErrGone)
	}
	return l.segs[i-1], nil
}

func (l *Log) whyGone() error {
	if l.isClosed.Load() {
		return ErrClosed
	}
	return ErrGone
}

// openRead opens the read handle of a segment and closes the oldest one above maxHandles.
func (l *Log) openRead(s *segment) error {
	f, err := l.openSegment(s)
	if err != nil {
		return err
	}
	if f == nil || !s.keepRead(f) {
		return l.whyGone()
	}
	l.mu.Lock()
	if !slices.Contains(l.handles, s) {
		l.handles = append(l.handles, s)
	}
	l.handles = slices.DeleteFunc(l.handles, func(h *segment) bool { return h.gone.Load() && h != s })
	var evict *segment
	if len(l.handles) > maxHandles {
		evict, l.handles = l.handles[0], slices.Delete(l.handles, 0, 1)
	}
	late := l.closed || s.gone.Load()
	l.mu.Unlock()
	if evict != nil {
		evict.closeRead()
	}
	if late {
		s.closeRead()
	}
	return nil
}

// keepRead makes f the read handle, unless there is one by now. It reports false when the segment was deleted.
func (s *segment) keepRead(f File) bool {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if s.read != nil || s.gone.Load() {
		_ = f.Close() // opened for reading: nothing can be lost
		return s.read != nil
	}
	s.read = f
	return true
}

func (s *segment) closeRead() {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	if s.read != nil {
		_ = s.read.Close() // opened for reading: nothing can be lost
		s.read = nil
	}
}
