package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// The cursor file, 8 KiB, holds two slots at 0 and 4096 that are written in turn; the valid one with the higher generation counts:
//
//	0            8         16       24           32           36     40
//	| generation | cursor  | next   | clean base | clean salt | crc  |
//
// next is a number that all records so far lie below. The clean pair names the newest segment when Close wrote the slot, else it is 0.
// The file gets its full size when it is created, so that a full disk cannot keep the cursor from moving.
const (
	cursorName  = "cursor"
	cursorSlot  = 40
	cursorApart = 4096
	// CursorBytes is the size of the cursor file.
	CursorBytes = 2 * cursorApart

	saveEvery   = 100 * time.Millisecond
	saveRecords = 1000 // records that may be unsaved before saveSoon
	saveSoon    = 20 * time.Millisecond
	saveGap     = 5 * time.Millisecond // shortest time between two saves
)

type slot struct {
	gen       uint64
	cursor    uint64
	next      uint64
	cleanBase uint64
	cleanSalt uint32
}

func (s slot) encode() []byte {
	b := make([]byte, 0, cursorSlot)
	b = binary.LittleEndian.AppendUint64(b, s.gen)
	b = binary.LittleEndian.AppendUint64(b, s.cursor)
	b = binary.LittleEndian.AppendUint64(b, s.next)
	b = binary.LittleEndian.AppendUint64(b, s.cleanBase)
	b = binary.LittleEndian.AppendUint32(b, s.cleanSalt)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSlot(b []byte) (slot, bool) {
	if len(b) < cursorSlot || crc32.Checksum(b[:36], castagnoli) != binary.LittleEndian.Uint32(b[36:]) {
		return slot{}, false
	}
	return slot{
		gen:       binary.LittleEndian.Uint64(b),
		cursor:    binary.LittleEndian.Uint64(b[8:]),
		next:      binary.LittleEndian.Uint64(b[16:]),
		cleanBase: binary.LittleEndian.Uint64(b[24:]),
		cleanSalt: binary.LittleEndian.Uint32(b[32:]),
	}, true
}

// readSlots returns the newest valid slot. blank tells a file that was never written from a damaged one.
func readSlots(r io.ReaderAt) (best slot, ok, blank bool) {
	b := make([]byte, CursorBytes)
	n, err := r.ReadAt(b, 0)
	blank = err == nil || errors.Is(err, io.EOF)
	for _, c := range b[:n] {
		if c != 0 {
			blank = false
			break
		}
	}
	for off := 0; off+cursorSlot <= n; off += cursorApart {
		if s, valid := decodeSlot(b[off:]); valid && (!ok || s.gen > best.gen) {
			best, ok = s, true
		}
	}
	return best, ok, blank
}

// loadCursor opens the cursor file. Damage in it is not an error, and neither is a disk too full to create it.
func (l *Log) loadCursor() (slot, bool, error) {
	if err := l.openCursor(); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			l.log.Warn("create cursor file, trying again when the cursor is saved", "dir", l.dir, "err", err)
			return slot{}, false, nil
		}
		return slot{}, false, err
	}
	s, ok, blank := readSlots(l.curFile)
	if !ok && !blank {
		l.stats.cursorResets.Add(1)
		l.log.Error("cursor file damaged, starting at the oldest record", "dir", l.dir)
	}
	l.curGen = s.gen
	return s, ok, nil
}

