package mqtt

import (
	"fmt"
	"slices"
	"strings"
)

// small describes a client that takes packets up to a size.
func (c *C) small(size uint32, more ...[]byte) connect {
	return connect{props: append(more, propU32(pMaximumPacketSize, size))}
}

func maximumPacketSize(c *C) {
	const limit = 120
	sub := c.connect(c.small(limit))
	c.require(len(sub.ack.raw) <= limit, "CONNACK has %d bytes, the client takes %d", len(sub.ack.raw), limit)
	sub.subscribe(1, c.topic("t"))
	pub := c.connect(connect{})
	for _, size := range []int{limit * 2, limit, limit - 60} {
		pub.publish(publication{topic: c.topic("t"), payload: strings.Repeat("x", size), qos: 1})
	}
	m := sub.take()
	c.require(len(m.raw) <= limit, "a packet of %d bytes comes, the client takes %d", len(m.raw), limit)
	sub.nothing("beside the message that fits comes")
}

// tooLargeIsDone: a message that does not fit counts as delivered: it holds no
// place in the window, and does not come back.
func tooLargeIsDone(c *C) {
	o := c.durable(c.client("s"))
	o.props = append(o.props, propU32(pMaximumPacketSize, 150), propU16(pReceiveMaximum, 1))
	sub := c.connect(o)
	sub.subscribe(2, c.topic("t"))
	pub := c.connect(connect{})
	for i := range 4 {
		pub.publish(publication{topic: c.topic("t"), payload: strings.Repeat("x", 300), qos: byte(1 + i%2)})
	}
	pub.publish(publication{topic: c.topic("t"), payload: "fits", qos: 1})
	sub.gets("fits")
	sub.drop()
	pub.publish(publication{topic: c.topic("t"), payload: strings.Repeat("x", 300), qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "later", qos: 1})
	sub = c.connect(o)
	sub.gets("later")
	sub.nothing("beside the message that fits comes")
}

// longTopics are worth an alias.
func (c *C) longTopics(n int) (all []string) {
	for i := range n {
		all = append(all, c.topic(fmt.Sprintf("a/topic/that/is/worth/an/alias/%d", i)))
	}
	return all
}

// serverAliases counts the aliases that the server uses for one client, and
// checks that each message arrives under its topic.
func (c *C) serverAliases(sub *peer, maximum int) {
	known := map[int]string{}
	pub := c.connect(connect{})
	for i, topic := range slices.Repeat(c.longTopics(4), 3) {
		pub.publish(publication{topic: topic, payload: fmt.Sprint(i), qos: 1})
		m := sub.gets(fmt.Sprint(i))
		alias := m.props.number(pTopicAlias, 0)
		c.require(alias <= maximum, "topic alias %d, the client takes %d", alias, maximum)
		if m.topic == "" {
			m.topic = known[alias]
		} else if alias > 0 {
			known[alias] = m.topic
		}
		c.require(m.topic == topic, "a message to %s arrives on %q", topic, m.topic)
	}
}

func aliasMaximumOfClient(c *C) {
	sub := c.connect(connect{props: [][]byte{propU16(pTopicAliasMaximum, 2)}})
	sub.subscribe(1, c.topic("#"))
	c.serverAliases(sub, 2)
}

func noAliasAllowed(c *C) {
	for _, list := range [][][]byte{nil, {propU16(pTopicAliasMaximum, 0)}} {
		sub := c.connect(connect{props: list})
		sub.subscribe(1, c.topic("#"))
		c.serverAliases(sub, 0)
		sub.drop()
	}
}

// aliasesEnd: neither side carries an alias to the next connection.
func aliasesEnd(c *C) {
	o := c.durable(c.client("s"))
	o.props = append(o.props, propU16(pTopicAliasMaximum, 5))
	for range 2 {
		sub := c.connect(o)
		sub.subscribe(1|retainNever, c.topic("#"))
		c.serverAliases(sub, 5)
		sub.fence() // the last acknowledgement has arrived
		sub.drop()
	}
	p := c.connect(c.durable(c.client("p")))
	if p.ack.props.number(pTopicAliasMaximum, 0) == 0 {
		return
	}
	p.publish(publication{topic: c.topic("t"), qos: 1, props: [][]byte{propU16(pTopicAlias, 1)}})
	p.drop()
	p = c.connect(c.durable(p.id))
	p.what = "topic alias of an earlier connection"
	p.send(publication{qos: 1, id: 1, props: [][]byte{propU16(pTopicAlias, 1)}}.encode(c.v))
	p.closedBy(0x82, 0x94)
}

