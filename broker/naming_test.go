package broker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// mounted gives a connection a mountpoint.
func mounted(t testing.TB, template string) func(*ConnectRequest) {
	t.Helper()
	m, err := ParseMountpoint(template)
	require.NoError(t, err)
	return func(r *ConnectRequest) { r.Mountpoint, r.Listener = m, "lst" }
}

func TestMountpointIsPutBeforeAndCut(t *testing.T) {
	b := newBroker(t, newMemStore())
	site := mounted(t, "site7/${clientid}/${username}.${listener}/")
	dev, all := connect(t, b, "dev", site, username("u")), connect(t, b, "all")
	all.subscribe("#", 1)
	dev.subscribe("a/+", 1)
	dev.subscribe("$share/g/s", 1)
	const mount = "site7/dev/u.lst/"
	require.Equal(t, Success, dev.publish("a/b", "1", 1))
	got := all.take()
	require.Len(t, got, 1)
	require.Equal(t, mount+"a/b", got[0].Message.Topic)
	require.Equal(t, mount+"a/b", all.LocalTopic(got[0].Message))
	own := dev.take()
	require.Len(t, own, 1)
	require.Same(t, got[0].Message, own[0].Message, "shared, not copied")
	require.Equal(t, "a/b", dev.LocalTopic(own[0].Message))
	require.Zero(t, testing.AllocsPerRun(10, func() { _ = dev.LocalTopic(own[0].Message) }))
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _ = dev.names.topic("a/b") }), "the topic of the last message")

	require.Equal(t, Success, connect(t, b, "pub").publish(mount+"s", "2", 1))
	require.Equal(t, "s", dev.LocalTopic(dev.take()[0].Message))
	require.Equal(t, "elsewhere", dev.LocalTopic(&Message{Topic: "elsewhere"}))
	require.Equal(t, mount, dev.LocalTopic(&Message{Topic: mount}), "an empty topic cannot be sent")

	require.True(t, dev.publishMessage(&Message{Topic: "r", Payload: []byte("3"), Retain: true}, 0).OK())
	m, r := dev.Retained("r")
	require.Equal(t, Success, r)
	require.Equal(t, mount+"r", m.Topic)
	var reasons []Reason
	dev.Unsubscribe([]string{"a/+", "$share/g/s", mount + "a/+"}, func(r []Reason) { reasons = r })
	require.Equal(t, []Reason{Success, Success, NoSubscriptionExisted}, reasons)
}

func TestMountedClientsHaveTheirOwnSys(t *testing.T) {
	b := newBroker(t, newMemStore())
	dev := connect(t, b, "dev", mounted(t, "m/"), func(r *ConnectRequest) {
		r.Will = &Will{Message: &Message{Topic: "$SYS/will", Payload: []byte("w")}}
	})
	dev.subscribe("$SYS/#", 1)
	require.Equal(t, Success, b.PublishSystem(&Message{Topic: "$SYS/a", Payload: []byte("1"), Retain: true}))
	require.Empty(t, dev.take())
	m, r := dev.Retained("$SYS/a")
	require.Equal(t, Success, r)
	require.Nil(t, m)
	require.Equal(t, Success, dev.publish("$SYS/a", "own", 1))
	require.Equal(t, "$SYS/a", dev.LocalTopic(dev.take()[0].Message))
	all := connect(t, b, "all")
	all.subscribe("m/#", 1)
	dev.Close(Closing{})
	require.Equal(t, "m/$SYS/will", all.take()[0].Message.Topic)
}

