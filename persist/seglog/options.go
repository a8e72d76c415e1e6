package seglog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Sync says when an Append counts as done.
type Sync int

const (
	// SyncAlways reports an Append after write and fsync. The default: what was acknowledged survives a power cut.
	SyncAlways Sync = iota
	// SyncInterval reports an Append after the write and fsyncs every Options.SyncEvery. A power cut loses at most that much time;
	// a crash of the process loses nothing.
	SyncInterval
	// SyncNever reports an Append after the write and leaves flushing to the operating system. A crash of the process loses nothing.
	SyncNever
)

// String returns the name used in logs.
func (s Sync) String() string {
	switch s {
	case SyncAlways:
		return "always"
	case SyncInterval:
		return "interval"
	case SyncNever:
		return "never"
	}
	return fmt.Sprintf("sync(%d)", int(s))
}

const (
	defaultSegmentBytes = 16 << 20
	defaultMaxPending   = 8 << 20
	defaultMaxRecord    = 4 << 20
	defaultSyncEvery    = 50 * time.Millisecond

	minSegmentBytes = 4 << 10
	maxSegmentBytes = 1 << 30
)

// Options configure a Log. The zero value is usable.
type Options struct {
	// SegmentBytes is the size at which a segment is closed and a new one begun: the unit of deletion. Default 16 MiB, 4 KiB to 1 GiB.
	// One Append that is larger gets a segment of its own.
	SegmentBytes int64
	// MaxPending bounds the bytes that wait for the disk, half of it being written while the other half fills; Append blocks above it.
	// Default 8 MiB. One Append may always fill an empty half, whatever its size.
	MaxPending int
	// MaxRecord is the largest payload in bytes. Default 4 MiB. Larger records already on disk stay readable.
	MaxRecord int
	// Sync is the durability of an Append. Default SyncAlways.
	Sync Sync
	// SyncEvery is the fsync period of SyncInterval. Default 50 ms.
	SyncEvery time.Duration
	// Linger delays each commit to let its group grow: fewer fsyncs, less flash wear, more latency. Default 0: a group is what arrived
	// while the one before it was written.
	Linger time.Duration
	// QuarantineBytes bounds the quarantine folder; the oldest files there make room. Default 4 × SegmentBytes.
	QuarantineBytes int64
	// FS is the file system. Default: the operating system's.
	FS FS
	// Log receives what went wrong and what was done about it. nil discards.
	Log *slog.Logger
	// OnCommit, when set, is called by the committer after each write or fsync of a group. It must not block.
	OnCommit func(CommitInfo)
	// OnRemove, when set, is called after segments were unlinked, with the bytes freed. It must not block or call into the Log.
	OnRemove func(bytes int64)
}

// CommitInfo describes one write of a group for metrics.
type CommitInfo struct {
	Records int           // records written
	Bytes   int           // bytes written, framing included
	Synced  bool          // an fsync was part of it
	Sync    time.Duration // how long that fsync took
	Err     error         // nil when the group was committed
}

// Errors that callers branch on.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("log closed")
	// ErrBusy is returned by an Append without a context while MaxPending bytes wait for the disk.
	ErrBusy = errors.New("log busy: too many bytes wait for the disk")
	// ErrLocked is returned by Open while another Log, in this or another process, has the folder.
	ErrLocked = errors.New("folder is in use by another process")
	// ErrVersion is returned by Open when a segment was written by a newer format.
	ErrVersion = errors.New("segment format is newer than this program")
	// ErrTooLarge is returned for a payload above Options.MaxRecord.
	ErrTooLarge = errors.New("record too large")
	// ErrEmpty is returned for an Append without records or with an empty payload.
	ErrEmpty = errors.New("record is empty")
	// ErrGone is returned by ReadAt when the segment was deleted.
	ErrGone = errors.New("segment was deleted")
	// ErrCorrupt is returned by ReadAt when no valid record lies at the position.
	ErrCorrupt = errors.New("no valid record at this position")
)

func (o Options) withDefaults() (Options, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.MaxPending == 0 {
		o.MaxPending = defaultMaxPending
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = defaultMaxRecord
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = defaultSyncEvery
	}
	if o.QuarantineBytes == 0 {
		o.QuarantineBytes = 4 * o.SegmentBytes
	}
	if o.FS == nil {
		o.FS = OS()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, o.validate()
}

func (o Options) validate() error {
	var errs []error
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes {
		errs = append(errs, fmt.Errorf("segment size %d is outside %d..%d bytes", o.SegmentBytes, minSegmentBytes, maxSegmentBytes))
	}
	if o.MaxPending < 0 || o.MaxRecord < 0 || o.MaxRecord > maxSegmentBytes || o.QuarantineBytes < 0 {
		errs = append(errs, errors.New("limits must be positive and records at most 1 GiB"))
	}
	if o.SyncEvery < 0 || o.Linger < 0 {
		errs = append(errs, errors.New("periods must not be negative"))
	}
	if o.Sync < SyncAlways || o.Sync > SyncNever {
		errs = append(errs, fmt.Errorf("unknown sync policy %d", int(o.Sync)))
	}
	return errors.Join(errs...)
}
