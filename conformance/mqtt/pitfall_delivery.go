package mqtt

import (
	"fmt"
	"strings"
)

// stuckThenBack sends 12 MiB, more than the sockets hold, to a session whose
// client does not read. What was acknowledged to the publisher must be there when
// the client comes back.
func stuckThenBack(c *C) {
	p := c.pair(1)
	payload := strings.Repeat("x", 64<<10)
	const n = 200
	for i := range n {
		p.publish(1, fmt.Sprint(i, " ", payload))
	}
	p.again()
	for i := range n {
		p.sub.gets(fmt.Sprint(i, " ", payload))
	}
	p.sub.nothing("beside the messages comes")
}

// normalAndShared: the two subscriptions of one client are two, each with its
// own copy.
func normalAndShared(c *C) {
	c.needShared()
	p := c.connect(connect{})
	p.request([][]byte{propVarint(pSubscriptionID, 1)}, filter{c.topic("t"), 1})
	p.request([][]byte{propVarint(pSubscriptionID, 2)}, filter{"$share/g/" + c.topic("t"), 1})
	c.connect(connect{}).publish(publication{topic: c.topic("t"), payload: "m", qos: 1})
	seen := map[int]int{}
	for range 2 {
		for _, id := range p.gets("m").props.numbers(pSubscriptionID) {
			seen[id]++
		}
	}
	p.nothing("beside two copies comes")
	c.require(seen[1] == 1 && seen[2] == 1, "the copies are for the subscriptions %v", seen)
}

// shareOfAbsent: of three members one is away and one has gone for good.
func shareOfAbsent(c *C) {
	c.needShared()
	shared := "$share/g/" + c.topic("t")
	here := c.connect(connect{})
	here.subscribe(1, shared)
	away := c.connect(c.durable(c.client("away")))
	away.subscribe(1, shared)
	gone := c.connect(connect{})
	gone.subscribe(1, shared)
	away.drop()
	gone.leave(0)
	// The server notices a lost connection when it reads from it; a fence of
	// others does not tell when that is, but a takeover does.
	c.connect(c.durable(away.id)).leave(0)
	pub := c.connect(connect{})
	for i := range 20 {
		pub.publish(publication{topic: c.topic("t"), payload: fmt.Sprint(i), qos: 1})
		here.gets(fmt.Sprint(i))
	}
	back := c.connect(c.durable(away.id))
	c.require(back.ack.present, "the session of the member that was away is gone")
	back.nothing("to the member that was away went")
}

// windowsAreApart: what the server has sent and not got acknowledged does not
// count against what the client may send.
func windowsAreApart(c *C) {
	p := c.pair(2)
	for i := range 10 {
		p.publish(2, fmt.Sprint(i))
	}
	var open []*packet
	for range 10 {
		open = append(open, p.sub.receive())
	}
	limit := min(p.sub.ack.props.number(pReceiveMaximum, 65535), 1500)
	var all []byte
	for i := range limit {
		all = append(all, publication{topic: c.topic("other"), qos: 2, id: i + 1}.encode(c.v)...)
	}
	p.sub.send(all)
	for i := range limit {
		rec := p.sub.awaitID(pubrecType, i+1)
		c.require(rec.code < 0x80, "message %d of %d is refused with %#02x", i+1, limit, rec.code)
	}
	for _, m := range open {
		p.sub.send(ackPacket(pubrecType, m.id))
		p.sub.awaitID(pubrelType, m.id)
	}
	for i := range limit {
		p.sub.send(ackPacket(pubrelType, i+1))
		p.sub.awaitID(pubcompType, i+1)
	}
}
