package wire

import (
	"bytes"

	"gantry/broker"
)

// Bits of the Connect Flags (section 3.1.2.3).
const (
	connectReserved = 0x01
	connectClean    = 0x02
	connectWill     = 0x04
	connectWillQoS  = 0x18
	connectRetain   = 0x20
	connectPassword = 0x40
	connectUsername = 0x80
)

var (
	errProtocolName = malformed("protocol name is neither MQTT nor MQIsdp")
	errVersion      = error(&broker.Error{Reason: broker.UnsupportedVersion, Err: message("protocol level is not served")})
	errConnectFlag  = malformed("reserved connect flag is set")
	errWillFlags    = malformed("will QoS or will retain without will")
	errWillQoS      = malformed("will QoS 3")
	errPassword     = malformed("password without user name")
	errEmptyID      = error(&broker.Error{Reason: broker.InvalidClientID, Err: message("empty client identifier needs clean session")})
	errAuthData     = violation("authentication data without authentication method")
)

// Connect is a CONNECT packet.
type Connect struct {
	Version     Version // set as soon as it is known, also beside an error
	CleanStart  bool
	KeepAlive   uint16 // seconds, 0 = none
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Will        *Will

	// Version 5; in earlier versions these hold the defaults.
	SessionExpiry     uint32 // seconds, 0xFFFFFFFF = never
	ReceiveMaximum    uint16 // 65535 when absent
	MaximumPacketSize uint32 // 0 = no limit
	TopicAliasMaximum uint16
	ProblemInfo       bool // Request Problem Information, true when absent
	AuthMethod        string
	HasAuthMethod     bool
	AuthData          []byte // nil when absent
}

// Will is the will of a CONNECT.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        broker.QoS
	Retain     bool
	Delay      uint32 // Will Delay Interval, seconds
	HasExpiry  bool
	Expiry     uint32 // Message Expiry Interval, seconds, counted from publication
	Properties *broker.Properties
}

// ParseConnect reads a CONNECT. Beside an error the returned packet is valid as
// far as it was read: its Version tells in which form to answer. For an
// unknown protocol level above 5 that is V5, below it V311.
func ParseConnect(h Header, body []byte) (*Connect, error) {
	p := &Connect{ReceiveMaximum: 65535, ProblemInfo: true}
	c := cursor{b: body}
	if err := p.protocol(&c); err != nil {
		return p, err
	}
	flags := c.uint8()
	p.KeepAlive = c.uint16()
	if c.err != nil {
		return p, c.err
	}
	if err := p.checkFlags(flags, h); err != nil {
		return p, err
	}
	p.CleanStart = flags&connectClean != 0
	if p.Version == V5 {
		p.parseProps(&c)
	}
	p.ClientID = string(c.text())
	if flags&connectWill != 0 {
		p.parseWill(&c, flags)
	}
	if flags&connectUsername != 0 {
		p.HasUsername, p.Username = true, string(c.text())
	}
	if flags&connectPassword != 0 {
		p.HasPassword, p.Password = true, bytes.Clone(c.binary())
	}
	if err := c.end(); err != nil {
		return p, err
	}
	return p, p.checkClientID()
}

// protocol reads protocol name and level [MQTT-3.1.2-1, MQTT-3.1.2-2].
func (p *Connect) protocol(c *cursor) error {
	name, level := c.text(), Version(c.uint8())
	if c.err != nil {
		return c.err
	}
	switch {
	case string(name) == "MQTT" && (level == V311 || level == V5), string(name) == "MQIsdp" && level == V31:
		p.Version = level
		return nil
	case string(name) != "MQTT" && string(name) != "MQIsdp":
		return errProtocolName
	}
	p.Version = V311
	if level > V5 {
		p.Version = V5
	}
	return errVersion
}

func (p *Connect) checkFlags(flags byte, h Header) error {
	will := flags&connectWill != 0
	switch {
	case p.Version == V5 && h.Overlong():
		return errOverlong
	case flags&connectReserved != 0 && p.Version != V31:
		return errConnectFlag // [MQTT-3.1.2-3]
	case !will && flags&(connectWillQoS|connectRetain) != 0:
		return errWillFlags // [MQTT-3.1.2-11, MQTT-3.1.2-13]
	case flags&connectWillQoS == connectWillQoS:
		return errWillQoS // [MQTT-3.1.2-12]
	case p.Version != V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		return errPassword // 3.1.1 [MQTT-3.1.2-22]
	}
	return nil
}

// checkClientID: before version 5 an empty client identifier needs a clean
// session (3.1.1 [MQTT-3.1.3-8]), and 3.1 does not know it at all.
func (p *Connect) checkClientID() error {
	if p.ClientID == "" && (p.Version == V31 || p.Version == V311 && !p.CleanStart) {
		return errEmptyID
	}
	return nil
}

func (p *Connect) parseProps(c *cursor) {
	r := c.properties(connectProps)
	var prop property
	for r.next(&prop) {
		switch prop.id {
		case propSessionExpiry:
			p.SessionExpiry = prop.n
		case propReceiveMaximum:
			p.ReceiveMaximum = uint16(r.nonZero(&prop))
		case propMaximumPacketSize:
			p.MaximumPacketSize = r.nonZero(&prop)
		case propTopicAliasMaximum:
			p.TopicAliasMaximum = uint16(prop.n)
		case propRequestResponse:
			r.flag(&prop) // a server may answer nothing [section 3.1.2.11.6]
		case propRequestProblem:
			p.ProblemInfo = r.flag(&prop)
		case propAuthMethod:
			p.HasAuthMethod, p.AuthMethod = true, string(prop.b)
		case propAuthData:
			p.AuthData = bytes.Clone(prop.b)
		}
	}
	if r.err == nil && r.seen&props(propAuthData) != 0 && !p.HasAuthMethod {
		r.fail(errAuthData)
	}
	if r.err != nil {
		c.fail(r.err)
	}
}

func (p *Connect) parseWill(c *cursor, flags byte) {
	w := &Will{QoS: broker.QoS(flags & connectWillQoS >> 3), Retain: flags&connectRetain != 0}
	if p.Version == V5 {
		w.parseProps(c)
	}
	topic := c.text()
	w.Topic, w.Payload = string(topic), bytes.Clone(c.binary())
	if c.err != nil {
		return
	}
	if len(topic) == 0 {
		c.fail(errNoTopic)
	}
	if err := checkTopicName(topic); err != nil {
		c.fail(err)
	}
	p.Will = w
}

func (w *Will) parseProps(c *cursor) {
	r := c.properties(willProps)
	var prop property
	for r.next(&prop) {
		switch prop.id {
		case propWillDelay:
			w.Delay = prop.n
		case propMessageExpiry:
			w.HasExpiry, w.Expiry = true, prop.n
		default:
			r.message(&prop, &w.Properties)
		}
	}
	if r.err != nil {
		c.fail(r.err)
	}
}
