package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pitfall is a case that is not one numbered statement, or needs more than its
// statement demands: it has gone wrong in a broker that is in use.
type Pitfall struct {
	Name string
	Text string

	version byte
	check   func(*C)
}

// Pitfalls returns all cases.
func Pitfalls() []Pitfall { return slices.Clone(pitfalls) }

// Try judges a target by one case, as Run does by a statement.
func Try(target Target, p *Pitfall) Verdict {
	v := MQTT311
	if p.version == v5 {
		v = MQTT5
	}
	return Run(target, &Statement{Version: v, check: p.check})
}

var pitfalls = []Pitfall{
	{"WindowReturns", "500 messages pass a window of 16, once and in order", v5, windowReturns},
	{"IdentifiersAreSeparate", "a client may use the number of an outstanding server message", v5, ownIdentifiers},
	{"LongOfflineQueue", "3,000 messages that were acknowledged while the subscriber was away arrive in order", v311, longQueue},
	{"TakeoverLosesNothing", "no acknowledged message is lost while connections of one client displace each other", v5, takeoverUnderLoad},
	{"QoS2DuplicateSucceeds", "a QoS 2 duplicate gets PUBREC 0x00 each time and is routed once", v5, qos2Duplicate},
	{"UnknownRelease", "PUBREL for an unknown identifier gets PUBCOMP 0x92", v5, unknownRelease},
	{"AliasesAreNotStored", "a message under a topic alias has its topic after a reconnect", v5, aliasesEnd},
	{"TooLargeDoesNotPoison", "a message above the client's maximum does not spoil the session", v5, tooLargeIsDone},
	{"NoConnect", "a connection without CONNECT is ended", v5, silentConnection},
	{"LongKeepAlive", "a keep alive of 65,535 s does not overflow", v311, longKeepAlive},
	{"EmptyPassword", "a password and a will payload of no bytes are legal", v311, emptyFields},
	{"PasswordAlone", "version 5 allows a password without user name", v5, passwordAllowed},
	{"CodesTell", "a version 5 client is told by the right code why it is disconnected", v5, codesTell},
	{"ConnackCodesTell", "a version 5 client is told by the right code why CONNECT is refused", v5, connackCodesTell},
	{"WillDelayWithoutSession", "a will with delay goes out at once when the session ends with the connection", v5, willAtSessionEnd},
	{"WillDelay", "a will goes out after its delay, or when the session ends before that", v5, willDelay},
	{"CleanStartEndsSession", "a clean start ends the old session, which publishes its delayed will", v5, willAtCleanStart},
	{"ShortDisconnect", "DISCONNECT of one byte is legal", v5, shortDisconnect},
	{"ExpiryInDisconnect", "the session expiry in DISCONNECT counts, but cannot revive a session without one", v5, expiryInDisconnect},
	{"RefusedPublishIsAnswered", "a QoS 1 or 2 message that may not be published is answered", v5, refusedPublish},
	{"UserPropertiesAreNotEchoed", "an acknowledgement does not echo the publisher's user properties", v5, noEcho},
	{"NoSubscribers", "PUBACK tells that nobody subscribes, and only then", v5, noSubscribers},
	{"ReceiveMaximumCountsOpenOnly", "QoS 0 and completed exchanges do not count against the Receive Maximum", v5, quotaReturns},
	{"NoExpiryAdded", "a message without expiry gets none", v5, messageExpires},
	{"UserPropertiesWithoutProblemInformation", "Request Problem Information 0 leaves user properties of PUBLISH alone", v5, propertiesWithoutProblem},
	{"NoLocalPerSubscription", "No Local is judged for each of two overlapping subscriptions", v5, noLocalOverlap},
	{"RetainedParent", "a/# also gets the retained message of a", v311, retainedParent},
	{"RetainedQoS0", "a retained QoS 0 message is kept", v311, retainedQoS0},
	{"SubscribeWithoutOptions", "SUBSCRIBE that ends before its options byte is malformed", v5, subscribeCut},
	{"BadSubscribe", "what SUBSCRIBE may not hold ends the connection with its code", v5, badSubscribe},
	{"UnknownUnsubscribe", "UNSUBSCRIBE of a filter that the session does not hold gets 0x11", v5, unsubscribeMany},
	{"EveryCut", "no cut of any packet is answered as if it were whole", v5, everyCut},
	{"DeepTopics", "a filter of thousands of levels does not hold up others", v5, deepTopics},
	{"ReconnectWithSubscribe", "a persistent client reconnects with queued messages and subscribes with identifier 1", v311, reconnectSubscribe},
	{"StuckSubscriber", "a subscriber that does not read holds up neither others nor its own takeover", v5, stuckSubscriber},
	{"StuckThenBack", "a subscriber that did not read gets all that was acknowledged when it comes back", v5, stuckThenBack},
	{"NormalAndShared", "a normal and a shared subscription of one client both deliver", v5, normalAndShared},
	{"ShareOfAbsent", "a shared subscription passes over members that are away while one is there", v5, shareOfAbsent},
	{"WindowsAreApart", "what the client has not acknowledged does not count against what it may send", v5, windowsAreApart},
	{"MQTT31", "a client of version 3.1 (MQIsdp) is served", v311, mqtt31},
	{"LeadingSlash", "topics with an empty first level work, several in one SUBSCRIBE", v311, leadingSlash},
}

