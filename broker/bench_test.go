package broker

import (
	"context"
	"fmt"
	"testing"
)

// benchStart opens n subscribers of one topic and a publisher.
func benchStart(b *testing.B, n int, qos QoS) (*client, []*client) {
	br := newBroker(b, newMemStore())
	subs := make([]*client, n)
	for i := range subs {
		subs[i] = connect(b, br, fmt.Sprint("sub", i))
		subs[i].subscribe("plant/+/temperature", qos)
	}
	return connect(b, br, "pub"), subs
}

// BenchmarkPublishNext is the way of one message from Publish to the adapters
// that take it from Next; the message itself is one of the allocations.
func BenchmarkPublishNext(b *testing.B) {
	for _, qos := range []QoS{0, 1} {
		for _, n := range []int{1, 50} {
			b.Run(fmt.Sprintf("qos %d/1 to %d", qos, n), func(b *testing.B) {
				pub, subs := benchStart(b, n, qos)
				payload := make([]byte, 128)
				dst := make([]Delivery, 0, 64)
				done := func(Reason) {}
				now := nowMillis()
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					pub.Publish(context.Background(), &Message{Topic: "plant/7/temperature", Payload: payload, QoS: qos, Time: now}, 0, done)
					if i%32 < 31 { // adapters take them in batches
						continue
					}
					for _, s := range subs {
						for _, d := range s.Next(dst) {
							if qos > 0 {
								s.Acked(d.PacketID)
							}
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/delivery")
			})
		}
	}
}

// BenchmarkShare is the same with a shared subscription of five members.
func BenchmarkShare(b *testing.B) {
	for _, strategy := range ShareStrategies() {
		b.Run(string(strategy), func(b *testing.B) {
			br := newBroker(b, newMemStore(), withStrategy(strategy))
			group, pub := members(b, br, 5, 1), connect(b, br, "pub")
			dst := make([]Delivery, 0, 64)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				pub.Publish(context.Background(), &Message{Topic: "t/7", QoS: 1, Time: 1}, 0, nil)
				if i%32 < 31 {
					continue
				}
				for _, c := range group {
					for _, d := range c.Next(dst) {
						c.Acked(d.PacketID)
					}
				}
			}
		})
	}
}

// BenchmarkDurable is the same with durable subscribers, without the disk.
func BenchmarkDurable(b *testing.B) {
	br := newBroker(b, discardStore{})
	sub, pub := connect(b, br, "sub", durable), connect(b, br, "pub")
	sub.subscribe("t", 1)
	dst := make([]Delivery, 0, 64)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pub.Publish(context.Background(), &Message{Topic: "t", QoS: 1, Time: 1}, 0, nil)
		if i%32 < 31 {
			continue
		}
		for _, d := range sub.Next(dst) {
			sub.Acked(d.PacketID)
		}
	}
}

// discardStore keeps nothing.
type discardStore struct{}

func (discardStore) Load(context.Context) (*State, error)         { return &State{}, nil }
func (discardStore) Queued(string, uint64, int) ([]Queued, error) { return nil, nil }
func (discardStore) Close() error                                 { return nil }
func (discardStore) Commit(_ context.Context, _ *Batch, done func(error)) error {
	if done != nil {
		done(nil)
	}
	return nil
}

// BenchmarkRouterMatch is a match that no cache answers, among 100,000 filters.
func BenchmarkRouterMatch(b *testing.B) {
	var r router
	for i := range 100_000 {
		st := &sessionState{id: fmt.Sprint(i)}
		r.add(st, &subscription{Subscription: Subscription{Filter: fmt.Sprintf("site/%d/line/%d/+", i%100, i)}})
	}
	watch := &sessionState{id: "watch"}
	r.add(watch, &subscription{Subscription: Subscription{Filter: "site/#"}})
	topics := make([]string, 1024)
	for i := range topics {
		topics[i] = fmt.Sprintf("site/%d/line/%d/speed", i*7%100, i*7)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if t, _ := r.match(topics[i%len(topics)]); len(t) != 2 {
			b.Fatal(len(t))
		}
	}
}
