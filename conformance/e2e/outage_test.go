//go:build unix

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Kafka is away, and the gateway dies in the middle of 20,000 messages and once
// more while it drains: everything acknowledged is in Kafka.
func TestOutageOfKafkaAndCrashOfTheGateway(t *testing.T) {
	eachUplink(t, func(t *testing.T, u uplink) {
		g := startGateway(t, bridgeTo(u, "max_bytes: 256MiB"))
		const devices = 10
		l, early, late := &ledger{}, few(200, 20), few(2000, 100)
		fleet := g.fleet(l, "plant", devices/5, early, 0)
		employ(t, fleet...).finish(t, toolsWithin)
		l.settle(g, u).requireExact(t)

		u.away()
		for _, d := range fleet {
			d.extend(late)
		}
		workers := employ(t, fleet...)
		total := devices * late
		eventually(t, "half of the messages acknowledged", func() bool { return int(l.acked.Load()) > devices*early+total/2 })
		g.Kill()
		g.Restart()
		workers.finish(t, toolsWithin)
		require.Equal(t, devices*early+total, int(l.acked.Load()))
		eventually(t, "the bridge says that it retries", func() bool { return g.bridge().State == "retrying" })
		require.NotEmpty(t, g.bridge().LastError)
		require.GreaterOrEqual(t, g.bridge().QueuedRecords, total)

		u.back()
		eventually(t, "the first are delivered", func() bool { return g.bridge().Delivered > 0 })
		g.Kill()
		g.Restart()
		v := l.settle(g, u)
		v.requireKept(t)
		require.Zero(t, v.duplicates, "%q", v.examples)
		eventually(t, "the bridge says that it is connected", func() bool { return g.bridge().State == "connected" })
	})
}

// An ordered stop under load, with Kafka there and away, is quick and loses
// nothing that was acknowledged.
func TestOrderedStop(t *testing.T) {
	u := standIn(t)
	g := startGateway(t, bridgeTo(u, "max_bytes: 256MiB"))
	l := &ledger{}
	workers := employ(t, g.fleet(l, "plant", 2, 0, 0)...)
	for _, disturb := range []func(){func() {}, u.away} {
		disturb()
		seen := l.acked.Load()
		eventually(t, "load", func() bool { return l.acked.Load() > seen+1000 })
		start := time.Now()
		g.Stop()
		took := time.Since(start)
		require.Zero(t, g.ExitCode(), "exit code after SIGTERM")
		require.Less(t, took, 10*time.Second)
		t.Logf("stopped within %s", took.Round(time.Millisecond))
		require.Contains(t, g.Output(), `msg=stopped`)
		g.Restart()
	}
	workers.dismiss()
	u.back()
	v := l.settle(g, u)
	v.requireKept(t)
	require.Zero(t, v.duplicates, "%q", v.examples)
}
