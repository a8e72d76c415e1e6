package mqtt

import (
	"fmt"
	"time"
)

// pair is a subscriber with a durable session and a publisher.
type pair struct {
	c        *C
	o        connect
	sub, pub *peer
}

func (c *C) pair(qos byte, props ...[]byte) *pair {
	o := c.durable(c.client("s"))
	o.props = append(o.props, props...)
	p := &pair{c: c, o: o, sub: c.connect(o), pub: c.connect(connect{})}
	p.sub.subscribe(qos, c.topic("t"))
	return p
}

func (p *pair) publish(qos byte, payload string, props ...[]byte) {
	p.pub.publish(publication{topic: p.c.topic("t"), payload: payload, qos: qos, props: props})
}

// again breaks the subscriber's connection and resumes its session.
func (p *pair) again() {
	p.sub.drop()
	p.sub = p.c.connect(p.o)
	p.c.require(p.sub.ack.present, "no session present after a reconnect")
}

func qos0Delivery(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	for i := range 10 {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i)})
		m := sub.gets(fmt.Sprint(i))
		c.require(m.qos == 0 && !m.dup, "QoS 0 arrives with QoS %d, DUP %v", m.qos, m.dup)
	}
	sub.nothing("beside the messages comes")
}

// firstDelivery: a new message has an identifier, its QoS and no DUP.
func firstDelivery(qos byte) func(*C) {
	return func(c *C) {
		sub := c.subscriber(qos, c.topic("t"))
		pub := c.connect(connect{})
		used := map[int]bool{}
		for i := range 8 {
			pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i), qos: qos})
			m := sub.receive()
			c.require(m.qos == qos && !m.dup, "a first delivery of QoS %d comes with QoS %d, DUP %v", qos, m.qos, m.dup)
			c.require(!used[m.id], "identifier %d is in use", m.id)
			used[m.id] = true
		}
	}
}

// unacknowledged: without the answer the message comes again on the next
// connection, with it no more.
func unacknowledged(qos byte) func(*C) {
	return func(c *C) {
		p := c.pair(qos)
		p.publish(qos, "m")
		first := p.sub.receive()
		p.again()
		second := p.sub.receive()
		c.require(second.id == first.id && second.payload == "m" && second.dup, "the unacknowledged message comes back as %s", second)
		p.sub.confirm(second)
		p.sub.fence()
		p.again()
		p.sub.nothing("a completed message comes again")
	}
}

func qos1Acknowledged(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	pub.send(publication{topic: c.topic("t"), payload: "m", qos: 1, id: 77}.encode(c.v))
	ack := pub.awaitID(pubackType, 77)
	c.require(ack.code < 0x80, "PUBLISH is refused with %#02x", ack.code)
	sub.gets("m")
}

// qos1NewAfterAck: the same identifier after PUBACK is a new message, whatever
// DUP says.
func qos1NewAfterAck(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	for i := range 3 {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i), qos: 1, id: 5, dup: i > 0})
		sub.gets(fmt.Sprint(i))
	}
}

func pubrelAnswersPubrec(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	for i := range 3 {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i), qos: 2})
		m := sub.receive()
		sub.send(ackPacket(pubrecType, m.id))
		rel := sub.awaitID(pubrelType, m.id)
		c.require(rel.code == 0, "PUBREL has code %#02x", rel.code)
		sub.send(ackPacket(pubcompType, m.id))
	}
	sub.nothing("after PUBCOMP comes")
}

// pubrelRepeated: until PUBCOMP the server sends PUBREL again on a new
// connection, and never the PUBLISH.
func pubrelRepeated(c *C) {
	p := c.pair(2)
	p.publish(2, "m")
	m := p.sub.receive()
	p.sub.send(ackPacket(pubrecType, m.id))
	p.sub.awaitID(pubrelType, m.id)
	for range 2 {
		p.again()
		rel := p.sub.expect(pubrelType)
		c.require(rel.id == m.id, "PUBREL is for %d, not for %d", rel.id, m.id)
		p.sub.nothing("beside PUBREL comes")
	}
	p.sub.send(ackPacket(pubcompType, m.id))
	p.sub.fence()
	p.again()
	p.sub.nothing("after PUBCOMP comes")
}

