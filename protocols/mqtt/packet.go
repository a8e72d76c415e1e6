package mqtt

import (
	"errors"
	"time"
	"unicode/utf8"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

func violation(text string) error {
	return &broker.Error{Reason: broker.ProtocolError, Err: errors.New(text)}
}

var (
	errSecondConnect = violation("second CONNECT")
	errDirection     = violation("packet type is not for a server")
	errExpiry        = violation("session expiry in DISCONNECT for a session that had none")
	errQuota         = error(&broker.Error{Reason: broker.ReceiveMaximumExceeded, Err: errors.New("more unacknowledged publishes than the receive maximum")})
	errPayload       = error(&broker.Error{Reason: broker.InvalidPayload, Err: errors.New("payload is declared as UTF-8 and is not")})
)

// handle acts on one packet. body is valid until it returns.
func (c *conn) handle(h wire.Header, body []byte) error {
	switch h.Type {
	case wire.PUBLISH:
		return c.publish(h, body)
	case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
		return c.acknowledged(h.Type, body)
	case wire.PINGREQ:
		if err := wire.ParseEmpty(body); err != nil {
			return err
		}
		c.send(wire.PINGRESP, wire.AppendPingresp)
		return nil
	case wire.SUBSCRIBE:
		return c.subscribe(body)
	case wire.UNSUBSCRIBE:
		return c.unsubscribe(body)
	case wire.DISCONNECT:
		return c.disconnect(body)
	case wire.CONNECT:
		return errSecondConnect // [MQTT-3.1.0-2]
	case wire.AUTH:
		return c.reauthenticate(body)
	}
	return errDirection
}

func (c *conn) publish(h wire.Header, body []byte) error {
	var p wire.Publish
	if err := p.Parse(h.Flags, body, c.version); err != nil {
		return err
	}
	topic, err := c.topics.resolve(&p, int(c.srv.cfg.TopicAliasMax))
	if err != nil {
		return err
	}
	if p.QoS > 0 && c.version == wire.V5 && !c.charge(&p) {
		return errQuota
	}
	if c.arrived == 0 {
		c.arrived = time.Now().UnixMilli()
	}
	m := c.message(h, &p)
	m.Time = c.arrived
	m.Topic, m.QoS, m.Retain, m.Properties = topic, p.QoS, p.Retain, p.Properties
	if p.HasExpiry {
		m.Expires = time.Now().UnixMilli() + int64(p.Expiry)*1000
	}
	if p.QoS == 0 {
		return c.publishQoS0(m)
	}
	return c.publishAcked(m, p.PacketID)
}

// message makes the message that the core will own. A large payload keeps the
// receive buffer that it is in; any other is copied out of it.
func (c *conn) message(h wire.Header, p *wire.Publish) *broker.Message {
	if c.in.take(h.Total(), len(p.Payload)) {
		return &broker.Message{Payload: p.Payload}
	}
	return newMessage(p.Payload)
}

func (c *conn) publishQoS0(m *broker.Message) error {
	if !c.validPayload(m) {
		return errPayload
	}
	c.session.Publish(c.ctx, m, 0, c.onDenied)
	return nil
}

// denied ends the connection of a client that may not publish what it did and
// cannot be told otherwise. The core calls it with every outcome.
func (c *conn) denied(r broker.Reason) {
	if !r.OK() && r != broker.Closed && !rows[r].resend {
		c.finish(ending{reason: r, tell: true})
	}
}

func (c *conn) publishAcked(m *broker.Message, id uint16) error {
	kind, core := wire.PUBACK, uint16(0)
	if m.QoS == 2 {
		kind, core = wire.PUBREC, id
	}
	a := c.expect(kind, id)
	if a == nil {
		return errEnding
	}
	if !c.validPayload(m) {
		a.settle(broker.InvalidPayload)
		return nil
	}
	c.session.Publish(c.ctx, m, core, a.done)
	return nil
}

// validWill is validPayload for the will of a CONNECT.
func (c *conn) validWill(w *broker.Will) bool { return w == nil || c.validPayload(w.Message) }

func (c *conn) validPayload(m *broker.Message) bool {
	return !c.srv.cfg.CheckPayloadFormat || m.Properties == nil ||
		m.Properties.PayloadFormat != broker.FormatUTF8 || utf8.Valid(m.Payload)
}

// acknowledged handles the packets that complete an exchange.
func (c *conn) acknowledged(t wire.Type, body []byte) error {
	p, err := wire.ParseAck(t, body, c.version)
	if err != nil {
		return err
	}
	switch {
	case t == wire.PUBACK || t == wire.PUBCOMP:
		c.session.Acked(p.PacketID)
		return nil
	case t == wire.PUBREC && p.Failed():
		c.session.Received(p.PacketID, true, nil)
		return nil
	}
	kind := wire.PUBCOMP
	if t == wire.PUBREC {
		kind = wire.PUBREL
	}
	a := c.expect(kind, p.PacketID)
	if a == nil {
		return errEnding
	}
	if t == wire.PUBREC {
		c.session.Received(p.PacketID, false, a.done)
		return nil
	}
	c.session.Release(p.PacketID, a.done)
	return nil
}

func (c *conn) subscribe(body []byte) error {
	p, err := wire.ParseSubscribe(body, c.version)
	if err != nil {
		return err
	}
	if err := c.beginRequest(); err != nil {
		return err
	}
	c.session.Subscribe(p.Filters, func(reasons []broker.Reason, granted []broker.QoS) {
		if reasons[0] == broker.Closed {
			return // another connection owns the session, and Kick follows
		}
		codes := make([]byte, len(reasons))
		for i, r := range reasons {
			codes[i] = subscribeCode(r, granted[i], c.version)
		}
		c.endRequest(wire.SUBACK, func(out []byte) []byte { return wire.AppendSuback(out, p.PacketID, codes, c.version) })
	})
	return nil
}

func (c *conn) unsubscribe(body []byte) error {
	p, err := wire.ParseUnsubscribe(body, c.version)
	if err != nil {
		return err
	}
	if err := c.beginRequest(); err != nil {
		return err
	}
	c.session.Unsubscribe(p.Filters, func(reasons []broker.Reason) {
		if reasons[0] == broker.Closed {
			return
		}
		codes := make([]byte, len(reasons))
		for i, r := range reasons {
			codes[i] = rows[r].suback
		}
		c.endRequest(wire.UNSUBACK, func(out []byte) []byte { return wire.AppendUnsuback(out, p.PacketID, codes, c.version) })
	})
	return nil
}

// beginRequest counts a request to the core and waits while too many are there.
func (c *conn) beginRequest() error {
	return c.await(func() bool {
		if c.requests == maxRequests {
			return false
		}
		c.requests++
		return true
	})
}

func (c *conn) endRequest(t wire.Type, answer func([]byte) []byte) {
	c.mu.Lock()
	c.requests--
	c.cond.Broadcast()
	c.mu.Unlock()
	c.send(t, answer)
}

// disconnect is the client's way to end the connection [MQTT-3.14.4-3].
func (c *conn) disconnect(body []byte) error {
	d, err := wire.ParseDisconnect(body, c.version)
	if err != nil {
		return err
	}
	bye := &goodbye{ending{reason: broker.Success, keepWill: d.Code == wire.CodeSuccess}}
	if d.HasSessionExpiry {
		if c.expiry == 0 && d.SessionExpiry != 0 {
			return errExpiry // section 3.14.2.2.2
		}
		expiry := expiryDuration(d.SessionExpiry)
		bye.expiry = &expiry
	}
	return bye
}
