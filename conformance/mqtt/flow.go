package mqtt

import "fmt"

// windowed is a durable subscriber that takes three messages at a time, with
// ten waiting.
func (c *C) windowed(qos byte) *pair {
	p := c.pair(qos, propU16(pReceiveMaximum, 3))
	for i := range 10 {
		p.publish(qos, fmt.Sprint(i))
	}
	return p
}

// receiveMaximum: never more than three are unacknowledged, and each
// acknowledgement lets one more through.
func receiveMaximum(c *C) {
	p := c.windowed(1)
	for round := range 2 {
		var window []*packet
		for range 3 {
			window = append(window, p.sub.receive())
		}
		p.sub.nothing("more than Receive Maximum messages come")
		for i, m := range window {
			c.require(m.payload == fmt.Sprint(round*3+i), "%q comes in place of %d", m.payload, round*3+i)
			p.sub.confirm(m)
		}
	}
	p.sub.receive()
	p.again()
	for range 3 {
		p.sub.receive()
	}
	p.sub.nothing("more than Receive Maximum messages come after a reconnect")
}

// receiveMaximumQoS2: PUBREC does not make room, PUBCOMP and a PUBREC with an
// error do.
func receiveMaximumQoS2(c *C) {
	p := c.windowed(2)
	var window []*packet
	for range 3 {
		window = append(window, p.sub.receive())
	}
	p.sub.send(ackPacket(pubrecType, window[0].id))
	p.sub.awaitID(pubrelType, window[0].id)
	p.sub.nothing("after PUBREC a further message comes")
	p.sub.send(ackPacket(pubcompType, window[0].id))
	p.sub.receive()
	p.sub.nothing("after one PUBCOMP more than one message comes")
	p.sub.send(ackCodePacket(pubrecType, window[1].id, 0x80))
	p.sub.receive()
	p.sub.nothing("after one PUBREC with an error more than one message comes")
}

// everythingElseGoesOn: a full window holds up nothing but QoS 1 and 2.
func everythingElseGoesOn(c *C) {
	p := c.windowed(1)
	for range 3 {
		p.sub.receive()
	}
	p.sub.send(pingreq)
	p.sub.expect(pingrespType)
	p.sub.subscribe(1|retainNever, c.topic("other"))
	p.sub.send(publication{topic: c.topic("third"), qos: 2, id: 900}.encode(c.v))
	p.sub.awaitID(pubrecType, 900)
	p.sub.send(ackPacket(pubrelType, 900))
	p.sub.awaitID(pubcompType, 900)
	p.sub.unsubscribe(c.topic("other"))
}
