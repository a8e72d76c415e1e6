package seglog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Snapshot is a read-only view of a log folder, taken without its lock.
type Snapshot struct {
	Dir      string
	Cursor   uint64        // as saved; behind the owner's by up to 100 ms
	CursorOK bool          // false: the cursor file is missing or damaged and Cursor is the oldest record
	Segments []SegmentInfo // oldest first
	fs       FS
}

// Inspect looks into a log folder without taking its lock and without writing: also while another process uses it, and also offline.
// Records at the end may not be fsynced yet.
func Inspect(dir string) (*Snapshot, error) { return InspectFS(OS(), dir) }

// InspectFS is Inspect on another file system.
func InspectFS(fsys FS, dir string) (*Snapshot, error) {
	infos, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	s := &Snapshot{Dir: dir, fs: fsys}
	var heads []header
	for _, info := range infos {
		base, salt, end, ok := parseName(info.Name)
		if !ok || info.Dir || info.Size < segmentHeader {
			continue
		}
		seg := SegmentInfo{Base: base, End: end, Bytes: info.Size, Path: filepath.Join(dir, info.Name)}
		h, err := s.readHeader(&seg, salt)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inspect log %s: %w", dir, err)
		}
		s.Segments = append(s.Segments, seg)
		heads = append(heads, h)
	}
	s.sortAndEnd(heads)
	s.readCursor()
	return s, nil
}

func (s *Snapshot) readHeader(seg *SegmentInfo, salt uint32) (header, error) {
	f, err := s.fs.Open(seg.Path, os.O_RDONLY)
	if err != nil {
		return header{}, err
	}
	defer f.Close()
	h, ok := loadHeader(f)
	if !ok {
		seg.Damaged = true
		return header{base: seg.Base, salt: salt}, nil
	}
	if h.version > formatVersion {
		return header{}, fmt.Errorf("segment %s has format %d, this program reads up to %d: %w", seg.Path, h.version, formatVersion, ErrVersion)
	}
	seg.Base, seg.Created = h.base, h.createdAt()
	return h, nil
}

// sortAndEnd orders the segments and finds where each one's records end.
func (s *Snapshot) sortAndEnd(heads []header) {
	gaps := make(map[uint64]uint32, len(heads))
	for _, h := range heads {
		gaps[h.base] = h.gap
	}
	slices.SortFunc(s.Segments, func(a, b SegmentInfo) int {
		if a.Base == b.Base {
			return int(min(max(a.Bytes-b.Bytes, -1), 1))
		}
		if a.Base < b.Base {
			return -1
		}
		return 1
	})
	for i := range s.Segments {
		seg := &s.Segments[i]
		switch {
		case seg.End != 0:
		case i+1 < len(s.Segments):
			after := s.Segments[i+1].Base
			seg.End = max(seg.Base, after-min(uint64(gaps[after]), after))
		default:
			seg.End = s.scanEnd(*seg)
		}
	}
}

func (s *Snapshot) scanEnd(seg SegmentInfo) uint64 {
	r := s.Reader(0)
	defer r.Close()
	if r.open(seg, math.MaxUint64) != nil {
		return seg.Base
	}
	for {
		if _, ok := r.sc.persist(); !ok {
			return r.sc.want
		}
	}
}

func (s *Snapshot) readCursor() {
	if len(s.Segments) > 0 {
		s.Cursor = s.Segments[0].Base
	}
	f, err := s.fs.Open(filepath.Join(s.Dir, cursorName), os.O_RDONLY)
	if err != nil {
		return
	}
	defer f.Close()
	if slot, ok, _ := readSlots(f); ok {
		s.Cursor, s.CursorOK = max(s.Cursor, slot.cursor), true
	}
}

// Records returns how many records the snapshot holds at or above from, apart from damage.
func (s *Snapshot) Records(from uint64) uint64 {
	var n uint64
	for _, seg := range s.Segments {
		if lo := max(from, seg.Base); seg.End > lo {
			n += seg.End - lo
		}
	}
	return n
}

// SnapshotReader reads the records of a Snapshot in order. It belongs to one goroutine.
type SnapshotReader struct {
	s    *Snapshot
	i    int // next segment
	file File
	base uint64
	sc   *scanner
	want uint64
	bad  int64
}

// Reader returns a reader whose first record is the one with sequence number from, or the next that exists. Snapshot.Cursor gives the
// records that were not confirmed.
func (s *Snapshot) Reader(from uint64) *SnapshotReader { return &SnapshotReader{s: s, want: from} }

// Next returns the next record; the payload is valid until the next call. io.EOF is the end of the snapshot. Segments that its owner
// deleted meanwhile are stepped over.
func (r *SnapshotReader) Next() (seq uint64, pos Pos, payload []byte, err error) {
	for {
		if r.sc == nil {
			if r.i == len(r.s.Segments) {
				return 0, Pos{}, nil, io.EOF
			}
			seg := r.s.Segments[r.i]
			r.i++
			if seg.End <= r.want {
				continue
			}
			err := r.open(seg, seg.End)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return 0, Pos{}, nil, err
			}
		}
		rec, ok := r.sc.persist()
		if !ok {
			r.bad += r.sc.bad
			r.closeFile()
			continue
		}
		r.bad += rec.skipped
		if rec.seq < r.want {
			continue
		}
		r.want = rec.seq + 1
		return rec.seq, Pos{Segment: r.base, Offset: rec.off}, rec.payload, nil
	}
}

func (r *SnapshotReader) open(seg SegmentInfo, end uint64) error {
	f, err := r.s.fs.Open(seg.Path, os.O_RDONLY)
	if err != nil {
		return err
	}
	_, salt, _, _ := parseName(filepath.Base(seg.Path))
	if h, ok := loadHeader(f); ok {
		salt = h.salt
	}
	r.file, r.base = f, seg.Base
	r.sc = newScanner(f, salt, seg.Base, seg.Bytes, min(end, seg.Base+uint64(seg.Bytes/minFrame)+1))
	return nil
}

// BadBytes returns how many damaged bytes were stepped over so far.
func (r *SnapshotReader) BadBytes() int64 { return r.bad }

func (r *SnapshotReader) closeFile() {
	if r.file != nil {
		_ = r.file.Close() // opened for reading: nothing can be lost
	}
	r.file, r.sc = nil, nil
}

// Close gives up the open file.
func (r *SnapshotReader) Close() error {
	r.closeFile()
	r.i = len(r.s.Segments)
	return nil
}
