package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"time"

	"gantry/persist/seglog"
)

// Snapshot is a read-only view of a queue's folder.
type Snapshot struct {
	Dir         string
	Frontier    uint64 // as saved; behind the owner's by up to 100 ms
	Records     uint64 // not confirmed
	DeadLetters uint64
	Bytes       int64 // of the records that are not confirmed, as stored; what Stats.Bytes says of an open queue
	DiskBytes   int64 // of the segments, dead letters aside
	DeadBytes   int64
	log         *seglog.Snapshot
	dead        *seglog.Snapshot // nil: there are none
}

// Record is a queued record.
type Record struct {
	Seq  uint64
	Time time.Time // of its Append
	Body []byte    // valid until the next step of the iteration
}

// Inspect looks into the folder of a queue without locking or changing it: also while a gateway uses it, and also offline.
func Inspect(dir string) (*Snapshot, error) { return InspectFS(seglog.OS(), dir) }

// InspectFS is Inspect on another file system.
func InspectFS(fsys seglog.FS, dir string) (*Snapshot, error) {
	log, err := seglog.InspectFS(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("inspect queue %s: %w", dir, err)
	}
	s := &Snapshot{Dir: dir, Frontier: log.Cursor, Records: log.Records(log.Cursor), DiskBytes: sizeOf(log), log: log}
	if s.Bytes, err = waiting(log); err != nil {
		return nil, fmt.Errorf("inspect queue %s: %w", dir, err)
	}
	s.dead, err = seglog.InspectFS(fsys, filepath.Join(dir, deadName))
	if errors.Is(err, fs.ErrNotExist) {
		s.dead, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect dead letters of queue %s: %w", dir, err)
	}
	if s.dead != nil {
		s.DeadLetters, s.DeadBytes = s.dead.Records(0), sizeOf(s.dead)
	}
	return s, nil
}

// waiting returns the bytes from the first record that is not confirmed to the end.
func waiting(s *seglog.Snapshot) (int64, error) {
	r := s.Reader(s.Cursor)
	defer r.Close()
	_, pos, _, err := r.Next()
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return bytesFrom(s.Segments, pos), nil
}

func sizeOf(s *seglog.Snapshot) (n int64) {
	for _, seg := range s.Segments {
		n += seg.Bytes
	}
	return n
}

// All iterates over the records that are not confirmed, oldest first. An error of the disk ends it.
func (s *Snapshot) All() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		walk(s.log, s.Frontier, func(seq uint64, payload []byte, err error) bool {
			if err != nil {
				return yield(Record{}, err)
			}
			at, body, ok := splitStamp(payload)
			return !ok || yield(Record{Seq: seq, Time: at, Body: body}, nil)
		})
	}
}

// Dead iterates over the dead letters, oldest first; the body is valid until the next step. An error of the disk ends it.
func (s *Snapshot) Dead() iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		if s.dead == nil {
			return
		}
		walk(s.dead, 0, func(_ uint64, payload []byte, err error) bool {
			if err != nil {
				return yield(DeadLetter{}, err)
			}
			letter, err := decodeDead(payload)
			return err != nil || yield(letter, nil)
		})
	}
}

func walk(s *seglog.Snapshot, from uint64, step func(seq uint64, payload []byte, err error) bool) {
	r := s.Reader(from)
	defer r.Close()
	for {
		seq, _, payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if !step(seq, payload, err) || err != nil {
			return
		}
	}
}
