//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// routeTo is a bridge with one route to a Kafka topic of its own.
func routeTo(u uplink, kafkaTopic string) string {
	return fmt.Sprintf(`
bridges:
  - {name: cloud, type: kafka, brokers: ["%s"], routes: [{filter: "plant/#", topic: %s}]}
`, u.address(), kafkaTopic)
}

// A topic that Kafka does not have is no reason to give messages up: they wait,
// the operator sees why, and go when somebody makes the topic.
func TestMissingKafkaTopicIsWaitedFor(t *testing.T) {
	u := standIn(t)
	g := startGateway(t, routeTo(u, "later"))
	l := &ledger{}
	a := l.open("early", 0)
	w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
	for range 10 {
		require.Zero(t, a.offer(t, w, "plant/a"))
	}
	eventually(t, "the bridge says which topic", func() bool { return strings.Contains(g.bridge().LastError, "later") })
	require.Equal(t, 10, g.bridge().QueuedRecords)
	u.CreateTopic("later", 1)
	l.compare(arrivalsOf(t, u.ConsumeAtLeast("later", 10))).requireExact(t)
	g.awaitDrained()
	require.Zero(t, g.bridge().DeadLetters)
}

// A record that Kafka refuses for good goes to the dead letters, where the
// operator finds it, and what is behind it goes on.
func TestRecordThatKafkaRefusesForGoodIsADeadLetter(t *testing.T) {
	u := standIn(t)
	u.CreateTopic("small", 1, "max.message.bytes=2000")
	g := startGateway(t, routeTo(u, "small"))
	l := &ledger{}
	small, big := l.open("small", 0), (&ledger{}).open("big", 5000)
	w, _ := g.connect(hello{version: v5, id: small.device, clean: true})
	w2, _ := g.connect(hello{version: v5, id: big.device, clean: true})
	require.Zero(t, small.offer(t, w, "plant/a"))
	require.Zero(t, big.offer(t, w2, "plant/a"))
	require.Zero(t, small.offer(t, w, "plant/a"))
	l.compare(arrivalsOf(t, u.ConsumeAtLeast("small", 2))).requireExact(t)
	g.awaitDrained()
	require.Equal(t, 1, g.bridge().DeadLetters)
	g.awaitAlarm("bridge_dead_letters:cloud")

	requireDead := func() {
		t.Helper()
		r := command(t, "", "queue", "peek", "cloud", "--dead", "--json", "-c", g.file)
		require.Zero(t, r.code, r.err)
		var records []struct {
			Key    string `json:"key"`
			Size   int    `json:"size"`
			Reason string `json:"reason"`
		}
		require.NoError(t, json.Unmarshal([]byte(r.out), &records), r.out)
		require.Len(t, records, 1)
		require.Equal(t, "big", records[0].Key)
		require.Greater(t, records[0].Size, 5000)
		require.NotEmpty(t, records[0].Reason)
	}
	requireDead()
	g.Stop()
	requireDead()
	g.Restart()
	require.Equal(t, 1, g.bridge().DeadLetters)
}
