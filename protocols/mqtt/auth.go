package mqtt

import (
	"bytes"
	"context"
	"errors"
	"time"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

var (
	errAuth        = violation("AUTH without an authentication method in CONNECT")
	errAuthMethod  = violation("AUTH with another authentication method than CONNECT")
	errAuthCode    = violation("AUTH with a code that does not belong here")
	errAuthOther   = violation("neither AUTH nor DISCONNECT during the authentication")
	errAuthTimeout = errors.New("authentication was not finished in time")
	errAuthSize    = &broker.Error{Reason: broker.ImplementationError, Err: errors.New("authentication data is larger than the client takes")}
)

// authentication is what a connection with an authentication method keeps of
// it: MQTT 5.0 section 4.12. Connections without one have a nil pointer.
type authentication struct {
	method  string
	request *broker.ConnectRequest // of CONNECT, without the will

	// Covered by the connection's mu, of a re-authentication:
	running bool // it began and is not decided
	asking  bool // step runs, and the client has to wait for the answer
	expire  *time.Timer
	// exchange is owned by step, of which one at a time runs.
	exchange *broker.Exchange
}

// busy reports whether a goroutine runs that close must wait for. Caller holds
// the connection's mu.
func (a *authentication) busy() bool { return a != nil && a.asking }

// stop ends what a re-authentication has left. Caller holds the connection's mu.
func (a *authentication) stop() {
	if a != nil && a.expire != nil {
		a.expire.Stop()
	}
}

// authenticate lets client and core talk until the core knows who the client
// is, and puts the last word into a. The whole of it has ConnectTimeout.
func (c *conn) authenticate(p *wire.Connect, r *broker.ConnectRequest, a *wire.Connack) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.ConnectTimeout)
	defer cancel()
	x, err := c.srv.broker.BeginExchange(ctx, p.AuthMethod, r)
	if err != nil {
		return err
	}
	c.auth = &authentication{method: p.AuthMethod, request: r}
	c.seen, c.handled = time.Now(), false // the time of readAuth begins
	reply, done, err := x.Step(ctx, p.AuthData)
	for ; err == nil && !done; reply, done, err = x.Step(ctx, p.AuthData) {
		if err := c.sayAuth(wire.CodeContinue, reply); err != nil { // [MQTT-4.12.0-2]
			return err
		}
		if p.AuthData, err = c.readAuth(); err != nil {
			return err
		}
	}
	if err != nil {
		return err // [MQTT-4.12.0-4]
	}
	c.handled = true
	a.HasAuthMethod, a.AuthMethod, a.AuthData = true, p.AuthMethod, reply // [MQTT-4.12.0-5]
	if !c.takes(connackRest + len(p.AuthMethod) + len(reply)) {
		return errAuthSize
	}
	return nil
}

// connackRest is an upper bound for a CONNACK without its authentication
// method and data: fixed header 5, flags and code 2, property length 4, what
// Connack may hold 22, an assigned client identifier 34, lengths of the two 6.
const connackRest = 73

// takes reports whether the client takes packets of n bytes [MQTT-3.1.2-24].
func (c *conn) takes(n int) bool { return c.maxPacket == 0 || n <= c.maxPacket }

// sayAuth writes an AUTH. There is no writer yet: CONNACK did not come.
func (c *conn) sayAuth(code byte, data []byte) error {
	w := &writeBuffer{}
	w.out = wire.AppendAuth(nil, code, c.auth.method, data)
	if !c.takes(len(w.out)) {
		return errAuthSize
	}
	w.sent[wire.AUTH]++
	return c.flush(w, nil)
}

// readAuth waits for the next AUTH of the client and returns its data. Its time
// began with CONNECT: the packets of the exchange do not count as signs of life.
func (c *conn) readAuth() ([]byte, error) {
	for {
		h, ok, err := wire.ParseHeader(c.in.unread(), c.version)
		if err != nil {
			return nil, err
		}
		if ok && h.Type != wire.AUTH && h.Type != wire.DISCONNECT {
			return nil, errAuthOther // [MQTT-3.1.2-30]
		}
		total := 0
		if ok {
			total = h.Total()
		}
		if total > c.srv.cfg.MaxPacketSize {
			return nil, errTooLarge
		}
		if ok && total <= c.in.w-c.in.r {
			c.read[h.Type]++
			data, err := c.nextAuth(h, c.in.unread()[h.Size:total])
			c.in.advance(total)
			return data, err
		}
		err = c.fill(total)
		if errors.Is(err, errKeepAlive) {
			return nil, errAuthTimeout
		}
		if err != nil {
			return nil, err
		}
	}
}