func windowReturns(c *C) {
	p := c.pair(1, propU16(pReceiveMaximum, 16))
	const n = 500
	for sent := 0; sent < n; sent += 10 {
		for i := range 10 {
			p.pub.send(publication{topic: c.topic("t"), payload: fmt.Sprint(sent + i), qos: 1, id: i + 1}.encode(c.v))
		}
		for i := range 10 {
			p.pub.awaitID(pubackType, i+1)
		}
	}
	for i := range n {
		p.sub.gets(fmt.Sprint(i))
	}
	p.sub.nothing("beside the messages comes")
}

func longQueue(c *C) {
	p := c.pair(1)
	p.sub.drop()
	const n, burst = 3000, 20
	for sent := 0; sent < n; sent += burst {
		for i := range burst {
			p.pub.send(publication{topic: c.topic("t"), payload: fmt.Sprint(sent + i), qos: 1, id: i + 1}.encode(c.v))
		}
		for i := range burst {
			p.pub.awaitID(pubackType, i+1)
		}
	}
	p.again()
	for i := range n {
		p.sub.gets(fmt.Sprint(i))
	}
}

// takeoverUnderLoad publishes while the subscriber connects again and again
// without leaving. Every message must arrive on one of the connections; it may
// come twice only with DUP.
func takeoverUnderLoad(c *C) {
	p := c.pair(1)
	seen := map[string]int{}
	collect := func(sub *peer, within time.Duration) {
		for {
			m, err := sub.next(within)
			if err != nil {
				return
			}
			if m.kind == publishType {
				c.require(seen[m.payload] == 0 || m.dup, "%q comes a second time without DUP", m.payload)
				seen[m.payload]++
				sub.confirm(m)
			}
		}
	}
	const rounds, burst = 30, 10
	for round := range rounds {
		for i := range burst {
			p.pub.send(publication{topic: c.topic("t"), payload: fmt.Sprint(round*burst + i), qos: 1, id: i + 1}.encode(c.v))
		}
		old := p.sub
		p.sub = c.connect(p.o)
		collect(old, patience)
		for i := range burst {
			p.pub.awaitID(pubackType, i+1)
		}
	}
	for deadline := time.Now().Add(patience); len(seen) < rounds*burst && time.Now().Before(deadline); {
		collect(p.sub, 200*time.Millisecond)
	}
	c.require(len(seen) == rounds*burst, "of %d acknowledged messages %d arrive", rounds*burst, len(seen))
}

func unknownRelease(c *C) {
	p := c.connect(connect{})
	p.send(ackPacket(pubrelType, 4711))
	comp := p.awaitID(pubcompType, 4711)
	c.require(comp.code == 0x92, "PUBCOMP for an unknown identifier has code %#02x", comp.code)
}

