package seglog

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// vanishCheck is how often the committer makes sure that the file it writes is still in its folder.
const vanishCheck = time.Second

// leaveVanished gives up the segment being written when its file is not in the folder any more: somebody deleted it, or mounted
// something over it. Writes and fsyncs would go on to succeed, on a file that no restart finds. It needs commitMu.
func (l *Log) leaveVanished() {
	if l.active == nil || time.Since(l.looked) < vanishCheck {
		return
	}
	l.looked = time.Now()
	l.mu.Lock()
	path := l.active.path
	l.mu.Unlock()
	f, err := l.fs.Open(path, os.O_RDONLY)
	if err == nil {
		_ = f.Close()
		return
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return
	}
	l.log.Error("segment vanished while it was written, its records are lost after a restart", "path", path)
	if err := l.file.Close(); err != nil {
		l.log.Warn("close vanished segment", "path", path, "err", err)
	}
	l.active, l.file, l.dirty = nil, nil, false
}
