package broker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rewriting is a broker with rules of EMQX's documentation and a few more.
func rewriting(t testing.TB, store Store, more ...RewriteRule) *Broker {
	t.Helper()
	rules := append([]RewriteRule{
		{Action: RewriteAll, Filter: "y/+/z/#", Regex: `^y/(.+)/z/(.+)$`, Topic: "y/z/$2"},
		{Action: RewriteAll, Filter: "x/#", Regex: `^x/y/(.+)$`, Topic: "z/y/x/$1"},
		{Action: RewriteAll, Filter: "x/y/+", Regex: `^x/y/(\d+)$`, Topic: "z/y/$1"},
		{Action: RewritePublish, Filter: "up/#", Regex: `^up/(.+)$`, Topic: "of/${clientid}/${username}/$1"},
		{Action: RewriteSubscribe, Filter: "down/#", Regex: `^down/(.+)$`, Topic: "to/${clientid}/$1"},
		{Action: RewriteAll, Filter: "free/#", Regex: `^free/(.*)$`, Topic: "$1"},
		{Action: RewriteAll, Filter: "long/#", Regex: `^long/(.*)$`, Topic: "$1/$1"},
	}, more...)
	return newBroker(t, store, func(c *Config) { c.Rewrite = rules })
}

func username(name string) func(*ConnectRequest) {
	return func(r *ConnectRequest) { r.Credentials = Credentials{Username: name, HasUsername: true} }
}

func TestTheLastRuleWhoseFilterMatchesDecides(t *testing.T) {
	b := rewriting(t, newMemStore())
	pub, all := connect(t, b, "dev", username("u")), connect(t, b, "all")
	all.subscribe("#", 0)
	for topic, want := range map[string]string{
		"y/def": "y/def", "y/a/z/b": "y/z/b", "x/1/2": "x/1/2", "x/y/2": "z/y/2",
		"x/y/z":   "x/y/z", // the filter of the last rule matches, its expression does not
		"x/y/z/1": "z/y/x/z/1", "up/a/b": "of/dev/u/a/b", "down/a": "down/a", "other": "other",
	} {
		require.Equal(t, Success, pub.publish(topic, "x", 1), topic)
		got := all.take()
		require.Len(t, got, 1, topic)
		require.Equal(t, want, got[0].Message.Topic)
	}
	pub.subscribe("x/y/2", 0)
	require.Equal(t, Success, all.publish("z/y/2", "x", 1), "so it is with filters")
	require.Len(t, pub.take(), 1)
}

func TestSubscriptionsAreKeptUnderTheirNewName(t *testing.T) {
	store := newMemStore()
	b := rewriting(t, store)
	sub, pub := connect(t, b, "dev", durable), connect(t, b, "pub")
	sub.subscribe("down/+/#", 1)
	sub.subscribe("$share/g/down/shared", 1)
	sub.subscribe("$queue/down/queue", 1)
	sub.subscribe("$exclusive/down/alone", 1)
	for topic, want := range map[string]Reason{
		"to/dev/a": Success, "to/dev/shared": Success, "to/dev/queue": Success, "to/dev/alone": Success, "down/a": NoSubscribers, "to/pub/a": NoSubscribers,
	} {
		require.Equal(t, want, pub.publish(topic, topic, 1), topic)
	}
	require.NoError(t, b.Close())

	b = rewriting(t, store)
	again, present := reconnect(t, b, "dev", durable)
	require.True(t, present)
	require.Len(t, again.payloads(), 6, "the wildcard has the shared ones as well")
	filters := []string{"down/+/#", "$share/g/down/shared", "$queue/down/queue", "$exclusive/down/alone", "down/never"}
	var got []Reason
	again.Unsubscribe(filters, func(r []Reason) { got = r })
	require.Equal(t, []Reason{Success, Success, Success, Success, NoSubscriptionExisted}, got)
}

