package ws

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// controlTimeout bounds the write of a frame that the reader sends.
	controlTimeout = 5 * time.Second
	// partTimeout bounds a Close frame that is only a courtesy.
	partTimeout = 100 * time.Millisecond
	// drainTimeout and drainBytes bound what is read after a refusal, so that the
	// kernel does not send RST and thereby destroy what the client is told.
	drainTimeout = 500 * time.Millisecond
	drainBytes   = 1 << 20
	// gatherAbove is the payload that is written from where it is instead of being
	// copied behind its header.
	gatherAbove = 16 << 10
)

// errClosing is the error of a write behind a Close frame.
var errClosing = errors.New("WebSocket is closing")

// Conn is the byte stream in the binary messages of a WebSocket. Every Write is
// one message of one frame. Reads and writes may be concurrent with each other
// and with Close; of each kind there may be one at a time.
//
// A deadline interrupts Read without harm: the next one goes on. The first Read
// answers the HTTP request of the client.
type Conn struct {
	nc net.Conn
	l  *Listener

	// Owned by the reader.
	request []byte // so far; nil once it is answered
	rest    []byte // what came behind the request
	dec     decoder
	verdict error // how the connection ends when what was read is consumed
	err     error // what Read returns from now on

	upgraded atomic.Bool

	wmu    sync.Mutex // held while a frame is written
	closed bool       // no frame may follow: a Close frame was begun, or one was cut short; wmu

	dmu     sync.Mutex // covers everything below
	writeBy time.Time  // the deadline that was asked for
	limit   time.Time  // the deadline of the control frame being written; zero = none
	endBy   time.Time  // Close cuts short what is written then; zero = not closing
}

var _ net.Conn = (*Conn)(nil)

// Read reads bytes of binary messages. It answers pings, and ends with io.EOF
// after the Close frame of the client.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !c.upgraded.Load() && c.err == nil {
		if err := c.upgrade(); err != nil {
			return 0, err
		}
	}
	for {
		if c.err != nil {
			return 0, c.err
		}
		if c.verdict != nil {
			c.end()
			continue
		}
		got, err := c.receive(p)
		if got == 0 {
			return 0, err
		}
		n, err := c.dec.decode(p[:got])
		switch {
		case err != nil:
			c.verdict = err
		case c.dec.closed:
			c.verdict = io.EOF
		case c.dec.pinged:
			c.answerPing()
		}
		if n > 0 {
			return n, nil
		}
	}
}

// receive takes the next bytes of the client as they came.
func (c *Conn) receive(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.nc.Read(p)
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

func (c *Conn) answerPing() {
	payload := c.dec.ping
	c.dec.pinged, c.dec.ping = false, nil
	if err := c.writeControl(opPong, payload, controlTimeout); err != nil && !errors.Is(err, errClosing) {
		c.err = final("answer ping", err)
	}
}

// final is an error after which nothing can be read any more. It hides that err
// was perhaps a deadline, which to the caller of Read means: try again.
func final(doing string, err error) error { return errors.New(doing + ": " + err.Error()) }

// end tells the client the verdict.
func (c *Conn) end() {
	c.err = c.verdict
	var v *violation
	if !errors.As(c.verdict, &v) {
		_ = c.writeClose(c.dec.code, controlTimeout)
		return
	}
	c.l.metrics.violation(v.code)
	c.l.log.Debug("WebSocket is closed", "remote", c.nc.RemoteAddr().String(), "err", v)
	_ = c.writeClose(v.code, controlTimeout)
	c.drain()
}

// drain reads what the client still sends, until it closes.
func (c *Conn) drain() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(drainTimeout)) != nil {
		return
	}
	var scratch [512]byte
	for total := 0; total < drainBytes; {
		n, err := c.nc.Read(scratch[:])
		if err != nil {
			return
		}
		total += n
	}
}

// Write sends p as one binary message.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.writeMessage(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteBuffers sends several buffers as one binary message.
func (c *Conn) WriteBuffers(b net.Buffers) (int64, error) {
	if err := c.writeMessage(b...); err != nil {
		return 0, err
	}
	total := 0
	for _, part := range b {
		total += len(part)
	}
	return int64(total), nil
}

