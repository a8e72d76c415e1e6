// Package standin is a Kafka cluster inside the program that uses it, for tests
// and for the laboratory: it speaks the real protocol, keeps its records in
// memory, and can be taken off the network and put back.
package standin

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Kafka is the stand-in. The embedded cluster injects faults: Fault,
// ControlKey, MoveTopicPartition and the rest.
type Kafka struct {
	*kfake.Cluster
	// Addr is the address of the first broker.
	Addr string

	mu    sync.Mutex // covers gates
	gates []*gate    // one per broker
}

// NewKafka starts a cluster of one broker on a loopback port. Opts come after
// that and may say otherwise, except Ports and ListenFn, which stay with this
// package. The caller closes the cluster.
func NewKafka(opts ...kfake.Opt) (*Kafka, error) {
	k := &Kafka{}
	all := append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)
	fake, err := kfake.NewCluster(append(all, kfake.ListenFn(k.listen))...)
	if err != nil {
		return nil, fmt.Errorf("start the Kafka stand-in: %w", err)
	}
	k.Cluster, k.Addr = fake, fake.ListenAddrs()[0]
	return k, nil
}

// Cut takes the cluster off the network: connections are dropped and new ones
// are refused. A request that was on its way may have been carried out. Safe to
// call from any goroutine.
func (k *Kafka) Cut() error { return k.each((*gate).Cut) }

// Restore brings the cluster back on the same ports, with the topics, records
// and producer states it had. Safe to call from any goroutine.
func (k *Kafka) Restore() error { return k.each((*gate).Restore) }

func (k *Kafka) each(do func(*gate) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, g := range k.gates {
		if err := do(g); err != nil {
			errs = append(errs, fmt.Errorf("Kafka stand-in on %s: %w", g.addr, err))
		}
	}
	return errors.Join(errs...)
}

// listen puts a gate before each broker, on a port that stays free in a cut.
func (k *Kafka) listen(_, _ string) (net.Listener, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	g, err := newGate(Loopback(port))
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gates = append(k.gates, g)
	return g, nil
}
