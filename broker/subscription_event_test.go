package broker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSubscriptionEvents(t *testing.T) {
	var events []SubscriptionEvent
	store := newMemStore()
	b := newBroker(t, store, func(c *Config) { c.OnSubscription = func(e SubscriptionEvent) { events = append(events, e) } })
	last := func() SubscriptionEvent { return events[len(events)-1] }
	c := connect(t, b, "c", durable, func(r *ConnectRequest) { r.Credentials.Username = "u" })
	c.Subscribe([]Subscription{{Filter: "a/+", QoS: 1}, {Filter: "bad/#/x"}, {Filter: "$share/g/a", QoS: 2}}, func([]Reason, []QoS) {})
	require.Len(t, events, 2, "the refused one is not told")
	require.Equal(t, Subscription{Filter: "a/+", QoS: 1}, events[0].Subscription)
	require.Equal(t, []any{true, true, "c", "u", "mqtt"}, []any{events[0].Subscribed, events[0].New, events[0].ClientID, events[0].Username, events[0].Protocol})
	require.Equal(t, "$share/g/a", last().Subscription.Filter)

	c.subscribe("a/+", 2)
	require.False(t, last().New)
	c.Unsubscribe([]string{"$share/g/a", "not/held"}, func([]Reason) {})
	require.Len(t, events, 4)
	require.False(t, last().Subscribed)
	require.Equal(t, "$share/g/a", last().Subscription.Filter)

	store.hold(true)
	c.Subscribe([]Subscription{{Filter: "late"}}, func([]Reason, []QoS) {})
	require.Len(t, events, 4, "not before it is stored")
	store.hold(false)
	require.Len(t, events, 5)
	store.err = errDisk
	c.Subscribe([]Subscription{{Filter: "lost"}}, func([]Reason, []QoS) {})
	c.Unsubscribe([]string{"late"}, func([]Reason) {})
	require.Len(t, events, 5, "the store refused")
	store.err = nil
}
