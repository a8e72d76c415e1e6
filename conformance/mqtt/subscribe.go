package mqtt

import (
	"fmt"
	"slices"
	"strings"
)

func subscribeFlags(c *C) {
	raw := subscribePacket(c.v, 1, nil, filter{c.topic("t"), 0})
	for _, first := range []byte{subscribeType, subscribeType | 1, subscribeType | 3, subscribeType | 0xA} {
		c.closes(fmt.Sprintf("SUBSCRIBE with first byte %#02x", first), append([]byte{first}, raw[1:]...))
	}
}

func filterText(c *C) {
	for _, bad := range badText {
		c.closes(fmt.Sprintf("topic filter %q", bad), subscribePacket(c.v, 1, nil, filter{c.topic(bad), 0}), 0x81, 0x82, 0x8F)
	}
}

func noFilter(c *C) {
	c.closes("SUBSCRIBE without topic filter", subscribePacket(c.v, 1, nil))
}

func noLocalHolds(c *C) {
	p := c.connect(connect{})
	p.subscribe(1|noLocal, c.topic("t"))
	other := c.subscriber(1, c.topic("t"))
	p.publish(publication{topic: c.topic("t"), payload: "own", qos: 1})
	other.gets("own")
	p.nothing("with No Local the own message comes")
	other.publish(publication{topic: c.topic("t"), payload: "other", qos: 1})
	p.gets("other")
}

func sharedNoLocal(c *C) {
	c.closes("No Local on a shared subscription", subscribePacket(c.v, 1, nil, filter{"$share/g/" + c.topic("t"), noLocal}))
}

// reservedOptions: in version 3.1.1 all bits but the lowest two are reserved,
// and QoS 3 is malformed.
func reservedOptions(c *C) {
	bad := []byte{0x40, 0x80, 3}
	if !c.is5() {
		bad = append(bad, 0x04, 0x08, 0x10, 0x20)
	}
	for _, options := range bad {
		c.closes(fmt.Sprintf("subscription options %#02x", options), subscribePacket(c.v, 1, nil, filter{c.topic("t"), options}))
	}
}

func subscribeAnswered(c *C) {
	p := c.connect(connect{})
	for qos := range byte(3) {
		code := p.request(nil, filter{c.topic("t"), qos})[0]
		c.require(code <= qos, "SUBSCRIBE with QoS %d is answered %#02x", qos, code)
	}
}

// subscriptionReplaced: the same filter again leaves one subscription, with the
// new options.
func subscriptionReplaced(c *C) {
	sub := c.subscriber(0, c.topic("t"))
	sub.subscribe(2, c.topic("t"))
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "one", qos: 2})
	m := sub.gets("one")
	c.require(m.qos == 2, "after the subscription was replaced QoS %d comes", m.qos)
	sub.nothing("a second copy comes")
	sub.subscribe(0, c.topic("t"))
	pub.publish(publication{topic: c.topic("t"), payload: "two", qos: 2})
	m = sub.gets("two")
	c.require(m.qos == 0, "after the subscription was replaced QoS %d comes", m.qos)
}

// nothingLostByReplacing: retained messages come again, and live ones are
// neither lost nor doubled while the subscription is replaced.
func nothingLostByReplacing(c *C) {
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("kept"), payload: "kept", qos: 1})
	sub := c.subscriber(1, c.topic("#"))
	sub.gets("kept")
	const rounds, burst = 10, 10
	retained, next := 0, 0
	for round := range rounds {
		for i := range burst {
			pub.send(publication{topic: c.topic("t"), payload: fmt.Sprint(round*burst + i), qos: 1, id: i + 1}.encode(c.v))
		}
		sub.send(subscribePacket(c.v, 1000+round, nil, filter{c.topic("#"), 1}))
		for i := range burst {
			pub.awaitID(pubackType, i+1)
		}
		sub.awaitID(subackType, 1000+round)
		for next < (round+1)*burst || retained <= round {
			m := sub.take()
			if m.payload == "kept" {
				retained++
				continue
			}
			c.require(m.payload == fmt.Sprint(next), "message %d is expected, %q comes", next, m.payload)
			next++
		}
	}
	sub.nothing("beside all messages comes")
}

// manyFilters: one SUBSCRIBE with several filters is as good as several.
func manyFilters(c *C) {
	sub := c.connect(connect{})
	codes := sub.request(nil, filter{c.topic("a"), 0}, filter{c.topic("b"), 1}, filter{c.topic("a"), 2}, filter{c.topic("c"), 0})
	c.require(slices.Equal(codes, []byte{0, 1, 2, 0}), "SUBACK has the codes %#02x", codes)
	pub := c.connect(connect{})
	for i, topic := range []string{"a", "b", "c"} {
		pub.publish(publication{topic: c.topic(topic), payload: topic, qos: 2})
		m := sub.gets(topic)
		c.require(m.qos == []byte{2, 1, 0}[i], "%s comes with QoS %d", topic, m.qos)
	}
	sub.nothing("beside one copy of each comes")
}

