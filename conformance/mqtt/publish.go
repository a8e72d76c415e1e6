package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func dupOnRedelivery(c *C) {
	o := c.durable(c.client("s"))
	sub := c.connect(o)
	sub.subscribe(2, c.topic("t"))
	pub := c.connect(connect{})
	for qos := byte(1); qos <= 2; qos++ {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(qos), qos: qos})
		m := sub.receive()
		c.require(!m.dup, "the first delivery has DUP set")
	}
	sub.drop()
	sub = c.connect(o)
	for range 2 {
		m := sub.take()
		c.require(m.dup, "the second delivery has DUP not set")
	}
	pub.publish(publication{topic: c.topic("t"), payload: "new", qos: 1})
	m := sub.gets("new")
	c.require(!m.dup, "a message that was never sent before has DUP set")
}

func noDupQoS0(c *C) {
	sub := c.subscriber(0, c.topic("t"))
	pub := c.connect(connect{})
	for qos := range byte(3) {
		pub.publish(publication{topic: c.topic("t"), payload: "m", qos: qos})
		m := sub.gets("m")
		c.require(m.qos == 0 && !m.dup, "QoS %d with DUP %v to a subscriber of QoS 0", m.qos, m.dup)
	}
}

func dupNotPropagated(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	for qos := byte(1); qos <= 2; qos++ {
		pub.publish(publication{topic: c.topic("t"), payload: "m", qos: qos, dup: true})
		m := sub.gets("m")
		c.require(!m.dup, "DUP of the publisher reaches the subscriber")
	}
}

func qos3(c *C) {
	c.closes("PUBLISH with QoS 3", publication{topic: c.topic("t"), qos: 3, id: 1}.encode(c.v))
}

func topicNameText(c *C) {
	illFormedUTF8(c)
	c.closes("PUBLISH without topic name", publication{}.encode(c.v), 0x81, 0x82, 0x90)
	c.closes("PUBLISH that ends in its topic name", frame(publishType, u16(10), []byte("short")))
}

// topicNameWildcard: such a message is refused and reaches nobody. For QoS 1
// version 5 may say so in PUBACK.
func topicNameWildcard(c *C) {
	watch := c.subscriber(1, c.topic("#"))
	for _, bad := range []string{"a/+", "a/#", "+", "#", "a+b", "a#"} {
		p := c.connect(connect{})
		p.send(publication{topic: c.topic(bad), payload: "m", qos: 1, id: 1}.encode(c.v))
		got, err := p.next(patience)
		if err == nil && got.kind == pubackType {
			c.require(c.is5() && got.code >= 0x80, "PUBLISH to %s is answered %s", bad, got)
			continue
		}
		p.closed(err)
	}
	watch.nothing("a message to a wildcard is delivered")
}

func deliveredTopicMatches(c *C) {
	sub := c.subscriber(1, c.topic("+/x"))
	pub := c.connect(connect{})
	for _, topic := range []string{"a/y", "a/x", "x", "a/b/x", "b/x"} {
		pub.publish(publication{topic: c.topic(topic), payload: topic, qos: 1})
	}
	for _, topic := range []string{"a/x", "b/x"} {
		m := sub.gets(topic)
		c.require(m.topic == c.topic(topic), "the message arrives on %s", m.topic)
	}
	sub.nothing("beside what the filter matches comes")
}

// passThrough publishes with properties and returns what arrives.
func (c *C) passThrough(props ...[]byte) *packet {
	sub := c.subscriber(1, c.topic("t"))
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "text", qos: 1, props: props})
	return sub.gets("text")
}

func payloadFormat(c *C) {
	for _, want := range []byte{0, 1} {
		m := c.passThrough(propByte(pPayloadFormat, want))
		c.require(m.props.number(pPayloadFormat, 0) == int(want), "payload format %d arrives as %d", want, m.props.number(pPayloadFormat, 0))
	}
	c.require(!c.passThrough().props.has(pPayloadFormat), "a payload format is added")
}

