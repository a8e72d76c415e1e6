package mqtt

import (
	"bytes"
	"context"
	"errors"
	"math"
	"time"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

var (
	errFirstPacket = errors.New("first packet is not CONNECT")
	errTooLarge    = error(&broker.Error{Reason: broker.PacketTooLarge, Err: errors.New("packet is larger than the maximum")})
)

// neverExpires is the Session Expiry Interval of a session without end.
const neverExpires = math.MaxUint32

// handshake reads CONNECT, opens the session and queues CONNACK. Its error
// means that the connection ends; what the client is told is queued then.
func (c *conn) handshake() error {
	c.keepAlive = c.srv.cfg.ConnectTimeout
	p, err := c.readConnect()
	if err != nil {
		return c.refuse(p, err)
	}
	c.version, c.clientID, c.problems = p.Version, p.ClientID, p.ProblemInfo
	c.maxPacket = int(p.MaximumPacketSize)
	c.aliases.max = int(min(p.TopicAliasMaximum, c.srv.cfg.TopicAliasMax))
	c.expiry = p.SessionExpiry
	a := wire.Connack{}
	r := c.request(p)
	if !c.validWill(r.Will) {
		return c.refuse(p, errPayload)
	}
	if err := c.srv.cfg.Naming.Identify(r); err != nil {
		return c.refuse(p, err)
	}
	if p.HasAuthMethod {
		if err := c.authenticate(p, r, &a); err != nil {
			return c.refuse(p, err)
		}
	}
	if c.srv.cfg.DisconnectDenied && c.version != wire.V5 {
		c.onDenied = c.denied
	}
	c.setKeepAlive(p, &a)
	r.KeepAlive = time.Duration(p.KeepAlive) * time.Second
	s, present, err := c.open(r)
	if err != nil {
		return c.refuse(p, err)
	}
	c.session, c.clientID = s, s.ClientID()
	r.Will = nil // the session's; a re-authentication needs the rest
	c.welcome(p, &a, present)
	c.srv.metrics.accepted.Inc()
	s.Start()
	return nil
}

// readConnect waits for the CONNECT packet.
func (c *conn) readConnect() (*wire.Connect, error) {
	for total := 0; ; {
		h, ok, err := wire.ParseHeader(c.in.unread(), 0)
		if err != nil || h.Type != wire.CONNECT && c.in.w > c.in.r {
			return nil, errFirstPacket // [MQTT-3.1.0-1]
		}
		if ok && h.Total() > c.srv.cfg.MaxPacketSize {
			return presumed(c.in.unread()[h.Size:]), errTooLarge
		}
		if ok && h.Total() <= c.in.w-c.in.r {
			c.read[wire.CONNECT]++
			p, err := wire.ParseConnect(h, c.in.unread()[h.Size:h.Total()])
			c.in.advance(h.Total())
			c.handled = true
			return p, err
		}
		if ok {
			total = h.Total()
		}
		if err := c.fill(total); err != nil {
			return nil, err
		}
	}
}

// presumed is what can be said of a CONNECT that is too large to be read: its
// version, if it has arrived.
func presumed(body []byte) *wire.Connect {
	p := &wire.Connect{ProblemInfo: true}
	if bytes.HasPrefix(body, []byte("\x00\x04MQTT\x05")) {
		p.Version = wire.V5
	}
	return p
}

// open asks the core for the session.
func (c *conn) open(r *broker.ConnectRequest) (*broker.Session, bool, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.ConnectTimeout)
	defer cancel()
	return c.srv.broker.Connect(ctx, r)
}

// request says who connects, and what for.
func (c *conn) request(p *wire.Connect) *broker.ConnectRequest {
	credentials := broker.Credentials{
		Username: p.Username, HasUsername: p.HasUsername, Password: p.Password, HasPassword: p.HasPassword,
	}
	user, verified := identity(c.nc)
	if verified { // what the client calls itself does not count then
		credentials = broker.Credentials{Username: user, HasUsername: true}
	}
	return &broker.ConnectRequest{
		ClientID: p.ClientID, Credentials: credentials, Verified: verified, Local: isLocal(c.nc),
		Protocol: "mqtt", Version: p.Version.String(), Listener: c.srv.cfg.Name, RemoteAddr: c.remote,
		CleanStart: p.CleanStart, Expiry: requestedExpiry(p), ReceiveMaximum: p.ReceiveMaximum,
		Will: willOf(p.Will),
		Wake: c.wake, Kick: c.kick,
	}
}

