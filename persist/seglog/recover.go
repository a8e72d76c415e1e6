package seglog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// unsyncedJump is skipped after a session that did not fsync before reporting and did not end with Close: readers may have seen records
// that the power cut took back, and their numbers must not come again for other records.
const unsyncedJump = 1 << 28

// found is a segment file as recovery sees it.
type found struct {
	*segment
	gap     uint32
	flags   uint16
	nameEnd uint64 // 0: not in the name
	suspect bool   // the header is damaged; base and salt are from the name
}

// recover reads the folder. Cost: the header of every segment and all of the newest.
func (l *Log) recover() error {
	segs, err := l.findSegments()
	if err != nil {
		return err
	}
	slices.SortFunc(segs, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.base, b.base), cmp.Compare(a.disk, b.disk))
	})
	next := uint64(1)
	var newest *found
	for i := range segs {
		s := &segs[i]
		if i+1 < len(segs) {
			after := segs[i+1]
			s.end.Store(logicalEnd(s, after.base-min(uint64(after.gap), after.base)))
			continue
		}
		newest = s
		if next, err = l.scanNewest(s); err != nil {
			return err
		}
	}
	slot, slotOK, err := l.loadCursor()
	if err != nil {
		return err
	}
	clean := newest == nil || (slotOK && slot.cleanSalt == newest.salt && slot.cleanBase == newest.base)
	if newest != nil && newest.flags&flagUnsynced != 0 && !clean {
		next += unsyncedJump
	}
	l.next = max(next, slot.next, slot.cursor)
	l.tail = l.next
	l.durable.Store(l.next)
	for i := range segs {
		l.segs = append(l.segs, segs[i].segment)
		l.bytes.Add(segs[i].disk)
	}
	if err := l.setAside(segs, slot.cursor); err != nil {
		return err
	}
	l.trimQuarantine(filepath.Join(l.dir, quarantineName))
	l.startCursor(slot, slotOK)
	return nil
}

// logicalEnd is where the records of a segment end: said by its name, else by the header of the segment after it.
func logicalEnd(s *found, fromNext uint64) uint64 {
	if s.nameEnd != 0 {
		return max(s.nameEnd, s.base)
	}
	return max(fromNext, s.base)
}

func (l *Log) findSegments() ([]found, error) {
	infos, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	var segs []found
	for _, info := range infos {
		path := filepath.Join(l.dir, info.Name)
		if strings.HasSuffix(info.Name, ".seg"+tempSuffix) { // a crash while it was made: nothing in it was acknowledged
			if err := l.fs.Remove(path); err != nil {
				l.log.Warn("remove unfinished segment", "path", path, "err", err)
			}
			continue
		}
		base, salt, end, ok := parseName(info.Name)
		if !ok || info.Dir {
			continue
		}
		if info.Size < segmentHeader { // damage: a segment gets its name after its header
			l.log.Warn("segment without header, setting it aside", "path", path, "bytes", info.Size)
			l.quarantine(path)
			continue
		}
		s := &segment{base: base, salt: salt, path: path, disk: info.Size, ended: end != 0}
		f := found{segment: s, nameEnd: end}
		if err := l.readHeader(&f); err != nil {
			return nil, err
		}
		s.size.Store(info.Size)
		segs = append(segs, f)
	}
	return segs, nil
}

