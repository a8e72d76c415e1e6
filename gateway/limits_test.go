package gateway

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// At their caps, retained values and kept sessions are refused with a reason,
// and the operator is told.
func TestLimitsRaiseAlarms(t *testing.T) {
	c := testConfig(t)
	c.Broker.Retained.MaxCount, c.Broker.Retained.MaxPayload, c.Broker.Session.MaxKept = 1, 8, 1
	g, stop := start(t, c)
	keep := func(id string) error {
		_, _, err := g.broker.Connect(t.Context(), &broker.ConnectRequest{ClientID: id, Expiry: time.Hour, RemoteAddr: netip.MustParseAddrPort("127.0.0.1:9")})
		return err
	}
	require.Equal(t, http.StatusRequestEntityTooLarge, post(t, g, "office/1", "too large"))
	require.Equal(t, http.StatusOK, post(t, g, "office/1", "first"))
	require.Equal(t, http.StatusTooManyRequests, post(t, g, "office/2", "second"))
	require.NoError(t, keep("first"))
	require.Equal(t, broker.QuotaExceeded, broker.ReasonOf(keep("second")))
	stop() // the watch belongs to one goroutine
	alarms := func(after time.Duration) map[string]string {
		g.watch.look(time.Now().Add(after))
		all := map[string]string{}
		for _, a := range g.alarms.List() {
			all[a.Name] = a.Detail
		}
		return all
	}
	now := alarms(0)
	require.Contains(t, now["retained_full"], "1 of 1 values")
	require.Contains(t, now["retained_full"], "1 were since the start")
	require.Contains(t, now["sessions_full"], "1 of 1 sessions")
	require.Len(t, now, 2)
	require.Len(t, alarms(time.Hour), 2, "still at the caps")
	g.watch.gateway.cfg.Broker.Retained.MaxCount, g.watch.gateway.cfg.Broker.Session.MaxKept = 2, 2
	require.Empty(t, alarms(2*time.Hour))
}
