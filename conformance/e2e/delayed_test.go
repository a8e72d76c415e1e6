//go:build unix

package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// What was acknowledged of delayed messages comes at its time or after it,
// however often the gateway is killed meanwhile: once to a subscriber where
// QoS 2 is used all the way, at least once into the queue of a bridge.
func TestDelayedMessagesSurviveCrashes(t *testing.T) {
	seed := fromEnvironment(t, seedEnv, rand.Uint64())
	t.Logf("%s=%d", seedEnv, seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	u := standIn(t)
	g := startGateway(t, bridgeTo(u, "max_bytes: 1GiB"))
	sub := newHistorian(g, 2)
	subscriptions := employ(t, worker(sub))

	plant, hall := &ledger{}, &ledger{}
	delayed := func(l *ledger, name, topic string, qos byte) device {
		return &mqttDevice{
			work: work{account: l.open(name, 0), topic: "$delayed/1/" + topic, every: 3 * time.Millisecond},
			addr: g.mqtt, version: v5, qos: qos, window: 8,
		}
	}
	load := employ(t, delayed(plant, "late-plant", "plant/late", 1), delayed(hall, "late-qos1-hall", "hall/late1", 1), delayed(hall, "late-qos2-hall", "hall/late2", 2))
	eventually(t, "delayed messages arrive", func() bool { return g.metric("gantry_broker_delayed_published_total") > 100 })
	for range few(10, 3) {
		g.crash(u, chance)
	}
	for _, l := range []*ledger{plant, hall} {
		seen := l.acked.Load()
		eventually(t, "devices go on after the last crash", func() bool { return l.acked.Load() > seen+50 })
	}
	load.dismiss()
	u.forgive()
	u.back()
	eventually(t, "every delayed message is published", func() bool { return g.metric("gantry_broker_delayed_messages") == 0 })
	all := plant.with(hall)
	eventually(t, "the subscriber has all that was acknowledged", func() bool { return all.compare(sub.copy()).lost == 0 })
	subscriptions.dismiss()
	plant.settle(g, u).requireKept(t)
	all.compare(sub.copy()).requireKept(t)
	hall.compareOnly("-qos2-", sub.copy()).requireOnce(t)
}