// readHeader fills in what the header says. A damaged one is not an error: the name says what is needed to read the records.
func (l *Log) readHeader(f *found) error {
	file, err := l.fs.Open(f.path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	h, ok := loadHeader(file)
	if !ok {
		f.suspect = true
		f.damagedTo.Store(segmentHeader)
		l.stats.corruptBytes.Add(segmentHeader)
		l.log.Warn("segment header damaged, reading its records by the file name", "path", f.path)
		return nil
	}
	if h.version > formatVersion {
		return fmt.Errorf("segment %s has format %d, this program reads up to %d: %w", f.path, h.version, formatVersion, ErrVersion)
	}
	f.base, f.salt, f.created, f.gap, f.flags = h.base, h.salt, h.createdAt(), h.gap, h.flags
	return nil
}

func loadHeader(r io.ReaderAt) (header, bool) {
	var b [segmentHeader]byte
	for range scanAttempts {
		n, err := r.ReadAt(b[:], 0)
		if n == len(b) {
			return decodeHeader(b[:])
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	return header{}, false
}

// scanNewest finds the end of the newest segment: its last valid record. What lies behind is the torn tail of a crash or damage; as
// damage may have hidden acknowledged records that a reader has seen, the numbers that would fit there are skipped.
func (l *Log) scanNewest(s *found) (next uint64, err error) {
	file, err := l.fs.Open(s.path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	end := s.base + uint64(s.disk/minFrame) + 1
	if s.nameEnd != 0 {
		end = s.nameEnd
	}
	sc := newScanner(file, s.salt, s.base, s.disk, end)
	for {
		rec, ok := sc.persist()
		if !ok {
			break
		}
		l.noteDamage(s.segment, rec)
	}
	s.end.Store(sc.want)
	tail := s.disk - lastEnd(sc)
	if tail > 0 {
		l.stats.tornBytes.Add(uint64(tail))
		l.log.Warn("segment ends in bytes that are no record", "path", s.path, "bytes", tail)
	}
	return sc.want + uint64((tail+minFrame-1)/minFrame), nil
}

// lastEnd is the offset behind the last valid record.
func lastEnd(s *scanner) int64 { return s.off - s.bad }

// setAside moves segments that hold no valid record, because their header and all records are damaged, to the quarantine folder, and
// forgets empty ones that an earlier session left. What lies below cursor is no loss.
func (l *Log) setAside(segs []found, cursor uint64) error {
	for i := range segs {
		s := segs[i]
		if s.suspect {
			some, err := l.anyRecord(s.segment)
			if err != nil {
				return err
			}
			if !some {
				l.log.Error("no valid record in segment, setting it aside", "path", s.path, "bytes", s.disk)
				l.stats.corruptBytes.Add(uint64(s.disk - segmentHeader))
				if from, end := max(s.base, cursor), s.end.Load(); end > from {
					l.stats.lostRecords.Add(end - from)
				}
				l.forget(s.segment)
				if l.quarantine(s.path) {
					l.bytes.Add(-s.disk)
				}
			}
			continue
		}
		if i+1 < len(segs) && s.disk == segmentHeader {
			l.mu.Lock()
			l.segs = slices.DeleteFunc(l.segs, func(x *segment) bool { return x == s.segment })
			l.discard(s.segment)
			l.mu.Unlock()
		}
	}
	l.mu.Lock()
	l.updateOldest()
	l.mu.Unlock()
	return nil
}

func (l *Log) anyRecord(s *segment) (bool, error) {
	file, err := l.fs.Open(s.path, os.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer file.Close()
	_, ok := newScanner(file, s.salt, s.base, s.disk, math.MaxUint64).persist()
	return ok, nil
}

// noteDamage counts the bytes that were stepped over before a record, once per place.
func (l *Log) noteDamage(s *segment, rec scanned) {
	if rec.skipped > 0 {
		l.countDamage(s, rec.off-rec.skipped, rec.off)
	}
}

func (l *Log) countDamage(s *segment, from, to int64) {
	for {
		seen := s.damagedTo.Load()
		if to <= seen {
			return
		}
		if !s.damagedTo.CompareAndSwap(seen, to) {
			continue
		}
		l.stats.resyncs.Add(1)
		l.stats.corruptBytes.Add(uint64(to - max(from, seen)))
		l.log.Error("damaged bytes in segment, stepped over", "dir", l.dir, "segment", fmt.Sprintf("%016x", s.base), "from", from, "to", to)
		return
	}
}
