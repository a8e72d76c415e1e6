package broker

import (
	"hash/maphash"
	"sync/atomic"
)

// traffic counts the messages of some of the connections. Each connection has
// one of a few, so that publishers on different cores do not pull one cache
// line back and forth.
type traffic struct {
	received, sent           [3]atomic.Uint64 // messages, by QoS
	receivedBytes, sentBytes atomic.Uint64    // of payload
	_                        [64]byte         // between the cache lines of two
}

const trafficShards = 16

func (b *Broker) trafficOf(clientID string) *traffic {
	return &b.traffic[maphash.String(b.seed, clientID)%trafficShards]
}

func (t *traffic) receive(m *Message) {
	t.received[m.QoS].Add(1)
	t.receivedBytes.Add(uint64(len(m.Payload)))
}

// send counts what one call of Next returned.
func (t *traffic) send(w *nextWork) {
	for qos, n := range w.messages {
		if n > 0 {
			t.sent[qos].Add(n)
		}
	}
	if w.bytes > 0 {
		t.sentBytes.Add(w.bytes)
	}
}

// addTraffic sums what the connections have counted.
func (b *Broker) addTraffic(s *Stats) {
	for i := range b.traffic {
		t := &b.traffic[i]
		for q := range s.Received {
			s.Received[q] += t.received[q].Load()
			s.Sent[q] += t.sent[q].Load()
		}
		s.ReceivedBytes += t.receivedBytes.Load()
		s.SentBytes += t.sentBytes.Load()
	}
}
