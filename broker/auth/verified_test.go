package auth

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestVerifiedClientsAreNotAnonymous(t *testing.T) {
	a := Verified{Else: Never}
	r := broker.ConnectRequest{RemoteAddr: netip.MustParseAddrPort("192.0.2.1:5"), Credentials: broker.Credentials{Username: "admin", HasUsername: true}}
	require.Equal(t, broker.NotAuthorized, broker.ReasonOf(a.Authenticate(context.Background(), &r)), "a name alone proves nothing")
	r.Verified = true
	require.NoError(t, a.Authenticate(context.Background(), &r))
}

func TestClientsOfAUnixSocketAreOnThisMachine(t *testing.T) {
	r := broker.ConnectRequest{Local: true}
	require.NoError(t, Loopback.Authenticate(context.Background(), &r))
	require.Error(t, Never.Authenticate(context.Background(), &r))
}

// once is an Authenticator with one method.
type once struct{ Anonymous }

func (once) BeginMethod(context.Context, string, *broker.ConnectRequest) (broker.Method, error) {
	return nil, nil
}

func TestMethodsAreThoseOfElse(t *testing.T) {
	_, err := Verified{Else: Never}.BeginMethod(context.Background(), "m", nil)
	require.Equal(t, broker.BadAuthMethod, broker.ReasonOf(err))
	_, err = Verified{Else: once{Never}}.BeginMethod(context.Background(), "m", nil)
	require.NoError(t, err)
}