func TestNobodyLeavesTheirMount(t *testing.T) {
	b := newBroker(t, newMemStore())
	site := mounted(t, "${clientid}/")
	for _, id := range []string{"a/b", "+", "#", "x+", "$SYS", "$share", "$x"} {
		_, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: id, Protocol: "mqtt", Mountpoint: mountpoint(t, "${clientid}/")})
		require.Equal(t, InvalidClientID, ReasonOf(err), id)
	}
	for _, user := range []string{"", "a/b", "#", "\xff"} {
		_, _, err := b.Connect(t.Context(), &ConnectRequest{
			ClientID: "c", Protocol: "http", Credentials: Credentials{Username: user, HasUsername: true}, Mountpoint: mountpoint(t, "m/${username}/"),
		})
		require.Equal(t, InvalidClientID, ReasonOf(err), user)
	}
	c := connect(t, b, "", site)
	require.True(t, strings.HasPrefix(c.names.mount, "auto-"), "an assigned identifier counts")

	dev := connect(t, b, "dev", site)
	deep := strings.Repeat("l/", MaxTopicLevels-1) + "x"
	require.Equal(t, InvalidTopic, dev.publish(deep, "x", 1))
	require.Equal(t, InvalidTopic, dev.publish(strings.Repeat("t", MaxTopicBytes-2), "x", 1))
	var got []Reason
	dev.Subscribe([]Subscription{{Filter: deep}}, func(r []Reason, _ []QoS) { got = r })
	require.Equal(t, []Reason{InvalidFilter}, got)
	_, r := dev.Retained(deep)
	require.Equal(t, InvalidTopic, r)
	_, _, err := b.Connect(t.Context(), &ConnectRequest{
		ClientID: "w", Protocol: "mqtt", Mountpoint: mountpoint(t, "m/"), Will: &Will{Message: &Message{Topic: deep}},
	})
	require.Equal(t, InvalidTopic, ReasonOf(err))
}

func mountpoint(t testing.TB, s string) *Template {
	t.Helper()
	m, err := ParseMountpoint(s)
	require.NoError(t, err)
	return m
}

func TestASessionBelongsToItsMountpoint(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	dev := connect(t, b, "dev", durable, mounted(t, "one/"))
	dev.subscribe("a", 1)
	dev.Close(Closing{})
	require.Equal(t, Success, connect(t, b, "pub").publish("one/a", "kept", 1))
	require.NoError(t, b.Close())

	b = newBroker(t, store) // a restart knows the mountpoint
	same, present := reconnect(t, b, "dev", durable, mounted(t, "one/"))
	require.True(t, present)
	require.Equal(t, []string{"kept"}, same.payloads())
	same.Close(Closing{})
	other, present := reconnect(t, b, "dev", durable, mounted(t, "two/"))
	require.False(t, present)
	require.Equal(t, NoSubscribers, connect(t, b, "pub").publish("one/a", "not for two", 1))
	other.subscribe("a", 1)
	_, present = reconnect(t, b, "dev", durable)
	require.False(t, present)
}

func TestRulesSeeMountedNames(t *testing.T) {
	b := rewriting(t, newMemStore(), RewriteRule{Action: RewriteAll, Filter: "m/+/out/#", Regex: "^m/([^/]+)/out/(.*)$", Topic: "all/$2/$1"},
		RewriteRule{Action: RewriteAll, Filter: "m/+/sys/#", Regex: "^m/[^/]+/sys/(.*)$", Topic: "$1"})
	dev, all := connect(t, b, "dev", mounted(t, "m/${clientid}/")), connect(t, b, "all")
	all.subscribe("all/#", 1)
	require.Equal(t, Success, dev.publish("out/t", "x", 1))
	require.Equal(t, "all/t/dev", all.take()[0].Message.Topic)
	var got []Reason
	dev.Subscribe([]Subscription{{Filter: "sys/$SYS/#"}}, func(r []Reason, _ []QoS) { got = r })
	require.Equal(t, []Reason{InvalidFilter}, got)
	require.Equal(t, InvalidTopic, dev.publish("sys/$SYS/a", "x", 1))
}

