package secure

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// answerTimeout bounds each record that the library writes by itself: those of
// the handshake, and the answer to a client of TLS 1.3 that asks for new keys.
const answerTimeout = 10 * time.Second

// base is the connection under TLS. The library also writes while the owner
// reads (RFC 8446 section 4.6.3). Such a write gets its own time: the deadline
// that the owner left from its last write may have passed long ago, and the
// library takes a write that failed for one that it need not tell about.
type base struct {
	net.Conn
	writing atomic.Bool // the owner writes: its deadline counts

	mu    sync.Mutex // covers asked, and the deadline that holds
	asked time.Time  // the owner's
}

func (b *base) Write(p []byte) (int, error) {
	if b.writing.Load() {
		return b.Conn.Write(p)
	}
	if err := b.set(time.Now().Add(answerTimeout)); err != nil {
		return 0, err
	}
	n, err := b.Conn.Write(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.Conn.SetWriteDeadline(b.asked) // a connection without deadlines is closed: the next write tells
	return n, err
}

func (b *base) set(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Conn.SetWriteDeadline(t)
}

// SetWriteDeadline sets the deadline of the owner's writes.
func (b *base) SetWriteDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = t
	return b.Conn.SetWriteDeadline(t)
}

// SetDeadline sets that and the one of reads.
func (b *base) SetDeadline(t time.Time) error {
	if err := b.SetReadDeadline(t); err != nil {
		return err
	}
	return b.SetWriteDeadline(t)
}

// owned runs a write of the owner.
func (b *base) owned(write func() error) error {
	b.writing.Store(true)
	defer b.writing.Store(false)
	return write()
}
