package quic

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

var errNoStream = errors.New("the client has not opened a stream")

// Conn is one client: a QUIC connection, whose first stream is read and
// written. One goroutine may read and one may write at the same time.
type Conn struct {
	l    *Listener
	qc   *quic.Conn
	once sync.Once
	peer netip.AddrPort // the last address that Moved has told; owned by the reader
	mux  *mux           // nil: one stream

	mu      sync.Mutex // covers everything below; not held while something waits
	stream  *quic.Stream
	readBy  time.Time
	writeBy time.Time
	expiry  *time.Timer // ends the wait for the stream at readBy
	ended   bool        // the client has ended the stream
	bye     bool        // we have ended it
}

var _ net.Conn = (*Conn)(nil)

func newConn(l *Listener, qc *quic.Conn) *Conn {
	c := &Conn{l: l, qc: qc, peer: addrPort(qc.RemoteAddr())}
	if l.cfg.MultiStream {
		c.mux = newMux(c)
	}
	return c
}

// LocalAddr is the address of the listener.
func (c *Conn) LocalAddr() net.Addr { return c.qc.LocalAddr() }

// RemoteAddr is the address from which the client sends now.
func (c *Conn) RemoteAddr() net.Addr { return c.qc.RemoteAddr() }

// Moved returns the address of the client when it has changed since the last
// call. Only the reader may call it.
func (c *Conn) Moved() (to netip.AddrPort, ok bool) {
	now := addrPort(c.qc.RemoteAddr())
	if now == c.peer {
		return now, false
	}
	c.peer = now
	c.l.metrics.moves.Inc()
	return now, true
}

// Alive returns when the client last gave a sign of life within a packet that
// Read has not returned yet; the zero time if it has not. With one stream Read
// shows that itself.
func (c *Conn) Alive() time.Time {
	if c.mux == nil {
		return time.Time{}
	}
	return c.mux.alive.last()
}

// Identity returns the user that the certificate of the client stands for.
func (c *Conn) Identity() (user string, ok bool) {
	s := c.qc.ConnectionState().TLS
	return c.l.cfg.Identity.User(&s)
}

// Read reads from the stream; the first time it waits until the client has
// opened one.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.receive(p)
	var reset *quic.StreamError
	if err != nil && (errors.Is(err, io.EOF) || errors.As(err, &reset) && reset.Remote) {
		c.mu.Lock()
		c.ended = true
		c.mu.Unlock()
	}
	return n, err
}

func (c *Conn) receive(p []byte) (int, error) {
	if c.mux != nil {
		return c.mux.read(p)
	}
	s := c.current()
	if s == nil {
		var err error
		if s, err = c.awaitStream(); err != nil {
			return 0, err
		}
	}
	return s.Read(p)
}

func (c *Conn) current() *quic.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream
}

// awaitStream waits for the first stream of the client until the read deadline.
func (c *Conn) awaitStream() (*quic.Stream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.mu.Lock()
	c.expiry = time.AfterFunc(never, cancel)
	c.armExpiry()
	c.mu.Unlock()
	s, err := c.qc.AcceptStream(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expiry.Stop()
	c.expiry = nil
	if err != nil && ctx.Err() != nil {
		return nil, os.ErrDeadlineExceeded
	}
	if err != nil {
		return nil, err
	}
	c.stream = s
	return s, errors.Join(s.SetReadDeadline(c.readBy), s.SetWriteDeadline(c.writeBy))
}

// setStream takes the control stream of a mux, which has the read deadlines.
func (c *Conn) setStream(s *quic.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = s
	_ = s.SetWriteDeadline(c.writeBy) // never fails
}

// never is longer than any wait.
const never = 1 << 62

// armExpiry sets the timer to the read deadline. Caller holds mu.
func (c *Conn) armExpiry() {
	if c.readBy.IsZero() {
		c.expiry.Reset(never)
		return
	}
	c.expiry.Reset(time.Until(c.readBy))
}

// Write writes to the stream. It waits while the client does not take what was
// written before. With several streams p must be whole packets of MQTT, whose
// identifiers may be changed in it.
func (c *Conn) Write(p []byte) (int, error) {
	if c.mux != nil {
		return c.mux.write(p, nil)
	}
	s := c.current()
	if s == nil {
		return 0, errNoStream
	}
	return s.Write(p)
}

// WriteBuffers writes buffers one behind the other. With several streams they
// must be whole packets of MQTT together, the second one the end of a message.
func (c *Conn) WriteBuffers(b net.Buffers) (int64, error) {
	if c.mux != nil && len(b) == 2 {
		n, err := c.mux.write(b[0], b[1])
		return int64(n), err
	}
	return b.WriteTo(c)
}

// SetReadDeadline bounds Read, also one that waits for the stream.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	if c.mux != nil {
		c.mux.readBy.set(t)
		return nil
	}
	if c.stream != nil {
		return c.stream.SetReadDeadline(t)
	}
	if c.expiry != nil {
		c.armExpiry()
	}
	return nil
}

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	if c.mux != nil {
		c.mux.writeBy.set(t)
	}
	if c.stream != nil {
		return c.stream.SetWriteDeadline(t)
	}
	return nil
}

// SetDeadline bounds Read and Write.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite ends the stream behind what was written. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil {
		return errNoStream
	}
	c.bye = true
	return c.stream.Close()
}

// lingerTimeout is how long the client may take to get what was written before
// CloseWrite, lost packets included, and to close. Closing the connection makes
// it forget what it has not read.
const lingerTimeout = 3 * time.Second

// Close closes the connection. Behind CloseWrite that happens when the client
// has closed or its time is over, which the listener waits for; otherwise at
// once: what the client has not got by now it will not get. It is safe to call
// more than once, and does not wait for the client.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		bye := c.bye && !c.ended
		c.mu.Unlock()
		if !bye || !c.l.background(c.linger) {
			c.end()
		}
	})
	return nil
}

// linger drops what the client still sends until it closes.
func (c *Conn) linger() {
	defer c.end()
	_ = c.SetReadDeadline(time.Now().Add(lingerTimeout))
	stop := context.AfterFunc(c.l.ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	for buf := make([]byte, 4096); ; {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// end closes the QUIC connection.
func (c *Conn) end() {
	c.mu.Lock()
	code, text := codeOK, ""
	if c.ended && !c.bye {
		code, text = codeControlDown, "the stream of MQTT has ended"
	}
	c.mu.Unlock()
	_ = c.qc.CloseWithError(code, text)
	if c.mux != nil {
		c.mux.close()
	}
	c.l.release()
}
