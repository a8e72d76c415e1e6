//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"gantry/conformance/servers"
)

// topic is where bridges write in this suite; its partitions keep the order of
// each device.
const (
	topic      = "readings"
	partitions = 4
)

// uplink is a Kafka that can go away.
type uplink interface {
	CreateTopic(name string, partitions int32, configs ...string)
	Consume(topic string) []*kgo.Record
	ConsumeAtLeast(topic string, n int) []*kgo.Record
	// address to bootstrap from
	address() string
	// away and back: what was confirmed is kept.
	away()
	back()
}

type fakeUplink struct {
	*servers.KafkaFake
	faults *[]*kfake.FaultHandle
}

func (u fakeUplink) address() string { return u.Addr }
func (u fakeUplink) away()           { u.Cut() }
func (u fakeUplink) back()           { u.Restore() }

// refuse fails the next requests to produce.
func (u fakeUplink) refuse(err *kerr.Error, count int) {
	*u.faults = append(*u.faults, u.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: count}))
}

// forgive takes back what has not been refused yet: an uplink that was away had
// few requests, and the pauses of a bridge add up.
func (u fakeUplink) forgive() {
	for _, f := range *u.faults {
		f.Remove()
	}
	*u.faults = nil
}

type realUplink struct{ *servers.KafkaBroker }

func (u realUplink) address() string { return u.Addr }
func (u realUplink) away()           { u.Kill() }
func (u realUplink) back()           { u.Restart() }

func standIn(t testing.TB) fakeUplink {
	t.Helper()
	u := fakeUplink{servers.Kfake(t), new([]*kfake.FaultHandle)}
	u.CreateTopic(topic, partitions)
	return u
}

// eachUplink runs a test against the stand-in and against Apache Kafka.
func eachUplink(t *testing.T, f func(t *testing.T, u uplink)) {
	t.Run("stand-in", func(t *testing.T) { f(t, standIn(t)) })
	t.Run("Apache Kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("the long form runs against Apache Kafka")
		}
		u := realUplink{servers.Kafka(t)}
		u.CreateTopic(topic, partitions)
		f(t, u)
	})
}

// bridgeTo is a bridge that takes everything below plant and yard. Queue holds the
// settings of its queue, such as "max_bytes: 1MiB".
func bridgeTo(u uplink, queue string) string {
	return fmt.Sprintf(`
bridges:
  - name: cloud
    type: kafka
    brokers: ["%[1]s"]
    queue: {%[2]s}
    routes:
      - {filter: "plant/#", topic: %[3]s, key: "${clientid}", format: raw}
      - {filter: "yard/#", topic: %[3]s, key: "${clientid}", format: raw}
`, u.address(), queue, topic)
}