func responseTopic(c *C) {
	m := c.passThrough(propString(pResponseTopic, c.topic("answer")))
	c.require(m.props.text(pResponseTopic) == c.topic("answer"), "the response topic arrives as %q", m.props.text(pResponseTopic))
}

func correlationData(c *C) {
	m := c.passThrough(propString(pCorrelationData, "\x00\xFF\x80"))
	c.require(m.props.text(pCorrelationData) == "\x00\xFF\x80", "the correlation data arrive as %q", m.props.text(pCorrelationData))
}

func contentType(c *C) {
	m := c.passThrough(propString(pContentType, "text/plain; charset=é"))
	c.require(m.props.text(pContentType) == "text/plain; charset=é", "the content type arrives as %q", m.props.text(pContentType))
	m = c.passThrough(propString(pContentType, ""))
	c.require(m.props.has(pContentType) && m.props.text(pContentType) == "", "an empty content type is not passed on")
	c.require(!c.passThrough().props.has(pContentType), "a content type is added")
}

func userProperties(c *C) {
	sent := []string{"b=1", "a=2", "b=3", "=", "a=2"}
	var list [][]byte
	for _, s := range sent {
		name, value, _ := strings.Cut(s, "=")
		list = append(list, userProperty(name, value))
	}
	m := c.passThrough(list...)
	c.require(slices.Equal(m.props.user(), sent), "user properties %q arrive as %q", sent, m.props.user())
}

// sameProperties compares all properties of a message that are passed on.
func (c *C) sameProperties(m *packet, format, content, response, correlation string, user ...string) {
	got := []string{fmt.Sprint(m.props.number(pPayloadFormat, 0)), m.props.text(pContentType), m.props.text(pResponseTopic), m.props.text(pCorrelationData)}
	got = append(got, m.props.user()...)
	want := append([]string{format, content, response, correlation}, user...)
	c.require(slices.Equal(got, want), "properties %q arrive as %q", want, got)
}

func responseTopicText(c *C) {
	for _, bad := range badText {
		c.closes(fmt.Sprintf("response topic %q", bad), publication{topic: c.topic("t"), props: [][]byte{propString(pResponseTopic, bad)}}.encode(c.v))
	}
}

func responseTopicWildcard(c *C) {
	for _, bad := range []string{"a/+", "#"} {
		raw := publication{topic: c.topic("t"), props: [][]byte{propString(pResponseTopic, bad)}}.encode(c.v)
		c.closes("response topic "+bad, raw, 0x81, 0x82, 0x90)
	}
}

func contentTypeText(c *C) {
	for _, bad := range badText {
		c.closes(fmt.Sprintf("content type %q", bad), publication{topic: c.topic("t"), props: [][]byte{propString(pContentType, bad)}}.encode(c.v))
	}
}

// messageExpires: a message that waited too long does not come; one without
// expiry does, and none is added.
func messageExpires(c *C) {
	o := c.durable(c.client("s"))
	sub := c.connect(o)
	sub.subscribe(1, c.topic("t"))
	sub.leave(0) // a connection that only broke could still be delivered to
	pub := c.connect(connect{})
	short := [][]byte{propU32(pMessageExpiry, 1)}
	pub.publish(publication{topic: c.topic("t"), payload: "old", qos: 1, props: short})
	pub.publish(publication{topic: c.topic("t"), payload: "kept", qos: 1})
	c.retain(pub, publication{topic: c.topic("retained"), payload: "old", qos: 1, props: short})
	time.Sleep(2100 * time.Millisecond) // the expiry, by servers that count whole seconds
	sub = c.connect(o)
	m := sub.gets("kept")
	c.require(!m.props.has(pMessageExpiry), "a message expiry is added")
	sub.nothing("an expired message comes")
	c.subscriber(1, c.topic("retained")).nothing("an expired retained message comes")
}

