package coap

import (
	"testing"

	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestMountpoint(t *testing.T) {
	cfg := testConfig()
	var err error
	cfg.Naming.Mountpoint, err = broker.ParseMountpoint("m/${clientid}/")
	require.NoError(t, err)
	s, b := start(t, cfg)
	c := dial(t, s)
	publish(t, b, &broker.Message{Topic: "m/dev/a", Payload: []byte("1"), Retain: true})
	own := func(r req) req { r.query = append(r.query, "clientid=dev"); return r }
	m := c.do(own(get("a")))
	require.Equal(t, codes.Content, m.Code)
	require.Equal(t, "1", string(m.Payload))
	require.Equal(t, codes.NotFound, c.do(own(get("m/dev/a"))).Code)

	m = c.do(register("o", "a", "clientid=dev"))
	require.Equal(t, "1", string(m.Payload))
	r := own(put("a", "2"))
	r.query = append(r.query, "retain=1")
	require.Equal(t, codes.NotFound, c.do(get("a")).Code, "another client id, so another mount")
	other := dial(t, s)
	r.query = []string{"clientid=x", "retain=1"}
	require.Equal(t, codes.Changed, other.do(r).Code)
	publish(t, b, &broker.Message{Topic: "m/dev/a", Payload: []byte("3")})
	m = c.read()
	require.Equal(t, "3", string(m.Payload), "nothing of the other's")
	require.Equal(t, "o", string(m.Token))
	for _, id := range []string{"a/b", "%23", "+"} {
		require.Equal(t, codes.BadRequest, other.do(req{code: codes.GET, token: "g", path: []string{"ps", "a"}, query: []string{"clientid=" + id}}).Code, id)
	}
}

// Requests that name different identifiers and get the same one share a session.
func TestClientIDOfTheListener(t *testing.T) {
	cfg := testConfig()
	id, err := broker.ParseName("${username}-${listener}")
	require.NoError(t, err)
	user, err := broker.ParseName("${clientid}")
	require.NoError(t, err)
	cfg.Naming = broker.Naming{ClientID: id, Username: user}
	s, b := start(t, cfg)
	c := dial(t, s)
	for _, name := range []string{"one", "two"} {
		r := put("a", "x")
		r.query = []string{"clientid=" + name, "username=u", "password=p"}
		require.Equal(t, codes.Changed, c.do(r).Code)
		info, ok := b.Session("u-udp")
		require.True(t, ok)
		require.Equal(t, name, info.Username, "never the session of another user")
	}
	id, err = broker.ParseName("${username}")
	require.NoError(t, err)
	cfg.Naming = broker.Naming{ClientID: id}
	s, _ = start(t, cfg)
	require.Equal(t, codes.BadRequest, dial(t, s).do(put("a", "x")).Code)
}
