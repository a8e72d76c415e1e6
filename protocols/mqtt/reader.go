package mqtt

import (
	"errors"
	"net"
	"os"
	"time"

	"gantry/protocols/mqtt/wire"
)

const (
	// quietAfter is how long a client must be silent before its receive buffer
	// is made small.
	quietAfter = time.Second
	// lifeSign is how many bytes of an unfinished packet prove that the client
	// is alive: a large packet on a slow link may take longer than the keep alive.
	lifeSign = 1024
	// maxOut is how many bytes of answers may wait before the client is not
	// read from any more.
	maxOut = 16 << 10
	// maxRequests is how many SUBSCRIBE and UNSUBSCRIBE of one client may be in
	// the core.
	maxRequests = 16
)

// receive handles packets until the connection ends. It never returns nil.
func (c *conn) receive() error {
	for {
		total, err := c.drain()
		c.read.flush(&c.srv.metrics.packetsIn)
		if err != nil {
			return err
		}
		if err := c.await(func() bool { return len(c.out) <= maxOut }); err != nil {
			return err
		}
		if err := c.fill(total); err != nil {
			return err
		}
	}
}

// drain handles the whole packets in the buffer. total is the length of the
// packet that begins behind them, 0 when it is not known.
func (c *conn) drain() (total int, err error) {
	for {
		h, ok, err := wire.ParseHeader(c.in.unread(), c.version)
		if err != nil || !ok {
			return 0, err
		}
		if h.Total() > c.srv.cfg.MaxPacketSize {
			return 0, errTooLarge // [MQTT-3.2.2-15]
		}
		if h.Total() > c.in.w-c.in.r {
			return h.Total(), nil
		}
		c.read[h.Type]++
		if err := c.handle(h, c.in.unread()[h.Size:h.Total()]); err != nil {
			return 0, err
		}
		c.in.advance(h.Total())
		c.handled = true
	}
}

// await blocks the reader until ok, which is called with mu, or the end.
func (c *conn) await(ok func() bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.ending && !ok() {
		c.cond.Wait()
	}
	if c.ending {
		return errEnding
	}
	return nil
}

// fill reads at least one byte. The keep alive runs from the moment it begins
// to wait, so that a reader that was held up does not blame the client.
func (c *conn) fill(total int) error {
	if c.handled {
		c.seen, c.handled = time.Now(), false
	}
	wasLarge := len(c.in.buf) > smallBuffer
	c.in.reserve(total)
	if !wasLarge && len(c.in.buf) > smallBuffer {
		c.armed = false // it must become small again in time
	}
	for {
		if err := c.armRead(); err != nil {
			return err
		}
		n, err := c.nc.Read(c.in.buf[c.in.w:])
		if n > 0 {
			c.filled(n)
			return nil
		}
		if err != nil && !timedOut(err) {
			return err
		}
		if err != nil {
			if err := c.silence(); err != nil {
				return err
			}
		}
	}
}

func (c *conn) filled(n int) {
	c.in.w += n
	c.arrived = 0
	c.in.full = c.in.w == len(c.in.buf)
	c.srv.metrics.bytesIn.Add(float64(n))
	if n >= lifeSign && c.session != nil {
		c.handled = true
	}
	if c.mobile != nil && c.session != nil {
		c.follow()
	}
}

// follow takes note of a client that goes on from another address.
func (c *conn) follow() {
	to, moved := c.mobile.Moved()
	if !moved {
		return
	}
	c.session.Moved(to)
	c.srv.log.Info("client goes on from another address", "client", c.clientID, "came_from", c.remote, "remote", to)
}

// silence handles a read deadline: it is not set anew with each packet, so
// the time may not be over yet.
func (c *conn) silence() error {
	c.armed = false
	if c.lively != nil && c.session != nil {
		if at := c.lively.Alive(); at.After(c.seen) {
			c.seen = at
		}
	}
	quiet := time.Since(c.seen)
	if c.keepAlive > 0 && quiet >= c.keepAlive {
		return errKeepAlive
	}
	if quiet >= quietAfter {
		c.in.shrink()
	}
	return nil
}

// armRead sets the next moment to look at the time, if none is set.
func (c *conn) armRead() error {
	if c.armed {
		return nil
	}
	var at time.Time
	if c.keepAlive > 0 {
		at = c.seen.Add(c.keepAlive)
	}
	if quiet := time.Now().Add(quietAfter); len(c.in.buf) > smallBuffer && (at.IsZero() || quiet.Before(at)) {
		at = quiet
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return errEnding
	}
	c.armed = true
	return c.nc.SetReadDeadline(at)
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
