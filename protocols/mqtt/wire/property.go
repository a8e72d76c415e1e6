package wire

import (
	"bytes"

	"gantry/broker"
)

// Property identifiers (section 2.2.2.2).
const (
	propPayloadFormat     = 1
	propMessageExpiry     = 2
	propContentType       = 3
	propResponseTopic     = 8
	propCorrelationData   = 9
	propSubscriptionID    = 11
	propSessionExpiry     = 17
	propAssignedClientID  = 18
	propServerKeepAlive   = 19
	propAuthMethod        = 21
	propAuthData          = 22
	propRequestProblem    = 23
	propWillDelay         = 24
	propRequestResponse   = 25
	propReasonString      = 31
	propReceiveMaximum    = 33
	propTopicAliasMaximum = 34
	propTopicAlias        = 35
	propUser              = 38
	propMaximumPacketSize = 39
	propSharedAvailable   = 42
)

// kind is the data type of a property value.
type kind uint8

const (
	kindNone kind = iota
	kindByte
	kindUint16
	kindUint32
	kindVarint
	kindText
	kindBinary
	kindPair
)

// propKinds holds the type of each property that a client may send.
var propKinds = [64]kind{
	propPayloadFormat: kindByte, propMessageExpiry: kindUint32, propContentType: kindText,
	propResponseTopic: kindText, propCorrelationData: kindBinary, propSubscriptionID: kindVarint,
	propSessionExpiry: kindUint32, propAuthMethod: kindText, propAuthData: kindBinary,
	propRequestProblem: kindByte, propWillDelay: kindUint32, propRequestResponse: kindByte,
	propReasonString: kindText, propReceiveMaximum: kindUint16, propTopicAliasMaximum: kindUint16,
	propTopicAlias: kindUint16, propUser: kindPair, propMaximumPacketSize: kindUint32,
}

// propSet is a set of property identifiers.
type propSet uint64

