package embedded

import (
	"errors"
	"fmt"
	"time"

	"gantry/persist/seglog"
)

// Config says where the store lies and how careful it is. Only Dir is required.
type Config struct {
	// Dir is the folder. It is created, and belongs to one open Store at a time.
	Dir string
	// Sync is the durability of a Commit. Default seglog.SyncAlways: done(nil) means that a power cut takes nothing back.
	Sync seglog.Sync
	// SyncEvery is the fsync period of seglog.SyncInterval. Default 50 ms.
	SyncEvery time.Duration
	// Linger delays each commit so that more batches share an fsync, which spares flash. Default 0: batches that arrive during one
	// fsync share the next.
	Linger time.Duration
	// SegmentBytes is the unit in which space is given back. Default 16 MiB. On a file system of less than 64 of them it is made smaller,
	// and Reserve with it.
	SegmentBytes int64
	// MaxPending bounds the bytes of batches that wait for the disk; Commit blocks or returns broker.ErrBusy above it. Default 8 MiB.
	MaxPending int
	// CleanAbove is the size of the log in bytes below which dead records are left alone. Above it the log is kept below twice what
	// lives, so the disk use is at most max(CleanAbove, 2 × live) plus what arrives while the cleaner works. Default 64 MiB.
	CleanAbove int64
	// MaxBytes is the size of the log in bytes above which batches that add something are refused with ErrFull. What deletes is always
	// taken. Default 0: no limit, the caps of sessions are the broker's.
	MaxBytes int64
	// Reserve is the size in bytes of a file that holds disk for the moment when everything else is full. It is then given up, and until
	// there is room for it again and as much beside it only batches that delete are taken (others get ErrFull): so acknowledgements can
	// be noted and the cleaner can work, and the store frees its own way out. At least two segments. Default 0: none.
	Reserve int64
	// FS is the file system. Default: the operating system's.
	FS seglog.FS
}

const (
	defaultSegmentBytes = 16 << 20
	defaultMaxPending   = 8 << 20
	defaultCleanAbove   = 64 << 20

	// maxRecord bounds one batch. It keeps offsets of ops and records within 32 bits.
	maxRecord = 512 << 20
)

// Errors that callers branch on, beside broker.ErrBusy.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store closed")
	// ErrFull is returned by Commit when the batch adds something and the log has reached Config.MaxBytes, or lives on Config.Reserve.
	ErrFull = errors.New("store is full")
	// ErrLocked is returned by Open while another process has the folder.
	ErrLocked = seglog.ErrLocked
	// ErrVersion is returned by Open when a newer program has written to the folder: what this one does not understand it would lose.
	ErrVersion = seglog.ErrVersion
)

func (c Config) withDefaults() (Config, error) {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.MaxPending == 0 {
		c.MaxPending = defaultMaxPending
	}
	if c.CleanAbove == 0 {
		c.CleanAbove = defaultCleanAbove
	}
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("folder is not set"))
	}
	if c.MaxPending < 0 || c.CleanAbove < 0 || c.MaxBytes < 0 {
		errs = append(errs, errors.New("sizes must not be negative"))
	}
	if c.Reserve != 0 && c.Reserve < 2*c.SegmentBytes {
		errs = append(errs, fmt.Errorf("reserve of %d bytes is less than two segments of %d", c.Reserve, c.SegmentBytes))
	}
	if c.MaxBytes > 0 && c.MaxBytes < 4*c.SegmentBytes {
		errs = append(errs, fmt.Errorf("limit of %d bytes is less than four segments of %d", c.MaxBytes, c.SegmentBytes))
	}
	return c, errors.Join(errs...)
}

// overfull reports whether a log of the given size holds enough dead bytes to be worth cleaning. When the disk is short, all that a
// pass brings back is.
func (c *Config) overfull(bytes, live int64, short bool) bool {
	if short && bytes > live+2*c.SegmentBytes {
		return true
	}
	if bytes > c.CleanAbove && bytes > 2*live {
		return true
	}
	// Near the limit space is worth more copying, as long as a tenth of what is read comes back.
	return c.MaxBytes > 0 && bytes > c.MaxBytes-c.MaxBytes/4 && bytes-live > bytes/8+2*c.SegmentBytes
}
