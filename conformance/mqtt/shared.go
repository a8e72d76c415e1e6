package mqtt

import "fmt"

// needShared ends the check if the server has no shared subscriptions; it must
// then say so in CONNACK and refuse them.
func (c *C) needShared() {
	p := c.connect(connect{})
	code := p.request(nil, filter{"$share/g/" + c.topic("t"), 1})[0]
	if p.ack.props.number(pSharedAvailable, 1) == 1 {
		c.require(code < 0x80, "a shared subscription is refused with %#02x", code)
		p.leave(0)
		return
	}
	c.require(code == 0x9E, "shared subscriptions are announced as not available and answered %#02x", code)
	p.publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	p.nothing("a refused shared subscription gets")
	c.notOffered("announced as not available, refused with 0x9E")
}

// member is a client with a share of group g.
func (c *C) member(name string, qos byte) *peer {
	p := c.connect(c.durable(c.client(name)))
	p.subscribe(qos, "$share/g/"+c.topic("t"))
	return p
}

func shareName(c *C) {
	for _, bad := range []string{"$share//" + c.topic("t"), "$share/g", "$share/g/", "$share/"} {
		c.badFilter(bad)
	}
	c.needShared()
}

func shareNameWildcard(c *C) {
	for _, bad := range []string{"$share/g+/" + c.topic("t"), "$share/#/" + c.topic("t"), "$share/+/" + c.topic("t"), "$share/g/" + c.topic("a#")} {
		c.badFilter(bad)
	}
	c.needShared()
}

// sharedQoS: each message comes to one member, with the QoS granted to it.
func sharedQoS(c *C) {
	c.needShared()
	members := []*peer{c.member("a", 0), c.member("b", 1)}
	pub := c.connect(connect{})
	const n = 20
	for range n {
		pub.publish(publication{topic: c.topic("t"), payload: "m", qos: 2})
	}
	total := 0
	for qos, p := range members {
		for _, m := range p.fence() {
			c.require(int(m.qos) == qos, "a member of QoS %d gets QoS %d", qos, m.qos)
			total++
		}
	}
	c.require(total == n, "%d messages make %d deliveries", n, total)
}

// sharedQoS2 breaks the connection of the chosen member and returns it with
// the other one.
func (c *C) sharedQoS2() (broken string, other *peer, first *packet) {
	c.needShared()
	a, b := c.member("a", 2), c.member("b", 2)
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 2})
	for _, p := range [][2]*peer{{a, b}, {b, a}} {
		if got := p[0].fence(); len(got) == 1 {
			p[0].drop()
			return p[0].id, p[1], got[0]
		}
	}
	c.failf("the message comes to neither member")
	return "", nil, nil
}

func sharedQoS2Completed(c *C) {
	id, other, first := c.sharedQoS2()
	other.nothing("a started QoS 2 delivery goes to another member")
	p := c.connect(c.durable(id))
	m := p.take()
	c.require(m.id == first.id && m.payload == "m", "the started delivery comes back as %s", m)
}

func sharedQoS2NotMoved(c *C) {
	id, other, _ := c.sharedQoS2()
	c.connect(connect{id: id})
	other.nothing("the started QoS 2 delivery of an ended session goes to another member")
}

func sharedRefusedIsDone(c *C) {
	c.needShared()
	a, b := c.member("a", 1), c.member("b", 1)
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	for _, p := range []*peer{a, b} {
		for _, m := range p.fence() {
			p.send(ackCodePacket(pubackType, m.id, 0x80))
		}
	}
	a.nothing("a message that a member refused comes again")
	b.nothing("a message that a member refused comes again")
}

// refusedMethod is the CONNECT of a client with an authentication method that
// nobody serves.
func (c *C) refusedMethod() *packet {
	o := connect{id: c.client("x"), props: [][]byte{propString(pAuthMethod, "no-such-method"), propString(pAuthData, "data")}}
	return c.refuseConnect(o.encode(c.v), 0x8C, 0x87)
}

func unknownMethod(c *C) { c.refusedMethod() }

// authExchange are the statements about an exchange that needs a method which
// server and suite both know.
func authExchange(c *C) {
	for _, method := range []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "GS2-KRB5"} {
		p := c.dial()
		data := "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
		p.send(connect{id: c.client("x"), props: [][]byte{propString(pAuthMethod, method), propString(pAuthData, data)}}.encode(c.v))
		got, err := p.next(patience)
		if err == nil && got.kind == authType {
			c.require(got.code == 0x18, "the first AUTH has code %#02x", got.code)
			c.require(got.props.text(pAuthMethod) == method, "AUTH has method %q", got.props.text(pAuthMethod))
			p.send(frame(authType, []byte{0x18}, props(propString(pAuthMethod, method), propString(pAuthData, "wrong"))))
			p.turnedAway(0x87, 0x86, 0x8C, 0x80, 0x82)
			return
		}
		if err == nil {
			c.require(got.kind == connackType && got.code >= 0x80, "answer to method %s: %s", method, got)
			c.oneOf(got.code, []byte{0x8C, 0x87}, "reason code for method "+method)
		}
		p.closed(err)
	}
	c.notOffered("no authentication method; refused with 0x8C")
}

// authUnasked: without a method in CONNECT there is no AUTH, and no method in
// CONNACK.
func authUnasked(c *C) {
	p := c.connect(connect{})
	c.require(!p.ack.props.has(pAuthMethod) && !p.ack.props.has(pAuthData), "CONNACK has an authentication method that CONNECT had not")
	p.nothing("after CONNACK comes")
}

func authFlags(c *C) {
	for _, flags := range []byte{1, 2, 8} {
		c.closes(fmt.Sprintf("AUTH with flags %d", flags), []byte{authType | flags, 0})
	}
}

// authFromClient: AUTH of a client that gave no method.
func authFromClient(c *C) {
	c.closes("AUTH without method in CONNECT", frame(authType, []byte{0x19}, props(propString(pAuthMethod, "m"))), 0x82, 0x81, 0x8C, 0x87)
}
