package mqtt

import "sync"

// Sizes of the receive buffer. An idle connection keeps the small one.
const (
	smallBuffer = 512
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any {
	b := make([]byte, largeBuffer)
	return &b
}}

// inBuffer holds bytes of the client between socket and parser. It is small
// while the client is quiet, comes from a pool while it is busy, and belongs to
// one packet alone when that is larger than a pooled one.
type inBuffer struct {
	buf    []byte
	r, w   int
	pooled *[]byte
	full   bool // the last read left no room: a larger buffer saves reads
	taken  bool // a message keeps buf
}

func (b *inBuffer) unread() []byte { return b.buf[b.r:b.w] }

// advance drops n parsed bytes.
func (b *inBuffer) advance(n int) {
	b.r += n
	if b.taken {
		b.buf, b.r, b.w, b.taken = nil, 0, 0, false
	}
}

// take hands the buffer to a message and reports whether that is worth it: the
// packet of total bytes must be all that is in it, and its payload most of it.
// Otherwise the payload must be copied.
func (b *inBuffer) take(total, payload int) bool {
	b.taken = b.pooled == nil && len(b.buf) > largeBuffer && payload > len(b.buf)/2 && b.r+total == b.w
	return b.taken
}

// reserve makes room to read on; total is the length of the packet that the
// unread bytes begin, 0 when it is not known yet. A packet above the pooled
// size is given memory as its bytes arrive: a length alone costs nothing.
func (b *inBuffer) reserve(total int) {
	if b.buf == nil {
		b.buf = make([]byte, smallBuffer)
	}
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	switch {
	case total > largeBuffer:
		if b.w == len(b.buf) || len(b.buf) <= largeBuffer {
			b.move(make([]byte, min(total, max(2*(b.w-b.r), 2*largeBuffer))), nil)
		}
	case total > len(b.buf), b.full && b.pooled == nil, len(b.buf) > largeBuffer:
		p := largeBuffers.Get().(*[]byte)
		b.move(*p, p)
	case b.r > 0 && (b.w == len(b.buf) || b.r+total > len(b.buf)):
		b.move(b.buf, b.pooled)
	}
	b.full = false
}

// move copies the unread bytes to the beginning of dst and goes on there.
func (b *inBuffer) move(dst []byte, pooled *[]byte) {
	n := copy(dst, b.unread())
	if b.pooled != pooled {
		b.release()
	}
	b.buf, b.pooled, b.r, b.w = dst, pooled, 0, n
}

// shrink goes back to a small buffer if the unread bytes fit.
func (b *inBuffer) shrink() {
	if b.w-b.r < smallBuffer && len(b.buf) > smallBuffer {
		b.move(make([]byte, smallBuffer), nil)
	}
}

func (b *inBuffer) release() {
	if b.pooled != nil {
		largeBuffers.Put(b.pooled)
	}
	b.buf, b.pooled = nil, nil
}