func refusedPublish(c *C) {
	p := c.connect(connect{})
	for qos := byte(1); qos <= 2; qos++ {
		code := p.offer(publication{topic: "$SYS/" + c.name, qos: qos})
		c.require(code >= 0x80, "PUBLISH QoS %d to $SYS is answered %#02x", qos, code)
	}
}

func noEcho(c *C) {
	p := c.connect(connect{})
	for qos := byte(1); qos <= 2; qos++ {
		p.send(publication{topic: c.topic("t"), qos: qos, id: 7, props: [][]byte{userProperty("a", "b")}}.encode(c.v))
		answer := p.read()
		c.require(!answer.props.has(pUserProperty), "the answer is %s", answer)
	}
}

func noSubscribers(c *C) {
	p := c.connect(connect{})
	for qos := byte(1); qos <= 2; qos++ {
		code := p.offer(publication{topic: c.topic("t"), qos: qos})
		c.require(code == 0x10 || code == 0, "without subscribers the answer has code %#02x", code)
	}
	c.subscriber(0, c.topic("t"))
	for qos := byte(1); qos <= 2; qos++ {
		code := p.offer(publication{topic: c.topic("t"), qos: qos})
		c.require(code == 0, "with a subscriber the answer has code %#02x", code)
	}
}

// quotaReturns sends far more than Receive Maximum, but never has as many open.
func quotaReturns(c *C) {
	p := c.connect(connect{})
	limit := p.ack.props.number(pReceiveMaximum, 65535)
	n := min(limit, 1500) + 100
	var all []byte
	for range n {
		all = append(all, publication{topic: c.topic("t")}.encode(c.v)...)
	}
	p.send(all)
	p.nothing("the answer to QoS 0 is")
	for i := range n {
		p.send(publication{topic: c.topic("t"), qos: byte(1 + i%2), id: i + 1}.encode(c.v))
		if p.read().kind == pubrecType {
			p.send(ackPacket(pubrelType, i+1))
			p.awaitID(pubcompType, i+1)
		}
	}
}

func propertiesWithoutProblem(c *C) {
	sub := c.connect(connect{props: [][]byte{propByte(pRequestProblem, 0)}})
	sub.subscribe(1, c.topic("t"))
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1, props: [][]byte{userProperty("a", "b")}})
	m := sub.gets("m")
	c.require(slices.Equal(m.props.user(), []string{"a=b"}), "the user properties arrive as %q", m.props.user())
}

func noLocalOverlap(c *C) {
	for i, filters := range [][2]string{{"a/#", "a/+"}, {"b/+", "b/#"}} {
		p := c.connect(connect{})
		p.request([][]byte{propVarint(pSubscriptionID, 1)}, filter{c.topic(filters[0]), 2 | noLocal})
		p.request([][]byte{propVarint(pSubscriptionID, 2)}, filter{c.topic(filters[1]), 1})
		p.publish(publication{topic: c.topic(string('a'+rune(i)) + "/x"), payload: "m", qos: 2})
		m := p.gets("m")
		ids := m.props.numbers(pSubscriptionID)
		c.require(m.qos == 1 && slices.Equal(ids, []int{2}), "the own message comes with QoS %d for subscriptions %d", m.qos, ids)
		p.nothing("beside one copy comes")
	}
}

func retainedParent(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("a"), payload: "m", qos: 1})
	c.subscriber(1, c.topic("a/#")).gets("m")
}

func retainedQoS0(c *C) {
	c.retain(c.connect(connect{}), publication{topic: c.topic("t"), payload: "m"})
	m := c.subscriber(1, c.topic("t")).gets("m")
	c.require(m.retain && m.qos == 0, "it arrives with retain %v and QoS %d", m.retain, m.qos)
}

func subscribeCut(c *C) {
	c.closes("SUBSCRIBE without options byte", frame(subscribeType|2, u16(1), props(), str(c.topic("t"))))
	c.closes("SUBSCRIBE without options byte of the second filter",
		frame(subscribeType|2, u16(1), props(), str(c.topic("t")), []byte{0}, str(c.topic("u"))))
}

