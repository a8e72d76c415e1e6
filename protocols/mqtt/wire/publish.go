package wire

import (
	"math"

	"gantry/broker"
)

var (
	errSubIDInbound = violation("subscription identifier from a client")
	errNoAlias      = violation("empty topic name without topic alias")
	errAliasZero    = error(&broker.Error{Reason: broker.InvalidAlias, Err: message("topic alias 0")})
)

// Publish is a PUBLISH packet of a client.
type Publish struct {
	Topic    []byte // aliases the body; may be empty with an alias
	Payload  []byte // aliases the body
	QoS      broker.QoS
	Retain   bool
	Dup      bool
	PacketID uint16 // 0 with QoS 0

	Alias      uint16 // Topic Alias, 0 = none
	HasExpiry  bool
	Expiry     uint32 // Message Expiry Interval in seconds
	Properties *broker.Properties
}

// Parse fills p from the flags of a checked header and the packet body.
func (p *Publish) Parse(flags byte, body []byte, v Version) error {
	*p = Publish{
		QoS:    broker.QoS(flags & flagQoS >> 1),
		Retain: flags&flagRetain != 0,
		Dup:    flags&flagDup != 0,
	}
	c := cursor{b: body}
	p.Topic = c.text()
	if p.QoS > 0 {
		p.PacketID = c.packetID()
	}
	if v == V5 && c.err == nil {
		p.parseProps(&c)
	}
	if c.err != nil {
		return c.err
	}
	p.Payload = c.b
	return p.checkTopic(v)
}

func (p *Publish) checkTopic(v Version) error {
	if len(p.Topic) > 0 {
		return checkTopicName(p.Topic)
	}
	if v != V5 {
		return errNoTopic
	}
	if p.Alias == 0 {
		return errNoAlias
	}
	return nil
}

func (p *Publish) parseProps(c *cursor) {
	r := c.properties(publishProps)
	var prop property
	for r.next(&prop) {
		switch prop.id {
		case propTopicAlias:
			p.Alias = uint16(prop.n)
			if prop.n == 0 {
				r.fail(errAliasZero)
			}
		case propMessageExpiry:
			p.HasExpiry, p.Expiry = true, prop.n
		case propSubscriptionID:
			r.fail(errSubIDInbound) // [MQTT-3.3.4-6]
		default:
			r.message(&prop, &p.Properties)
		}
	}
	if r.err != nil {
		c.fail(r.err)
	}
}

// Outgoing is a PUBLISH to a client, encoded straight from the shared message.
// Set the fields, call Measure, then one of the append methods.
type Outgoing struct {
	Message         *broker.Message
	Topic           string // as the client knows it; empty = that of the message
	Version         Version
	QoS             broker.QoS
	Retain          bool
	Dup             bool
	PacketID        uint16   // used with QoS 1 and 2
	SubscriptionIDs []uint32 // version 5
	Alias           uint16   // version 5; 0 = none
	OmitTopic       bool     // the client knows the alias already
	Now             int64    // Unix milliseconds, for the Message Expiry Interval

	props, remaining int
}

// TopicName is the topic that the packet has.
func (o *Outgoing) TopicName() string {
	if o.Topic == "" {
		return o.Message.Topic
	}
	return o.Topic
}

// TooLong is what Measure returns for a message that MQTT cannot express.
const TooLong = math.MaxInt

// Measure returns the length of the whole packet in bytes, or TooLong.
func (o *Outgoing) Measure() int {
	topic := len(o.TopicName())
	if topic > 65535 {
		return TooLong
	}
	o.remaining = 2 + topic + len(o.Message.Payload)
	if o.OmitTopic {
		o.remaining -= topic
	}
	if o.QoS > 0 {
		o.remaining += 2
	}
	if o.Version == V5 {
		if !o.measureProps() {
			return TooLong
		}
		o.remaining += varintSize(uint32(o.props)) + o.props
	}
	if o.remaining > MaxRemaining {
		return TooLong
	}
	return 1 + varintSize(uint32(o.remaining)) + o.remaining
}

func (o *Outgoing) measureProps() bool {
	o.props = 0
	ok := true
	if o.Message.Properties != nil {
		o.props, ok = messagePropsSize(o.Message.Properties)
	}
	if o.Message.Expires != 0 {
		o.props += 5
	}
	if o.Alias != 0 {
		o.props += 3
	}
	for _, id := range o.SubscriptionIDs {
		o.props += 1 + varintSize(id)
	}
	return ok && o.props <= MaxRemaining
}

// Append appends the whole packet.
func (o *Outgoing) Append(dst []byte) []byte {
	return append(o.AppendHead(dst), o.Message.Payload...)
}

// AppendHead appends everything before the payload.
func (o *Outgoing) AppendHead(dst []byte) []byte {
	first := byte(PUBLISH)<<4 | byte(o.QoS)<<1
	if o.Retain {
		first |= flagRetain
	}
	if o.Dup && o.QoS > 0 {
		first |= flagDup
	}
	dst = appendHeader(dst, first, o.remaining)
	if o.OmitTopic {
		dst = append(dst, 0, 0)
	} else {
		dst = appendString(dst, o.TopicName())
	}
	if o.QoS > 0 {
		dst = appendUint16(dst, o.PacketID)
	}
	if o.Version != V5 {
		return dst
	}
	return o.appendProps(appendVarint(dst, uint32(o.props)))
}

func (o *Outgoing) appendProps(dst []byte) []byte {
	if o.props == 0 {
		return dst
	}
	if o.Message.Properties != nil {
		dst = appendMessageProps(dst, o.Message.Properties)
	}
	if o.Message.Expires != 0 {
		dst = appendUint32(append(dst, propMessageExpiry), o.remainingSeconds())
	}
	if o.Alias != 0 {
		dst = appendUint16(append(dst, propTopicAlias), o.Alias)
	}
	for _, id := range o.SubscriptionIDs {
		dst = appendVarint(append(dst, propSubscriptionID), id)
	}
	return dst
}

// remainingSeconds is the interval that was received minus the whole seconds
// the message has waited [MQTT-3.3.2-6]. Now may be a little older than a
// message that came meanwhile.
func (o *Outgoing) remainingSeconds() uint32 {
	millis := o.Message.Expires - max(o.Now, o.Message.Time)
	return uint32(min(max((millis+999)/1000, 0), math.MaxUint32))
}
