package seglog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const quarantineName = "quarantine"

// discard takes a segment out of use; emptyTrash unlinks it. It needs mu.
func (l *Log) discard(s *segment) {
	s.gone.Store(true)
	l.trash = append(l.trash, s)
}

// retire deletes the segments whose records all lie below cursor. It needs saveMu. The newest segment stays.
func (l *Log) retire(cursor uint64) {
	var damaged []*segment
	l.mu.Lock()
	for len(l.segs) > 1 && l.segs[0].end.Load() <= cursor {
		s := l.segs[0]
		l.segs = l.segs[1:]
		if s.damaged() {
			s.gone.Store(true)
			damaged = append(damaged, s)
			continue
		}
		l.discard(s)
	}
	l.updateOldest()
	l.mu.Unlock()
	for _, s := range damaged { // kept for the operator: what could not be read may be worth something
		s.closeRead()
		if l.quarantine(s.path) {
			l.bytes.Add(-s.disk)
			l.removed(s.disk)
			continue
		}
		l.mu.Lock()
		l.trash = append(l.trash, s)
		l.mu.Unlock()
	}
	l.emptyTrash()
}

// emptyTrash unlinks what is out of use; what cannot be unlinked is tried again later and counts as used until then. It needs saveMu.
func (l *Log) emptyTrash() {
	l.mu.Lock()
	trash := l.trash
	l.trash = nil
	l.mu.Unlock()
	var freed int64
	var kept []*segment
	for _, s := range trash {
		s.closeRead()
		if err := l.fs.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Error("delete segment, trying again", "path", s.path, "err", err)
			kept = append(kept, s)
			continue
		}
		freed += s.disk
		l.stats.deleted.Add(1)
	}
	if freed > 0 { // before the room is used again: a power cut must not bring the files back on top of what came instead
		if err := l.fs.SyncDir(l.dir); err != nil {
			l.log.Warn("fsync folder after deleting segments", "dir", l.dir, "err", err)
		}
	}
	l.bytes.Add(-freed)
	if len(kept) > 0 {
		l.mu.Lock()
		l.trash = append(l.trash, kept...)
		l.mu.Unlock()
	}
	if freed > 0 {
		l.removed(freed)
	}
}

func (l *Log) removed(bytes int64) {
	if l.o.OnRemove != nil {
		l.o.OnRemove(bytes)
	}
}

// Roll closes the segment being written, when it holds records, and begins a new one, so that the old one can be dropped.
func (l *Log) Roll() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	n := len(l.segs)
	closed := l.closed
	empty := n == 0 || l.segs[n-1].disk == segmentHeader
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if empty {
		return nil
	}
	return l.roll(l.tail)
}

// DropOldest deletes the oldest segment with all its records, confirmed or not, and moves the cursor past it. It does nothing when that
// segment holds sequence numbers at or above pin, or no records. The segment being written is closed first when it is the only one.
// It returns how many unconfirmed records went and how many bytes the file had. It blocks for disk work; call it from no done callback.
func (l *Log) DropOldest(pin uint64) (records uint64, bytes int64, ok bool) {
	l.mu.Lock()
	if len(l.segs) == 0 {
		l.mu.Unlock()
		return 0, 0, false
	}
	s := l.segs[0]
	only := len(l.segs) == 1
	l.mu.Unlock()
	if s.end.Load() > pin {
		return 0, 0, false
	}
	if only && l.Roll() != nil {
		return 0, 0, false
	}
	if s.end.Load() > pin { // grew before it was closed
		return 0, 0, false
	}
	return l.Drop(s.base)
}

// Drop deletes the segment that begins at base with all its records, confirmed or not, unless it is the newest. When it is the oldest
// the cursor moves past it, and is on disk before the file goes; else a hole is left that readers step over. It returns how many
// unconfirmed records went and how many bytes the file had. It blocks for disk work; call it from no done callback.
func (l *Log) Drop(base uint64) (records uint64, bytes int64, ok bool) {
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	l.mu.Lock()
	i := slices.IndexFunc(l.segs, func(s *segment) bool { return s.base == base })
	if i < 0 || i == len(l.segs)-1 || l.closed {
		l.mu.Unlock()
		return 0, 0, false
	}
	s := l.segs[i]
	end, disk := s.end.Load(), s.disk
	s.gone.Store(true)
	l.mu.Unlock()

	l.curMu.Lock()
	if from := max(base, l.cursor); end > from {
		records = end - from
	}
	if i == 0 {
		l.cursor = max(l.cursor, end)
	}
	l.curMu.Unlock()
	l.forget(s)
	if i == 0 {
		if err := l.saveAndRetire(); err != nil {
			l.log.Warn("save cursor before dropping a segment", "dir", l.dir, "err", err)
		}
	}
	l.mu.Lock()
	l.trash = append(l.trash, s)
	l.mu.Unlock()
	l.emptyTrash()
	return records, disk, true
}