func TestARewrittenNameMustBeOne(t *testing.T) {
	b := rewriting(t, newMemStore())
	c := connect(t, b, "c")
	for _, topic := range []string{
		"free/", "free/$SYS/x", "free/$SYS", "free/$share/g/x", "free/$queue/x", "free/$delayed/5/x", "free/$exclusive/x",
		"long/" + strings.Repeat("l/", 70), "long/" + strings.Repeat("l", 40_000),
	} {
		require.Equal(t, InvalidTopic, c.publish(topic, "x", 1), "%.12s", topic)
		_, r := c.Retained(topic)
		require.Equal(t, InvalidTopic, r, "%.12s", topic)
		var got []Reason
		c.Subscribe([]Subscription{{Filter: topic}}, func(r []Reason, _ []QoS) { got = r })
		require.Equal(t, []Reason{InvalidFilter}, got, "%.12s", topic)
		c.Unsubscribe([]string{topic}, func(r []Reason) { got = r })
		require.Equal(t, []Reason{InvalidFilter}, got, "%.12s", topic)
	}
	c.subscribe("free/a/#", 0)
	var got []Reason
	c.Subscribe([]Subscription{{Filter: "long/#"}}, func(r []Reason, _ []QoS) { got = r })
	require.Equal(t, []Reason{InvalidFilter}, got, "#/# is no filter")
}

// Who calls itself # or a/b would get the messages of others.
func TestNamesThatWouldChangeTheLevelsAreRefused(t *testing.T) {
	for _, id := range []string{"a/b", "#", "+"} {
		b := rewriting(t, newMemStore())
		c := connect(t, b, id, username("u"))
		require.Equal(t, InvalidTopic, c.publish("up/x", "x", 1), id)
		var got []Reason
		c.Subscribe([]Subscription{{Filter: "down/x"}}, func(r []Reason, _ []QoS) { got = r })
		require.Equal(t, []Reason{InvalidFilter}, got, id)
	}
	b := rewriting(t, newMemStore())
	require.Equal(t, InvalidTopic, connect(t, b, "no user").publish("up/x", "x", 1))
}

func TestWillsAndRetainedValuesAreRewritten(t *testing.T) {
	b := rewriting(t, newMemStore())
	watch := connect(t, b, "watch")
	watch.subscribe("of/#", 0)
	will := func(topic string) func(*ConnectRequest) {
		return func(r *ConnectRequest) {
			r.Will = &Will{Message: &Message{Topic: topic, Payload: []byte("will"), Retain: true}}
		}
	}
	connect(t, b, "c", username("u"), will("up/state")).Close(Closing{})
	got := watch.take()
	require.Len(t, got, 1)
	require.Equal(t, "of/c/u/state", got[0].Message.Topic)
	_, _, err := b.Connect(t.Context(), &ConnectRequest{
		ClientID: "bad", Protocol: "mqtt", Will: &Will{Message: &Message{Topic: "free/$SYS/x"}},
	})
	require.Equal(t, InvalidTopic, ReasonOf(err))

	c := connect(t, b, "c")
	require.True(t, c.publishMessage(&Message{Topic: "to/c/v", Payload: []byte("1"), Retain: true}, 0).OK())
	m, r := c.Retained("down/v")
	require.Equal(t, Success, r)
	require.Equal(t, "1", string(m.Payload))
	seen := 0
	require.Equal(t, Success, c.RetainedMatch("down/+", func(*Message) bool { seen++; return true }))
	require.Equal(t, 1, seen)
}

