package seglog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// commitLoop is the only writer of record data. While it writes one group, appenders fill the next.
func (l *Log) commitLoop() {
	defer close(l.commitEnded)
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	var armed bool
	for {
		select {
		case <-l.kick:
		case <-due.C:
			armed = false
			l.intervalSync()
			continue
		}
		closing := l.linger()
		for l.commitPending() {
		}
		if closing {
			return
		}
		if l.o.Sync == SyncInterval && !armed {
			due.Reset(l.o.SyncEvery)
			armed = true
		}
	}
}

// linger waits for the group to grow, unless somebody already waits for space or for the end. It reports whether the log is closing;
// appends that came before that are committed by the caller.
func (l *Log) linger() (closing bool) {
	l.mu.Lock()
	closing, waiting := l.closed, l.waiting
	l.mu.Unlock()
	if l.o.Linger == 0 || closing || waiting > 0 {
		return closing
	}
	t := time.NewTimer(l.o.Linger)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return l.isClosed.Load()
		case <-l.kick:
			l.mu.Lock()
			closing, waiting = l.closed, l.waiting
			l.mu.Unlock()
			if closing || waiting > 0 {
				return closing
			}
		}
	}
}

// commitPending writes one group and reports its outcome. It returns false when there was none.
func (l *Log) commitPending() bool {
	l.mu.Lock()
	if len(l.pend.tickets) == 0 {
		l.mu.Unlock()
		return false
	}
	b := l.pend
	l.pend, l.spare = l.spare, batch{}
	l.inflight = len(b.buf)
	l.releaseSpace()
	l.mu.Unlock()

	l.commit(&b)

	l.mu.Lock()
	l.inflight = 0
	l.wakeReaders()
	l.mu.Unlock()
	for i := range b.tickets {
		if t := &b.tickets[i]; t.done != nil {
			t.done(Committed{First: t.first, Next: t.next, Pos: t.pos, Err: t.err})
		}
	}
	clear(b.tickets) // let go of the callbacks
	l.mu.Lock()
	l.spare = batch{buf: b.buf[:0], tickets: b.tickets[:0]}
	l.mu.Unlock()
	return true
}

// commit writes a group in parts that each fit their segment. After a failed part the rest of the group fails with it: an appender that
// was told "failed" must not find that what it appended later overtook.
func (l *Log) commit(b *batch) {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.leaveVanished()
	ts := b.tickets
	for len(ts) > 0 {
		n, err := l.commitPart(b.buf, ts)
		if err != nil {
			l.fail(ts, err)
			break
		}
		ts = ts[n:]
	}
	if len(ts) == 0 && l.failing {
		l.failing = false
		l.log.Info("records are committed again", "dir", l.dir)
	}
	l.tail = b.tickets[len(b.tickets)-1].next
	l.durable.Store(l.tail)
	l.stats.groups.Add(1)
}

// commitPart writes as many tickets as fit the active segment, at least one, and returns how many.
func (l *Log) commitPart(buf []byte, ts []ticket) (int, error) {
	first := &ts[0]
	if err := l.ensureActive(first.first, int64(first.end-first.start)); err != nil {
		return 0, err
	}
	room := l.o.SegmentBytes - l.active.size.Load()
	n := 1
	for n < len(ts) && int64(ts[n].end-first.start) <= room {
		n++
	}
	last := &ts[n-1]
	if err := l.write(buf[first.start:last.end], ts[:n]); err != nil {
		return 0, err
	}
	return n, nil
}

// ensureActive begins a new segment when there is none, or when need more bytes would make the current one too large.
func (l *Log) ensureActive(base uint64, need int64) error {
	if l.active != nil {
		size := l.active.size.Load()
		if size == segmentHeader || size+need <= l.o.SegmentBytes {
			return nil
		}
	}
	return l.roll(base)
}

func (l *Log) write(part []byte, ts []ticket) error {
	a := l.active
	off := a.size.Load()
	pos := Pos{Segment: a.base, Offset: off}
	records := sealPart(part, ts, a, pos)
	info := CommitInfo{Records: records, Bytes: len(part)}
	_, err := l.file.WriteAt(part, off)
	l.dirty = true
	if err == nil && l.o.Sync == SyncAlways {
		info.Synced = true
		start := time.Now()
		err = l.syncFile()
		info.Sync = time.Since(start)
	}
	info.Err = err
	if l.o.OnCommit != nil {
		defer l.o.OnCommit(info)
	}
	if err != nil {
		l.abandon(off)
		return fmt.Errorf("write segment %016x: %w", a.base, err)
	}
	l.mu.Lock()
	a.disk = off + int64(len(part))
	l.mu.Unlock()
	l.bytes.Add(int64(len(part)))
	a.size.Store(off + int64(len(part)))
	next := ts[len(ts)-1].next
	l.durable.Store(next) // before end: what a Reader returns lies below Durable
	a.end.Store(next)
	l.stats.appended.Add(uint64(records))
	l.stats.appendedBytes.Add(uint64(len(part)))
	l.stats.lastGroup.Store(int64(records))
	return nil
}

// sealPart fills the record headers, which need the segment's salt and base, and the tickets' positions.
func sealPart(part []byte, ts []ticket, a *segment, pos Pos) (records int) {
	start := ts[0].start
	for i := range ts {
		t := &ts[i]
		t.pos = Pos{Segment: pos.Segment, Offset: pos.Offset + int64(t.start-start)}
		off := t.start - start
		for seq := t.first; seq < t.next; seq++ {
			off += sealFrame(part[off:], a.salt, uint32(seq-a.base))
		}
		records += int(t.next - t.first)
	}
	return records
}

