package mqtt

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// malformed are the reason codes for a packet that breaks the format. Which of
// the two a server takes is often a matter of view.
var malformed = []byte{0x81, 0x82}

// badText are encodings that UTF-8 forbids: a byte that never occurs, an
// overlong form, a surrogate, a code point above the last, a cut character.
var badText = []string{"\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF4\x90\x80\x80", "\xE2\x82"}

// closes sends one packet on a new connection, which the server must end. It
// returns the DISCONNECT if there was one.
func (c *C) closes(what string, raw []byte, codes ...byte) *packet {
	p := c.connect(connect{})
	p.what = what
	p.send(raw)
	if len(codes) == 0 {
		codes = malformed
	}
	return p.closedBy(codes...)
}

// closesAll is closes for several packets, each on a connection of its own. It
// names all that the server lets pass.
func (c *C) closesAll(cases map[string][]byte) {
	var peers []*peer
	for _, what := range slices.Sorted(maps.Keys(cases)) {
		p := c.connect(connect{})
		p.what = what
		p.send(cases[what])
		peers = append(peers, p)
	}
	deadline := time.Now().Add(patience)
	var wrong []string
	for _, p := range peers {
		if v := c.attempt(func() { p.closedBefore(deadline, malformed...) }); v.Result == Deviates {
			wrong = append(wrong, v.Detail)
		}
	}
	c.require(len(wrong) == 0, "%s", strings.Join(wrong, "; "))
}

func illFormedUTF8(c *C) {
	for _, bad := range badText {
		c.closes(fmt.Sprintf("topic name with %q", bad), publication{topic: c.topic(bad)}.encode(c.v), 0x81, 0x82, 0x90)
	}
}

func nullInText(c *C) {
	c.closes("topic name with U+0000", publication{topic: c.topic("a\x00b")}.encode(c.v), 0x81, 0x82, 0x90)
	c.closes("topic filter with U+0000", subscribePacket(c.v, 1, nil, filter{c.topic("a\x00b"), 0}), 0x81, 0x82, 0x8F)
}

// byteOrderMark: the sequence EF BB BF is a character like any other.
func byteOrderMark(c *C) {
	plain := c.topic("bom")
	marked := "\uFEFF" + plain
	sub := c.subscriber(1, plain, marked)
	pub := c.connect(connect{})
	pub.publish(publication{topic: marked, payload: "marked", qos: 1})
	m := sub.gets("marked")
	c.require(m.topic == marked, "the topic name arrives as %q", m.topic)
	sub.nothing("the mark is skipped in matching")
}

// shortestLengths makes the server send lengths on both sides of each limit of
// the encoding; the reader refuses one that is too long.
func shortestLengths(c *C) {
	sub := c.subscriber(1, c.topic("l"))
	pub := c.connect(connect{})
	for _, size := range []int{0, 60, 70, 80, 90, 100, 127, 128, 16300, 16340, 16383, 16384, 16400} {
		m := publication{topic: c.topic("l"), payload: strings.Repeat("p", size), qos: 1}
		if c.is5() {
			m.props = [][]byte{userProperty("u", strings.Repeat("v", size))}
		}
		pub.publish(m)
		sub.gets(m.payload)
	}
}

func badUserProperty(c *C) {
	for _, bad := range append([]string{"a\x00"}, badText...) {
		for _, p := range [][]byte{userProperty(bad, "v"), userProperty("n", bad)} {
			c.closes(fmt.Sprintf("user property with %q", bad), publication{topic: c.topic("t"), props: [][]byte{p}}.encode(c.v))
		}
	}
}

// reservedFlags sends each packet type with a wrong bit in its fixed header.
func reservedFlags(c *C) {
	sub := subscribePacket(c.v, 1, nil, filter{c.topic("f"), 0})
	unsub := unsubscribePacket(c.v, 1, c.topic("f"))
	cases := map[string][]byte{
		"PINGREQ": {pingreqType | 1, 0}, "DISCONNECT": {disconnectType | 2, 0}, "PUBACK": {pubackType | 4, 2, 0, 1},
		"PUBREC": {pubrecType | 8, 2, 0, 1}, "PUBCOMP": {pubcompType | 1, 2, 0, 1}, "PUBREL": {pubrelType, 2, 0, 1},
		"SUBSCRIBE": append([]byte{subscribeType}, sub[1:]...), "UNSUBSCRIBE": append([]byte{unsubscribeType | 3}, unsub[1:]...),
		"type 0": {0, 0},
	}
	if c.is5() {
		cases["AUTH"] = []byte{authType | 1, 0}
	}
	c.closesAll(cases)
}