func badSubscribe(c *C) {
	t := filter{c.topic("t"), 1}
	c.closesAll(map[string][]byte{
		"retain handling 3":                subscribePacket(c.v, 1, nil, filter{c.topic("t"), 0x30}),
		"reserved option bit":              subscribePacket(c.v, 1, nil, filter{c.topic("t"), 0x40}),
		"QoS 3":                            subscribePacket(c.v, 1, nil, filter{c.topic("t"), 3}),
		"subscription identifier 0":        subscribePacket(c.v, 1, [][]byte{{pSubscriptionID, 0}}, t),
		"two subscription identifiers":     subscribePacket(c.v, 1, [][]byte{{pSubscriptionID, 1}, {pSubscriptionID, 2}}, t),
		"No Local on a shared one":         subscribePacket(c.v, 1, nil, filter{"$share/g/" + c.topic("t"), noLocal}),
		"a property of another packet":     subscribePacket(c.v, 1, [][]byte{propU16(pTopicAlias, 1)}, t),
		"subscription identifier too long": subscribePacket(c.v, 1, [][]byte{{pSubscriptionID, 0xFF, 0xFF, 0xFF, 0xFF, 0x01}}, t),
	})
}

// everyCut sends each packet cut at every length, with a remaining length that
// says so. None may be answered but by the end of the connection, or taken for
// a shorter packet that is legal.
func everyCut(c *C) {
	whole := [][]byte{
		subscribePacket(c.v, 1, [][]byte{propVarint(pSubscriptionID, 1)}, filter{c.topic("t"), 1}),
		unsubscribePacket(c.v, 1, c.topic("t")),
	}
	for _, raw := range whole {
		for n := range len(raw) - 2 {
			c.closes(fmt.Sprintf("a packet cut to %d bytes", n), frame(raw[0], raw[2:2+n]))
		}
	}
	good := connect{id: c.client("c"), will: &will{topic: c.topic("w"), payload: "w"}}.encode(c.v)
	for n := range len(good) - 2 {
		c.refuseConnect(frame(connectType, good[2:2+n]), malformed...)
	}
}

// deepTopics: such a topic may be refused; the others must not notice.
func deepTopics(c *C) {
	other := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	for range 20 {
		p := c.connect(connect{})
		p.send(subscribePacket(c.v, 1, nil, filter{c.topic(strings.Repeat("a/", 30000)), 0}))
		begin := time.Now()
		pub.publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
		other.gets("m")
		c.require(time.Since(begin) < 5*time.Second, "a message of others takes %s", time.Since(begin))
		p.drop()
	}
}

func reconnectSubscribe(c *C) {
	p := c.pair(1)
	p.sub.drop()
	for i := range 5 {
		p.publish(1, fmt.Sprint(i))
	}
	p.sub = c.connect(p.o)
	p.sub.send(subscribePacket(c.v, 1, nil, filter{c.topic("u"), 1}))
	p.sub.awaitID(subackType, 1)
	for i := range 5 {
		p.sub.gets(fmt.Sprint(i))
	}
	p.sub.nothing("beside the queued messages comes")
}

func leadingSlash(c *C) {
	sub := c.connect(connect{})
	topics := []string{"/" + c.topic("up"), "/" + c.topic("down")}
	codes := sub.request(nil, filter{topics[0], 0}, filter{topics[1], 0})
	c.require(slices.Equal(codes, []byte{0, 0}), "SUBACK has the codes %#02x", codes)
	pub := c.connect(connect{})
	for _, topic := range topics {
		pub.publish(publication{topic: topic, payload: topic})
		c.require(sub.gets(topic).topic == topic, "the topic arrives changed")
	}
	c.subscriber(0, c.topic("up")).nothing("without the leading slash comes")
}

// stuckSubscriber sends 12 MiB, more than the sockets hold.
func stuckSubscriber(c *C) {
	stuck := c.subscriber(1, c.topic("t"))
	healthy := c.subscriber(1, c.topic("t"))
	pub := c.connect(connect{})
	payload := strings.Repeat("x", 64<<10)
	for range 200 {
		pub.publish(publication{topic: c.topic("t"), payload: payload, qos: 1})
		healthy.gets(payload)
	}
	c.connect(connect{id: stuck.id}).nothing("after a clean start comes")
}
