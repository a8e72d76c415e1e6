package mqtt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func firstPacket(c *C) {
	early := map[string][]byte{
		"PINGREQ": pingreq, "PUBLISH": publication{topic: c.topic("t")}.encode(c.v), "DISCONNECT": disconnectPacket(c.v, 0),
		"SUBSCRIBE": subscribePacket(c.v, 1, nil, filter{c.topic("t"), 0}),
	}
	for name, raw := range early {
		p := c.dial()
		p.what = name + " before CONNECT"
		p.send(raw)
		_, err := p.next(patience)
		c.require(err != nil, "%s is answered", p.what)
		p.closed(err)
	}
}

func secondConnect(c *C) {
	p := c.connect(connect{})
	p.send(connect{id: p.id}.encode(c.v))
	p.closedBy(malformed...)
}

func protocolName(c *C) {
	for _, name := range []string{"mqtt", "MQTTX", "HTTP", "MQ"} {
		ack := c.refuseConnect(connect{name: name, id: c.client("n")}.encode(c.v), 0x84, 0x81, 0x82)
		if ack != nil && !c.is5() {
			c.require(ack.code == 1, "return code for protocol name %q is %d", name, ack.code)
		}
	}
}

func protocolLevel(c *C) {
	if c.is5() {
		laterLevel(c)
		return
	}
	ack := c.refuseConnect(connect{level: 2, id: c.client("l")}.encode(c.v))
	c.require(ack != nil && ack.code == 1, "answer to protocol level 2: %s", ack)
}

// laterLevel: a version that nobody knows yet may be answered in the form of
// any version.
func laterLevel(c *C) {
	p := c.dial()
	p.send(connect{level: 6, id: c.client("l")}.encode(c.v))
	_ = p.nc.SetReadDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(p.in)
	c.require(!errors.Is(err, os.ErrDeadlineExceeded), "protocol level 6: the connection stays open after % x", answer)
	if len(answer) == 0 {
		return
	}
	c.require(len(answer) >= 4 && answer[0] == connackType, "protocol level 6 is answered % x", answer)
	c.oneOf(answer[3], []byte{0x84, 0x01}, "code for protocol level 6")
}

func reservedConnectFlag(c *C) {
	c.refuseConnect(connect{id: c.client("f"), setFlags: flagReserved}.encode(c.v), malformed...)
}

// cleanStart: an existing session is discarded.
func cleanStart(c *C) {
	o := c.durable(c.client("s"))
	p := c.connect(o)
	p.subscribe(1, c.topic("t"))
	p.drop()
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "queued", qos: 1})
	o.keep = false
	p = c.connect(o)
	c.require(!p.ack.present, "session present after a clean start")
	pub.publish(publication{topic: c.topic("t"), payload: "live", qos: 1})
	p.nothing("after a clean start something of the old session comes")
}

// resume: subscriptions and queued messages are still there.
func resume(c *C) {
	o := c.durable(c.client("s"))
	p := c.connect(o)
	p.subscribe(2, c.topic("t"))
	p.drop()
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "one", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "two", qos: 2})
	p = c.connect(o)
	c.require(p.ack.present, "no session present after a reconnect")
	p.gets("one")
	p.gets("two")
	pub.publish(publication{topic: c.topic("t"), payload: "live", qos: 1})
	p.gets("live")
}

func newSession(c *C) {
	p := c.connect(c.durable(c.client("s")))
	c.require(!p.ack.present, "session present for a client identifier that was never used")
	p.subscribe(1, c.topic("t"))
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "p", qos: 1})
	p.gets("p")
}

// cleanEnds: the session of a clean connection ends with it.
func cleanEnds(c *C) {
	p := c.connect(connect{id: c.client("s")})
	p.subscribe(1, c.topic("t"))
	p.leave(0)
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "p", qos: 1})
	p = c.connect(connect{id: p.id, keep: true})
	c.require(!p.ack.present, "the session of a clean connection is present later")
	p.nothing("a message for an earlier session comes")
}

// retainedOutlives: retained messages do not belong to the session.
func retainedOutlives(c *C) {
	p := c.connect(connect{id: c.client("s")})
	c.retain(p, publication{topic: c.topic("t"), payload: "kept", qos: 1})
	p.leave(0)
	c.connect(connect{id: p.id}).leave(0)
	c.subscriber(1, c.topic("t")).gets("kept")
}