// qos0NoIdentifier: what would be the packet identifier is payload.
func qos0NoIdentifier(c *C) {
	sub := c.subscriber(2, c.topic("q0"))
	c.connect(connect{}).publish(publication{topic: c.topic("q0"), payload: "\x00\x07x"})
	m := sub.gets("\x00\x07x")
	c.require(m.qos == 0, "the message arrives with QoS %d", m.qos)
}

func zeroIdentifier(c *C) {
	c.closesAll(map[string][]byte{
		"PUBLISH QoS 1 with packet identifier 0": publication{topic: c.topic("z"), qos: 1}.encode(c.v),
		"PUBLISH QoS 2 with packet identifier 0": publication{topic: c.topic("z"), qos: 2}.encode(c.v),
		"SUBSCRIBE with packet identifier 0":     subscribePacket(c.v, 0, nil, filter{c.topic("z"), 0}),
		"UNSUBSCRIBE with packet identifier 0":   unsubscribePacket(c.v, 0, c.topic("z")),
	})
}

// serverIdentifiers: unacknowledged messages have different identifiers.
func serverIdentifiers(c *C) {
	sub := c.subscriber(2, c.topic("id"))
	pub := c.connect(connect{})
	used := map[int]bool{}
	for i := range 12 {
		pub.publish(publication{topic: c.topic("id"), payload: fmt.Sprint(i), qos: byte(1 + i%2)})
		m := sub.receive()
		c.require(!used[m.id], "packet identifier %d is used twice", m.id)
		used[m.id] = true
	}
}

// ownIdentifiers: the client's identifiers are a space of their own. A client
// PUBLISH and SUBSCRIBE under the number of an outstanding server message leave
// that message alone.
func ownIdentifiers(c *C) {
	o := c.durable(c.client("own"))
	sub := c.connect(o)
	sub.subscribe(1, c.topic("own"))
	c.connect(connect{}).publish(publication{topic: c.topic("own"), payload: "m", qos: 1})
	m := sub.receive()
	sub.send(publication{topic: c.topic("other"), id: m.id, qos: 1}.encode(c.v))
	sub.awaitID(pubackType, m.id)
	sub.send(subscribePacket(c.v, m.id, nil, filter{c.topic("third"), 0}))
	sub.awaitID(subackType, m.id)
	sub.drop()
	again := c.connect(o).receive()
	c.require(again.id == m.id && again.payload == "m", "the unacknowledged message comes back as %s", again)
}

func ackIdentifiers(c *C) {
	p := c.connect(connect{})
	for _, id := range []int{1, 0x1234, 0xFFFF} {
		p.send(publication{topic: c.topic("a"), qos: 1, id: id}.encode(c.v))
		p.awaitID(pubackType, id)
		p.send(publication{topic: c.topic("a"), qos: 2, id: id}.encode(c.v))
		p.awaitID(pubrecType, id)
		p.send(ackPacket(pubrelType, id))
		p.awaitID(pubcompType, id)
	}
}

func requestIdentifiers(c *C) {
	p := c.connect(connect{})
	for _, id := range []int{1, 0x1234, 0xFFFF} {
		p.send(subscribePacket(c.v, id, nil, filter{c.topic("r"), 0}))
		p.awaitID(subackType, id)
		p.send(unsubscribePacket(c.v, id, c.topic("r")))
		p.awaitID(unsubackType, id)
	}
}

// emptyProperties: a message without properties has a property length of 0.
func emptyProperties(c *C) {
	sub := c.subscriber(0, c.topic("e"))
	c.connect(connect{}).publish(publication{topic: c.topic("e"), payload: "p"})
	m := sub.gets("p")
	want := publication{topic: c.topic("e"), payload: "p"}.encode(c.v)
	c.require(string(m.raw) == string(want), "the message arrives as % x", m.raw)
}

// resentIdentifier: a message that comes again after a reconnect has its old
// identifier.
func resentIdentifier(c *C) {
	o := c.durable(c.client("s"))
	sub := c.connect(o)
	sub.subscribe(2, c.topic("r"))
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("r"), payload: "one", qos: 1})
	pub.publish(publication{topic: c.topic("r"), payload: "two", qos: 2})
	one, two := sub.receive(), sub.receive()
	sub.drop()
	sub = c.connect(o)
	for _, before := range []*packet{one, two} {
		m := sub.take()
		c.require(m.id == before.id && m.payload == before.payload, "%q had identifier %d, %q comes again with %d",
			before.payload, before.id, m.payload, m.id)
	}
}
