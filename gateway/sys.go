package gateway

import (
	"context"
	"math"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
)

// sysTopics publishes the state of the gateway below $SYS, under the names
// that mosquitto and EMQX use, so that what watches those can watch this.
// docs/sys-topics.md says what each means.
type sysTopics struct {
	every     time.Duration
	node      string
	startedAt time.Time
	stats     func() broker.Stats
	metrics   prometheus.Gatherer
	publish   func(*broker.Message) broker.Reason
	watched   func(topic string) bool
	events    bool              // those of connections
	ports     map[string]uint16 // of the listeners, by protocol and name

	// Owned by the goroutine that looks.
	last    map[string]string // what is retained
	loads   []*load
	prev    time.Time
	wire    wireCounter
	highest map[string]int64 // each figure at its most, as seen when it was looked at

	connected, most atomic.Int64 // connections now, and at most since the start
}

func newSysTopics(g *Gateway) *sysTopics {
	s := &sysTopics{
		every: time.Duration(g.cfg.Broker.SysInterval), node: g.node, startedAt: g.startedAt, stats: g.broker.Stats,
		metrics: g.reg, publish: g.broker.PublishSystem, watched: g.broker.SystemWatched, events: g.cfg.Broker.SysEvents.Connections, ports: make(map[string]uint16),
		last: make(map[string]string), loads: newLoads(), highest: make(map[string]int64),
	}
	for _, l := range g.listeners {
		s.ports[l.protocol+" "+l.name] = portOf(l.server.Addr())
	}
	return s
}

// run refreshes the topics until ctx ends.
func (s *sysTopics) run(ctx context.Context) error {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.look(time.Now())
		}
	}
}

func (s *sysTopics) look(now time.Time) {
	n := s.count()
	s.mosquitto(now, &n)
	s.load(now, &n)
	s.emqx(now, &n)
}

// counts are what the topics are made of.
type counts struct {
	broker.Stats
	wire *wireCounter

	connected       int
	published, sent uint64 // messages of all protocols
	dropped         uint64 // for whatever reason
	heap            uint64 // bytes of live objects
}

func (s *sysTopics) count() counts {
	n := counts{Stats: s.stats(), wire: &s.wire, heap: heapInUse()}
	for _, c := range n.Connected {
		n.connected += c
	}
	for q := range n.Received {
		n.published += n.Received[q]
		n.sent += n.Sent[q]
	}
	for _, d := range n.Dropped {
		n.dropped += d
	}
	s.wire.gather(s.metrics)
	return n
}

// heapInUse is the memory of objects, dead ones that the collector has not
// found yet included.
func heapInUse() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// high is the highest value of a figure so far.
func (s *sysTopics) high(name string, now int64) int64 {
	s.highest[name] = max(s.highest[name], now)
	return s.highest[name]
}

// set retains a value, if it is another one than before.
func (s *sysTopics) set(topic, value string) {
	if s.last[topic] == value {
		return
	}
	s.last[topic] = value
	s.publish(&broker.Message{Topic: topic, Payload: []byte(value), Retain: true})
}

func number[T int | int64 | uint64 | float64](v T) string {
	return strconv.FormatFloat(math.Floor(float64(v)), 'f', 0, 64)
}
