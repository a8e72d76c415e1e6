package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"gantry/persist/seglog"
)

const (
	reserveRetry    = 250 * time.Millisecond // first pause before the next attempt to have a reserve
	reserveMaxRetry = 30 * time.Second       // an attempt writes what room there is, and flash wears
	reserveBlock    = 1 << 20
)

// reserve is the file that holds disk for the cleaner and for deletions.
type reserve struct {
	fs    seglog.FS
	dir   string
	path  string
	size  int64
	held  bool
	pause time.Duration // before the next attempt
	next  time.Time
}

func newReserve(cfg *Config) reserve {
	return reserve{fs: cfg.fs(), dir: cfg.Dir, path: filepath.Join(cfg.Dir, "reserve"), size: cfg.Reserve}
}

// take writes the file, unless it is there already, and removes what it wrote when there is no room.
func (r *reserve) take() (err error) {
	f, err := r.fs.Open(r.path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		r.held = err == nil
		if err != nil {
			err = errors.Join(err, r.fs.Remove(r.path))
		}
	}()
	have, err := f.Size()
	if err != nil || have == r.size {
		return err
	}
	if have < r.size {
		size, err := r.room()
		if err != nil {
			return err
		}
		if err := fillWithNoise(f, size); err != nil {
			return err
		}
		have = size
	}
	if have > r.size { // also from a larger one
		if err := f.Truncate(r.size); err != nil {
			return err
		}
	}
	return f.Sync()
}

// fillWithNoise writes size bytes. Not zeros: a file system may keep those for nothing.
func fillWithNoise(f seglog.File, size int64) error {
	block := make([]byte, min(reserveBlock, size))
	for i := range block {
		block[i] = byte(rand.Uint32())
	}
	for at := int64(0); at < size; at += int64(len(block)) {
		if _, err := f.WriteAt(block[:min(int64(len(block)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// giveReserve gives the file up when the disk has been found full.
func (s *Store) giveReserve() {
	s.mu.Lock()
	short := s.short
	s.mu.Unlock()
	r := &s.reserve
	if !short || !r.held {
		return
	}
	if err := r.fs.Remove(r.path); err != nil {
		s.log.Error("give up the reserve on a full disk", "file", r.path, "err", err)
		return
	}
	// What waits for this room comes first; the next look is not at once.
	r.held, r.pause, r.next = false, reserveRetry, time.Now().Add(reserveRetry)
	s.log.Error("disk full: living on the reserve, only what deletes is taken until there is room again", "dir", s.cfg.Dir, "bytes", r.size)
}

// takeReserve makes sure that there is a reserve. It returns after how long to try again, 0 for never.
func (s *Store) takeReserve(now time.Time) time.Duration {
	r := &s.reserve
	if r.size == 0 || r.held {
		return 0
	}
	if wait := r.next.Sub(now); wait > 0 {
		return wait
	}
	if err := r.take(); err != nil {
		r.pause = min(max(2*r.pause, reserveRetry), reserveMaxRetry)
		r.next = now.Add(r.pause)
		s.log.Warn("no room for the reserve, trying again", "file", r.path, "err", fmt.Errorf("write %d bytes: %w", r.size, err), "in", r.pause)
		return r.pause
	}
	s.mu.Lock()
	was := s.short
	s.short = false
	s.mu.Unlock()
	if was {
		s.log.Info("disk has room again", "dir", s.cfg.Dir)
	}
	return 0
}
