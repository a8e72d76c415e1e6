package servers

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"gantry/conformance/standin"
)

// KafkaFake is a Kafka cluster inside the test program. It speaks the real
// protocol, and can be told to answer with any error at any moment.
type KafkaFake struct {
	Cluster
	// Fake injects faults: Fault, ControlKey, MoveTopicPartition and the rest.
	Fake *kfake.Cluster

	kafka *standin.Kafka
}

// Kfake starts a cluster of one broker, in memory. Opts come after that and may
// say otherwise, except Ports and ListenFn, which stay with package standin.
// Topics exist after CreateTopic, or SeedTopics, or AllowAutoTopicCreation.
func Kfake(t testing.TB, opts ...kfake.Opt) *KafkaFake {
	t.Helper()
	k, err := standin.NewKafka(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return &KafkaFake{Cluster: Cluster{t: t, Addr: k.Addr}, Fake: k.Cluster, kafka: k}
}

// Cut takes the cluster off the network: connections are dropped and new ones
// are refused. A request that was on its way may have been carried out. Safe to
// call from any goroutine.
func (k *KafkaFake) Cut() {
	k.t.Helper()
	if err := k.kafka.Cut(); err != nil {
		k.t.Error(err)
	}
}

// Restore brings the cluster back on the same ports, with the topics, records
// and producer states it had. Safe to call from any goroutine.
func (k *KafkaFake) Restore() {
	k.t.Helper()
	if err := k.kafka.Restore(); err != nil {
		k.t.Error(err)
	}
}