// syncFile needs commitMu.
func (l *Log) syncFile() error {
	start := time.Now()
	err := l.file.Sync()
	l.stats.syncs.Add(1)
	l.stats.lastSync.Store(int64(time.Since(start)))
	if err != nil {
		l.stats.syncErrors.Add(1)
		return err
	}
	l.dirty = false
	return nil
}

func (l *Log) fail(ts []ticket, err error) {
	for i := range ts {
		ts[i].err = err
		l.stats.failed.Add(ts[i].next - ts[i].first)
	}
	if !l.failing {
		l.failing = true
		l.log.Error("commit group, records are reported as failed until this ends", "dir", l.dir, "err", err)
	}
}

// abandon cuts the failed tail off and leaves the segment for good. After a failed fsync the kernel may have dropped the dirty pages and
// a second fsync would report success over lost data, so this descriptor is never synced or written again. Should the cut fail too, the
// gap in the next segment's header makes those records void.
func (l *Log) abandon(size int64) {
	a := l.active
	err := l.file.Truncate(size)
	disk := size
	if err != nil {
		l.log.Warn("cut failed tail", "dir", l.dir, "segment", a.path, "err", err)
		if n, serr := l.file.Size(); serr == nil {
			disk = max(n, size)
		}
	}
	if err := l.file.Close(); err != nil {
		l.log.Warn("close failed segment", "dir", l.dir, "segment", a.path, "err", err)
	}
	l.active, l.file, l.dirty = nil, nil, false
	l.mu.Lock()
	l.bytes.Add(disk - a.disk)
	a.disk = disk
	if n := len(l.segs); size == segmentHeader && l.segs[n-1] == a {
		l.segs = l.segs[:n-1]
		l.discard(a)
	}
	l.updateOldest()
	l.mu.Unlock()
	nudge(l.keeperKick)
}

// roll begins the segment whose first record will be base. It needs commitMu. On error the log has the active segment it had.
func (l *Log) roll(base uint64) error {
	if l.active != nil && l.dirty && l.o.Sync == SyncInterval {
		if err := l.syncFile(); err != nil {
			l.abandon(l.active.size.Load())
			l.log.Error("fsync finished segment, its newest records may not survive a power cut", "dir", l.dir, "err", err)
		}
	}
	s, f, err := l.createSegment(base)
	if err != nil {
		return fmt.Errorf("begin segment %016x: %w", base, err)
	}
	if l.file != nil {
		if err := l.file.Close(); err != nil {
			l.log.Warn("close finished segment", "dir", l.dir, "err", err)
		}
	}
	l.active, l.file, l.dirty, l.looked = s, f, false, time.Now()
	l.mu.Lock()
	if n := len(l.segs); n > 0 && l.segs[n-1].base == base { // empty, of an earlier session: bases are unique
		empty := l.segs[n-1]
		l.segs = l.segs[:n-1]
		l.discard(empty)
	}
	l.segs = append(l.segs, s)
	l.bytes.Add(segmentHeader)
	l.updateOldest()
	l.mu.Unlock()
	nudge(l.keeperKick)
	return nil
}

func (l *Log) createSegment(base uint64) (*segment, File, error) {
	l.mu.Lock()
	prevEnd := base
	if n := len(l.segs); n > 0 {
		prevEnd = l.segs[n-1].end.Load()
	}
	l.mu.Unlock()
	h := header{version: formatVersion, base: base, created: uint32(time.Now().Unix()), gap: gapOf(base, prevEnd)}
	for h.salt == 0 {
		h.salt = rand.Uint32()
	}
	if l.o.Sync != SyncAlways {
		h.flags |= flagUnsynced
	}
	path := filepath.Join(l.dir, segmentName(base, h.salt))
	f, err := l.createFile(path, h.encode())
	if err != nil {
		return nil, nil, err
	}
	s := &segment{base: base, salt: h.salt, created: h.createdAt(), path: path, disk: segmentHeader}
	s.size.Store(segmentHeader)
	s.end.Store(base)
	return s, f, nil
}

// createFile makes a segment file that has its header from the moment it has its name.
func (l *Log) createFile(path string, head []byte) (File, error) {
	temp := path + tempSuffix
	f, err := l.fs.Open(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(head, 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), l.fs.Remove(temp))
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return nil, errors.Join(err, f.Close(), l.fs.Remove(path))
	}
	return f, nil
}

// intervalSync is the periodic fsync of SyncInterval.
func (l *Log) intervalSync() {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.active == nil || !l.dirty {
		return
	}
	start := time.Now()
	err := l.syncFile()
	if l.o.OnCommit != nil {
		l.o.OnCommit(CommitInfo{Synced: true, Sync: time.Since(start), Err: err})
	}
	if err != nil {
		l.log.Error("periodic fsync, records of this period may not survive a power cut; going on in a new segment", "dir", l.dir, "err", err)
		l.abandon(l.active.size.Load())
	}
}

// updateOldest needs mu. The newest segment is never retired: it keeps the sequence numbers when the cursor file is lost.
func (l *Log) updateOldest() {
	if len(l.segs) < 2 {
		l.oldestEnd.Store(math.MaxUint64)
		return
	}
	l.oldestEnd.Store(l.segs[0].end.Load())
}
