package mqtt

func retainReplaces(c *C) {
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("t"), payload: "old", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "new", qos: 2, retain: true})
	sub := c.subscriber(2, c.topic("t"))
	m := sub.gets("new")
	c.require(m.retain && m.qos == 2, "the retained message arrives with retain %v and QoS %d", m.retain, m.qos)
	sub.nothing("beside the last retained message comes")
}

// retainPerTopic: a new subscription gets the last message of each topic.
func retainPerTopic(c *C) {
	pub := c.connect(connect{})
	for _, topic := range []string{"a", "b", "b/c"} {
		c.retain(pub, publication{topic: c.topic("r/" + topic), payload: topic, qos: 1})
	}
	sub := c.subscriber(1, c.topic("r/#"))
	got := map[string]bool{}
	for range 3 {
		m := sub.take()
		c.require(m.retain && m.topic == c.topic("r/"+m.payload), "%q arrives on %s with retain %v", m.payload, m.topic, m.retain)
		got[m.payload] = true
	}
	c.require(len(got) == 3, "only %v arrive", got)
	sub.nothing("beside the retained messages comes")
}

// retainQoS0 discards what was retained before; the new one may be kept.
func retainQoS0(c *C) {
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("t"), payload: "old", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "new", retain: true})
	for _, m := range c.subscriber(1, c.topic("t")).fence() {
		c.require(m.payload == "new", "%q is still retained", m.payload)
	}
}

func retainFlagSet(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m", qos: 1})
	m := c.subscriber(1, c.topic("t")).gets("m")
	c.require(m.retain, "a retained message comes to a new subscription without the retain flag")
}

func retainFlagClear(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m", qos: 1})
	m := sub.gets("m")
	c.require(!m.retain, "a live message comes with the retain flag")
}

func retainCleared(c *C) {
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("t"), payload: "old", qos: 1})
	sub := c.subscriber(1, c.topic("t"))
	sub.gets("old")
	pub.publish(publication{topic: c.topic("t"), qos: 1, retain: true})
	sub.gets("")
	c.subscriber(1, c.topic("t")).nothing("a cleared message is still retained")
}

func emptyNotRetained(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), qos: 1})
	c.subscriber(1, c.topic("t")).nothing("an empty message is retained")
}

func liveNotRetained(c *C) {
	pub := c.connect(connect{})
	pub.publish(publication{topic: c.topic("none"), payload: "live", qos: 1})
	c.subscriber(1, c.topic("none")).nothing("a message without retain flag is retained")
	c.retain(pub, publication{topic: c.topic("t"), payload: "kept", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "live", qos: 1})
	pub.publish(publication{topic: c.topic("t"), qos: 1})
	sub := c.subscriber(1, c.topic("t"))
	sub.gets("kept")
	sub.nothing("beside the retained message comes")
}

// retainHandling0: on every SUBSCRIBE.
func retainHandling0(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m", qos: 1})
	sub := c.subscriber(1, c.topic("t"))
	sub.gets("m")
	sub.subscribe(1, c.topic("t"))
	sub.gets("m")
}

// retainHandling1: only when the subscription is new.
func retainHandling1(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m", qos: 1})
	sub := c.subscriber(1|retainIfNew, c.topic("t"))
	sub.gets("m")
	sub.subscribe(1|retainIfNew, c.topic("t"))
	sub.nothing("an existing subscription gets retained messages")
	sub.unsubscribe(c.topic("t"))
	sub.subscribe(1|retainIfNew, c.topic("t"))
	sub.gets("m")
}

func retainHandling2(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m", qos: 1})
	c.subscriber(1|retainNever, c.topic("t")).nothing("with Retain Handling 2 comes")
}

func retainAsPublished0(c *C) {
	sub := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("t"), payload: "retained", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "live", qos: 1})
	for _, payload := range []string{"retained", "live"} {
		m := sub.gets(payload)
		c.require(!m.retain, "with Retain As Published 0 the %s message has the flag", payload)
	}
}

func retainAsPublished1(c *C) {
	sub := c.subscriber(1|retainAsPublished, c.topic("t"))
	pub := c.connect(connect{})
	c.retain(pub, publication{topic: c.topic("t"), payload: "retained", qos: 1})
	pub.publish(publication{topic: c.topic("t"), payload: "live", qos: 1})
	for _, payload := range []string{"retained", "live"} {
		m := sub.gets(payload)
		c.require(m.retain == (payload == "retained"), "with Retain As Published 1 the %s message has the flag %v", payload, m.retain)
	}
}