// sentDoesNotExpire: a message that was sent is completed, however long it
// takes.
func sentDoesNotExpire(c *C) {
	p := c.pair(2)
	p.publish(2, "m", propU32(pMessageExpiry, 1))
	m := p.sub.receive()
	time.Sleep(2100 * time.Millisecond) // the message expiry, by servers that count whole seconds
	p.again()
	again := p.sub.take()
	c.require(again.id == m.id && again.payload == "m", "an expired message that was sent comes back as %s", again)
}

func qos2Received(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	pub.send(publication{topic: c.topic("t"), payload: "m", qos: 2, id: 78}.encode(c.v))
	rec := pub.awaitID(pubrecType, 78)
	c.require(rec.code < 0x80, "PUBLISH is refused with %#02x", rec.code)
	pub.send(ackPacket(pubrelType, 78))
	comp := pub.awaitID(pubcompType, 78)
	c.require(comp.code == 0, "PUBCOMP has code %#02x", comp.code)
	sub.gets("m")
}

// qos2NewAfterRefusal: a PUBREC with an error ends the exchange.
func qos2NewAfterRefusal(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	if code := pub.offer(publication{topic: "$SYS/" + c.name, payload: "no", qos: 2, id: 9}); code < 0x80 {
		c.notJudged("nothing is known that this server refuses in PUBREC")
	}
	pub.publish(publication{topic: c.topic("t"), payload: "yes", qos: 2, id: 9})
	sub.gets("yes")
}

// qos2Duplicate: until PUBREL the same identifier is the same message.
func qos2Duplicate(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	o := c.durable(c.client("p"))
	pub := c.connect(o)
	m := publication{topic: c.topic("t"), payload: "once", qos: 2, id: 9}
	for range 3 {
		pub.send(m.encode(c.v))
		rec := pub.awaitID(pubrecType, 9)
		c.require(rec.code < 0x80, "a duplicate is answered with PUBREC %#02x", rec.code)
		m.dup = true
	}
	pub.drop()
	pub = c.connect(o)
	pub.send(m.encode(c.v))
	pub.awaitID(pubrecType, 9)
	pub.send(ackPacket(pubrelType, 9))
	pub.awaitID(pubcompType, 9)
	sub.gets("once")
	sub.nothing("a duplicate is delivered")
}

func pubcompAnswersPubrel(c *C) {
	qos2Received(c)
	p := c.connect(connect{})
	p.send(ackPacket(pubrelType, 4711))
	comp := p.awaitID(pubcompType, 4711)
	if c.is5() {
		c.oneOf(comp.code, []byte{0x00, 0x92}, "code of PUBCOMP for an unknown identifier")
	}
}

func qos2NewAfterPubcomp(c *C) {
	sub := c.subscriber(2, c.topic("t"))
	pub := c.connect(connect{})
	for i := range 3 {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i), qos: 2, id: 9, dup: i > 0})
		sub.gets(fmt.Sprint(i))
	}
}

// expiredGoesOn: the exchange is completed although the message has expired.
func expiredGoesOn(c *C) {
	p := c.connect(connect{})
	p.send(publication{topic: c.topic("t"), qos: 2, id: 3, props: [][]byte{propU32(pMessageExpiry, 1)}}.encode(c.v))
	p.awaitID(pubrecType, 3)
	time.Sleep(1500 * time.Millisecond) // the message expiry
	p.send(ackPacket(pubrelType, 3))
	p.awaitID(pubcompType, 3)
}

