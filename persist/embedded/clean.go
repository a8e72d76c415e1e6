package embedded

import (
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/persist/seglog"
)

const (
	// cleanRetry is how long the cleaner rests after a failure, for example on a full disk.
	cleanRetry = 250 * time.Millisecond
	// cleanLogEvery is how many failures in a row are logged as one: a minute's.
	cleanLogEvery = int(time.Minute / cleanRetry)
	// maxSegments bounds one pass.
	maxSegments = 16
)

// pass is the cleaning of the oldest segments. It is guarded by Store.mu.
type pass struct {
	lo, hi uint64 // log records of the segments
	// touched holds, for records of the segments, the newest appended record that changes something of it. While that one has not
	// taken effect nobody can say what of the old record will live, so it must not be copied.
	touched  map[uint64]uint64
	progress chan struct{} // nudged when records take effect
	copies   int           // that are not on disk yet
	err      error         // why one of them failed
	copied   int           // records
	bytes    int64
}

func (p *pass) has(rec uint64) bool { return rec >= p.lo && rec < p.hi }

// cleanLoop runs until Close.
func (s *Store) cleanLoop() {
	defer close(s.cleaned)
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	kick := s.cleanKick
	failures := 0
	for {
		select {
		case <-s.closing:
			return
		case <-kick:
		case <-retry.C:
			kick = s.cleanKick
		}
		s.giveReserve()
		err := s.cleanAll()
		if err != nil {
			failures++
			s.cleanFailed(err, failures)
			retry.Reset(cleanRetry)
			kick = nil // every commit would start it again
			continue
		}
		failures = 0
		if wait := s.takeReserve(time.Now()); wait > 0 {
			retry.Reset(wait)
		}
	}
}

// cleanAll cleans while it is worth it.
func (s *Store) cleanAll() error {
	for s.mustClean() {
		if err := s.cleanOldest(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) cleanFailed(err error, inARow int) {
	if errors.Is(err, ErrClosed) {
		return
	}
	s.metrics.cleanErrors.Inc()
	if inARow == 1 || inARow%cleanLogEvery == 0 {
		s.log.Error("clean oldest segments, trying again", "dir", s.cfg.Dir, "err", err, "in", cleanRetry, "failures", inARow)
	}
}

func (s *Store) mustClean() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.cfg.overfull(s.disk.Bytes(), s.live, s.short)
}

// cleanOldest copies what lives in the oldest segments to the end of the log and then gives them up.
func (s *Store) cleanOldest() error {
	segs, err := s.oldest()
	if err != nil {
		return err
	}
	lo, hi := segs[0].Base, segs[len(segs)-1].End
	start := time.Now()
	p, err := s.beginPass(lo, hi)
	if err == nil {
		err = s.copySurvivors(p)
	}
	s.endPass()
	if err != nil {
		return fmt.Errorf("copy records %d to %d: %w", lo, hi, err)
	}
	if err := s.giveUp(hi); err != nil {
		return fmt.Errorf("give up records %d to %d: %w", lo, hi, err)
	}
	s.metrics.cleaned(p, len(segs))
	s.log.Debug("segments cleaned", "dir", s.cfg.Dir, "segments", len(segs), "copied", p.copied, "copied_bytes", p.bytes, "took", time.Since(start))
	return nil
}

// oldest returns the segments to be cleaned together: enough to get the log down to its size if nothing in them lives, within bounds. To
// begin and to end a pass costs waiting for the disk, so that one segment at a time would fall behind a fast publisher.
func (s *Store) oldest() ([]seglog.SegmentInfo, error) {
	segs := s.disk.Segments()
	if len(segs) < 2 { // the newest is being written
		if err := s.disk.Roll(); err != nil {
			return nil, err
		}
		if segs = s.disk.Segments(); len(segs) < 2 {
			return nil, errors.New("log has no finished segment")
		}
	}
	s.mu.Lock()
	excess := s.disk.Bytes() - max(s.cfg.CleanAbove, 2*s.live)
	if s.short {
		excess = 0 // what is copied at once must fit into the reserve
	}
	s.mu.Unlock()
	n := 1
	for n < min(len(segs)-1, maxSegments) && excess > segs[n-1].Bytes {
		excess -= segs[n-1].Bytes
		n++
	}
	return segs[:n], nil
}

// beginPass makes sure that from now on touched knows of every change to the segments' records that has not taken effect. Changes that
// were appended before it began to look are waited for.
func (s *Store) beginPass(lo, hi uint64) (*pass, error) {
	p := &pass{lo: lo, hi: hi, touched: make(map[uint64]uint64), progress: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass = p
	// Marks are found through the values in memory, so they are complete only for what is appended after the segments took effect.
	if err := s.await(p, hi); err != nil {
		return p, err
	}
	return p, s.await(p, s.disk.Next())
}

// await waits until the log records below next have taken effect. It needs mu, and gives it up meanwhile.
func (s *Store) await(p *pass, next uint64) error {
	for s.applied < next {
		if err := s.pause(p); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for progress. It needs mu, and gives it up meanwhile.
func (s *Store) pause(p *pass) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-p.progress:
		return nil
	case <-s.closing:
		return ErrClosed
	}
}

func (s *Store) endPass() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass = nil
	s.turn = false
	s.wake()
}

// copySurvivors copies all of the segments and returns when the copies are on disk.
func (s *Store) copySurvivors(p *pass) error {
	r := s.disk.NewReader(p.lo)
	defer r.Close()
	errs := 0
	var seen uint64
	for {
		seq, _, b, err := r.Next()
		if errors.Is(err, io.EOF) || err == nil && seq >= p.hi {
			break
		}
		if err != nil {
			if errs++; errs > readRetries || errors.Is(err, seglog.ErrClosed) {
				return err
			}
			continue
		}
		errs = 0
		seen++
		if err := s.copyRecord(p, b, seq); err != nil {
			return err
		}
	}
	err := s.awaitCopies(p)
	if err == nil && seen < p.hi-p.lo {
		if err = s.rescueLost(p); err == nil {
			err = s.awaitCopies(p)
		}
	}
	return err
}

func (s *Store) awaitCopies(p *pass) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p.copies > 0 {
		if err := s.pause(p); err != nil {
			return err
		}
	}
	return p.err
}

