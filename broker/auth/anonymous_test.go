package auth

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestLoopbackOnlyByDefault(t *testing.T) {
	for _, tc := range []struct {
		policy  Anonymous
		addr    string
		refused bool
	}{
		{Loopback, "127.0.0.1:5", false},
		{Loopback, "127.8.0.1:5", false},
		{Loopback, "[::1]:5", false},
		{Loopback, "[::ffff:127.0.0.1]:5", false},
		{Loopback, "192.0.2.1:5", true},
		{Loopback, "[2001:db8::1]:5", true},
		{Always, "192.0.2.1:5", false},
		{Never, "127.0.0.1:5", true},
		{"", "127.0.0.1:5", true},
	} {
		r := &broker.ConnectRequest{RemoteAddr: netip.MustParseAddrPort(tc.addr), Credentials: broker.Credentials{Username: "admin", HasUsername: true}}
		err := tc.policy.Authenticate(context.Background(), r)
		if tc.refused {
			require.Equal(t, broker.NotAuthorized, broker.ReasonOf(err), "%s %s", tc.policy, tc.addr)
			continue
		}
		require.NoError(t, err, "%s %s", tc.policy, tc.addr)
	}
	var peer broker.ConnectRequest
	require.Error(t, Loopback.Authenticate(context.Background(), &peer), "an unknown address is not loopback")
}
