package quic

import (
	"sync/atomic"
	"time"
)

// lifeSign is how many bytes on a stream prove that a client is alive: Read
// returns whole packets, and a large one on a slow link may take longer than
// the keep alive.
const lifeSign = 1024

// lifeSigns is when a client was seen alive, for several goroutines.
type lifeSigns struct {
	base time.Time // with the monotonic clock
	at   atomic.Int64
}

func (l *lifeSigns) note() { l.at.Store(int64(time.Since(l.base))) }

// last is the zero time when there was none.
func (l *lifeSigns) last() time.Time {
	at := l.at.Load()
	if at == 0 {
		return time.Time{}
	}
	return l.base.Add(time.Duration(at))
}