func props(ids ...int) propSet {
	var s propSet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// What a client may send, by packet (table 2-4).
var (
	messageProps = props(propPayloadFormat, propMessageExpiry, propContentType, propResponseTopic, propCorrelationData, propUser)
	publishProps = messageProps | props(propTopicAlias, propSubscriptionID)
	willProps    = messageProps | props(propWillDelay)
	connectProps = props(propSessionExpiry, propReceiveMaximum, propMaximumPacketSize, propTopicAliasMaximum,
		propRequestResponse, propRequestProblem, propUser, propAuthMethod, propAuthData)
	ackProps         = props(propReasonString, propUser)
	subscribeProps   = props(propSubscriptionID, propUser)
	unsubscribeProps = props(propUser)
	disconnectProps  = props(propSessionExpiry, propReasonString, propUser)
	authProps        = props(propAuthMethod, propAuthData, propReasonString, propUser)
)

var (
	errPropLength    = malformed("property length is larger than the packet")
	errPropUnknown   = malformed("property is not one of this packet")
	errPropTwice     = violation("property occurs twice")
	errPropFlag      = violation("property value is neither 0 nor 1")
	errPropZero      = violation("property value is 0")
	errPayloadFormat = malformed("payload format indicator is neither 0 nor 1")
)

// property is one decoded property. Which fields count depends on its type.
type property struct {
	id  int
	n   uint32
	b   []byte // text or binary; the name of a pair
	val []byte // the value of a pair
}

// propReader walks through the properties of one packet.
type propReader struct {
	cursor
	allowed propSet
	seen    propSet
}

// properties splits the property block off the cursor. Version 5 only.
func (c *cursor) properties(allowed propSet) propReader {
	n := int(c.varint())
	if c.err == nil && n > len(c.b) {
		c.fail(errPropLength)
	}
	return propReader{cursor: cursor{b: c.take(n), err: c.err}, allowed: allowed}
}

// next reads one property. It returns false at the end and after an error.
func (r *propReader) next(p *property) bool {
	if r.err != nil || len(r.b) == 0 {
		return false
	}
	id := r.varint()
	if r.err != nil || id >= 64 || r.allowed&(1<<id) == 0 {
		r.fail(errPropUnknown)
		return false
	}
	if r.seen&(1<<id) != 0 && id != propUser {
		r.fail(errPropTwice)
		return false
	}
	r.seen |= 1 << id
	*p = property{id: int(id)}
	r.value(p)
	return r.err == nil
}

func (r *propReader) value(p *property) {
	switch propKinds[p.id] {
	case kindByte:
		p.n = uint32(r.uint8())
	case kindUint16:
		p.n = uint32(r.uint16())
	case kindUint32:
		p.n = r.uint32()
	case kindVarint:
		p.n = r.varint()
	case kindText:
		p.b = r.text()
	case kindBinary:
		p.b = r.binary()
	case kindPair:
		p.b, p.val = r.text(), r.text()
	default:
		r.fail(errPropUnknown)
	}
}

// skip checks all properties and keeps none.
func (r *propReader) skip() error {
	var p property
	for r.next(&p) {
	}
	return r.err
}

// flag reads a byte that must be 0 or 1.
func (r *propReader) flag(p *property) bool {
	if p.n > 1 {
		r.fail(errPropFlag)
	}
	return p.n == 1
}

// nonZero fails when the value is 0.
func (r *propReader) nonZero(p *property) uint32 {
	if p.n == 0 {
		r.fail(errPropZero)
	}
	return p.n
}

// message stores a property that belongs to an application message. It
// allocates *dst with the first one.
func (r *propReader) message(p *property, dst **broker.Properties) {
	if *dst == nil {
		*dst = &broker.Properties{}
	}
	m := *dst
	switch p.id {
	case propPayloadFormat:
		if p.n > 1 {
			r.fail(errPayloadFormat)
			return
		}
		m.PayloadFormat = broker.FormatBytes + broker.PayloadFormat(p.n)
	case propContentType:
		m.ContentType, m.EmptyContentType = string(p.b), len(p.b) == 0
	case propResponseTopic:
		if err := checkTopicName(p.b); err != nil {
			r.fail(err)
			return
		}
		m.ResponseTopic, m.EmptyResponseTopic = string(p.b), len(p.b) == 0
	case propCorrelationData:
		m.CorrelationData = bytes.Clone(p.b)
	case propUser:
		m.User = append(m.User, broker.UserProperty{Key: string(p.b), Value: string(p.val)})
	}
}

// messagePropsSize is the encoded size of the properties that belong to the
// message itself; ok is false when one of them is too long for MQTT.
func messagePropsSize(m *broker.Properties) (n int, ok bool) {
	ok = true
	text := func(l int) int {
		if l > 65535 {
			ok = false
		}
		return l + 2
	}
	if m.PayloadFormat != broker.FormatAbsent {
		n += 2
	}
	if m.HasContentType() {
		n += 1 + text(len(m.ContentType))
	}
	if m.HasResponseTopic() {
		n += 1 + text(len(m.ResponseTopic))
	}
	if m.CorrelationData != nil {
		n += 1 + text(len(m.CorrelationData))
	}
	for i := range m.User {
		n += 1 + text(len(m.User[i].Key)) + text(len(m.User[i].Value))
	}
	return n, ok
}

func appendMessageProps(dst []byte, m *broker.Properties) []byte {
	if m.PayloadFormat != broker.FormatAbsent {
		dst = append(dst, propPayloadFormat, byte(m.PayloadFormat-broker.FormatBytes))
	}
	if m.HasContentType() {
		dst = appendString(append(dst, propContentType), m.ContentType)
	}
	if m.HasResponseTopic() {
		dst = appendString(append(dst, propResponseTopic), m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		dst = appendString(append(dst, propCorrelationData), m.CorrelationData)
	}
	for i := range m.User {
		dst = appendString(append(dst, propUser), m.User[i].Key)
		dst = appendString(dst, m.User[i].Value)
	}
	return dst
}
