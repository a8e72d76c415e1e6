package httppush

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func named(t *testing.T, mountpoint, clientID, username string) func(*Config, *broker.Config) {
	t.Helper()
	m, err := broker.ParseMountpoint(mountpoint)
	require.NoError(t, err)
	id, err := broker.ParseName(clientID)
	require.NoError(t, err)
	user, err := broker.ParseName(username)
	require.NoError(t, err)
	return func(c *Config, _ *broker.Config) {
		c.Naming = broker.Naming{Mountpoint: m, ClientID: id, Username: user}
	}
}

func TestMountpoint(t *testing.T) {
	f := start(t, named(t, "m/${clientid}/", "", ""))
	const dev = "X-Client-Id: dev"
	require.Equal(t, http.StatusOK, f.do("POST", "/v1/topics/a/b?retain=true&qos=1", "1", dev).StatusCode)
	require.Equal(t, "m/dev/a/b", f.gate.last().Topic)
	require.Equal(t, "1", f.do("GET", "/v1/topics/a/b", "", dev).body)
	require.Equal(t, http.StatusNotFound, f.do("GET", "/v1/topics/a/b", "", "X-Client-Id: other").StatusCode)
	require.Equal(t, http.StatusNotFound, f.do("GET", "/v1/topics/m/dev/a/b", "", dev).StatusCode)
	require.Equal(t, http.StatusOK, f.do("POST", "/api/v5/publish", `{"topic":"j","payload":"x","clientid":"dev","qos":1,"retain":true}`, jsonType).StatusCode)
	require.Equal(t, "m/dev/j", f.gate.last().Topic)
	for _, id := range []string{"a/b", "#", "+"} {
		a := f.do("POST", "/v1/topics/a", "x", "X-Client-Id: "+id)
		require.Equal(t, http.StatusBadRequest, a.StatusCode, a.body)
	}
}

func TestClientIDOfTheListener(t *testing.T) {
	f := start(t, named(t, "", "${username}", ""))
	require.Equal(t, http.StatusOK, f.do("POST", "/v1/topics/a?qos=1&retain=true", "x", "X-Client-Id: claimed", "anna:secret@").StatusCode)
	require.Equal(t, "anna", f.gate.last().ClientID)
	require.Equal(t, 1, f.server.sessions.count())
	require.Equal(t, http.StatusOK, f.do("POST", "/v1/topics/a?qos=1&retain=true", "x", "X-Client-Id: other", "anna:secret@").StatusCode)
	require.Equal(t, 1, f.server.sessions.count(), "the same client")
	require.Equal(t, http.StatusBadRequest, f.do("POST", "/v1/topics/a", "x").StatusCode)
}

func TestUsernameOfTheListener(t *testing.T) {
	f := start(t, named(t, "", "", "${clientid}"))
	require.Equal(t, http.StatusOK, f.do("POST", "/v1/topics/a?qos=1&retain=true", "x", "X-Client-Id: anna", "nobody:secret@").StatusCode)
	require.Equal(t, "anna", f.gate.last().Username)
	require.Equal(t, http.StatusUnauthorized, f.do("POST", "/v1/topics/a", "x", "X-Client-Id: bert", "nobody:secret@").StatusCode)
}
