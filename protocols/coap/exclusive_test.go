package coap

import (
	"testing"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestObserveExclusive(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "e/1", Payload: []byte("kept"), Retain: true, QoS: 1})
	first, second := dial(t, s), dial(t, s)
	m := first.do(register("x", "%24exclusive/e/1"))
	require.Equal(t, codes.Content, m.Code)
	require.Equal(t, "kept", string(m.Payload), "the value of the plain topic")

	m = second.do(register("y", "$exclusive/e/1"))
	require.Equal(t, codes.TooManyRequests, m.Code)
	require.False(t, m.Options.HasOption(message.Observe))
	require.Equal(t, codes.Content, second.do(register("z", "e/1")).Code, "the plain filter is free")

	publish(t, b, &broker.Message{Topic: "e/1", Payload: []byte("new")})
	require.Equal(t, "x", string(first.read().Token))
	require.Equal(t, "z", string(second.read().Token))
	first.do(req{code: codes.GET, token: "x", path: []string{"ps", "$exclusive/e/1"}, options: []message.Option{observeOpt(1)}})
	require.Equal(t, codes.Content, second.do(register("y", "$exclusive/e/1")).Code)
	require.Equal(t, codes.BadRequest, first.do(put("$exclusive/e/1", "x")).Code)
	require.Equal(t, codes.BadRequest, first.do(register("w", "$exclusive/$share/g/e")).Code)
}
