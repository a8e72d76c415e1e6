package mqtt

import (
	"fmt"
	"time"
)

// silentConnection: the default deadline is 10 s.
func silentConnection(c *C) {
	p := c.dial()
	p.send([]byte{connectType})
	_, err := p.next(20 * time.Second)
	p.closed(err)
}

func longKeepAlive(c *C) {
	for _, seconds := range []int{43690, 43691, 65535} {
		p := c.connect(connect{keepAlive: seconds})
		p.nothing("after CONNACK comes")
	}
}

func emptyFields(c *C) {
	watch := c.willWatch()
	name, secret := c.client("u"), ""
	p := c.dial()
	p.send(connect{id: c.client("e"), username: &name, password: &secret, will: &will{topic: c.topic("w"), qos: 1}}.encode(c.v))
	ack := p.expect(connackType)
	c.oneOf(ack.code, []byte{0, 4, 5}, "code for an empty password")
	if ack.code != 0 {
		p.closed(nil)
		p = c.connect(connect{will: &will{topic: c.topic("w"), qos: 1}})
	}
	p.drop()
	watch.gets("")
}

func passwordAllowed(c *C) {
	secret := "token"
	p := c.dial()
	p.send(connect{id: c.client("p"), password: &secret}.encode(c.v))
	c.oneOf(p.expect(connackType).code, []byte{0, 0x86, 0x87}, "code for a password without user name")
}

func codesTell(c *C) {
	id := c.client("x")
	for _, step := range []struct {
		what string
		raw  []byte
		code byte
	}{
		{"wrong flags", []byte{pingreqType | 1, 0}, 0x81},
		{"QoS 3", c.violation(), 0x81},
		{"overlong property length", frame(publishType, str(c.topic("t")), []byte{0x80, 0x00}), 0x81},
		{"properties beyond the packet", frame(publishType, str(c.topic("t")), []byte{5, pPayloadFormat, 0}), 0x81},
		{"invalid UTF-8", publication{topic: c.topic("\xFF")}.encode(c.v), 0x81},
		{"second CONNECT", connect{id: id}.encode(c.v), 0x82},
		{"subscription identifier from a client", publication{topic: c.topic("t"), props: [][]byte{propVarint(pSubscriptionID, 1)}}.encode(c.v), 0x82},
		{"topic alias 0", publication{topic: c.topic("t"), props: [][]byte{propU16(pTopicAlias, 0)}}.encode(c.v), 0x94},
		{"topic alias too high", publication{topic: c.topic("t"), props: [][]byte{propU16(pTopicAlias, 65535)}}.encode(c.v), 0x94},
		{"unknown topic alias", publication{props: [][]byte{propU16(pTopicAlias, 1)}}.encode(c.v), 0x82},
		{"a property twice", publication{topic: c.topic("t"), props: [][]byte{propU32(pMessageExpiry, 1), propU32(pMessageExpiry, 1)}}.encode(c.v), 0x82},
		{"AUTH without method", frame(authType, []byte{0x19}, props(propString(pAuthMethod, "m"))), 0x82},
		{"SUBSCRIBE without filter", subscribePacket(c.v, 1, nil), 0x82},
	} {
		end := c.closes(step.what, step.raw, step.code)
		c.require(end != nil, "%s: no DISCONNECT comes", step.what)
	}
}

func connackCodesTell(c *C) {
	for _, step := range []struct {
		what string
		o    connect
		code byte
	}{
		{"reserved flag", connect{setFlags: flagReserved}, 0x81},
		{"will QoS 3", connect{will: &will{topic: c.topic("w"), qos: 3}}, 0x81},
		{"will retain without will", connect{setFlags: flagWillRetain}, 0x81},
		{"will topic with wildcard", connect{will: &will{topic: c.topic("#")}}, 0x81},
		{"Receive Maximum 0", connect{props: [][]byte{propU16(pReceiveMaximum, 0)}}, 0x82},
		{"Maximum Packet Size 0", connect{props: [][]byte{propU32(pMaximumPacketSize, 0)}}, 0x82},
		{"property twice", connect{props: [][]byte{propByte(pRequestProblem, 1), propByte(pRequestProblem, 1)}}, 0x82},
		{"authentication data without method", connect{props: [][]byte{propString(pAuthData, "x")}}, 0x82},
		{"property of another packet", connect{props: [][]byte{propU16(pTopicAlias, 1)}}, 0x82},
		{"unknown method", connect{props: [][]byte{propString(pAuthMethod, "none")}}, 0x8C},
	} {
		step.o.id = c.client("x")
		ack := c.refuseConnect(step.o.encode(c.v))
		c.require(ack != nil, "%s: no CONNACK comes", step.what)
		c.require(ack.code == step.code || step.code < 0x83 && (ack.code == 0x81 || ack.code == 0x82 || ack.code == 0x90), "%s: CONNACK has code %#02x", step.what, ack.code)
	}
}

func willAtSessionEnd(c *C) {
	watch := c.willWatch()
	c.connect(connect{id: c.client("p"), will: &will{topic: c.topic("w"), payload: "now", qos: 1, props: [][]byte{propU32(pWillDelay, 60)}}}).drop()
	watch.gets("now")
}

func willAtCleanStart(c *C) {
	watch := c.willWatch()
	o := c.durable(c.client("p"))
	withWill := o
	withWill.will = &will{topic: c.topic("w"), payload: "now", qos: 1, props: [][]byte{propU32(pWillDelay, 60)}}
	c.connect(withWill).drop()
	watch.nothing("before the delay is over comes")
	o.keep = false
	c.connect(o)
	watch.gets("now")
}

func shortDisconnect(c *C) {
	watch := c.willWatch()
	p := c.connect(c.willOf(c.client("a")))
	p.send([]byte{disconnectType, 1, 0x00})
	p.gone()
	watch.nothing("after DISCONNECT 0x00 comes")
	p = c.connect(c.willOf(c.client("b")))
	p.send([]byte{disconnectType, 1, 0x04})
	p.gone()
	watch.gets("will")
}

func expiryInDisconnect(c *C) {
	p := c.connect(c.durable(c.client("a")))
	p.leave(0, propU32(pSessionExpiry, 0))
	c.require(!c.connect(c.durable(p.id)).ack.present, "the session is there after DISCONNECT set its expiry to 0")
	p = c.connect(connect{id: c.client("b"), keep: true})
	p.send(disconnectPacket(c.v, 0, propU32(pSessionExpiry, 60)))
	p.closedBy(0x82)
	c.require(!c.connect(c.durable(p.id)).ack.present, "DISCONNECT gives a session without expiry one")
}

// mqtt31: after CONNECT the packets are those of 3.1.1.
func mqtt31(c *C) {
	watch := c.willWatch()
	o := connect{name: "MQIsdp", level: 3, id: c.client("old"), keep: true, will: &will{topic: c.topic("w"), payload: "will", qos: 1}}
	p := c.connect(o)
	p.subscribe(2, c.topic("t"))
	for qos := range byte(3) {
		p.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(qos), qos: qos})
		m := p.gets(fmt.Sprint(qos))
		c.require(m.qos == qos, "QoS %d comes as QoS %d", qos, m.qos)
	}
	p.drop()
	watch.gets("will")
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "queued", qos: 1})
	c.connect(o).gets("queued")
	ack := c.refuseConnect(connect{name: "MQIsdp", level: 3}.encode(c.v))
	c.require(ack != nil && ack.code == 2, "answer to an empty client identifier: %s", ack)
}