var frames = sync.Pool{New: func() any {
	b := make([]byte, 0, gatherAbove+maxClientHeader)
	return &b
}}

func (c *Conn) writeMessage(parts ...[]byte) error {
	total := 0
	for _, part := range parts {
		total += len(part)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.closed || !c.upgraded.Load() {
		return errClosing
	}
	if total > gatherAbove {
		return c.writeLarge(total, parts)
	}
	buf := frames.Get().(*[]byte)
	frame := appendHeader((*buf)[:0], opBinary, total)
	for _, part := range parts {
		frame = append(frame, part...)
	}
	_, err := c.nc.Write(frame)
	*buf = frame
	frames.Put(buf)
	c.closed = err != nil
	return err
}

// writeLarge writes the parts from where they are. Caller holds wmu.
func (c *Conn) writeLarge(total int, parts [][]byte) error {
	all := append(net.Buffers{appendHeader(nil, opBinary, total)}, parts...)
	var err error
	if g, ok := c.nc.(interface {
		WriteBuffers(b net.Buffers) (int64, error)
	}); ok {
		_, err = g.WriteBuffers(all)
	} else {
		_, err = all.WriteTo(c.nc)
	}
	c.closed = err != nil
	return err
}

func (c *Conn) writeClose(code uint16, timeout time.Duration) error {
	return c.writeControl(opClose, binary.BigEndian.AppendUint16(nil, code), timeout)
}

// writeControl writes a control frame in its own time, whatever deadline the
// last message had.
func (c *Conn) writeControl(op byte, payload []byte, timeout time.Duration) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.closed {
		return errClosing
	}
	c.closed = op == opClose
	if err := c.limitWrite(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(append(appendHeader(make([]byte, 0, 2+len(payload)), op, len(payload)), payload...))
	c.closed = c.closed || err != nil
	return errors.Join(err, c.limitWrite(time.Time{}))
}

// limitWrite sets the deadline of a control frame, or with the zero time the
// one back that was asked for.
func (c *Conn) limitWrite(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.limit = t
	if t.IsZero() {
		t = c.writeBy
	}
	return c.writeUntil(t)
}

// SetWriteDeadline sets the deadline of messages.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	c.writeBy = t
	if !c.limit.IsZero() && !earlier(t, c.limit) {
		return nil // applied when the control frame is written
	}
	return c.writeUntil(t)
}

// writeUntil sets the deadline of the connection underneath: t, but nothing
// outlasts Close. Caller holds dmu.
func (c *Conn) writeUntil(t time.Time) error {
	if earlier(c.endBy, t) {
		t = c.endBy
	}
	return c.nc.SetWriteDeadline(t)
}

// earlier says whether a comes before b, where zero is never.
func earlier(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// LocalAddr is the address of the listener.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the address of the client.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Identity is what the connection underneath says.
func (c *Conn) Identity() (user string, ok bool) {
	if i, can := c.nc.(interface{ Identity() (string, bool) }); can {
		return i.Identity()
	}
	return "", false
}

// CloseWrite tells the client that nothing follows. It should then close too.
func (c *Conn) CloseWrite() error {
	if !c.upgraded.Load() {
		return c.nc.Close()
	}
	return c.writeClose(codeNormal, controlTimeout)
}

// Close closes the connection, with a Close frame before if the client takes
// that at once; a write that is going on is cut short. It is safe to call more
// than once.
func (c *Conn) Close() error {
	if c.upgraded.Load() && c.endWrites(time.Now().Add(partTimeout)) == nil {
		_ = c.writeClose(codeNormal, partTimeout)
	}
	return c.nc.Close()
}

// endWrites makes by the last moment of every write, now and later.
func (c *Conn) endWrites(by time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if !earlier(by, c.endBy) {
		return nil
	}
	c.endBy = by
	return c.nc.SetWriteDeadline(by)
}
