package seglog

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Log is an open segment log. All methods may be called from any goroutine.
type Log struct {
	dir  string
	o    Options
	fs   FS
	log  *slog.Logger
	lock io.Closer

	// commitMu guards the file being written. It is held over writes and fsyncs; it is taken before mu, never the other way round.
	commitMu sync.Mutex
	active   *segment  // nil: the next group begins a new segment
	file     File      // of active
	tail     uint64    // every sequence number below was written or reported as failed
	dirty    bool      // active holds bytes that were not fsynced
	failing  bool      // the last group failed
	looked   time.Time // when leaveVanished looked at the folder

	// mu guards what follows. It is never held over I/O.
	mu       sync.Mutex
	segs     []*segment // ascending; the last one may be active
	trash    []*segment // out of use, to be unlinked
	pend     batch      // what the next group will write
	spare    batch      // buffers of the group before, for reuse
	next     uint64     // next sequence number to assign
	inflight int        // bytes of the group being written
	space    chan struct{}
	waiting  int // appenders that wait for space
	ready    chan struct{}
	asked    bool // somebody holds ready
	closed   bool
	handles  []*segment // with an open read handle, oldest first

	durable     atomic.Uint64
	bytes       atomic.Int64
	oldestEnd   atomic.Uint64 // end of the oldest segment when it may be retired, else the largest number
	isClosed    atomic.Bool
	stats       counters
	kick        chan struct{}
	commitEnded chan struct{}

	curMu      sync.Mutex // guards cursor and saved
	cursor     uint64
	saved      uint64
	saveMu     sync.Mutex // guards the cursor file, renaming and unlinking; taken before mu and curMu
	curFile    File
	curGen     uint64
	ended      bool // Close wrote the last slot
	keeperKick chan struct{}
	keeperStop chan struct{}
	keeperDone chan struct{}
	closeOnce  sync.Once
	closeErr   error
}

// segment is one file. base, salt, gap and created never change.
type segment struct {
	base    uint64
	salt    uint32
	created time.Time

	size atomic.Int64  // committed bytes; stored before end
	end  atomic.Uint64 // one past the last committed record
	gone atomic.Bool   // deleted or about to be
	// damagedTo is the file offset up to which damage was counted, so that a second reader does not count it again.
	damagedTo atomic.Int64

	path  string // guarded by Log.mu
	disk  int64  // bytes the file takes, damaged tail included; guarded by Log.mu
	ended bool   // the file name carries the end; guarded by Log.mu

	readMu sync.RWMutex // held for reading during a ReadAt, for writing to open or close read
	read   File
}

func (s *segment) damaged() bool { return s.damagedTo.Load() > 0 }

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Base    uint64 // first sequence number
	End     uint64 // one past the last
	Bytes   int64  // size of the file
	Created time.Time
	Damaged bool // bytes in it had to be stepped over
	Path    string
}

// Open opens or creates the log in a folder and recovers what is in it. It fails with ErrLocked when another Log has the folder, with
// ErrVersion for segments of a newer format and with I/O errors of the folder itself; damaged data and a full disk never make it fail.
func Open(dir string, o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	l := &Log{
		dir: dir, o: o, fs: o.FS, log: o.Log,
		space: make(chan struct{}), ready: make(chan struct{}),
		kick: make(chan struct{}, 1), commitEnded: make(chan struct{}),
		keeperKick: make(chan struct{}, 1), keeperStop: make(chan struct{}), keeperDone: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	go l.commitLoop()
	go l.keepCursor()
	return l, nil
}

func (l *Log) open() error {
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return err
	}
	if err := l.fs.SyncDir(filepath.Dir(l.dir)); err != nil {
		l.log.Warn("fsync parent folder", "dir", l.dir, "err", err)
	}
	lock, err := l.fs.Lock(l.dir)
	if err != nil {
		return err
	}
	if err := l.recover(); err != nil {
		_ = lock.Close()
		if l.curFile != nil {
			_ = l.curFile.Close()
		}
		return err
	}
	l.lock = lock
	return nil
}

// Close commits what waits, saves the cursor and gives up the folder. Appends that block return ErrClosed. Safe to call twice; the
// second call waits for the first and returns the same error.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Log) close() error {
	l.mu.Lock()
	l.closed = true
	l.isClosed.Store(true)
	l.releaseSpace()
	l.mu.Unlock()
	nudge(l.kick)
	<-l.commitEnded
	close(l.keeperStop)
	<-l.keeperDone

	clean := l.closeActive()
	err := l.saveClean(clean)
	l.mu.Lock()
	handles := l.handles
	l.handles = nil
	close(l.ready)
	l.mu.Unlock()
	for _, s := range handles {
		s.closeRead()
	}
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("close log %s: %w", l.dir, err)
	}
	return nil
}

// closeActive syncs and closes the file being written. It returns the segment when everything in it is surely on disk.
func (l *Log) closeActive() *segment {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.active == nil {
		return nil
	}
	clean := l.active
	if l.dirty {
		if err := l.syncFile(); err != nil {
			l.log.Error("fsync on close, newest records may not survive a power cut", "dir", l.dir, "err", err)
			clean = nil
		}
	}
	if err := l.file.Close(); err != nil {
		l.log.Warn("close segment", "dir", l.dir, "err", err)
	}
	l.active, l.file = nil, nil
	return clean
}

// Next returns the sequence number that the next record will get.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Durable returns the number below which every record was either committed as the sync policy says or reported as failed.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// End returns one past the newest record on disk, or 0 when there is none. Numbers from here to Durable belong to failed records.
func (l *Log) End() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segs) == 0 {
		return 0
	}
	return l.segs[len(l.segs)-1].end.Load()
}

// First returns the oldest sequence number on disk, or Next when there is none.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segs) == 0 {
		return l.next
	}
	return l.segs[0].base
}

// Bytes returns the size of all segment files. The cursor (8 KiB) and the quarantine folder come on top.
func (l *Log) Bytes() int64 { return l.bytes.Load() }

// Segments returns the segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]SegmentInfo, len(l.segs))
	for i, s := range l.segs {
		out[i] = SegmentInfo{
			Base: s.base, End: s.end.Load(), Bytes: s.disk, Created: s.created, Damaged: s.damaged(), Path: s.path,
		}
	}
	return out
}

// Records returns how many of the sequence numbers in [from, to) lie in segments on disk: the records between them, apart from damage.
func (l *Log) Records(from, to uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n uint64
	for _, s := range l.segs[l.search(from):] {
		if s.base >= to {
			break
		}
		if lo, hi := max(from, s.base), min(to, s.end.Load()); hi > lo {
			n += hi - lo
		}
	}
	return n
}

// search returns the index of the first segment that ends behind seq. It needs mu.
func (l *Log) search(seq uint64) int {
	return sort.Search(len(l.segs), func(i int) bool { return l.segs[i].end.Load() > seq })
}

// DiskBytes returns what the folder takes: segments, cursor file and quarantine.
func (l *Log) DiskBytes() int64 { return l.bytes.Load() + CursorBytes + l.stats.quarantineBytes.Load() }

// Ready returns a channel that is closed at the next commit and at Close. To wait without missing one: take the channel, find Next at
// io.EOF, then wait.
func (l *Log) Ready() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = true
	return l.ready
}

// wakeReaders needs mu.
func (l *Log) wakeReaders() {
	if l.asked {
		close(l.ready)
		l.ready = make(chan struct{})
		l.asked = false
	}
}

// releaseSpace needs mu.
func (l *Log) releaseSpace() {
	if l.waiting > 0 {
		close(l.space)
		l.space = make(chan struct{})
		l.waiting = 0
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