// onlyOnReconnect: an unacknowledged message is not sent again on the same
// connection.
func onlyOnReconnect(c *C) {
	p := c.pair(2)
	p.publish(1, "one")
	p.publish(2, "two")
	one, two := p.sub.receive(), p.sub.receive()
	time.Sleep(1200 * time.Millisecond) // time in which a server could repeat
	p.sub.nothing("without a reconnect an unacknowledged message comes again")
	p.again()
	for _, before := range []*packet{one, two} {
		m := p.sub.receive()
		c.require(m.id == before.id && m.payload == before.payload, "%q comes with identifier %d", m.payload, m.id)
	}
}

// refusedNotResent: an answer with an error completes the delivery.
func refusedNotResent(c *C) {
	p := c.pair(2)
	p.publish(1, "one")
	p.publish(2, "two")
	one, two := p.sub.receive(), p.sub.receive()
	p.sub.send(ackCodePacket(pubackType, one.id, 0x80), ackCodePacket(pubrecType, two.id, 0x83))
	p.sub.nothing("after an error of the receiver comes")
	p.again()
	p.sub.nothing("a message that the receiver refused comes again")
}

// addedToSessions: connected or not, each matching session gets the message.
func addedToSessions(c *C) {
	offline := c.pair(1)
	offline.sub.drop()
	online := c.subscriber(1, c.topic("+"))
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	online.gets("m")
	offline.again()
	offline.sub.gets("m")
}

// resentInOrder: unacknowledged messages of both QoS, in the order in which
// they were first sent.
func resentInOrder(c *C) {
	p := c.pair(2)
	const n = 10
	for i := range n {
		p.publish(byte(1+i%2), fmt.Sprint(i))
	}
	ids := make([]int, n)
	for i := range n {
		ids[i] = p.sub.receive().id
	}
	p.again()
	for i := range n {
		m := p.sub.receive()
		c.require(m.id == ids[i] && m.payload == fmt.Sprint(i), "message %d is expected, %q comes with identifier %d", i, m.payload, m.id)
	}
}

// acksInOrder: the answers stand in the order of what they answer.
func acksInOrder(qos byte) func(*C) {
	return func(c *C) {
		p := c.connect(connect{})
		kind := map[byte]byte{1: pubackType, 2: pubrecType}[qos]
		const n = 10
		var all []byte
		for id := n; id > 0; id-- {
			all = append(all, publication{topic: c.topic("t"), qos: qos, id: id}.encode(c.v)...)
		}
		p.send(all)
		for id := n; id > 0; id-- {
			p.awaitID(kind, id)
		}
	}
}

func pubrelInOrder(c *C) {
	p := c.pair(2)
	var ids []int
	for i := range 5 {
		p.publish(2, fmt.Sprint(i))
		ids = append(ids, p.sub.receive().id)
	}
	order := []int{ids[3], ids[0], ids[4], ids[1], ids[2]}
	for _, id := range order {
		p.sub.send(ackPacket(pubrecType, id))
	}
	for _, id := range order {
		p.sub.awaitID(pubrelType, id)
	}
}

// ordered: messages of one publisher to one topic keep their order, for each
// QoS, live and from the queue.
func ordered(c *C) {
	for qos := range byte(3) {
		topic := c.topic(fmt.Sprint(qos))
		o := c.durable(c.client(fmt.Sprint(qos)))
		sub := c.connect(o)
		sub.subscribe(qos, topic)
		pub := c.connect(connect{})
		const n = 40
		for i := range n {
			if i == n/2 && qos > 0 {
				for j := range n / 2 {
					sub.gets(fmt.Sprint(j))
				}
				sub.leave(0)
			}
			pub.publish(publication{topic: topic, payload: fmt.Sprint(i), qos: qos})
		}
		first := 0
		if qos > 0 {
			first = n / 2
			sub = c.connect(o)
		}
		for i := first; i < n; i++ {
			sub.gets(fmt.Sprint(i))
		}
	}
}