// copyRecord appends what lives of one record.
func (s *Store) copyRecord(p *pass, b []byte, at uint64) error {
	return s.copy(p, func(e *encoder) (known bool) {
		if p.touched[at] >= s.applied || !s.survivors(e, b, at) {
			return false
		}
		delete(p.touched, at)
		return true
	})
}

// copy appends what build encodes, if anything. mu is held from the look that build takes to the append, so nothing can come in between.
// build returns false when it cannot say yet; it is asked again after the next commit.
func (s *Store) copy(p *pass, build func(e *encoder) (known bool)) error {
	e := s.encoders.Get().(*encoder)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed:
			return ErrClosed
		case p.err != nil:
			return p.err
		}
		e.reset()
		if build(e) {
			if len(e.ops) == 0 {
				s.yieldTurn()
				s.release(e)
				return nil
			}
			e.finish()
			size := int64(len(e.buf))
			err := s.append(e, func(err error) { s.copied(p, err) }, false)
			if err == nil {
				p.copies++
				p.copied++
				p.bytes += size
				s.yieldTurn()
				return nil
			}
			if !errors.Is(err, errNoRoom) {
				return err
			}
			s.turn = true
		}
		if err := s.pause(p); err != nil {
			return err
		}
	}
}

func (s *Store) yieldTurn() {
	if s.turn {
		s.turn = false
		s.wake()
	}
}

func (s *Store) copied(p *pass, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.copies--
	if p.err == nil {
		p.err = err
	}
	nudge(p.progress)
}

// rescueLost gives sessions whose own record could not be read any more a new one, before the segment it was in is given up.
func (s *Store) rescueLost(p *pass) error {
	s.mu.Lock()
	var lost []*client
	for _, c := range s.clients {
		if p.has(c.record.rec) || p.has(c.bornRec) {
			lost = append(lost, c)
		}
	}
	s.mu.Unlock()
	for _, c := range lost {
		err := s.copy(p, func(e *encoder) (known bool) {
			if c.deleting >= s.applied || p.touched[c.record.rec] >= s.applied {
				return false
			}
			if s.clients[c.id] == c {
				s.reportLost(c)
				c.rescue(e, p.has(c.record.rec), p.has(c.bornRec))
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// giveUp deletes the segments whose records are all below next. What was appended so far must be on stable storage before: the
// copies, and what made other records of them dead.
func (s *Store) giveUp(next uint64) error {
	if s.cfg.Sync == seglog.SyncInterval {
		failed := s.disk.Stats().SyncErrors
		if err := s.disk.Roll(); err != nil {
			return err
		}
		if s.disk.Stats().SyncErrors != failed {
			return errors.New("fsync of the copies failed")
		}
	}
	s.disk.SetCursor(next)
	return s.disk.SaveCursor()
}