func aliasZero(c *C) {
	c.closes("topic alias 0", publication{topic: c.topic("t"), props: [][]byte{propU16(pTopicAlias, 0)}}.encode(c.v), 0x81, 0x82, 0x94)
}

func aliasTooHigh(c *C) {
	p := c.connect(connect{})
	limit := p.ack.props.number(pTopicAliasMaximum, 0)
	if limit == 65535 {
		c.notJudged("every topic alias is allowed")
	}
	p.what = fmt.Sprintf("topic alias %d, the server takes %d", limit+1, limit)
	p.send(publication{topic: c.topic("t"), props: [][]byte{propU16(pTopicAlias, limit+1)}}.encode(c.v))
	p.closedBy(0x94, 0x82)
}

// aliasesAccepted uses the aliases up to the maximum, and gives one of them a
// new topic.
func aliasesAccepted(c *C) {
	p := c.connect(connect{})
	limit := p.ack.props.number(pTopicAliasMaximum, 0)
	if limit == 0 {
		c.notOffered("Topic Alias Maximum is absent from CONNACK")
	}
	sub := c.subscriber(1, c.topic("#"))
	step := max(1, limit/20)
	for alias := limit; alias >= 1; alias -= step {
		topic := c.topic(fmt.Sprint(alias))
		p.publish(publication{topic: topic, payload: "define", qos: 1, props: [][]byte{propU16(pTopicAlias, alias)}})
		p.publish(publication{payload: "use", qos: 1, props: [][]byte{propU16(pTopicAlias, alias)}})
		for _, payload := range []string{"define", "use"} {
			m := sub.gets(payload)
			c.require(m.topic == topic, "alias %d of %s arrives as %s", alias, topic, m.topic)
		}
	}
	p.publish(publication{topic: c.topic("new"), payload: "again", qos: 1, props: [][]byte{propU16(pTopicAlias, limit)}})
	p.publish(publication{payload: "moved", qos: 1, props: [][]byte{propU16(pTopicAlias, limit)}})
	sub.gets("again")
	m := sub.gets("moved")
	c.require(m.topic == c.topic("new"), "a redefined alias arrives as %s", m.topic)
}

func noResponseInformation(c *C) {
	for _, list := range [][][]byte{nil, {propByte(pRequestResponse, 0)}} {
		p := c.connect(connect{props: list})
		c.require(!p.ack.props.has(pResponseInfo), "Response Information comes without being asked for")
	}
}

// failures makes the server refuse something with each packet that could carry
// a reason string, and returns the answers.
func (p *peer) failures() (answers []*packet) {
	c := p.c
	p.send(subscribePacket(c.v, 101, nil, filter{"$share/g/" + c.topic("s"), 0}))
	answers = append(answers, p.awaitID(subackType, 101), p.unsubscribe(c.topic("never")))
	p.send(publication{topic: "$SYS/" + c.name, qos: 1, id: 102}.encode(c.v))
	answers = append(answers, p.awaitID(pubackType, 102))
	p.send(publication{topic: "$SYS/" + c.name, qos: 2, id: 103}.encode(c.v))
	answers = append(answers, p.awaitID(pubrecType, 103))
	p.send(ackPacket(pubrelType, 104))
	answers = append(answers, p.awaitID(pubcompType, 104))
	p.send(ackPacket(pubrecType, 105))
	return append(answers, p.awaitID(pubrelType, 105))
}

func noProblemInformation(c *C) {
	p := c.connect(connect{props: [][]byte{propByte(pRequestProblem, 0)}})
	for _, answer := range p.failures() {
		c.require(!answer.props.has(pReasonString) && !answer.props.has(pUserProperty), "with Request Problem Information 0 comes %s", answer)
	}
}

// answerFits is a check of one kind of answer: it stays within the size that
// the client takes.
func answerFits(kind byte) func(*C) {
	return func(c *C) {
		const limit = 30
		p := c.connect(c.small(limit))
		found := false
		for _, answer := range p.failures() {
			found = found || answer.kind == kind
			c.require(len(answer.raw) <= limit, "the client takes %d bytes, and gets %s", limit, answer)
		}
		c.require(found, "no %s came", kindName(kind))
	}
}