// forget takes a segment out of the list. Its neighbour before it gets its own end into its name first: until now that followed from
// the file after it.
func (l *Log) forget(s *segment) {
	l.mu.Lock()
	i := slices.Index(l.segs, s)
	if i < 0 {
		l.mu.Unlock()
		return
	}
	l.segs = slices.Delete(l.segs, i, i+1)
	l.updateOldest()
	if i == 0 || l.segs[i-1].ended {
		l.mu.Unlock()
		return
	}
	before := l.segs[i-1]
	from := before.path
	l.mu.Unlock()
	to := filepath.Join(l.dir, endedName(before.base, before.salt, before.end.Load()))
	if err := l.fs.Rename(from, to); err != nil {
		l.log.Warn("note the end of a segment in its name, record counts may be too high after a restart", "path", from, "err", err)
		return
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		l.log.Warn("fsync folder after a rename", "path", to, "err", err)
	}
	l.mu.Lock()
	before.path, before.ended = to, true
	l.mu.Unlock()
}

// reopen opens a segment file for reading whose path may just be changing. nil without an error: somebody deleted the file behind our
// back; then the segment is forgotten.
func (l *Log) reopen(s *segment) (File, error) {
	l.saveMu.Lock() // no rename or unlink meanwhile
	defer l.saveMu.Unlock()
	l.mu.Lock()
	path := s.path
	newest := len(l.segs) > 0 && l.segs[len(l.segs)-1] == s
	l.mu.Unlock()
	f, err := l.fs.Open(path, os.O_RDONLY)
	if err == nil || newest || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if !s.gone.Swap(true) {
		l.log.Error("segment file vanished, its records are lost", "path", path)
		l.forget(s)
		l.bytes.Add(-s.disk)
	}
	return nil, nil
}

// openSegment opens a segment file for reading; nil without an error means it was deleted.
func (l *Log) openSegment(s *segment) (File, error) {
	l.mu.Lock()
	path := s.path
	l.mu.Unlock()
	f, err := l.fs.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return l.reopen(s)
	}
	return f, err
}

// quarantine moves a file to the quarantine folder, where it is kept for the operator as long as QuarantineBytes allow.
func (l *Log) quarantine(path string) bool {
	dir := filepath.Join(l.dir, quarantineName)
	err := l.fs.MkdirAll(dir)
	if err == nil {
		err = l.fs.Rename(path, filepath.Join(dir, filepath.Base(path)))
	}
	if err == nil {
		err = errors.Join(l.fs.SyncDir(dir), l.fs.SyncDir(l.dir))
	}
	if err != nil {
		l.log.Error("move file to quarantine", "path", path, "err", err)
		return false
	}
	l.stats.quarantined.Add(1)
	l.log.Warn("moved file to quarantine", "path", path)
	l.trimQuarantine(dir)
	return true
}

// trimQuarantine deletes the oldest files above the cap: file names begin with the base sequence number, so their order is their age.
func (l *Log) trimQuarantine(dir string) {
	infos, err := l.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.log.Warn("list quarantine", "dir", dir, "err", err)
		return
	}
	slices.SortFunc(infos, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
	var total int64
	for _, info := range infos {
		total += info.Size
	}
	for _, info := range infos {
		if total <= l.o.QuarantineBytes {
			break
		}
		path := filepath.Join(dir, info.Name)
		if err := l.fs.Remove(path); err != nil {
			l.log.Warn("trim quarantine", "path", path, "err", err)
			continue
		}
		l.log.Warn("quarantine full, deleted its oldest file", "path", path, "bytes", info.Size)
		total -= info.Size
	}
	l.stats.quarantineBytes.Store(total)
}
