package broker

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func automatic(list ...AutoSubscription) func(*Config) {
	return func(c *Config) { c.AutoSubscribe = list }
}

func TestAutoSubscribe(t *testing.T) {
	store := newMemStore()
	with := automatic(AutoSubscription{Filter: "cmd/${clientid}", QoS: 1}, AutoSubscription{Filter: "all/${username}", QoS: 2, NoLocal: true})
	b := newBroker(t, store, with)
	pub := connect(t, b, "pub", func(r *ConnectRequest) { r.Protocol = "coap" })
	require.True(t, pub.publishMessage(&Message{Topic: "cmd/dev", Payload: []byte("retained"), QoS: 1, Retain: true}, 0).OK())
	dev := connect(t, b, "dev", durable, username("u"))
	require.Equal(t, []string{"retained"}, dev.payloads(), "as after a SUBSCRIBE")
	require.Equal(t, NoSubscribers, dev.publish("all/u", "own", 1))
	require.Equal(t, Success, pub.publish("all/u", "1", 1))
	require.Equal(t, []string{"1"}, dev.payloads())
	require.Equal(t, NoSubscribers, pub.publish("cmd/pub", "x", 1), "CoAP clients get none")
	var got []Reason
	dev.Unsubscribe([]string{"all/u"}, func(r []Reason) { got = r })
	require.Equal(t, []Reason{Success}, got)
	dev.subscribe("cmd/dev", 0)
	dev.payloads()
	dev.Close(Closing{})
	require.NoError(t, b.Close())

	b = newBroker(t, store, with)
	again, present := reconnect(t, b, "dev", durable, username("u"))
	require.True(t, present)
	require.Equal(t, 2, b.Stats().Subscriptions, "what was there is not made again, what was ended is")
	pub = connect(t, b, "pub")
	require.Equal(t, Success, pub.publish("cmd/dev", "2", 1))
	ds := again.take()
	require.Len(t, ds, 1, "no retained value again")
	require.Equal(t, QoS(0), ds[0].QoS, "the client's own subscription stays")
}

// The subscription is there before the first delivery, and durable before
// anything that it causes.
func TestAutoSubscribeIsDurable(t *testing.T) {
	store := newMemStore()
	b := newBroker(t, store, automatic(AutoSubscription{Filter: "a", QoS: 1}))
	connect(t, b, "dev", durable)
	require.Contains(t, store.state["dev"].subs, "a")
	store.fail = func(batch *Batch) error {
		if batch.Ops[0].Kind == OpSubscribe {
			return ErrBusy
		}
		return nil
	}
	other := connect(t, b, "other", durable)
	require.Equal(t, uint64(1), b.Stats().AutoRefused)
	require.Equal(t, 1, b.Stats().Subscriptions)
	other.Close(Closing{})
}

func TestAutoSubscribeBelowTheMountpoint(t *testing.T) {
	b := newBroker(t, newMemStore(), automatic(AutoSubscription{Filter: "$share/g/cmd", QoS: 1}, AutoSubscription{Filter: "c/${listener}"}))
	dev, pub := connect(t, b, "dev", mounted(t, "m/${clientid}/")), connect(t, b, "pub", func(r *ConnectRequest) { r.Protocol = "http" })
	require.Equal(t, Success, pub.publish("m/dev/cmd", "1", 1))
	require.Equal(t, Success, pub.publish("m/dev/c/lst", "2", 1))
	require.Equal(t, []string{"1", "2"}, dev.payloads())
}

func TestAutoSubscribeSkipsNamesThatWouldChangeTheFilter(t *testing.T) {
	for _, id := range []string{"#", "+", "a/b", "$SYS", "$share"} {
		b := newBroker(t, newMemStore(), automatic(AutoSubscription{Filter: "${clientid}/#"}, AutoSubscription{Filter: "good"}))
		connect(t, b, id)
		require.Equal(t, uint64(1), b.Stats().AutoRefused, id)
		require.Equal(t, 1, b.Stats().Subscriptions, id)
	}
	b := newBroker(t, newMemStore(), automatic(AutoSubscription{Filter: "u/${username}"}))
	connect(t, b, "no user")
	require.Equal(t, uint64(1), b.Stats().AutoRefused)
}

func TestFaultyAutoSubscriptions(t *testing.T) {
	for key, a := range map[string]AutoSubscription{
		"qos": {Filter: "a", QoS: 3}, "retain_handling": {Filter: "a", RetainHandling: 3}, "filter": {Filter: "a#/${clientid}"},
		"no_local": {Filter: "$share/g/a", NoLocal: true},
	} {
		_, err := New(t.Context(), Config{AutoSubscribe: []AutoSubscription{a}}, newMemStore(), nil, nil)
		require.ErrorContains(t, err, "automatic subscription 0: "+key)
	}
	for _, bad := range []string{"", "a/${topic}", "a/${clientid"} {
		var keys []string
		(&AutoSubscription{Filter: bad}).Check(func(key string, _ error) { keys = append(keys, key) })
		require.Equal(t, []string{"filter"}, keys, bad)
	}
}
