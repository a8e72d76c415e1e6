package mqtt

import "strings"

// matching is what topics a filter matches, below a prefix of the check.
var matching = []struct {
	filter string
	match  []string
	other  []string
}{
	{"sport/tennis/player1/#", []string{"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/a/b"}, []string{"sport/tennis/player2", "sport/tennis/player11"}},
	{"sport/#", []string{"sport", "sport/a"}, []string{"sports"}},
	{"a/+", []string{"a/b", "a/", "a/c"}, []string{"a", "a/b/c"}},
	{"+/b/+", []string{"a/b/c", "/b/"}, []string{"a/c/b", "a/b"}},
	{"+", []string{"x"}, []string{"x/y"}},
	{"x//y", []string{"x//y"}, []string{"x/y", "x/z/y"}},
	{"/+", []string{"/z"}, []string{"z"}},
	{"+/+", []string{"/f", "g/h"}, []string{"k"}},
}

func filtersMatch(c *C) {
	pub := c.connect(connect{})
	for _, m := range matching {
		sub := c.subscriber(0, c.topic(m.filter))
		for _, topic := range m.other {
			pub.publish(publication{topic: c.topic(topic), payload: "no " + topic})
		}
		for _, topic := range m.match {
			pub.publish(publication{topic: c.topic(topic), payload: topic})
		}
		for _, topic := range m.match {
			got := sub.gets(topic)
			c.require(got.topic == c.topic(topic), "%s arrives on %s", topic, got.topic)
		}
		sub.nothing("the filter " + m.filter + " gets")
		sub.drop()
	}
}

// badFilter: a filter that is none is answered with a failure, or the
// connection ends.
func (c *C) badFilter(bad string) {
	p := c.connect(connect{})
	p.what = "topic filter " + bad
	p.send(subscribePacket(c.v, 1, nil, filter{bad, 1}))
	got, err := p.next(patience)
	if err == nil && got.kind == subackType {
		c.require(len(got.codes) == 1 && got.codes[0] >= 0x80, "the topic filter %.40q is answered %s", bad, got)
		p.drop()
		return
	}
	p.closed(err)
}

func multiLevelWildcard(c *C) {
	for _, bad := range []string{"a#", "a/#/b", "#/a", "a/b#", "##", "#a", "a/#b"} {
		c.badFilter(c.topic(bad))
	}
	c.badFilter("#/" + c.name)
	filtersMatch(c)
}

func singleLevelWildcard(c *C) {
	for _, bad := range []string{"a+", "+a", "a/b+/c", "a/+b", "++", "a/+#"} {
		c.badFilter(c.topic(bad))
	}
	filtersMatch(c)
}

// dollarTopics: a wildcard in front does not match a topic that begins with $.
func dollarTopics(c *C) {
	name := "$" + c.name
	never := c.connect(connect{})
	options := byte(0)
	if c.is5() {
		options = retainNever
	}
	never.request(nil, filter{"+/" + c.name + "/x", options}, filter{"+/+/x", options})
	all := c.connect(connect{})
	all.request(nil, filter{"#", options})
	named := c.connect(connect{})
	named.request(nil, filter{name + "/#", options})
	pub := c.connect(connect{})
	pub.publish(publication{topic: name + "/" + c.name + "/x", payload: "m"})
	c.retain(pub, publication{topic: name + "/" + c.name + "/x", payload: "r"})
	for _, sub := range []*peer{never, all, c.subscriber(0, "+/"+c.name+"/x")} {
		for _, m := range sub.fence() {
			c.require(!strings.HasPrefix(m.topic, "$"), "a filter that begins with a wildcard gets %s", m.topic)
		}
	}
	for _, m := range named.fence() {
		c.require(strings.HasPrefix(m.topic, name), "the filter %s/# gets %s", name, m.topic)
	}
	sys := c.subscriber(0, "+/broker/#")
	for _, m := range sys.fence() {
		c.require(!strings.HasPrefix(m.topic, "$"), "a filter that begins with a wildcard gets %s", m.topic)
	}
}

func emptyTopic(c *C) {
	c.closes("PUBLISH with an empty topic name", publication{}.encode(c.v), 0x81, 0x82, 0x90)
	c.badFilter("")
	c.refuseConnect(connect{id: c.client("w"), will: &will{payload: "w"}}.encode(c.v), 0x81, 0x82, 0x90)
}

// longestTopic: 65,535 bytes are a topic name, and more cannot be written.
func longestTopic(c *C) {
	topic := c.topic(strings.Repeat("x", 65535-len(c.topic(""))))
	p := c.connect(connect{})
	code := p.request(nil, filter{topic, 1})[0]
	if code >= 0x80 {
		c.notOffered("a filter of 65,535 bytes is refused")
	}
	p.publish(publication{topic: topic, payload: "m", qos: 1})
	c.require(p.gets("m").topic == topic, "the topic name arrives changed")
}

// noNormalization: topics that look alike are different.
func noNormalization(c *C) {
	names := []string{"caf\u00E9", "cafe\u0301", "CAF\u00C9", "a//b", "a/b", "a/b/", "A/b", "a /b", "\u2126", "\u03A9", "e\u200Db", "eb"}
	pub := c.connect(connect{})
	for _, name := range names {
		sub := c.subscriber(0, c.topic(name))
		for _, other := range names {
			pub.publish(publication{topic: c.topic(other), payload: other})
		}
		m := sub.gets(name)
		c.require(m.topic == c.topic(name), "%q arrives as %q", c.topic(name), m.topic)
		sub.nothing("a topic that only looks like " + name + " matches")
		sub.drop()
	}
}
