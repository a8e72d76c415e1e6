package seglog

import (
	"sync/atomic"
	"time"
)

type counters struct {
	appended        atomic.Uint64
	appendedBytes   atomic.Uint64
	failed          atomic.Uint64
	groups          atomic.Uint64
	lastGroup       atomic.Int64
	syncs           atomic.Uint64
	syncErrors      atomic.Uint64
	lastSync        atomic.Int64
	cursorSaves     atomic.Uint64
	cursorResets    atomic.Uint64
	corruptBytes    atomic.Uint64
	tornBytes       atomic.Uint64
	resyncs         atomic.Uint64
	quarantined     atomic.Uint64
	quarantineBytes atomic.Int64
	lostRecords     atomic.Uint64
	deleted         atomic.Uint64
}

// Stats are figures since Open, except where said.
type Stats struct {
	Appended      uint64        // records committed
	AppendedBytes uint64        // bytes of them, framing included
	Failed        uint64        // records reported as failed
	Groups        uint64        // group commits; Appended/Groups is the mean group size
	LastGroup     int64         // records in the last one
	Pending       int           // bytes that wait for the disk now
	Syncs         uint64        // fsyncs of segments
	SyncErrors    uint64        // of them failed
	LastSync      time.Duration // how long the last one took

	Cursor       uint64 // now
	SavedCursor  uint64 // on disk now
	CursorSaves  uint64
	CursorResets uint64 // cursor file damaged on open

	Segments        int       // now
	Bytes           int64     // of all segments now
	OldestSegment   time.Time // when the oldest segment was begun; zero when there is none
	Deleted         uint64    // segments deleted
	CorruptBytes    uint64    // damaged bytes stepped over, each counted once
	TornBytes       uint64    // bytes behind the last record found on open
	Resyncs         uint64    // places where damage was stepped over
	Quarantined     uint64    // files set aside
	LostRecords     uint64    // records, not below the cursor, of segments of which none could be read on open
	QuarantineBytes int64     // in the quarantine folder now, as far as known since the last file came
}

// Stats returns the figures of now.
func (l *Log) Stats() Stats {
	c := &l.stats
	s := Stats{
		Appended: c.appended.Load(), AppendedBytes: c.appendedBytes.Load(), Failed: c.failed.Load(),
		Groups: c.groups.Load(), LastGroup: c.lastGroup.Load(),
		Syncs: c.syncs.Load(), SyncErrors: c.syncErrors.Load(), LastSync: time.Duration(c.lastSync.Load()),
		CursorSaves: c.cursorSaves.Load(), CursorResets: c.cursorResets.Load(),
		Bytes: l.bytes.Load(), Deleted: c.deleted.Load(),
		CorruptBytes: c.corruptBytes.Load(), TornBytes: c.tornBytes.Load(), Resyncs: c.resyncs.Load(),
		Quarantined: c.quarantined.Load(), QuarantineBytes: c.quarantineBytes.Load(),
		LostRecords: c.lostRecords.Load(),
	}
	l.curMu.Lock()
	s.Cursor, s.SavedCursor = l.cursor, l.saved
	l.curMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Pending = l.inflight + len(l.pend.buf)
	s.Segments = len(l.segs)
	if len(l.segs) > 0 {
		s.OldestSegment = l.segs[0].created
	}
	return s
}
