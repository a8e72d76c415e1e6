package mqtt

import "time"

// willWatch is a subscriber of the will topic w.
func (c *C) willWatch() *peer { return c.subscriber(1, c.topic("w")) }

func (c *C) willOf(id string) connect {
	return connect{id: id, will: &will{topic: c.topic("w"), payload: "will", qos: 1}}
}

func willStored(c *C) {
	watch := c.willWatch()
	p := c.connect(c.willOf(c.client("p")))
	watch.nothing("the will goes out while the client is connected")
	p.drop()
	m := watch.gets("will")
	c.require(m.topic == c.topic("w"), "the will arrives on %s", m.topic)
	watch.nothing("beside the will comes")
}

// willOnEnd: the ways in which a connection ends without a normal DISCONNECT.
func willOnEnd(c *C) {
	watch := c.willWatch()
	c.connect(c.willOf(c.client("drop"))).drop()
	watch.gets("will")
	c.connect(c.willOf(c.client("error"))).crash()
	watch.gets("will")
	taken := c.connect(c.willOf(c.client("taken")))
	c.connect(connect{id: taken.id})
	watch.gets("will")
	if c.is5() {
		c.connect(c.willOf(c.client("asks"))).leave(0x04)
		watch.gets("will")
	}
	c.connect(c.willOf(c.client("bye"))).leave(0)
	watch.nothing("after a normal DISCONNECT the will is published")
	if c.is5() {
		willDelay(c)
	}
}

func willRemoved(c *C) {
	watch := c.willWatch()
	o := c.durable(c.client("s"))
	withWill := o
	withWill.will = c.willOf("").will
	c.connect(withWill).drop()
	watch.gets("will")
	c.connect(o).crash()
	watch.nothing("a published will is published again")
	c.connect(withWill).leave(0)
	c.connect(o).crash()
	watch.nothing("a will that DISCONNECT deleted is published")
}

func noWill(c *C) {
	watch := c.willWatch()
	c.connect(connect{}).crash()
	watch.nothing("a client without will has one")
}

func willDiscarded(c *C) {
	watch := c.willWatch()
	c.connect(c.willOf(c.client("p"))).leave(0)
	watch.nothing("after a normal DISCONNECT the will is published")
}

func willQoSLevels(c *C) {
	watch := c.subscriber(2, c.topic("w"))
	for qos := range byte(3) {
		o := c.willOf(c.client(string('a' + rune(qos))))
		o.will.qos = qos
		c.connect(o).drop()
		m := watch.gets("will")
		c.require(m.qos == qos, "a will of QoS %d arrives with QoS %d", qos, m.qos)
	}
}

func willNotRetained(c *C) {
	watch := c.willWatch()
	c.connect(c.willOf(c.client("p"))).drop()
	watch.gets("will")
	c.subscriber(1, c.topic("w")).nothing("a will that is not to be retained is")
}

func willRetained(c *C) {
	watch := c.willWatch()
	c.topics = append(c.topics, c.topic("w"))
	o := c.willOf(c.client("p"))
	o.will.retain = true
	c.connect(o).drop()
	watch.gets("will")
	m := c.subscriber(1, c.topic("w")).gets("will")
	c.require(m.retain, "the retained will arrives without the retain flag")
}

// willDelay: it goes out after its delay, or when the session ends before that.
func willDelay(c *C) {
	watch := c.willWatch()
	o := c.durable(c.client("s"))
	o.will = &will{topic: c.topic("w"), payload: "late", qos: 1, props: [][]byte{propU32(pWillDelay, 1)}}
	p := c.connect(o)
	begin := time.Now()
	p.drop()
	watch.gets("late")
	c.require(time.Since(begin) >= 900*time.Millisecond, "a will with a delay of 1 s comes after %s", time.Since(begin))

	o = connect{id: c.client("e"), props: [][]byte{propU32(pSessionExpiry, 1)}, will: &will{
		topic: c.topic("w"), payload: "session", qos: 1, props: [][]byte{propU32(pWillDelay, 60)},
	}}
	c.connect(o).drop()
	watch.gets("session")
}

// willCancelled: the client is back before the delay is over.
func willCancelled(c *C) {
	watch := c.willWatch()
	o := c.durable(c.client("s"))
	withWill := o
	withWill.will = &will{topic: c.topic("w"), payload: "will", qos: 1, props: [][]byte{propU32(pWillDelay, 1)}}
	c.connect(withWill).crash()
	p := c.connect(o)
	c.require(p.ack.present, "no session present after a reconnect")
	time.Sleep(1500 * time.Millisecond) // the delay of the will that must not come
	watch.nothing("a will whose client came back is published")

	second := c.connect(withWill) // this one is displaced, not gone
	p.closedBy(0x8E)
	c.connect(o)
	second.closedBy(0x8E)
	time.Sleep(1500 * time.Millisecond)
	watch.nothing("a delayed will is published although the client went on at once")
}

// willProperties: all of them arrive, user properties in their order.
func willProperties(c *C) {
	watch := c.willWatch()
	o := c.willOf(c.client("p"))
	o.will.props = [][]byte{
		propByte(pPayloadFormat, 1), propU32(pMessageExpiry, 300), propString(pContentType, "text/plain"),
		propString(pResponseTopic, c.topic("answer")), propString(pCorrelationData, "\x00\xFF"),
		userProperty("b", "1"), userProperty("a", "2"), userProperty("b", "3"), userProperty("a", "2"),
	}
	c.connect(o).drop()
	m := watch.gets("will")
	c.sameProperties(m, "1", "text/plain", c.topic("answer"), "\x00\xFF", "b=1", "a=2", "b=3", "a=2")
	expiry := m.props.number(pMessageExpiry, 0)
	c.require(expiry > 280 && expiry <= 300, "a will with an expiry of 300 s arrives with %d s", expiry)
}
