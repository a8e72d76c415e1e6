package wire

import "gantry/broker"

var (
	errNoFilter       = violation("no topic filter")
	errSubOptions     = malformed("reserved bits of the subscription options are set")
	errSubQoS3        = violation("subscription with QoS 3")
	errRetainHandling = violation("retain handling 3")
	errSharedNoLocal  = violation("no local on a shared subscription")
)

// Subscribe is a SUBSCRIBE packet.
type Subscribe struct {
	PacketID uint16
	Filters  []broker.Subscription
}

// ParseSubscribe reads a SUBSCRIBE. Filters are checked as strings only; what
// is a valid filter decides the broker, per filter.
func ParseSubscribe(body []byte, v Version) (Subscribe, error) {
	c := cursor{b: body}
	s := Subscribe{PacketID: c.packetID()}
	var id uint32
	if v == V5 {
		r := c.properties(subscribeProps)
		var p property
		for r.next(&p) {
			if p.id == propSubscriptionID {
				id = r.nonZero(&p)
			}
		}
		if r.err != nil {
			c.fail(r.err)
		}
	}
	for c.err == nil && len(c.b) > 0 {
		sub := broker.Subscription{Filter: string(c.text()), ID: id}
		if err := subOptions(&sub, c.uint8(), v); err != nil {
			c.fail(err)
		}
		s.Filters = append(s.Filters, sub)
	}
	if c.err == nil && len(s.Filters) == 0 {
		return s, errNoFilter // [MQTT-3.8.3-2]
	}
	return s, c.end()
}

// subOptions reads the options byte (section 3.8.3.1).
func subOptions(s *broker.Subscription, o byte, v Version) error {
	reserved := byte(0xC0)
	if v != V5 {
		reserved = 0xFC
	}
	switch {
	case o&reserved != 0:
		return errSubOptions // [MQTT-3.8.3-5]
	case o&3 == 3:
		return errSubQoS3
	case o>>4&3 == 3:
		return errRetainHandling
	}
	s.QoS = broker.QoS(o & 3)
	s.NoLocal = o&4 != 0
	s.RetainAsPublished = o&8 != 0
	s.RetainHandling = o >> 4 & 3
	if s.NoLocal && broker.IsShared(s.Filter) {
		return errSharedNoLocal // [MQTT-3.8.3-4]
	}
	return nil
}

// AppendSuback appends a SUBACK with one code for each filter.
func AppendSuback(dst []byte, id uint16, codes []byte, v Version) []byte {
	return appendCodes(dst, SUBACK, id, codes, v)
}

// Unsubscribe is an UNSUBSCRIBE packet.
type Unsubscribe struct {
	PacketID uint16
	Filters  []string
}

// ParseUnsubscribe reads an UNSUBSCRIBE.
func ParseUnsubscribe(body []byte, v Version) (Unsubscribe, error) {
	c := cursor{b: body}
	u := Unsubscribe{PacketID: c.packetID()}
	if v == V5 {
		r := c.properties(unsubscribeProps)
		if err := r.skip(); err != nil {
			c.fail(err)
		}
	}
	for c.err == nil && len(c.b) > 0 {
		u.Filters = append(u.Filters, string(c.text()))
	}
	if c.err == nil && len(u.Filters) == 0 {
		return u, errNoFilter // [MQTT-3.10.3-2]
	}
	return u, c.end()
}

// AppendUnsuback appends an UNSUBACK. Before version 5 it has no codes.
func AppendUnsuback(dst []byte, id uint16, codes []byte, v Version) []byte {
	if v != V5 {
		codes = nil
	}
	return appendCodes(dst, UNSUBACK, id, codes, v)
}

func appendCodes(dst []byte, t Type, id uint16, codes []byte, v Version) []byte {
	n := 2 + len(codes)
	if v == V5 {
		n++
	}
	dst = appendUint16(appendHeader(dst, byte(t)<<4, n), id)
	if v == V5 {
		dst = append(dst, 0) // no properties
	}
	return append(dst, codes...)
}