// nextAuth takes an AUTH, or the DISCONNECT of a client that gives up.
func (c *conn) nextAuth(h wire.Header, body []byte) ([]byte, error) {
	if h.Type == wire.DISCONNECT {
		return nil, c.disconnect(body)
	}
	p, err := c.parseAuth(body)
	if err != nil {
		return nil, err
	}
	if p.Code != wire.CodeContinue {
		return nil, errAuthCode // [MQTT-4.12.0-3]
	}
	return bytes.Clone(p.AuthData), nil
}

func (c *conn) parseAuth(body []byte) (wire.Auth, error) {
	p, err := wire.ParseAuth(body)
	switch {
	case err != nil:
		return p, err
	case c.auth == nil:
		return p, errAuth // [MQTT-4.12.0-7]
	case p.AuthMethod != c.auth.method:
		return p, errAuthMethod // [MQTT-4.12.0-5, MQTT-4.12.1-1]
	}
	return p, nil
}

// reauthenticate handles an AUTH of a connected client. Everything else goes on
// while the core thinks about it. A re-authentication that is not finished
// within ConnectTimeout has failed.
func (c *conn) reauthenticate(body []byte) error {
	p, err := c.parseAuth(body)
	if err != nil {
		return err
	}
	first := p.Code == wire.CodeReauthenticate
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.auth
	if c.ending {
		return errEnding
	}
	if p.Code == wire.CodeSuccess || first == a.running || a.asking {
		return errAuthCode
	}
	if first {
		a.expire = time.AfterFunc(c.srv.cfg.ConnectTimeout, func() { c.deny(broker.NotAuthorized, errAuthTimeout) })
	}
	a.running, a.asking = true, true
	go c.step(first, bytes.Clone(p.AuthData))
	return nil
}

// step asks the core about what the client said, and answers. close waits for it.
func (c *conn) step(first bool, data []byte) {
	answered := false
	defer func() {
		if !answered {
			c.mu.Lock()
			c.asked()
			c.mu.Unlock()
		}
	}()
	defer c.recovered()
	reply, done, err := c.ask(first, data)
	if err != nil {
		c.deny(broker.ReasonOf(err), err)
		return
	}
	code := byte(wire.CodeContinue)
	if done {
		code = wire.CodeSuccess
	}
	out := wire.AppendAuth(nil, code, c.auth.method, reply)
	if !c.takes(len(out)) {
		c.deny(errAuthSize.Reason, errAuthSize)
		return
	}
	c.answerAuth(out, done)
	answered = true
}

// asked lets the client have its next turn. Caller holds mu.
func (c *conn) asked() {
	c.auth.asking = false
	c.cond.Broadcast()
}

// answerAuth queues the answer. From then on the client may send the next AUTH,
// so the step is over before the writer can have written it.
func (c *conn) answerAuth(out []byte, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked()
	if done {
		c.auth.stop()
		c.auth.running, c.auth.exchange = false, nil
	}
	if c.ending {
		return
	}
	c.out = append(c.out, out...)
	c.outSent[wire.AUTH]++
	c.startWriter()
}

func (c *conn) ask(first bool, data []byte) (reply []byte, done bool, err error) {
	if first {
		c.auth.exchange, err = c.session.BeginExchange(c.ctx, c.auth.method, c.auth.request)
		if err != nil {
			return nil, false, err
		}
	}
	return c.auth.exchange.Step(c.ctx, data)
}

// deny ends the connection of a client whose re-authentication failed
// [MQTT-4.12.1-2]. Why is not the client's business.
func (c *conn) deny(r broker.Reason, err error) {
	c.srv.log.Debug("re-authentication failed, the connection ends", "client", c.clientID, "remote", c.remote, "err", err)
	c.finish(ending{reason: r, tell: true})
}
