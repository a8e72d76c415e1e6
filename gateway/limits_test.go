package gateway

import (
	"io"
	"net"
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

// What the limits answer on the wire, to MQTT 5.0 and 3.1.1.
func TestLimitsAnswerMQTTClients(t *testing.T) {
	c := testConfig(t)
	c.Broker.Retained.MaxCount, c.Broker.Retained.MaxPayload, c.Broker.Session.MaxKept = 1, 8, 1
	g, _ := start(t, c)
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", g.Addrs()["tcp"].String())
		require.NoError(t, err)
		t.Cleanup(func() { nc.Close() })
		return nc
	}
	const kept5 = "\x10\x13\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\x00\x00\x0e\x10\x00\x01"
	clean4 := dial()
	dialog(t, clean4, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01w", "\x20\x02\x00\x00")
	five := dial()
	dialog(t, five, kept5+"a", "\x20")
	_, err := five.Read(make([]byte, 200)) // the rest of CONNACK
	require.NoError(t, err)
	dialog(t, dial(), kept5+"b", "\x20\x03\x00\x97\x00")
	dialog(t, dial(), "\x10\x0d\x00\x04MQTT\x04\x00\x00\x3c\x00\x01x", "\x20\x02\x00\x03")

	dialog(t, five, "\x33\x07\x00\x01r\x00\x01\x00v", "\x40\x02\x00\x01")
	dialog(t, five, "\x33\x07\x00\x01s\x00\x02\x00v", "\x40\x03\x00\x02\x97")
	dialog(t, five, "\x35\x0f\x00\x01r\x00\x03\x00123456789", "\x50\x03\x00\x03\x97")
	dialog(t, five, "\x33\x07\x00\x01r\x00\x04\x00w", "\x40\x02\x00\x04")
	dialog(t, clean4, "\x33\x06\x00\x01r\x00\x01x", "\x40\x02\x00\x01")
	dialog(t, clean4, "\x33\x06\x00\x01s\x00\x02x", "")
	_, err = clean4.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "before 5.0, the end of the connection is what makes a client send again")
}
