package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"sync"
	"time"

	"gantry/persist/seglog"
)

const (
	deadName      = "dead"
	maxReason     = 512
	deadHeader    = 18
	deadRecordMax = deadHeader + maxReason
)

// DeadLetter is a record that its receiver will never take.
//
// On disk, little endian:
//
//	0       8                  16         18
//	| seq   | buried, Unix ms  | len      | reason (len bytes) | record ... |
type DeadLetter struct {
	Seq    uint64 // sequence number that it had in the queue
	Time   time.Time
	Reason string
	Body   []byte
}

func (d DeadLetter) header() []byte {
	reason := d.Reason[:min(len(d.Reason), maxReason)]
	b := make([]byte, 0, deadHeader+len(reason))
	b = binary.LittleEndian.AppendUint64(b, d.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.Time.UnixMilli()))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(reason)))
	return append(b, reason...)
}

var errDeadLetter = errors.New("dead letter is malformed")

// decodeDead does not copy the body.
func decodeDead(b []byte) (DeadLetter, error) {
	if len(b) < deadHeader {
		return DeadLetter{}, errDeadLetter
	}
	n := int(binary.LittleEndian.Uint16(b[16:]))
	if len(b) < deadHeader+n {
		return DeadLetter{}, errDeadLetter
	}
	return DeadLetter{
		Seq:    binary.LittleEndian.Uint64(b),
		Time:   time.UnixMilli(int64(binary.LittleEndian.Uint64(b[8:]))),
		Reason: string(b[deadHeader : deadHeader+n]),
		Body:   b[deadHeader+n:],
	}, nil
}

// deadLetters is the dead-letter log. Most queues never need it: it is created by the first burial.
type deadLetters struct {
	mu   sync.Mutex // one burial at a time
	cfg  Config
	opts seglog.Options
	dir  string
	end  bool

	logMu sync.Mutex // covers log; never held over disk work but opening
	log   *seglog.Log
}

func (d *deadLetters) open(cfg Config, maxRecord int) error {
	fsys := cfg.FS
	if fsys == nil {
		fsys = seglog.OS()
	}
	d.cfg, d.dir = cfg, filepath.Join(cfg.Dir, deadName)
	d.opts = seglog.Options{
		SegmentBytes: segmentFor(cfg.DeadMaxBytes), MaxRecord: maxRecord + deadRecordMax,
		QuarantineBytes: cfg.DeadMaxBytes / 8, FS: cfg.FS, Log: cfg.Log,
	}
	_, err := fsys.List(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = d.need()
	return err
}

func (d *deadLetters) current() *seglog.Log {
	d.logMu.Lock()
	defer d.logMu.Unlock()
	return d.log
}

func (d *deadLetters) need() (*seglog.Log, error) {
	d.logMu.Lock()
	defer d.logMu.Unlock()
	if d.log == nil {
		l, err := seglog.Open(d.dir, d.opts)
		if err != nil {
			return nil, err
		}
		d.log = l
	}
	return d.log, nil
}

func (d *deadLetters) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end = true
	if l := d.current(); l != nil {
		return l.Close()
	}
	return nil
}

// Bury puts a record that can never be delivered into the dead-letter folder and returns when it is fsynced there; then it may be
// confirmed. A crash in between leaves it in both places. Reasons are cut at 512 bytes.
func (q *Queue) Bury(seq uint64, rec []byte, reason string) error {
	if err := q.bury(DeadLetter{Seq: seq, Time: time.Now(), Reason: reason, Body: rec}); err != nil {
		return fmt.Errorf("bury record %d of queue %s: %w", seq, q.cfg.Name, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tally.buried++
	return nil
}

func (q *Queue) bury(letter DeadLetter) error {
	d := &q.dead
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.end {
		return ErrClosed
	}
	l, err := d.need()
	if err != nil {
		return err
	}
	head := letter.header()
	need := seglog.FrameSize(len(head)+len(letter.Body)) + 2*seglog.HeaderSize
	for l.DiskBytes()+need > d.cfg.DeadMaxBytes {
		n, bytes, ok := l.DropOldest(math.MaxUint64)
		if !ok {
			return ErrFull
		}
		q.mu.Lock()
		q.tally.dropped[DroppedDead] += n
		q.mu.Unlock()
		q.slog.Warn("dead letters full, deleted the oldest", "queue", q.cfg.Name, "records", n, "bytes", bytes)
	}
	outcome := make(chan error, 1)
	_, err = l.AppendParts(context.Background(), func(c seglog.Committed) { outcome <- c.Err }, head, letter.Body)
	if err == nil {
		err = <-outcome
	}
	return translate(err)
}
