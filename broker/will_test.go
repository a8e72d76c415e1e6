package broker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// One session that is away and full (session.when_full: refuse, the default)
// must not keep the will of another client from everybody else.
func TestWillPassesAFullSession(t *testing.T) {
	for _, retain := range []bool{false, true} {
		b := newBroker(t, newMemStore(), func(c *Config) { c.Session.QueueBytes = 1000 })
		full := connect(t, b, "full", durable)
		full.subscribe("#", 1)
		full.Close(Closing{})
		pub := connect(t, b, "pub")
		for _, payload := range []string{strings.Repeat("x", 40), ""} { // until nothing fits
			for r := Success; r == Success; {
				r = pub.publish("f", payload, 1)
			}
		}
		live := connect(t, b, "live")
		live.subscribe("status/#", 1)
		dev := connect(t, b, "dev", func(r *ConnectRequest) {
			r.Will = &Will{Message: &Message{Topic: "status/dev", Payload: []byte("offline"), QoS: 1, Retain: retain}}
		})
		dev.Close(Closing{Reason: KeepAliveTimeout})
		require.Equal(t, []string{"offline"}, live.payloads(), "retain %v: a subscriber that has room gets the will", retain)
		if retain {
			m, _ := live.Retained("status/dev")
			require.NotNil(t, m, "and its value is retained: no limit of broker.retained is reached")
		}
	}
}

// A will that cannot be delayed is refused in CONNECT when nothing can be, and
// comes at once when too much waits.
func TestDelayedWillNeedsDelayedPublishing(t *testing.T) {
	will := func() *Will {
		return &Will{Message: &Message{Topic: "$delayed/60/x", Payload: []byte("offline"), QoS: 1}}
	}
	b := newBroker(t, newMemStore(), func(c *Config) { c.Delayed.MaxMessages = -1 })
	_, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: "d", Protocol: "mqtt", Will: will()})
	require.Equal(t, ImplementationError, ReasonOf(err))

	b = newBroker(t, newMemStore(), func(c *Config) { c.Delayed.MaxMessages = 1 })
	require.Equal(t, Success, connect(t, b, "pub").publish("$delayed/60/y", "first", 1))
	live := connect(t, b, "live")
	live.subscribe("x", 1)
	dev := connect(t, b, "dev", func(r *ConnectRequest) { r.Will = will() })
	dev.Close(Closing{Reason: KeepAliveTimeout})
	require.Equal(t, []string{"offline"}, live.payloads())
}

// One bridge that refuses does not keep a will from the others.
func TestWillPassesARecorderThatRefuses(t *testing.T) {
	full := &countingHook{answer: func(*Message) Reason { return QuotaExceeded }}
	other := &countingHook{}
	b := newBroker(t, newMemStore(), func(c *Config) { c.Hooks = []Hook{full, other} })
	live := connect(t, b, "live")
	live.subscribe("x", 1)
	dev := connect(t, b, "dev", func(r *ConnectRequest) {
		r.Will = &Will{Message: &Message{Topic: "x", Payload: []byte("offline"), QoS: 1}}
	})
	dev.Close(Closing{Reason: KeepAliveTimeout})
	require.Equal(t, []string{"offline"}, live.payloads())
	require.Equal(t, []string{"offline"}, other.seen())
}

// A datagram or request that names a client does not end the session of an MQTT
// client of that name, whether it is connected or away.
func TestOtherProtocolsCannotTakeASession(t *testing.T) {
	b := newBroker(t, newMemStore())
	c := connect(t, b, "c", durable)
	c.subscribe("x", 1)
	for _, away := range []bool{false, true} {
		if away {
			c.Close(Closing{})
		}
		for _, protocol := range []string{"coap", "http"} {
			_, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: "c", Protocol: protocol, CleanStart: true})
			require.Equal(t, InvalidClientID, ReasonOf(err), "%s, away %v", protocol, away)
		}
	}
	require.Equal(t, Success, connect(t, b, "pub").publish("x", "kept", 1))
	again, present, err := b.Connect(t.Context(), &ConnectRequest{ClientID: "c", Protocol: "mqtt", Expiry: NeverExpires, Wake: func() {}})
	require.NoError(t, err)
	require.True(t, present)
	again.Close(Closing{})
	first, _, err := b.Connect(t.Context(), &ConnectRequest{ClientID: "device", Protocol: "coap", CleanStart: true, Kick: func(Reason) {}})
	require.NoError(t, err)
	_, _, err = b.Connect(t.Context(), &ConnectRequest{ClientID: "device", Protocol: "coap", CleanStart: true})
	require.NoError(t, err, "of the same protocol it can")
	_, r := first.Retained("x")
	require.Equal(t, Closed, r)
}
