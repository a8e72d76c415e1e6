package kafka

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/bridge"
	"gantry/conformance/servers"
)

// BenchmarkDrain sends a backlog of 200-byte payloads to four partitions.
func BenchmarkDrain(b *testing.B) {
	b.Run("kfake", func(b *testing.B) {
		k := servers.Kfake(b)
		k.CreateTopic("t", 4)
		drain(b, k.Addr, "none")
	})
	b.Run("kafka", func(b *testing.B) {
		k := servers.Kafka(b)
		k.CreateTopic("t", 4)
		for _, compression := range []string{"none", "lz4", "zstd"} {
			b.Run(compression, func(b *testing.B) { drain(b, k.Addr, compression) })
		}
	})
}

func drain(b *testing.B, addr, compression string) {
	const backlog = 400_000
	g := newRig(b, addr, func(g *rig) { g.cfg.Compression = compression })
	payload := strings.Repeat(`{"sensor":"temp-17","value":21.5},`, 6)[:200]
	for b.Loop() {
		b.StopTimer()
		for i := range backlog {
			g.put("t/a", "client-"+string(rune('a'+i%16)), payload)
		}
		g.start()
		g.await(func() bool { return g.forwarder.Status().State == bridge.Connected })
		b.StartTimer()
		g.awaitEmpty()
		b.StopTimer()
		g.stop()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*backlog/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkOneByOne is the time from a commit in the queue to the confirmation
// of Kafka, for one record after the other.
func BenchmarkOneByOne(b *testing.B) {
	k := servers.Kfake(b)
	k.CreateTopic("t", 4)
	g := newRig(b, k.Addr)
	g.start()
	for b.Loop() {
		done := g.forwarder.Status().Confirmed + 1
		g.publish("t/a", 1)
		deadline := time.Now().Add(time.Minute)
		for g.forwarder.Status().Confirmed < done {
			require.True(b, time.Now().Before(deadline))
			time.Sleep(50 * time.Microsecond)
		}
	}
}
