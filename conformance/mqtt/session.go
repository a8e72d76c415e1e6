package mqtt

import (
	"fmt"
	"time"
)

func disconnectFlags(c *C) {
	for _, flags := range []byte{1, 2, 4, 8} {
		c.closes(fmt.Sprintf("DISCONNECT with flags %d", flags), []byte{disconnectType | flags, 0})
	}
	watch := c.willWatch()
	p := c.connect(c.willOf(c.client("p")))
	p.send([]byte{disconnectType | 1, 0})
	p.gone()
	watch.gets("will")
}

// noDisconnectBeforeConnack: the reader of a refused CONNECT takes nothing but
// CONNACK.
func noDisconnectBeforeConnack(c *C) {
	c.refuseConnect(connect{id: c.client("a"), props: [][]byte{propString(pAuthMethod, "no-such-method")}}.encode(c.v))
	c.refuseConnect(connect{id: c.client("b"), setFlags: flagReserved}.encode(c.v))
	firstPacket(c)
}

// violation is a packet that every server takes for malformed.
func (c *C) violation() []byte { return publication{topic: c.topic("t"), qos: 3, id: 1}.encode(c.v) }

// disconnectCodes provokes a DISCONNECT in several ways; the reader knows the
// codes and properties that may stand in it, and what may follow.
func disconnectCodes(c *C) {
	raws := [][]byte{
		connect{id: c.client("x")}.encode(c.v), publication{topic: c.topic("+")}.encode(c.v), subscribePacket(c.v, 1, nil),
		frame(connackType, []byte{0, 0, 0}), publication{topic: c.topic(badText[0])}.encode(c.v), c.violation(),
	}
	for _, raw := range raws {
		end := c.closes(fmt.Sprintf("% x", raw), raw, codesOf[disconnectType]...)
		c.require(end == nil || end.code >= 0x80, "after an error of the client comes %s", end)
		c.require(end == nil || !end.props.has(pSessionExpiry), "the server sends a session expiry in DISCONNECT")
	}
}

// nothingAfterDisconnect: nothing comes behind the server's DISCONNECT, and the
// connection ends.
func nothingAfterDisconnect(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	sub.send(c.violation())
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	sub.closedBy(malformed...)
	o := connect{id: c.client("s")}
	first := c.connect(o)
	c.connect(o)
	first.closedBy(0x8E)
}

// disconnected: the server closes after the client's DISCONNECT, and what
// follows it has no effect.
func disconnected(c *C) {
	watch := c.subscriber(1, c.topic("t"))
	p := c.connect(connect{})
	p.send(disconnectPacket(c.v, 0), publication{topic: c.topic("t"), payload: "late"}.encode(c.v))
	p.gone()
	watch.nothing("a message behind DISCONNECT is delivered")
}

// stateWhileConnected: the session expiry runs from the end of the connection.
func stateWhileConnected(c *C) {
	o := connect{id: c.client("s")}
	if c.is5() {
		o.props = [][]byte{propU32(pSessionExpiry, 1)}
	}
	sub := c.connect(o)
	sub.subscribe(1, c.topic("t"))
	time.Sleep(2100 * time.Millisecond) // longer than the session expiry
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	sub.gets("m")
}

func stateExpires(c *C) {
	o := connect{id: c.client("s"), keep: true, props: [][]byte{propU32(pSessionExpiry, 1)}}
	p := c.connect(o)
	p.subscribe(1, c.topic("t"))
	p.drop()
	gone := c.connect(connect{id: c.client("zero"), keep: true})
	gone.subscribe(1, c.topic("t"))
	gone.leave(0)
	later := c.connect(c.durable(c.client("later")))
	later.subscribe(1, c.topic("t"))
	later.leave(0, propU32(pSessionExpiry, 0))
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	for _, id := range []string{gone.id, later.id} {
		p = c.connect(connect{id: id, keep: true})
		c.require(!p.ack.present, "a session with expiry 0 is present after its connection")
		p.nothing("a message of an ended session comes")
	}
	time.Sleep(2500 * time.Millisecond) // the session expiry, and servers look once a second
	p = c.connect(o)
	c.require(!p.ack.present, "the session is present after its expiry")
	p.nothing("a message of an expired session comes")
}

// stateKept: what belongs to the session survives the connection.
func stateKept(c *C) {
	resume(c)
	resentIdentifier(c)
}

// transportInOrder: a long stream in small pieces and in one piece.
func transportInOrder(c *C) {
	sub := c.subscriber(0, c.topic("t"))
	pub := c.connect(connect{})
	var stream []byte
	for i := range 50 {
		stream = append(stream, publication{topic: c.topic("t"), payload: fmt.Sprint(i)}.encode(c.v)...)
	}
	for i := 0; i < len(stream); i += 7 {
		pub.send(stream[i:min(i+7, len(stream))])
	}
	for i := range 50 {
		sub.gets(fmt.Sprint(i))
	}
	pub.send(stream)
	for i := range 50 {
		sub.gets(fmt.Sprint(i))
	}
}

// errorEnds: packets that break the protocol end the connection.
func errorEnds(c *C) {
	raws := map[string][]byte{
		"CONNACK": frame(connackType, []byte{0, 0}), "SUBACK": frame(subackType, u16(1), []byte{0}), "PINGRESP": {pingrespType, 0},
		"packet type 0": {0, 0}, "remaining length of five bytes": {pingreqType, 0x80, 0x80, 0x80, 0x80, 0x01},
		"PUBLISH without body": {publishType, 0}, "SUBSCRIBE without filter": subscribePacket(c.v, 1, nil),
		"PINGREQ with body": {pingreqType, 1, 0}, "PUBACK of one byte": {pubackType, 1, 0},
		"filter that is longer than the packet": frame(subscribeType|2, u16(1), optionalProps(c.v, nil), u16(100), []byte("short")),
	}
	c.closesAll(raws)
}