func TestFaultyMountpoints(t *testing.T) {
	for _, bad := range []string{
		"site", "${clientid}", "site/#/", "a+/", "$SYS/", "$x/", "${cn}/", "${clientid", "${clientid}${username}/", "${clientid}-${username}/",
		"\x00/", "\xff/", strings.Repeat("l/", MaxTopicLevels), strings.Repeat("l", MaxTopicBytes) + "/",
	} {
		_, err := ParseMountpoint(bad)
		require.Error(t, err, "%.20q", bad)
	}
	for _, good := range []string{"a/", "/", "${listener}-${clientid}/x/${username}/"} {
		_, err := ParseMountpoint(good)
		require.NoError(t, err, good)
	}
	none, err := ParseMountpoint("")
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestIdentify(t *testing.T) {
	name := func(s string) *Template {
		parsed, err := ParseName(s)
		require.NoError(t, err)
		return parsed
	}
	request := func() *ConnectRequest {
		return &ConnectRequest{ClientID: "id", Credentials: Credentials{Username: "user", HasUsername: true}, Listener: "lst"}
	}
	for _, c := range []struct {
		clientID, username string
		verified           bool
		wantID, wantUser   string
		wantVerified       bool
		reason             Reason
	}{
		{"", "", true, "id", "user", true, Success},
		{"${username}", "${clientid}", false, "user", "id", false, Success},
		{"${listener}-${clientid}", "", false, "lst-id", "user", false, Success},
		{"${cn}", "", true, "user", "user", true, Success},
		{"${cn}", "", false, "", "", false, InvalidClientID},
		{"", "${cn}", false, "", "", false, BadCredentials},
		{"", "${cn}", true, "id", "user", true, Success},
		{"", "${clientid}", true, "id", "id", false, Success},
		{strings.Repeat("x", 513), "", false, "", "", false, InvalidClientID},
	} {
		r := request()
		r.Verified = c.verified
		n := Naming{ClientID: name(c.clientID), Username: name(c.username)}
		err := n.Identify(r)
		require.Equal(t, c.reason, ReasonOf(err), "%+v", c)
		if err == nil {
			require.Equal(t, []any{c.wantID, c.wantUser, c.wantVerified}, []any{r.ClientID, r.Credentials.Username, r.Verified}, "%+v", c)
		}
	}
	empty := &ConnectRequest{}
	require.Equal(t, InvalidClientID, ReasonOf((&Naming{ClientID: name("${clientid}")}).Identify(empty)))
	require.Equal(t, BadCredentials, ReasonOf((&Naming{Username: name("${username}")}).Identify(empty)))
	_, err := ParseName("${topic}")
	require.Error(t, err)
}

func TestWillOfAMountedClientSurvivesARestart(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store)
	connect(t, b, "dev", durable, mounted(t, "m/"), func(r *ConnectRequest) {
		r.Will = &Will{Message: &Message{Topic: "w", Payload: []byte("gone")}, Delay: time.Hour}
	})
	require.NoError(t, b.Close())
	state, err := store.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "m/w", state.Sessions[0].Record.Will.Message.Topic)
	require.Equal(t, "m/", state.Sessions[0].Record.Mount)
}

// The words of a delay stay in front of the mountpoint and of what rules see.
func TestDelayedTopicsAreMountedAndRewritten(t *testing.T) {
	b := rewriting(t, newMemStore(), RewriteRule{Action: RewriteAll, Filter: "m/+/old/#", Regex: "^m/([^/]+)/old/(.*)$", Topic: "m/$1/new/$2"})
	all := connect(t, b, "all")
	all.subscribe("m/#", 1)
	dev := connect(t, b, "dev", mounted(t, "m/${clientid}/"), func(r *ConnectRequest) {
		r.Will = &Will{Message: &Message{Topic: "$delayed/0/old/w", Payload: []byte("will")}}
	})
	require.True(t, dev.publish("$delayed/0/old/t", "now", 1).OK())
	require.Equal(t, "m/dev/new/t", all.take()[0].Message.Topic)
	dev.Close(Closing{})
	require.Equal(t, "m/dev/new/w", all.take()[0].Message.Topic)

	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, newMemStore())
		all := connect(t, b, "all")
		all.subscribe("#", 1)
		dev := connect(t, b, "dev", mounted(t, "m/"))
		require.True(t, dev.publish("$delayed/5/t", "later", 1).OK())
		require.Empty(t, all.take())
		time.Sleep(6 * time.Second)
		synctest.Wait()
		require.Equal(t, "m/t", all.take()[0].Message.Topic)
	})
}
