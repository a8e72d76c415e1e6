package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// Limits of the end of a connection.
const (
	// farewellTimeout bounds the last write, so that a client that does not
	// read does not hold up a takeover or a shutdown.
	farewellTimeout = time.Second
	// lingerTimeout is how long the client may take to close after its
	// DISCONNECT. Closing at once would make the kernel send RST for what the
	// client has just sent, and that may destroy the DISCONNECT on its way.
	lingerTimeout = 500 * time.Millisecond
)

// conn is one connection. Its reading goroutine, serve, owns it; the writing
// goroutine exists while there is something to write.
type conn struct {
	srv    *Server
	nc     net.Conn
	mobile mobile          // nc, if its client may move
	lively lively          // nc, if it sees more of the client than Read shows
	remote netip.AddrPort  // where the client came from
	ctx    context.Context // ends with the connection: frees a blocked Publish
	cancel context.CancelFunc

	// Set before the session starts, constant afterwards.
	session   *broker.Session
	version   wire.Version
	clientID  string
	expiry    uint32        // Session Expiry Interval of CONNECT
	keepAlive time.Duration // most silence, 1.5 times the client's figure; 0 = none
	maxPacket int           // largest packet the client takes; 0 = no limit
	problems  bool          // Request Problem Information
	auth      *authentication
	onDenied  func(broker.Reason) // outcome of a QoS 0 publish, nil when it does not matter

	in       inBuffer // owned by the reader, as are the next seven
	seen     time.Time
	halfOpen bool // CONNECT is not decided
	handled  bool // packets came since seen
	armed    bool // a read deadline that makes sense is set
	topics   inTopics
	arrived  int64 // when the messages in the buffer came, Unix milliseconds; 0 = not looked at
	read     tally

	aliases outAliases // owned by the writer

	mu       sync.Mutex // covers everything below; never held over a read or write
	cond     sync.Cond  // acks has room, out was taken, the writer ended, ending
	acks     ackQueue
	spare    *ack // a list of those that can be used again
	spares   int
	out      []byte // packets to write before acknowledgements and deliveries
	outSent  tally  // what is in out
	charged  int    // publishes that count against our Receive Maximum
	open2    map[uint16]struct{}
	requests int  // SUBSCRIBE and UNSUBSCRIBE in the core
	wakened  bool // the outbox has something
	writing  bool // a writer runs
	greeted  bool // CONNACK is in out, or was written
	ending   bool
	end      ending
	told     bool      // the last packet was written
	writeBy  time.Time // the write deadline that is set
}

// ending says why and how a connection ends.
type ending struct {
	reason   broker.Reason
	err      error // for the log and, from the codec, for the client
	tell     bool  // write what is ready, and DISCONNECT to version 5
	keepWill bool  // the client said goodbye
	expiry   *time.Duration
}

func newConn(s *Server, nc net.Conn, remote netip.AddrPort) *conn {
	c := &conn{srv: s, nc: nc, remote: remote, seen: time.Now(), halfOpen: true}
	c.mobile, _ = nc.(mobile)
	c.lively, _ = nc.(lively)
	c.cond.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	return c
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.close()
	defer c.recovered()
	err := c.handshake()
	c.decided()
	if err == nil {
		err = c.receive()
	}
	c.finish(endingOf(err))
}

// decided ends the half-open state. Only the reader calls it.
func (c *conn) decided() {
	if c.halfOpen {
		c.halfOpen = false
		c.srv.decided(c.remote.Addr())
	}
}

// recovered keeps a bug from taking more than this connection down.
func (c *conn) recovered() {
	v := recover()
	if v == nil {
		return
	}
	c.srv.metrics.panics.Inc()
	c.srv.log.Error("connection handler panicked, the connection is dropped",
		"client", c.clientID, "remote", c.remote, "panic", v, "stack", string(debug.Stack()))
	c.finish(ending{reason: broker.Unspecified, err: fmt.Errorf("panic: %v", v)})
}

// finish begins the end of the connection; the first caller's reason counts.
func (c *conn) finish(e ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(e)
}

// kick is the core's way to end the connection. It does not block.
func (c *conn) kick(r broker.Reason) { c.finish(ending{reason: r, tell: true}) }

// endLocked begins the end: nobody waits any longer, the reader is woken, and
// a writer says goodbye. Caller holds mu.
func (c *conn) endLocked(e ending) {
	if c.ending {
		return
	}
	c.ending, c.end = true, e
	c.cancel()
	c.cond.Broadcast()
	now := time.Now()
	_ = c.nc.SetReadDeadline(now)
	_ = c.nc.SetWriteDeadline(now.Add(farewellTimeout))
	if e.tell {
		c.startWriter()
	}
}

// close runs when the reader is done: it detaches the session, lets the writer
// finish and closes the socket.
func (c *conn) close() {
	c.finish(ending{reason: broker.Unspecified}) // nothing else may have done it
	e := c.end
	c.decided()
	c.read.flush(&c.srv.metrics.packetsIn)
	c.logEnd(e)
	if c.session != nil {
		c.session.Close(broker.Closing{Reason: e.reason, KeepWill: e.keepWill, Expiry: e.expiry})
	}
	if !e.tell {
		_ = c.nc.Close()
	}
	c.mu.Lock()
	for c.writing || c.auth.busy() {
		c.cond.Wait()
	}
	c.auth.stop()
	told := c.told
	c.acks, c.out, c.open2 = ackQueue{}, nil, nil
	c.mu.Unlock()
	if told {
		c.linger()
	}
	_ = c.nc.Close()
	c.in.release()
	c.srv.forget(c)
}

// linger reads what the client still sends until it closes.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() != nil {
			return
		}
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	c.in.advance(c.in.w - c.in.r)
	c.in.reserve(0)
	for {
		if _, err := c.nc.Read(c.in.buf); err != nil {
			return
		}
	}
}

func (c *conn) logEnd(e ending) {
	switch e.reason {
	case broker.Malformed, broker.ProtocolError, broker.PacketTooLarge, broker.ReceiveMaximumExceeded, broker.InvalidAlias:
		c.srv.metrics.violations.Inc()
	}
	c.srv.log.Debug("connection ended", "client", c.clientID, "remote", c.remote, "reason", e.reason.String(), "err", e.err)
}

var (
	errEnding    = errors.New("connection is ending")
	errKeepAlive = error(&broker.Error{Reason: broker.KeepAliveTimeout, Err: errors.New("nothing came within 1.5 times the keep alive")})
)

// endingOf turns what stopped the reader into how the connection ends.
func endingOf(err error) ending {
	var e *broker.Error
	var bye *goodbye
	switch {
	case errors.As(err, &bye):
		return bye.ending
	case errors.As(err, &e):
		return ending{reason: e.Reason, err: err, tell: true}
	}
	return ending{reason: broker.Unspecified, err: err} // the socket's end
}

// goodbye is a DISCONNECT of the client.
type goodbye struct{ ending }

func (*goodbye) Error() string { return "client disconnected" }
