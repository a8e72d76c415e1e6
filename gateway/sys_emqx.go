package gateway

import (
	"strings"
	"time"
)

// emqx sets the topics of EMQX; there the uptime is in milliseconds.
func (s *sysTopics) emqx(now time.Time, n *counts) {
	s.set("$SYS/brokers", s.node)
	set := func(topic, value string) { s.set("$SYS/brokers/"+s.node+"/"+topic, value) }
	set("version", Version)
	set("sysdescr", "Gantry")
	set("uptime", number(now.Sub(s.startedAt).Milliseconds()))
	set("datetime", now.Format(time.RFC3339))
	for _, figure := range n.gauges() {
		most := s.high(figure.name, figure.value)
		if figure.name == "connections" || figure.name == "live_connections" {
			most = s.mostConnected(n)
		}
		set("stats/"+figure.name+"/count", number(figure.value))
		set("stats/"+figure.name+"/max", number(most))
	}
	for topic, value := range n.counters() {
		set("metrics/"+topic, number(value))
	}
	n.packets(set)
}

type gauge struct {
	name  string
	value int64
}

func (n *counts) gauges() []gauge {
	return []gauge{
		{"connections", int64(n.connected)},
		{"live_connections", int64(n.connected)},
		{"channels", int64(n.Sessions)},
		{"sessions", int64(n.Sessions)},
		{"topics", int64(n.Filters)},
		{"routes", int64(n.Filters)},
		{"subscribers", int64(n.Subscribers)},
		{"subscriptions", int64(n.Subscriptions)},
		{"subscriptions/shared", int64(n.Shared)},
		{"suboptions", int64(n.Subscriptions)},
		{"retained", n.Retained},
		{"delayed", int64(n.Delayed.Waiting)},
	}
}

func (n *counts) counters() map[string]uint64 {
	packets := func(metric string, types ...string) (sum uint64) {
		for _, t := range types {
			sum += uint64(n.wire.get(metric, t))
		}
		return sum
	}
	return map[string]uint64{
		"bytes/received":                  packets(bytesIn, ""),
		"bytes/sent":                      packets(bytesOut, ""),
		"messages/received":               n.published,
		"messages/sent":                   n.sent,
		"messages/delivered":              n.sent,
		"messages/acked":                  packets(packetsIn, "PUBACK", "PUBREC"),
		"messages/retained":               uint64(n.Retained),
		"messages/dropped":                n.Unmatched,
		"messages/dropped/no_subscribers": n.Unmatched,
		"messages/qos0/received":          n.Received[0], "messages/qos0/sent": n.Sent[0],
		"messages/qos1/received": n.Received[1], "messages/qos1/sent": n.Sent[1],
		"messages/qos2/received": n.Received[2], "messages/qos2/sent": n.Sent[2],
		"delivery/dropped":            n.dropped,
		"delivery/dropped/queue_full": n.Dropped["queue_full"],
		"delivery/dropped/too_large":  n.Dropped["too_large"],
		"delivery/dropped/expired":    n.Dropped["expired"],
		"client/connect":              packets(packetsIn, "CONNECT"),
		"client/connack":              packets(packetsOut, "CONNACK"),
		"client/connected":            n.Connects,
		"client/disconnected":         n.Disconnects + n.Takeovers,
		"session/created":             n.Connects - n.Resumed,
		"session/resumed":             n.Resumed,
		"session/takenover":           n.Takeovers,
		"session/discarded":           n.Discarded,
		"session/terminated":          n.Ended,
	}
}

// The packets that a server receives and sends.
var (
	receivedPackets = []string{"CONNECT", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ", "DISCONNECT", "AUTH"}
	sentPackets     = []string{"CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "PINGRESP", "DISCONNECT", "AUTH"}
)

func (n *counts) packets(set func(topic, value string)) {
	set("metrics/packets/received", number(n.wire.get(packetsIn, "")))
	set("metrics/packets/sent", number(n.wire.get(packetsOut, "")))
	for _, t := range receivedPackets {
		set("metrics/packets/"+strings.ToLower(t)+"/received", number(n.wire.get(packetsIn, t)))
	}
	for _, t := range sentPackets {
		set("metrics/packets/"+strings.ToLower(t)+"/sent", number(n.wire.get(packetsOut, t)))
	}
}
