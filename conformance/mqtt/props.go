package mqtt

import (
	"errors"
	"fmt"
	"slices"
)

// Property identifiers (MQTT 5.0 section 2.2.2.2).
const (
	pPayloadFormat     byte = 0x01
	pMessageExpiry     byte = 0x02
	pContentType       byte = 0x03
	pResponseTopic     byte = 0x08
	pCorrelationData   byte = 0x09
	pSubscriptionID    byte = 0x0B
	pSessionExpiry     byte = 0x11
	pAssignedClientID  byte = 0x12
	pServerKeepAlive   byte = 0x13
	pAuthMethod        byte = 0x15
	pAuthData          byte = 0x16
	pRequestProblem    byte = 0x17
	pWillDelay         byte = 0x18
	pRequestResponse   byte = 0x19
	pResponseInfo      byte = 0x1A
	pServerReference   byte = 0x1C
	pReasonString      byte = 0x1F
	pReceiveMaximum    byte = 0x21
	pTopicAliasMaximum byte = 0x22
	pTopicAlias        byte = 0x23
	pMaximumQoS        byte = 0x24
	pRetainAvailable   byte = 0x25
	pUserProperty      byte = 0x26
	pMaximumPacketSize byte = 0x27
	pWildcardAvailable byte = 0x28
	pSubIDAvailable    byte = 0x29
	pSharedAvailable   byte = 0x2A
)

// property is one property of a packet. Numbers are in n, strings and binary
// data in s, a user property is s and value.
type property struct {
	id       byte
	n        int
	s, value string
}

type properties []property

func (p properties) has(id byte) bool {
	return slices.ContainsFunc(p, func(x property) bool { return x.id == id })
}

// number returns a numeric property, or other when it is absent.
func (p properties) number(id byte, other int) int {
	for _, x := range p {
		if x.id == id {
			return x.n
		}
	}
	return other
}

// numbers returns all values of a numeric property.
func (p properties) numbers(id byte) (all []int) {
	for _, x := range p {
		if x.id == id {
			all = append(all, x.n)
		}
	}
	return all
}

func (p properties) text(id byte) string {
	for _, x := range p {
		if x.id == id {
			return x.s
		}
	}
	return ""
}

// user returns the user properties in their order as name=value.
func (p properties) user() (all []string) {
	for _, x := range p {
		if x.id == pUserProperty {
			all = append(all, x.s+"="+x.value)
		}
	}
	return all
}

// serverMay lists the properties that a server may send in each packet type.
var serverMay = map[byte][]byte{
	connackType: {
		pSessionExpiry, pAssignedClientID, pServerKeepAlive, pAuthMethod, pAuthData, pResponseInfo, pServerReference,
		pReasonString, pReceiveMaximum, pTopicAliasMaximum, pMaximumQoS, pRetainAvailable, pUserProperty,
		pMaximumPacketSize, pWildcardAvailable, pSubIDAvailable, pSharedAvailable,
	},
	publishType: {
		pPayloadFormat, pMessageExpiry, pContentType, pResponseTopic, pCorrelationData, pSubscriptionID, pTopicAlias, pUserProperty,
	},
	pubackType:     {pReasonString, pUserProperty},
	pubrecType:     {pReasonString, pUserProperty},
	pubrelType:     {pReasonString, pUserProperty},
	pubcompType:    {pReasonString, pUserProperty},
	subackType:     {pReasonString, pUserProperty},
	unsubackType:   {pReasonString, pUserProperty},
	disconnectType: {pServerReference, pReasonString, pUserProperty},
	authType:       {pAuthMethod, pAuthData, pReasonString, pUserProperty},
}

var errBoolean = errors.New("a property that is 0 or 1 has another value")

// readProperties reads the property block of a packet and checks that each
// property may be there, and only once [MQTT-2.2.2-1].
func (r *reader) readProperties(kind byte) (list properties) {
	block := reader{b: r.take(r.varint()), err: r.err}
	for block.err == nil && len(block.b) > 0 {
		p := block.property()
		if block.err != nil {
			break
		}
		if !slices.Contains(serverMay[kind], p.id) {
			block.fail(fmt.Errorf("property %#02x does not belong into this packet of a server", p.id))
		}
		if p.id != pUserProperty && p.id != pSubscriptionID && list.has(p.id) {
			block.fail(fmt.Errorf("property %#02x is there twice", p.id))
		}
		list = append(list, p)
	}
	if block.err != nil {
		r.fail(block.err)
	}
	return list
}

func (r *reader) property() property {
	p := property{id: r.byte()}
	switch p.id {
	case pPayloadFormat, pMaximumQoS, pRetainAvailable, pWildcardAvailable, pSubIDAvailable, pSharedAvailable:
		p.n = int(r.byte())
		if p.n > 1 {
			r.fail(errBoolean)
		}
	case pServerKeepAlive, pReceiveMaximum, pTopicAliasMaximum, pTopicAlias:
		p.n = r.u16()
	case pMessageExpiry, pSessionExpiry, pMaximumPacketSize:
		p.n = r.u32()
	case pSubscriptionID:
		p.n = r.varint()
	case pContentType, pResponseTopic, pAssignedClientID, pAuthMethod, pResponseInfo, pServerReference, pReasonString:
		p.s = r.text()
	case pCorrelationData, pAuthData:
		p.s = r.binary()
	case pUserProperty:
		p.s, p.value = r.text(), r.text()
	default:
		r.fail(fmt.Errorf("property %#02x does not exist for a server", p.id))
	}
	if p.n == 0 && slices.Contains([]byte{pReceiveMaximum, pMaximumPacketSize, pTopicAlias, pSubscriptionID}, p.id) {
		r.fail(fmt.Errorf("property %#02x must not be 0", p.id))
	}
	return p
}
