package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSystemTopics(t *testing.T) {
	store, rec := newMemStore(), &recordingHook{}
	b := newBroker(t, store, func(c *Config) { c.Hooks = []Hook{rec} })
	system := func(topic, payload string) Reason {
		return b.PublishSystem(&Message{Topic: topic, Payload: []byte(payload), QoS: 2, Retain: true})
	}
	require.Equal(t, Success, system("$SYS/a", "1"))
	require.Equal(t, Success, system("$SYS/b/c", "2"))
	for _, bad := range []string{"t", "$SYSx/a", "$SYS/+", ""} {
		require.Equal(t, InvalidTopic, system(bad, "x"), bad)
	}

	sub, all := connect(t, b, "sub", durable), connect(t, b, "all")
	all.subscribe("#", 1)
	all.subscribe("+/a", 1)
	all.subscribe("$share/g/#", 1)
	require.Empty(t, all.take(), "wildcards exclude it")
	sub.subscribe("$SYS/#", 2)
	got := sub.take()
	require.Len(t, got, 2, "retained values come at once")
	for _, d := range got {
		require.True(t, d.Retain)
		require.Equal(t, QoS(0), d.QoS)
	}
	system("$SYS/a", "3")
	d := sub.take()
	require.Len(t, d, 1)
	require.False(t, d[0].Retain, "a change while it is subscribed")
	require.Empty(t, all.take())

	m, _ := all.Retained("$SYS/a")
	require.Equal(t, "3", string(m.Payload))
	var seen []string
	require.Equal(t, Success, all.RetainedMatch("$SYS/+", func(m *Message) bool { seen = append(seen, m.Topic); return true }))
	require.Equal(t, []string{"$SYS/a"}, seen)
	system("$SYS/a", "")
	m, _ = all.Retained("$SYS/a")
	require.Nil(t, m)
	require.Empty(t, store.kept, "never on disk")
	require.Nil(t, rec.got, "nor in a bridge")
	require.Zero(t, b.Stats().Retained)
	require.Equal(t, NotAuthorized, all.publish("$SYS/a", "x", 1))
}

func TestConnectionEvents(t *testing.T) {
	var events []ConnectionEvent
	b := newBroker(t, newMemStore(), func(c *Config) { c.OnConnection = func(e ConnectionEvent) { events = append(events, e) } })
	last := func() ConnectionEvent { return events[len(events)-1] }
	old := connect(t, b, "c", durable, cleanStart, func(r *ConnectRequest) { r.Credentials.Username, r.KeepAlive = "u", time.Minute })
	require.True(t, last().Connected)
	require.True(t, last().CleanStart)
	require.Equal(t, []any{"c", "u", "mqtt", time.Minute, 24 * time.Hour}, []any{last().ClientID, last().Username, last().Protocol, last().KeepAlive, last().Expiry})
	next := connect(t, b, "c", durable)
	require.Len(t, events, 3)
	require.Equal(t, TakenOver, events[1].Reason)
	require.False(t, events[1].Connected)
	old.Close(Closing{Reason: KeepAliveTimeout})
	require.Len(t, events, 3, "it has lost it before")
	next.Close(Closing{Reason: KeepAliveTimeout})
	next.Close(Closing{})
	require.Len(t, events, 4)
	require.Equal(t, KeepAliveTimeout, last().Reason)
	require.WithinDuration(t, time.Now(), last().At, time.Minute)
}
