package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gantry/persist/seglog"
)

// Policy says what happens to a record for which there is no room.
type Policy string

const (
	// Refuse reports ErrFull at once: back-pressure for publishers that can wait or be told.
	Refuse Policy = "refuse"
	// DropOldest deletes the oldest records that are not in flight, in units of a segment, and counts them. When all are in flight it
	// refuses.
	DropOldest Policy = "drop_oldest"
	// Block lets records wait in memory, in order, up to MaxWaitBytes, and lets appenders wait behind that.
	Block Policy = "block"
)

const (
	defaultMaxWait = 16 << 20
	defaultDead    = 64 << 20
	maxRecordBytes = 4 << 20
	maxPending     = 8 << 20
	minSegment     = 64 << 10
	maxSegment     = 16 << 20
	minCap         = 2 * minSegment
)

// Config configures a Queue.
type Config struct {
	// Dir is the folder; it is created. Dead letters are in its folder "dead". Others may keep files of their own in it.
	Dir string
	// Name is the value of the metrics' label "queue" and stands in errors: one of a small closed set.
	Name string
	// MaxBytes is the hard cap of the folder without dead letters, at least 128 KiB and two segments. No default.
	MaxBytes int64
	// WhenFull is the policy. Default Refuse: nothing is lost without its publisher knowing.
	WhenFull Policy
	// MaxWaitBytes bounds the records that wait in memory under Block. Default 16 MiB.
	MaxWaitBytes int
	// SegmentBytes is the unit in which disk is freed. Default MaxBytes/16, at least 64 KiB and at most 16 MiB.
	SegmentBytes int64
	// DeadMaxBytes is the cap of the dead-letter folder, at least 128 KiB; above it the oldest dead letters go, counted. Default 64 MiB.
	DeadMaxBytes int64
	// Sync is the durability of an Append. Default seglog.SyncAlways. Dead letters are always fsynced.
	Sync seglog.Sync
	// SyncEvery is the period of seglog.SyncInterval.
	SyncEvery time.Duration
	// Linger is the extra wait to grow a group commit. Default 0.
	Linger time.Duration
	// FS is the file system. Default: the operating system's.
	FS seglog.FS
	// Log receives what went wrong. nil discards.
	Log *slog.Logger
}

// Errors that callers branch on.
var (
	// ErrFull is returned by Append when there is no room and the policy does not make any.
	ErrFull = errors.New("queue full")
	// ErrBusy is returned by Append without a context when it would have to wait.
	ErrBusy = errors.New("queue busy")
	// ErrClosed is returned after Close, and to records that still waited for room then.
	ErrClosed = errors.New("queue closed")
	// ErrTooLarge is returned for a record above 4 MiB, a quarter of MaxBytes or a quarter of DeadMaxBytes.
	ErrTooLarge = errors.New("record too large for the queue")
)

func (c Config) withDefaults() (Config, error) {
	if c.WhenFull == "" {
		c.WhenFull = Refuse
	}
	if c.MaxWaitBytes == 0 {
		c.MaxWaitBytes = defaultMaxWait
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = segmentFor(c.MaxBytes)
	}
	if c.DeadMaxBytes == 0 {
		c.DeadMaxBytes = defaultDead
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, c.validate()
}

func segmentFor(maxBytes int64) int64 { return min(max(maxBytes/16, minSegment), maxSegment) }

func (c Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no folder given"))
	}
	if c.MaxBytes < max(minCap, 2*c.SegmentBytes) {
		errs = append(errs, fmt.Errorf("cap of %d bytes is below %d bytes or two segments", c.MaxBytes, minCap))
	}
	if c.DeadMaxBytes < minCap {
		errs = append(errs, fmt.Errorf("cap of %d bytes for dead letters is below %d bytes", c.DeadMaxBytes, minCap))
	}
	if c.MaxWaitBytes < 0 {
		errs = append(errs, errors.New("bytes that may wait must not be negative"))
	}
	switch c.WhenFull {
	case Refuse, DropOldest, Block:
	default:
		errs = append(errs, fmt.Errorf("unknown policy %q", c.WhenFull))
	}
	return errors.Join(errs...)
}

// maxRecord keeps one record small against the caps, so that an emptied queue always takes the next one: the segment that stays open
// takes at most half of MaxBytes and the quarantine an eighth.
func (c Config) maxRecord() int {
	return int(min(maxRecordBytes, c.MaxBytes/4, c.DeadMaxBytes/4)) - 2*stampBytes
}
