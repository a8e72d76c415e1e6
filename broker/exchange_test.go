package broker

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// echoMethod authenticates as whom the client says, in the step after "go on".
type echoMethod struct {
	refuse map[string]bool // by Authenticate
}

func (e echoMethod) Authenticate(_ context.Context, r *ConnectRequest) error {
	if e.refuse[r.Credentials.Username] {
		return &Error{Reason: Banned}
	}
	return nil
}

func (e echoMethod) BeginMethod(_ context.Context, name string, _ *ConnectRequest) (Method, error) {
	switch name {
	case "echo":
		return e, nil
	case "busy":
		return nil, &Error{Reason: ServerBusy}
	}
	return nil, errors.New("no such thing")
}

func (echoMethod) Step(_ context.Context, data []byte) (Step, error) {
	switch string(data) {
	case "go on":
		return Step{Reply: data}, nil
	case "fail":
		return Step{}, errors.New("detail")
	}
	return Step{Reply: []byte("bye"), Done: true, Username: string(data)}, nil
}

func exchangeBroker(t *testing.T) (*Broker, echoMethod) {
	e := echoMethod{refuse: map[string]bool{}}
	return newBroker(t, newMemStore(), func(c *Config) { c.Authenticate = e }), e
}

func TestExchangeVerifiesItsRequest(t *testing.T) {
	b, _ := exchangeBroker(t)
	r := &ConnectRequest{ClientID: "a", Credentials: Credentials{Username: "root", HasUsername: true, Password: []byte("x"), HasPassword: true}}
	x, err := b.BeginExchange(t.Context(), "echo", r)
	require.NoError(t, err)
	reply, done, err := x.Step(t.Context(), []byte("go on"))
	require.NoError(t, err)
	require.False(t, done)
	require.Equal(t, "go on", string(reply))
	require.False(t, r.Verified)
	reply, done, err = x.Step(t.Context(), []byte("ann"))
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, "bye", string(reply))
	require.True(t, r.Verified)
	require.Equal(t, Credentials{Username: "ann", HasUsername: true}, r.Credentials)
	s, _, err := b.Connect(t.Context(), r)
	require.NoError(t, err)
	defer s.Close(Closing{})
	info, _ := b.Session("a")
	require.Equal(t, "ann", info.Username)
}

func TestExchangeThatFailsHasAReason(t *testing.T) {
	b, _ := exchangeBroker(t)
	begin := func(method string, r ConnectRequest) Reason {
		_, err := b.BeginExchange(t.Context(), method, &r)
		return ReasonOf(err)
	}
	step := func(data string) Reason {
		x, err := b.BeginExchange(t.Context(), "echo", &ConnectRequest{})
		require.NoError(t, err)
		_, _, err = x.Step(t.Context(), []byte(data))
		return ReasonOf(err)
	}
	require.Equal(t, NotAuthorized, begin("none", ConnectRequest{}))
	require.Equal(t, ServerBusy, begin("busy", ConnectRequest{}))
	require.Equal(t, InvalidClientID, begin("echo", ConnectRequest{ClientID: "a\x00"}))
	require.Equal(t, NotAuthorized, step("fail"))
	require.Equal(t, QuotaExceeded, step(string(make([]byte, maxExchangeBytes+1))))
	require.Equal(t, Success, step(string(make([]byte, maxExchangeBytes))))
	require.Equal(t, uint64(4), b.Stats().RefusedConnects)

	_, err := newBroker(t, newMemStore()).BeginExchange(t.Context(), "echo", &ConnectRequest{})
	require.Equal(t, BadAuthMethod, ReasonOf(err), "an Authenticator without methods")
	require.NoError(t, b.Close())
	require.Equal(t, ShuttingDown, begin("echo", ConnectRequest{}))
}

func TestExchangeIsBounded(t *testing.T) {
	b, _ := exchangeBroker(t)
	x, err := b.BeginExchange(t.Context(), "echo", &ConnectRequest{})
	require.NoError(t, err)
	for range maxExchangeSteps {
		_, _, err := x.Step(t.Context(), []byte("go on"))
		require.NoError(t, err)
	}
	_, done, err := x.Step(t.Context(), []byte("ann"))
	require.Equal(t, QuotaExceeded, ReasonOf(err))
	require.False(t, done)
}

// A certificate that stands for a user is not overruled.
func TestExchangeMustAgreeWithTheTransport(t *testing.T) {
	b, _ := exchangeBroker(t)
	for user, want := range map[string]Reason{"ann": Success, "bob": NotAuthorized, "": NotAuthorized} {
		r := &ConnectRequest{Verified: true, Credentials: Credentials{Username: "ann", HasUsername: true}}
		x, err := b.BeginExchange(t.Context(), "echo", r)
		require.NoError(t, err)
		_, done, err := x.Step(t.Context(), []byte(user))
		require.Equal(t, want, ReasonOf(err))
		require.Equal(t, want == Success, done)
		require.Equal(t, "ann", r.Credentials.Username)
	}
}

func TestExchangeOfAConnectedClientKeepsItsUser(t *testing.T) {
	b, e := exchangeBroker(t)
	r := &ConnectRequest{ClientID: "a", Credentials: Credentials{Username: "ann", HasUsername: true}}
	s, _, err := b.Connect(t.Context(), r)
	require.NoError(t, err)
	again := func(user string) Reason {
		x, err := s.BeginExchange(t.Context(), "echo", r)
		if err != nil {
			return ReasonOf(err)
		}
		_, _, err = x.Step(t.Context(), []byte(user))
		return ReasonOf(err)
	}
	require.Equal(t, Success, again("ann"))
	require.Equal(t, NotAuthorized, again("bob"))
	e.refuse["ann"] = true
	require.Equal(t, Banned, again("ann"), "the Authenticator is asked again")
	require.Zero(t, b.Stats().RefusedConnects, "no connect was refused")
	s.Close(Closing{})
	require.Equal(t, Closed, again("ann"))
}