func missingWillFields(c *C) {
	c.refuseConnect(connect{id: c.client("w"), setFlags: flagWill}.encode(c.v), malformed...)
	tail := str(c.topic("w"))
	if c.is5() {
		tail = join(props(), tail)
	}
	c.refuseConnect(connect{id: c.client("w"), setFlags: flagWill, tail: tail}.encode(c.v), malformed...)
}

func willQoSWithoutWill(c *C) {
	c.refuseConnect(connect{id: c.client("w"), setFlags: flagWillQoS1}.encode(c.v), malformed...)
	c.refuseConnect(connect{id: c.client("w"), setFlags: flagWillQoS2}.encode(c.v), malformed...)
}

// willQoS: 3 is refused, the others are what the will is published with.
func willQoS(c *C) {
	c.refuseConnect(connect{id: c.client("w"), will: &will{topic: c.topic("w"), qos: 3}}.encode(c.v), 0x81, 0x82, 0x9B)
	willQoSLevels(c)
}

func willRetainWithoutWill(c *C) {
	c.refuseConnect(connect{id: c.client("w"), setFlags: flagWillRetain}.encode(c.v), malformed...)
}

// keepAliveEnds: silence for one and a half times the keep alive ends the
// connection as a network failure does, so the will goes out.
func keepAliveEnds(c *C) {
	watch := c.subscriber(1, c.topic("w"))
	quiet := c.connect(connect{id: c.client("quiet"), keepAlive: 1, will: &will{topic: c.topic("w"), payload: "gone", qos: 1}})
	busy := c.connect(connect{id: c.client("busy"), keepAlive: 1})
	begin := time.Now()
	if n := quiet.ack.props.number(pServerKeepAlive, 1); n != 1 {
		c.notJudged(fmt.Sprintf("the server asks for a keep alive of %d s", n))
	}
	for {
		busy.send(pingreq)
		busy.expect(pingrespType)
		m, err := watch.next(400 * time.Millisecond) // less than the keep alive of the busy one
		if err == nil {
			c.require(m.payload == "gone", "instead of the will comes %s", m)
			break
		}
		c.require(time.Since(begin) < 8*time.Second, "after %s the will is not published", time.Since(begin))
	}
	quiet.closedBy(0x8D)
	busy.nothing("a client that sends PINGREQ gets")
}

// keepAliveWaits: the connection is not ended before its time.
func keepAliveWaits(c *C) {
	p := c.connect(connect{keepAlive: 2})
	begin := time.Now()
	p.closedBy(0x8D)
	c.require(time.Since(begin) >= 2900*time.Millisecond, "the connection with keep alive 2 s ends after %s", time.Since(begin))
}

// fieldOrder: a CONNECT with every field, in the order of the standard, means
// what it says.
func fieldOrder(c *C) {
	watch := c.subscriber(1, c.topic("will"))
	name, secret := c.client("name"), "secret"
	o := connect{id: c.client("all"), keepAlive: 60, username: &name, password: &secret, will: &will{topic: c.topic("will"), payload: "w", qos: 1}}
	if c.is5() {
		o.will.props = [][]byte{propByte(pPayloadFormat, 1), propString(pContentType, "text/plain")}
	}
	p := c.dial()
	p.send(o.encode(c.v))
	ack := p.expect(connackType)
	if ack.code != 0 { // the server checks passwords
		p.closed(nil)
		o.username, o.password = nil, nil
		p = c.connect(o)
	}
	p.drop()
	m := watch.gets("w")
	c.require(m.topic == c.topic("will"), "the will arrives on %s", m.topic)
	if c.is5() {
		c.require(m.props.text(pContentType) == "text/plain", "the will has content type %q", m.props.text(pContentType))
	}
}

func willTopicText(c *C) {
	for _, bad := range append([]string{"a\x00b"}, badText...) {
		c.refuseConnect(connect{id: c.client("w"), will: &will{topic: c.topic(bad), payload: "w"}}.encode(c.v), 0x81, 0x82, 0x90)
	}
}