func connackFits(c *C) {
	const limit = 25
	o := connect{id: c.client("x"), props: [][]byte{propU32(pMaximumPacketSize, limit), propString(pAuthMethod, "no-such-method")}}
	ack := c.refuseConnect(o.encode(c.v), 0x8C, 0x87)
	c.require(ack == nil || len(ack.raw) <= limit, "the client takes %d bytes, and gets %s", limit, ack)
}

func disconnectFits(c *C) {
	const limit = 20
	p := c.connect(c.small(limit))
	p.send(publication{topic: c.topic("a/#")}.encode(c.v))
	end := p.closedBy()
	c.require(end == nil || len(end.raw) <= limit, "the client takes %d bytes, and gets %s", limit, end)
}

// maximumQoS: a server that announces none takes all three.
func maximumQoS(c *C) {
	p := c.connect(connect{})
	if limit := p.ack.props.number(pMaximumQoS, 2); limit < 2 {
		p.what = fmt.Sprintf("QoS %d with a Maximum QoS of %d", limit+1, limit)
		p.send(publication{topic: c.topic("t"), qos: byte(limit + 1), id: 1}.encode(c.v))
		p.closedBy(0x9B)
		c.notOffered(fmt.Sprintf("Maximum QoS is %d", limit))
	}
	for qos := range byte(3) {
		p.publish(publication{topic: c.topic("t"), qos: qos})
	}
}

func subscribeEveryQoS(c *C) {
	p := c.connect(connect{})
	for qos := range byte(3) {
		code := p.request(nil, filter{c.topic(fmt.Sprint(qos)), qos})[0]
		c.require(code <= qos, "SUBSCRIBE with QoS %d is answered %#02x", qos, code)
	}
}

func willQoSServed(c *C) {
	o := c.willOf(c.client("p"))
	o.will.qos = 2
	if limit := c.connect(connect{}).ack.props.number(pMaximumQoS, 2); limit < 2 {
		c.refuseConnect(o.encode(c.v), 0x9B)
		c.notOffered(fmt.Sprintf("Maximum QoS is %d", limit))
	}
	c.connect(o).leave(0)
}

func willRetainServed(c *C) {
	o := c.willOf(c.client("p"))
	o.will.retain = true
	if c.connect(connect{}).ack.props.number(pRetainAvailable, 1) == 0 {
		c.refuseConnect(o.encode(c.v), 0x9A)
		c.notOffered("Retain Available is 0")
	}
	willRetained(c)
}

// tooLargeForServer: a packet above the server's Maximum Packet Size ends the
// connection.
func tooLargeForServer(c *C) {
	p := c.connect(connect{})
	limit := p.ack.props.number(pMaximumPacketSize, 0)
	if limit == 0 || limit > 64<<20 {
		c.notJudged("the server announces no Maximum Packet Size")
	}
	p.what = fmt.Sprintf("a packet above the maximum of %d bytes", limit)
	p.send(join([]byte{publishType}, varint(limit), str(c.topic("t"))))
	p.closedBy(0x95, 0x81)
}

// exceedReceiveMaximum: one unacknowledged QoS 2 PUBLISH too many ends the
// connection.
func exceedReceiveMaximum(c *C) {
	p := c.connect(connect{})
	limit := p.ack.props.number(pReceiveMaximum, 65535)
	if limit > 5000 {
		c.notJudged(fmt.Sprintf("the Receive Maximum is %d", limit))
	}
	for id := 1; id <= limit; id++ {
		p.send(publication{topic: c.topic("t"), qos: 2, id: id}.encode(c.v))
		p.awaitID(pubrecType, id)
	}
	p.what = fmt.Sprintf("PUBLISH number %d without PUBREL", limit+1)
	p.send(publication{topic: c.topic("t"), qos: 2, id: limit + 1}.encode(c.v))
	p.closedBy(0x93, 0x82)
}

func pubrelFlags(c *C) {
	for _, first := range []byte{pubrelType, pubrelType | 1, pubrelType | 3, pubrelType | 0xA} {
		c.closes(fmt.Sprintf("PUBREL with first byte %#02x", first), []byte{first, 2, 0, 1})
	}
}
