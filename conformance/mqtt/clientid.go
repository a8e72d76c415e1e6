package mqtt

import (
	"strings"
)

func clientIDNamesSession(c *C) {
	one, two := c.connect(c.durable(c.client("one"))), c.connect(c.durable(c.client("two")))
	one.subscribe(1, c.topic("1"))
	two.subscribe(1, c.topic("2"))
	one.drop()
	two.drop()
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("1"), payload: "first", qos: 1})
	pub.publish(publication{topic: c.topic("2"), payload: "second", qos: 1})
	two, one = c.connect(c.durable(two.id)), c.connect(c.durable(one.id))
	one.gets("first")
	two.gets("second")
	one.nothing("a message of another session comes")
	two.nothing("a message of another session comes")
}

func clientIDMissing(c *C) {
	var p []byte
	if c.is5() {
		p = props()
	}
	c.refuseConnect(frame(connectType, str("MQTT"), []byte{c.v, flagClean}, u16(0), p), 0x81, 0x82, 0x85)
}

func clientIDText(c *C) {
	for _, bad := range append([]string{"a\x00b"}, badText...) {
		c.refuseConnect(connect{id: c.name + bad}.encode(c.v), 0x81, 0x82, 0x85)
	}
}

// clientIDAllowed: every length from 1 to 23 and every letter and digit.
func clientIDAllowed(c *C) {
	const all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, id := range []string{all[:22] + "x", all[22:45], all[45:], c.name + "1", c.name + "1234567890123", "Z"} {
		p := c.connect(connect{id: id})
		p.leave(0)
	}
}

// assigned: a client without identifier gets one, and version 5 tells it.
func assigned(c *C) {
	used := map[string]bool{}
	for range 3 {
		p := c.dial()
		p.send(connect{}.encode(c.v))
		ack := p.expect(connackType)
		if ack.code != 0 {
			c.oneOf(ack.code, []byte{0x85, 0x02}, "code for an empty client identifier")
			c.notOffered("an empty client identifier is refused")
		}
		p.nothing("a client without identifier gets")
		if !c.is5() {
			continue
		}
		id := ack.props.text(pAssignedClientID)
		c.require(id != "" && !used[id], "assigned client identifier is %q", id)
		used[id] = true
	}
}

// assignedWorks: the assigned identifier is that of the session.
func assignedWorks(c *C) {
	p := c.dial()
	p.send(connect{keep: true, props: [][]byte{propU32(pSessionExpiry, 60)}}.encode(c.v))
	ack := p.expect(connackType)
	if ack.code != 0 {
		c.notOffered("an empty client identifier is refused")
	}
	id := ack.props.text(pAssignedClientID)
	p.subscribe(1, c.topic("t"))
	p.drop()
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	p = c.connect(c.durable(id))
	c.require(p.ack.present, "the session of the assigned identifier is not there")
	p.gets("m")
}

// emptyIDNeedsClean of version 3.1.1: return code 2, then the end.
func emptyIDNeedsClean(c *C) {
	ack := c.refuseConnect(connect{keep: true}.encode(c.v))
	c.require(ack != nil && ack.code == 2, "answer to an empty client identifier without clean session: %s", ack)
}

// clientIDRefused: a server may refuse an identifier, but must say so by the
// one code.
func clientIDRefused(c *C) {
	p := c.dial()
	p.send(connect{id: c.name + strings.Repeat("x", 65000)}.encode(c.v))
	got, err := p.next(patience)
	if err != nil {
		c.require(c.is5(), "a client identifier is refused without CONNACK")
		p.closed(err)
		return
	}
	c.require(got.kind == connackType, "answer to CONNECT: %s", got)
	if got.code == 0 {
		return
	}
	c.oneOf(got.code, map[bool][]byte{true: {0x85}, false: {2}}[c.is5()], "code for a client identifier that is refused")
	p.closed(nil)
}

// withoutFlag: fields behind the client identifier that no flag announces.
func withoutFlag(c *C) {
	c.refuseConnect(connect{id: c.client("u"), tail: str("name")}.encode(c.v), malformed...)
}

func usernameMissing(c *C) {
	c.refuseConnect(connect{id: c.client("u"), setFlags: flagUsername}.encode(c.v), malformed...)
}

// passwordUnannounced: a password in the payload that no flag announces.
func passwordUnannounced(c *C) {
	name := "u"
	c.refuseConnect(connect{id: c.client("u"), username: &name, tail: str("secret")}.encode(c.v), malformed...)
}

func passwordMissing(c *C) {
	name := "u"
	c.refuseConnect(connect{id: c.client("u"), username: &name, setFlags: flagPassword}.encode(c.v), malformed...)
}

func passwordAlone(c *C) {
	secret := "s"
	c.refuseConnect(connect{id: c.client("u"), password: &secret}.encode(c.v))
}

func usernameText(c *C) {
	for _, bad := range append([]string{"a\x00b"}, badText...) {
		c.refuseConnect(connect{id: c.client("u"), username: &bad}.encode(c.v), 0x81, 0x82, 0x85, 0x86, 0x87)
	}
}

// credentials: who fails authentication is turned away.
func credentials(c *C) {
	if c.target.Refuses == "" {
		c.notJudged("no listener that asks for credentials is known")
	}
	p := c.dialTo(c.target.Refuses)
	name, secret := "nobody", "wrong"
	p.send(connect{id: c.client("x"), username: &name, password: &secret}.encode(c.v))
	ack := p.turnedAway(0x86, 0x87)
	if ack != nil && !c.is5() {
		c.oneOf(ack.code, []byte{4, 5}, "return code")
	}
}