func TestFaultyRewriteRules(t *testing.T) {
	good := RewriteRule{Action: RewriteAll, Filter: "x/#", Regex: "^x/(.+)$", Topic: "y/$1"}
	for name, c := range map[string]struct {
		change func(*RewriteRule)
		key    string
	}{
		"action":              {func(r *RewriteRule) { r.Action = "both" }, "action"},
		"filter":              {func(r *RewriteRule) { r.Filter = "x#" }, "filter"},
		"filter of $SYS":      {func(r *RewriteRule) { r.Filter = "$SYS/#" }, "filter"},
		"shared filter":       {func(r *RewriteRule) { r.Filter = "$share/g/x" }, "filter"},
		"regex":               {func(r *RewriteRule) { r.Regex = "^x/(.+$" }, "regex"},
		"backreference":       {func(r *RewriteRule) { r.Regex = `(x)\1` }, "regex"},
		"no regex":            {func(r *RewriteRule) { r.Regex, r.Topic = "", "y" }, "regex"},
		"group":               {func(r *RewriteRule) { r.Topic = "y/$9" }, "topic"},
		"huge group":          {func(r *RewriteRule) { r.Topic = "y/$99999999999999999999" }, "topic"},
		"no topic":            {func(r *RewriteRule) { r.Topic = "" }, "topic"},
		"variable":            {func(r *RewriteRule) { r.Topic = "y/${payload}" }, "topic"},
		"open variable":       {func(r *RewriteRule) { r.Topic = "y/${clientid" }, "topic"},
		"wildcard":            {func(r *RewriteRule) { r.Topic = "y/#" }, "topic"},
		"wildcard in a level": {func(r *RewriteRule) { r.Action, r.Topic = RewriteSubscribe, "y/a#" }, "topic"},
		"to $SYS":             {func(r *RewriteRule) { r.Topic = "$SYS/$1" }, "topic"},
		"to $delayed":         {func(r *RewriteRule) { r.Topic = "$delayed/5/$1" }, "topic"},
	} {
		rule := good
		c.change(&rule)
		var keys []string
		rule.Check(func(key string, err error) {
			require.Error(t, err)
			keys = append(keys, key)
		})
		require.Equal(t, []string{c.key}, keys, name)
		_, err := New(t.Context(), Config{Rewrite: []RewriteRule{good, rule}}, newMemStore(), nil, nil)
		require.ErrorContains(t, err, "rewrite rule 1: "+c.key, name)
	}
	for _, topic := range []string{"y/$1", "y/$0", "cost/$/$1", "$aws/$1", "a/$1b"} {
		rule := good
		rule.Topic = topic
		rule.Check(func(key string, err error) { t.Errorf("%s: %s: %v", topic, key, err) })
	}
	wild := RewriteRule{Action: RewriteSubscribe, Filter: "all", Regex: "all", Topic: "#"}
	wild.Check(func(key string, err error) { t.Errorf("%s: %v", key, err) })
}

func TestRulesThatDoNotMatchCostNoMemory(t *testing.T) {
	b := rewriting(t, newMemStore())
	c := connect(t, b, "c", username("u"))
	for _, topic := range []string{"plant/7/temperature", "x/1/2", "up/again"} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			_, _ = c.names.topic(topic)
		}), topic)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = c.names.filter("plant/+/#") }))
	require.Nil(t, connect(t, newBroker(t, newMemStore()), "c").names)
}

func FuzzRewrite(f *testing.F) {
	for _, s := range []string{"x/y/1", "free/$SYS", "free/", "long/a/b", "up/#", "down/+/#", "y/a/z/b", "$share/g/free/$share/h/x"} {
		f.Add(s)
	}
	b := rewriting(f, newMemStore())
	c := connect(f, b, "c", username("u"))
	f.Fuzz(func(t *testing.T, s string) {
		if ValidTopic(s) == nil {
			if to, r := c.names.topic(s); r == Success {
				require.NoError(t, ValidTopic(to))
				require.True(t, to == s || !reserved(to), to)
			}
		}
		if ValidFilter(s) == nil {
			s = canonicalFilter(s)
			if to, r := c.names.filter(s); r == Success {
				require.NoError(t, ValidFilter(to))
				require.True(t, to == s || !reserved(MatchedFilter(to)), to)
			}
		}
	})
}