// connectFormat: CONNECT packets that break the layout.
func connectFormat(c *C) {
	good := connect{id: c.client("f")}.encode(c.v)
	cases := map[string][]byte{
		"bytes behind the payload": frame(connectType, good[2:], []byte("tail")), "a cut client identifier": frame(connectType, good[2:len(good)-1]),
		"a cut variable header": frame(connectType, good[2:8]), "wrong fixed header flags": frame(connectType|1, good[2:]), "no body": frame(connectType),
	}
	if c.is5() {
		twice := propU32(pSessionExpiry, 1)
		for what, list := range map[string][][]byte{
			"a property twice": {twice, twice}, "Receive Maximum 0": {propU16(pReceiveMaximum, 0)}, "Maximum Packet Size 0": {propU32(pMaximumPacketSize, 0)},
			"a property of PUBLISH": {propU16(pTopicAlias, 1)}, "Request Problem Information 2": {propByte(pRequestProblem, 2)},
			"Request Response Information 2": {propByte(pRequestResponse, 2)}, "an unknown property": {{0x7F, 0}},
			"authentication data without method": {propString(pAuthData, "x")}, "a cut property": {{pSessionExpiry, 0}},
		} {
			cases[what] = connect{id: c.client("f"), props: list}.encode(c.v)
		}
	}
	var wrong []string
	for what, raw := range cases {
		if v := c.attempt(func() { c.malformedConnect(raw) }); v.Result == Deviates {
			wrong = append(wrong, what+": "+v.Detail)
		}
	}
	slices.Sort(wrong)
	c.require(len(wrong) == 0, "%s", strings.Join(wrong, "; "))
}

func (c *C) malformedConnect(raw []byte) {
	ack := c.refuseConnect(raw, malformed...)
	c.require(c.is5() || ack == nil, "it is answered with CONNACK %s", ack)
}

// takeover: the second connection of a client identifier ends the first.
func takeover(c *C) {
	o := c.durable(c.client("s"))
	first := c.connect(o)
	first.subscribe(1, c.topic("t"))
	second := c.connect(o)
	first.closedBy(0x8E)
	if c.is5() {
		c.require(first.ended != nil, "the first connection is closed without DISCONNECT 0x8E")
	}
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	second.gets("m")
	second.nothing("after a takeover comes")
}

func accepted(c *C) {
	p := c.connect(connect{})
	p.nothing("beside CONNACK comes")
}

// refusedIsIgnored: what follows a refused CONNECT has no effect.
func refusedIsIgnored(c *C) {
	watch := c.subscriber(1, c.topic("t"))
	bad := connect{level: 2, id: c.client("x")}
	if c.is5() {
		bad = connect{id: c.client("x"), props: [][]byte{propString(pAuthMethod, "no-such-method")}}
	}
	p := c.dial()
	p.send(bad.encode(c.v), publication{topic: c.topic("t"), payload: "intruder"}.encode(c.v))
	p.turnedAway()
	watch.nothing("a message of a refused client arrives")
}

// connackFirst: also when messages wait, and when the client does not wait.
func connackFirst(c *C) {
	o := c.durable(c.client("s"))
	p := c.connect(o)
	p.subscribe(1, c.topic("t"))
	p.drop()
	pub := c.connect(connect{})
	for range 10 {
		pub.publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	}
	p = c.dial()
	p.send(o.encode(c.v), pingreq, subscribePacket(c.v, 9, nil, filter{c.topic("u"), 0}))
	p.expect(connackType)
	p.await(subackType)
}

// oneConnack looks for a second CONNACK behind everything else.
func oneConnack(c *C) {
	p := c.connect(connect{})
	p.subscribe(1, c.topic("t"))
	p.publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	p.gets("m")
	p.nothing("beside the answers comes")
}

func sessionPresentClean(c *C) {
	o := c.durable(c.client("s"))
	c.connect(o).drop()
	p := c.connect(connect{id: o.id})
	c.require(!p.ack.present, "session present after a clean start")
}

func sessionPresent(c *C) {
	o := c.durable(c.client("s"))
	p := c.connect(o)
	c.require(!p.ack.present, "session present without a session")
	p.drop()
	p = c.connect(o)
	c.require(p.ack.present, "no session present although there is one")
}

// refusedNotPresent: a CONNACK that refuses says that no session is present,
// also where there is one.
func refusedNotPresent(c *C) {
	o := c.durable(c.client("s"))
	c.connect(o).drop()
	bad := connect{id: o.id, keep: true, level: 2}
	if c.is5() {
		bad = connect{id: o.id, keep: true, props: [][]byte{propString(pAuthMethod, "no-such-method")}}
	}
	c.refuseConnect(bad.encode(c.v))
}

// noReturnCode: a CONNECT that no return code of 3.1.1 fits.
func noReturnCode(c *C) {
	ack := c.refuseConnect(connect{id: c.client("f"), setFlags: flagReserved}.encode(c.v))
	c.require(ack == nil, "a malformed CONNECT is answered with %s", ack)
}
