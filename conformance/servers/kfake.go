package servers

import (
	"net"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaFake is a Kafka cluster inside the test program. It speaks the real
// protocol, and can be told to answer with any error at any moment.
type KafkaFake struct {
	Cluster
	// Fake injects faults: Fault, ControlKey, MoveTopicPartition and the rest.
	Fake *kfake.Cluster

	mu    sync.Mutex // covers gates
	gates []*gate    // one per broker
}

// Kfake starts a cluster of one broker, in memory. Opts come after that and may
// say otherwise, except Ports and ListenFn, which stay with this package. Topics
// exist after CreateTopic, or SeedTopics, or AllowAutoTopicCreation.
func Kfake(t testing.TB, opts ...kfake.Opt) *KafkaFake {
	t.Helper()
	k := &KafkaFake{Cluster: Cluster{t: t}}
	all := append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)
	fake, err := kfake.NewCluster(append(all, kfake.ListenFn(k.listen))...)
	if err != nil {
		t.Fatalf("start the Kafka stand-in: %v", err)
	}
	t.Cleanup(fake.Close)
	k.Fake, k.Addr = fake, fake.ListenAddrs()[0]
	return k
}

// Cut takes the cluster off the network: connections are dropped and new ones
// are refused. A request that was on its way may have been carried out. Safe to
// call from any goroutine.
func (k *KafkaFake) Cut() {
	k.t.Helper()
	k.each((*gate).Cut)
}

// Restore brings the cluster back on the same ports, with the topics, records
// and producer states it had. Safe to call from any goroutine.
func (k *KafkaFake) Restore() {
	k.t.Helper()
	k.each((*gate).Restore)
}

func (k *KafkaFake) each(do func(*gate) error) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.gates {
		if err := do(g); err != nil {
			k.t.Errorf("Kafka stand-in on %s: %v", g.addr, err)
		}
	}
}

// listen puts a gate before each broker, on a port that stays free in a cut.
func (k *KafkaFake) listen(_, _ string) (net.Listener, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	g, err := newGate(loopback(port))
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gates = append(k.gates, g)
	return g, nil
}
