package gateway

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/gateway/config"
)

func TestAlarmsArePublished(t *testing.T) {
	c := testConfig(t)
	c.Broker.SysInterval = config.Duration(time.Hour)
	g, _ := start(t, c)
	woken := make(chan struct{}, 1)
	watch := openSession(t, g, &broker.ConnectRequest{ClientID: "watch", Wake: func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}})
	subscribe(t, watch, "$SYS/brokers/test/alarms/+")
	before := float64(time.Now().UnixMicro())
	for range 2 { // the second time nothing changes
		g.alarms.Raise("smoke", "in the kitchen")
	}
	g.alarms.Clear("smoke")
	g.alarms.Clear("smoke")
	all := events(t, watch, woken, 2)
	require.Empty(t, watch.Next(make([]broker.Delivery, 0, 1)))
	for _, e := range all {
		require.InDelta(t, before, e["activate_at"], 10e6)
		delete(e, "activate_at")
	}
	require.InDelta(t, before, all[1]["deactivate_at"], 10e6)
	delete(all[1], "deactivate_at")
	none := map[string]any{}
	require.Equal(t, []map[string]any{
		{"event": "activate", "name": "smoke", "message": "in the kitchen", "details": none, "activated": true, "deactivate_at": "infinity"},
		{"event": "deactivate", "name": "smoke", "message": "in the kitchen", "details": none, "activated": false},
	}, all)
	watch.Close(broker.Closing{})
}