// codePerFilter: granted and failed filters in one SUBSCRIBE. A server may
// refuse the whole packet for a filter that is none.
func codePerFilter(c *C) {
	p := c.connect(connect{})
	filters := []filter{{c.topic("a"), 2}, {c.topic("b#"), 1}, {c.topic("c"), 1}, {c.topic("d"), 0}}
	p.send(subscribePacket(c.v, 5, nil, filters...))
	got, err := p.next(patience)
	if err != nil || got.kind == disconnectType {
		p.closed(err)
		p = c.connect(connect{})
		codes := p.request(nil, filters[0], filters[2], filters[3])
		c.require(slices.Equal(codes, []byte{2, 1, 0}), "SUBACK has the codes %#02x", codes)
		return
	}
	c.require(got.kind == subackType && got.id == 5, "answer to SUBSCRIBE: %s", got)
	c.require(len(got.codes) == 4, "SUBACK has %d codes for 4 filters", len(got.codes))
	want := []byte{2, got.codes[1], 1, 0}
	c.require(slices.Equal(got.codes, want) && got.codes[1] >= 0x80, "SUBACK has the codes %#02x", got.codes)
}

// lowerQoS: the lower one of message and subscription.
func lowerQoS(c *C) {
	pub := c.connect(connect{})
	for granted := range byte(3) {
		topic := c.topic(fmt.Sprint(granted))
		sub := c.subscriber(granted, topic)
		for qos := range byte(3) {
			pub.publish(publication{topic: topic, payload: fmt.Sprint(qos), qos: qos})
			m := sub.gets(fmt.Sprint(qos))
			c.require(m.qos == min(granted, qos), "QoS %d comes to a subscription of QoS %d as QoS %d", qos, granted, m.qos)
		}
	}
}

func unsubscribeFlags(c *C) {
	raw := unsubscribePacket(c.v, 1, c.topic("t"))
	for _, first := range []byte{unsubscribeType, unsubscribeType | 1, unsubscribeType | 3, unsubscribeType | 0xA} {
		c.closes(fmt.Sprintf("UNSUBSCRIBE with first byte %#02x", first), append([]byte{first}, raw[1:]...))
	}
}

func unsubscribeText(c *C) {
	for _, bad := range badText {
		c.closes(fmt.Sprintf("topic filter %q", bad), unsubscribePacket(c.v, 1, c.topic(bad)), 0x81, 0x82, 0x8F)
	}
}

func noUnsubscribeFilter(c *C) {
	c.closes("UNSUBSCRIBE without topic filter", unsubscribePacket(c.v, 1))
}

// exactFilter: only the filter that is the same in every character goes.
func exactFilter(c *C) {
	sub := c.subscriber(1, c.topic("a/+"))
	pub := c.connect(connect{})
	for _, other := range []string{"a/b", "a/#", "A/+", "a/+/"} {
		sub.unsubscribe(c.topic(other))
	}
	pub.publish(publication{topic: c.topic("a/b"), payload: "still", qos: 1})
	sub.gets("still")
	sub.unsubscribe(c.topic("a/+"))
	pub.publish(publication{topic: c.topic("a/b"), payload: "m", qos: 1})
	sub.nothing("after UNSUBSCRIBE comes")
}

func unsubscribed(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "before", qos: 1})
	sub.gets("before")
	sub.unsubscribe(c.topic("t"))
	for qos := range byte(3) {
		pub.publish(publication{topic: c.topic("t"), payload: "after", qos: qos})
	}
	sub.nothing("after UNSUBSCRIBE comes")
}

// startedIsFinished: exchanges that began before UNSUBSCRIBE go on.
func startedIsFinished(c *C) {
	o := c.durable(c.client("s"))
	sub := c.connect(o)
	sub.subscribe(2, c.topic("t"))
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("t"), payload: "two", qos: 2})
	pub.publish(publication{topic: c.topic("t"), payload: "one", qos: 1})
	two, one := sub.receive(), sub.receive()
	sub.unsubscribe(c.topic("t"))
	sub.send(ackPacket(pubrecType, two.id))
	sub.awaitID(pubrelType, two.id)
	sub.drop()
	sub = c.connect(o)
	c.require(sub.ack.present, "no session present after a reconnect")
	seen := map[byte]bool{}
	for range 2 {
		got := sub.read()
		c.require(got.kind == pubrelType && got.id == two.id || got.kind == publishType && got.id == one.id, "after the reconnect comes %s", got)
		seen[got.kind] = true
	}
	c.require(len(seen) == 2, "one of two started deliveries is not finished")
}

func unsubscribeAnswered(c *C) {
	p := c.subscriber(1, c.topic("t"))
	p.unsubscribe(c.topic("t"))
	p.unsubscribe(c.topic("t"))
	p.unsubscribe(c.topic("never"))
}

func unsubscribeMany(c *C) {
	sub := c.subscriber(1, c.topic("a"), c.topic("b"), c.topic("c"))
	ack := sub.unsubscribe(c.topic("a"), c.topic("never"), c.topic("c"))
	if c.is5() {
		c.require(slices.Equal(ack.codes, []byte{0, 0x11, 0}), "UNSUBACK has the codes %#02x", ack.codes)
	}
	pub := c.connect(connect{})
	for _, topic := range []string{"a", "c", "b"} {
		pub.publish(publication{topic: c.topic(topic), payload: topic, qos: 1})
	}
	sub.gets("b")
	sub.nothing("after UNSUBSCRIBE comes")
}

// pings are answered one by one.
func pings(c *C) {
	p := c.connect(connect{})
	p.send(pingreq, pingreq, pingreq)
	for range 3 {
		p.expect(pingrespType)
	}
}

// largeSubscribe has as many filters as a client may want at once.
func largeSubscribe(c *C) {
	var filters []filter
	for i := range 200 {
		filters = append(filters, filter{c.topic(strings.Repeat("x", i%50+1) + fmt.Sprint(i)), byte(i % 3)})
	}
	for i, code := range c.connect(connect{}).request(nil, filters...) {
		c.require(code == byte(i%3), "code %d of SUBACK is %#02x", i, code)
	}
}