// requestedExpiry: before version 5 a session that is not clean has no end; the
// core caps it.
func requestedExpiry(p *wire.Connect) time.Duration {
	if p.Version == wire.V5 {
		return expiryDuration(p.SessionExpiry)
	}
	if p.CleanStart {
		return 0
	}
	return broker.NeverExpires
}

func expiryDuration(seconds uint32) time.Duration {
	if seconds == neverExpires {
		return broker.NeverExpires
	}
	return time.Duration(seconds) * time.Second
}

func willOf(w *wire.Will) *broker.Will {
	if w == nil {
		return nil
	}
	m := &broker.Message{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain, Properties: w.Properties}
	if w.HasExpiry {
		m.Expires = max(1, int64(w.Expiry)*1000) // counted from publication; 0 would mean never
	}
	return &broker.Will{Message: m, Delay: time.Duration(w.Delay) * time.Second}
}

// setKeepAlive takes the client's keep alive or, where version 5 lets the
// server have the last word, the configured one [MQTT-3.1.2-21].
func (c *conn) setKeepAlive(p *wire.Connect, a *wire.Connack) {
	asked := time.Duration(p.KeepAlive) * time.Second
	if limit := c.srv.cfg.MaxKeepAlive; p.Version == wire.V5 && limit > 0 && (asked == 0 || asked > limit) {
		asked = limit
		a.HasKeepAlive, a.KeepAlive = true, uint16(limit/time.Second)
		p.KeepAlive = a.KeepAlive
	}
	c.keepAlive = asked + asked/2 // [MQTT-3.1.2-22]
	c.armed = false
}

// welcome queues CONNACK with everything that differs from the defaults.
func (c *conn) welcome(p *wire.Connect, a *wire.Connack, present bool) {
	cfg := &c.srv.cfg
	a.SessionPresent = present && p.Version != wire.V31 // there the flag is reserved
	a.MaximumPacketSize = uint32(cfg.MaxPacketSize)
	a.TopicAliasMaximum = cfg.TopicAliasMax
	if cfg.ReceiveMaximum != math.MaxUint16 {
		a.ReceiveMaximum = cfg.ReceiveMaximum
	}
	if p.ClientID == "" {
		a.AssignedClientID = c.clientID
	}
	if got := c.session.Expiry(); got != expiryDuration(p.SessionExpiry) {
		a.HasSessionExpiry, a.SessionExpiry = true, uint32(min(got/time.Second, neverExpires))
	}
	c.greet(a)
}

// greet queues CONNACK and lets writers start. If the connection has been
// kicked meanwhile, CONNACK still precedes its DISCONNECT [MQTT-3.14.0-1].
func (c *conn) greet(a *wire.Connack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	c.out = wire.AppendConnack(c.out, a, c.version)
	c.outSent[wire.CONNACK]++
	if !c.ending || c.end.tell {
		c.startWriter()
	}
}

// connackSize is the length of a CONNACK without its reason string.
const connackSize = 12

// refuse answers a CONNECT with err and returns err. It says nothing where the
// standard has no answer, or none is known to be understood.
func (c *conn) refuse(p *wire.Connect, err error) error {
	reason := broker.ReasonOf(err)
	var e *broker.Error
	if p == nil || p.Version == 0 || !errors.As(err, &e) {
		c.srv.metrics.abandoned.Inc()
		return err
	}
	c.srv.metrics.refused.Inc()
	c.version, c.clientID, c.problems = p.Version, p.ClientID, p.ProblemInfo
	a := &wire.Connack{Code: rows[reason].v3}
	if p.Version == wire.V5 {
		c.maxPacket = int(p.MaximumPacketSize)
		a = &wire.Connack{Code: rows[reason].connack, ReasonString: c.explain(clientError(e), connackSize)}
	}
	if p.Version != wire.V5 && a.Code == silent {
		return err
	}
	c.greet(a)
	return err
}

// clientError is the part of an error that is the client's business: faults of
// its packets, not why an authenticator said no.
func clientError(e *broker.Error) error {
	switch e.Reason {
	case broker.Malformed, broker.ProtocolError, broker.UnsupportedVersion, broker.InvalidClientID, broker.PacketTooLarge, broker.BadAuthMethod:
		return e
	}
	return nil
}