func expiryCountsDown(c *C) {
	o := c.durable(c.client("s"))
	sub := c.connect(o)
	sub.subscribe(1, c.topic("t"))
	sub.leave(0) // a connection that only broke could still be delivered to
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1, props: [][]byte{propU32(pMessageExpiry, 60)}})
	time.Sleep(2100 * time.Millisecond) // what is to be subtracted
	m := c.connect(o).gets("m")
	left := m.props.number(pMessageExpiry, 0)
	c.require(left <= 58 && left >= 45, "an expiry of 60 s is %d s after more than 2 s", left)
}

func answeredByQoS(c *C) {
	p := c.connect(connect{})
	p.send(publication{topic: c.topic("t"), qos: 0}.encode(c.v))
	p.nothing("the answer to QoS 0 is")
	p.send(publication{topic: c.topic("t"), qos: 1, id: 1}.encode(c.v))
	p.expect(pubackType)
	p.send(publication{topic: c.topic("t"), qos: 2, id: 2}.encode(c.v))
	p.expect(pubrecType)
}

// overlapping returns the copies that a client with two matching
// subscriptions gets.
func (c *C) overlapping(props1, props2 [][]byte, options1, options2 byte) (copies []*packet) {
	sub := c.connect(connect{})
	sub.request(props1, filter{c.topic("a/#"), options1})
	sub.request(props2, filter{c.topic("a/+"), options2})
	c.connect(connect{}).publish(publication{topic: c.topic("a/b"), payload: "m", qos: 2})
	copies = append(copies, sub.take())
	sub.send(pingreq)
	for got := sub.read(); got.kind != pingrespType; got = sub.read() {
		c.require(got.kind == publishType, "between the copies comes %s", got)
		sub.confirm(got)
		copies = append(copies, got)
	}
	return copies
}

func overlapQoS(c *C) {
	for _, options := range [][2]byte{{0, 2}, {2, 1}, {1, 0}} {
		best := byte(0)
		for _, m := range c.overlapping(nil, nil, options[0], options[1]) {
			best = max(best, m.qos)
		}
		want := max(options[0], options[1])
		c.require(best == want, "subscriptions of QoS %d and %d get QoS %d", options[0], options[1], best)
	}
}

func overlapIdentifiers(c *C) {
	copies := c.overlapping([][]byte{propVarint(pSubscriptionID, 7)}, [][]byte{propVarint(pSubscriptionID, 300)}, 1, 2)
	var ids []int
	for _, m := range copies {
		own := m.props.numbers(pSubscriptionID)
		c.require(len(copies) == 1 || len(own) == 1, "one of %d copies has the identifiers %d", len(copies), own)
		ids = append(ids, own...)
	}
	slices.Sort(ids)
	c.require(slices.Equal(ids, []int{7, 300}), "the copies carry the identifiers %d", ids)
}

// partlyIdentified: only one of the two subscriptions has an identifier.
func partlyIdentified(c *C) {
	var ids []int
	for _, m := range c.overlapping([][]byte{propVarint(pSubscriptionID, 268435455)}, nil, 1, 1) {
		ids = append(ids, m.props.numbers(pSubscriptionID)...)
	}
	c.require(slices.Equal(ids, []int{268435455}), "the copies carry the identifiers %d", ids)
}

func identifierFromClient(c *C) {
	c.closes("PUBLISH with a subscription identifier", publication{topic: c.topic("t"), props: [][]byte{propVarint(pSubscriptionID, 1)}}.encode(c.v))
}

// notAuthorized of version 3.1.1: a message that may not be published is
// acknowledged, or the connection ends; it reaches nobody.
func notAuthorized(c *C) {
	name := "$SYS/" + c.name
	watch := c.subscriber(1, name)
	for qos := byte(1); qos <= 2; qos++ {
		p := c.connect(connect{})
		p.send(publication{topic: name, payload: "m", qos: qos, id: 1}.encode(c.v))
		got, err := p.next(patience)
		if err != nil {
			p.closed(err)
			continue
		}
		c.require(got.kind == pubackType || got.kind == pubrecType, "PUBLISH that is not allowed is answered %s", got)
	}
	watch.nothing("a message that is not allowed arrives")
}