func (l *Log) openCursor() error {
	f, err := l.fs.Open(filepath.Join(l.dir, cursorName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if size < CursorBytes {
		_, err = f.WriteAt(make([]byte, CursorBytes-size), size)
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = l.fs.SyncDir(l.dir)
		}
		if err != nil { // still usable: slots are written when there is room again
			l.log.Warn("reserve room for the cursor", "dir", l.dir, "err", err)
		}
	}
	l.curFile = f
	return nil
}

// startCursor sets the cursor from a slot and saves it: that marks the session as begun and keeps what recovery found out about next.
func (l *Log) startCursor(s slot, ok bool) {
	l.cursor = l.First()
	if ok {
		l.cursor = max(l.cursor, s.cursor)
	}
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	if err := l.writeSlot(slot{cursor: l.cursor, next: l.next}); err != nil {
		l.log.Warn("save cursor on open", "dir", l.dir, "err", err)
	}
	l.retire(l.saved)
}

// Cursor returns the next sequence number to deliver: everything below was confirmed.
func (l *Log) Cursor() uint64 {
	l.curMu.Lock()
	defer l.curMu.Unlock()
	return l.cursor
}

// SetCursor moves the cursor forward, at most to Durable; lower values are ignored. It takes effect in memory at once and on disk within
// 100 ms, earlier when many records or a whole segment lie between; segments wholly below the saved cursor are then deleted.
func (l *Log) SetCursor(next uint64) {
	next = min(next, l.durable.Load())
	l.curMu.Lock()
	if next <= l.cursor {
		l.curMu.Unlock()
		return
	}
	before := l.cursor - l.saved
	l.cursor = next
	after := next - l.saved
	l.curMu.Unlock()
	// The keeper needs to hear of the first unsaved record, of the thousandth and of a segment that can go, not of each one.
	if before == 0 || (before < saveRecords && after >= saveRecords) || next >= l.oldestEnd.Load() {
		nudge(l.keeperKick)
	}
}

// SaveCursor writes the cursor now and deletes the segments wholly below it.
func (l *Log) SaveCursor() error {
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	if l.ended {
		return ErrClosed
	}
	return l.saveAndRetire()
}

// saveAndRetire needs saveMu. The cursor is on disk before anything below it is unlinked. Only on a full disk the order is given up:
// deleting is what makes room, and after a crash the cursor then starts at the oldest segment that is left, which is the same place.
func (l *Log) saveAndRetire() error {
	l.curMu.Lock()
	cursor, saved := l.cursor, l.saved
	l.curMu.Unlock()
	var err error
	if cursor != saved {
		err = l.writeSlot(slot{cursor: cursor, next: l.durable.Load()})
	}
	switch {
	case err == nil || errors.Is(err, syscall.ENOSPC):
		l.retire(cursor)
	default:
		l.retire(saved)
	}
	return err
}

// saveClean is the last save of a session; clean is the segment that Close synced.
func (l *Log) saveClean(clean *segment) error {
	l.saveMu.Lock()
	defer l.saveMu.Unlock()
	l.ended = true
	if err := l.saveAndRetire(); err != nil {
		return err
	}
	s := slot{cursor: l.Cursor(), next: l.durable.Load()}
	if clean != nil {
		s.cleanBase, s.cleanSalt = clean.base, clean.salt
	}
	err := l.writeSlot(s)
	if l.curFile != nil {
		err = errors.Join(err, l.curFile.Close())
		l.curFile = nil
	}
	return err
}

// writeSlot needs saveMu. A descriptor whose write or fsync failed is given up.
func (l *Log) writeSlot(s slot) error {
	if l.curFile == nil {
		if err := l.openCursor(); err != nil {
			return fmt.Errorf("open cursor: %w", err)
		}
	}
	l.curGen++
	s.gen = l.curGen
	_, err := l.curFile.WriteAt(s.encode(), int64(s.gen%2)*cursorApart)
	if err == nil {
		err = l.curFile.Sync()
	}
	if err != nil {
		_ = l.curFile.Close()
		l.curFile = nil
		return fmt.Errorf("write cursor: %w", err)
	}
	l.stats.cursorSaves.Add(1)
	l.curMu.Lock()
	l.saved = s.cursor
	l.curMu.Unlock()
	return nil
}

// keepCursor saves the cursor lazily and deletes what lies below it.
func (l *Log) keepCursor() {
	defer close(l.keeperDone)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var last time.Time
	failing := false
	for {
		timer.Stop()
		wait, pending := l.saveIn(time.Since(last), failing)
		if pending && wait <= 0 {
			err := l.SaveCursor()
			if err != nil && !failing {
				l.log.Error("save cursor, trying again", "dir", l.dir, "err", err)
			}
			failing, last = err != nil, time.Now()
			continue
		}
		if pending {
			timer.Reset(wait)
		}
		select {
		case <-l.keeperStop:
			return
		case <-l.keeperKick:
		case <-timer.C:
		}
	}
}

// saveIn tells whether a save is due and how long it may wait, since being the time since the last one.
func (l *Log) saveIn(since time.Duration, failing bool) (wait time.Duration, pending bool) {
	l.curMu.Lock()
	cursor, unsaved := l.cursor, l.cursor-l.saved
	l.curMu.Unlock()
	l.mu.Lock()
	trash := len(l.trash) > 0
	l.mu.Unlock()
	switch {
	case failing, trash:
		return saveEvery - since, failing || unsaved > 0 || trash
	case cursor >= l.oldestEnd.Load():
		return saveGap - since, true
	case unsaved >= saveRecords:
		return saveSoon - since, true
	}
	return saveEvery - since, unsaved > 0
}
