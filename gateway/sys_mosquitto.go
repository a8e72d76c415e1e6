package gateway

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// mosquitto sets the topics of mosquitto.
func (s *sysTopics) mosquitto(now time.Time, n *counts) {
	set := func(topic, value string) { s.set("$SYS/broker/"+topic, value) }
	set("version", "gantry version "+Version)
	set("uptime", number(now.Sub(s.startedAt).Seconds())+" seconds")
	s.clients(set, n)
	set("messages/received", number(n.wire.get(packetsIn, "")))
	set("messages/sent", number(n.wire.get(packetsOut, "")))
	set("messages/inflight", number(n.InFlight))
	set("messages/stored", number(int64(n.Queued)+n.Retained))
	set("store/messages/count", number(int64(n.Queued)+n.Retained))
	set("store/messages/bytes", number(n.QueuedBytes+n.RetainedBytes))
	set("publish/messages/received", number(n.published))
	set("publish/messages/sent", number(n.sent))
	set("publish/messages/dropped", number(n.lost()))
	set("publish/bytes/received", number(n.ReceivedBytes))
	set("publish/bytes/sent", number(n.SentBytes))
	set("bytes/received", number(n.wire.get(bytesIn, "")))
	set("bytes/sent", number(n.wire.get(bytesOut, "")))
	set("subscriptions/count", number(n.Subscriptions-n.Shared))
	set("shared_subscriptions/count", number(n.Shared))
	set("retained messages/count", number(n.Retained))
	set("retained messages/bytes", number(n.RetainedBytes))
	set("retained messages/refused", number(n.unretained()))
	set("heap/current", number(n.heap))
	set("heap/maximum", number(s.high("heap", int64(n.heap))))
}

func (s *sysTopics) clients(set func(topic, value string), n *counts) {
	set("clients/connected", number(n.connected))
	set("clients/active", number(n.connected))
	set("clients/disconnected", number(n.Sessions-n.connected))
	set("clients/inactive", number(n.Sessions-n.connected))
	set("clients/total", number(n.Sessions))
	set("clients/maximum", number(s.mostConnected(n)))
	set("clients/expired", number(n.ExpiredSessions))
	set("clients/kept", number(n.Kept))
	set("clients/refused", number(n.RefusedConnects+n.RefusedKept))
}

func (s *sysTopics) mostConnected(n *counts) int64 { return max(s.most.Load(), int64(n.connected)) }

// lost is what a subscriber did not get because its queue was full.
func (n *counts) lost() uint64 { return n.Dropped["queue_full"] }

func (n *counts) unretained() (sum uint64) {
	for _, refused := range n.Unretained {
		sum += refused
	}
	return sum
}

// load is a counter's growth per minute, averaged over 1, 5 and 15 minutes
// with weights that fall exponentially.
type load struct {
	topic string
	value func(*counts) float64
	last  float64
	rates [3]float64
}

var loadMinutes = [3]float64{1, 5, 15}

func newLoads() []*load {
	return []*load{
		{topic: "messages/received", value: func(n *counts) float64 { return n.wire.get(packetsIn, "") }},
		{topic: "messages/sent", value: func(n *counts) float64 { return n.wire.get(packetsOut, "") }},
		{topic: "publish/received", value: func(n *counts) float64 { return float64(n.published) }},
		{topic: "publish/sent", value: func(n *counts) float64 { return float64(n.sent) }},
		{topic: "publish/dropped", value: func(n *counts) float64 { return float64(n.lost()) }},
		{topic: "bytes/received", value: func(n *counts) float64 { return n.wire.get(bytesIn, "") }},
		{topic: "bytes/sent", value: func(n *counts) float64 { return n.wire.get(bytesOut, "") }},
		{topic: "sockets", value: func(n *counts) float64 { return n.wire.get(sockets, "") }},
		{topic: "connections", value: func(n *counts) float64 { return n.wire.get(packetsIn, "CONNECT") }},
	}
}

func (s *sysTopics) load(now time.Time, n *counts) {
	passed := now.Sub(s.prev).Minutes()
	first := s.prev.IsZero()
	s.prev = now
	for _, l := range s.loads {
		if first {
			l.last = l.value(n)
		} else if passed > 0 {
			l.add(l.value(n), passed)
		}
		for i, minutes := range loadMinutes {
			s.set(fmt.Sprintf("$SYS/broker/load/%s/%.0fmin", l.topic, minutes), strconv.FormatFloat(l.rates[i], 'f', 2, 64))
		}
	}
}

func (l *load) add(value, minutes float64) {
	rate := (value - l.last) / minutes
	l.last = value
	for i := range l.rates {
		old := math.Exp(-minutes / loadMinutes[i])
		l.rates[i] = rate + old*(l.rates[i]-rate)
	}
}
