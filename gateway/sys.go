package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
)

// sysTopics publishes the state of the gateway below $SYS, under the names
// that mosquitto and EMQX use, so that what watches those can watch this.
type sysTopics struct {
	every     time.Duration
	node      string
	startedAt time.Time
	stats     func() broker.Stats
	metrics   prometheus.Gatherer
	publish   func(*broker.Message) broker.Reason

	last  map[string]string // what is retained
	loads []*load
	prev  time.Time

	connected, most atomic.Int64 // connections now, and at most since the start
}

func newSysTopics(g *Gateway) *sysTopics {
	return &sysTopics{
		every: time.Duration(g.cfg.Broker.SysInterval), node: g.node, startedAt: g.startedAt, stats: g.broker.Stats,
		metrics: g.reg, publish: g.broker.PublishSystem, last: make(map[string]string), loads: newLoads(),
	}
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
	s.broker(now, &n)
	s.load(now, &n)
	s.brokers(now, &n)
}

// counts are what the topics are made of.
type counts struct {
	broker.Stats
	connected                   int
	published, sent, dropped    uint64  // messages of all protocols
	packetsIn, packetsOut       float64 // MQTT packets of all kinds
	bytesIn, bytesOut           float64 // on MQTT connections
	clientsExpired, connections uint64
}

func (s *sysTopics) count() counts {
	n := counts{Stats: s.stats()}
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
	n.clientsExpired, n.connections = n.ExpiredSessions, n.Connects
	families, err := s.metrics.Gather()
	if err != nil {
		return n // what the listeners count is then missing once
	}
	for _, f := range families {
		var sum *float64
		switch f.GetName() {
		case "gantry_mqtt_packets_received_total":
			sum = &n.packetsIn
		case "gantry_mqtt_packets_sent_total":
			sum = &n.packetsOut
		case "gantry_mqtt_received_bytes_total":
			sum = &n.bytesIn
		case "gantry_mqtt_sent_bytes_total":
			sum = &n.bytesOut
		default:
			continue
		}
		for _, m := range f.GetMetric() {
			*sum += m.GetCounter().GetValue()
		}
	}
	return n
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
	return strconv.FormatFloat(float64(v), 'f', 0, 64)
}

// broker sets the topics of mosquitto.
func (s *sysTopics) broker(now time.Time, n *counts) {
	set := func(topic, value string) { s.set("$SYS/broker/"+topic, value) }
	set("version", "gantry version "+Version)
	set("uptime", number(math.Floor(now.Sub(s.startedAt).Seconds()))+" seconds")
	set("clients/connected", number(n.connected))
	set("clients/active", number(n.connected))
	set("clients/disconnected", number(n.Sessions-n.connected))
	set("clients/inactive", number(n.Sessions-n.connected))
	set("clients/total", number(n.Sessions))
	set("clients/maximum", number(max(s.most.Load(), int64(n.connected))))
	set("clients/expired", number(n.clientsExpired))
	set("messages/received", number(n.packetsIn))
	set("messages/sent", number(n.packetsOut))
	set("messages/stored", number(int64(n.Queued)+n.Retained))
	set("store/messages/count", number(int64(n.Queued)+n.Retained))
	set("store/messages/bytes", number(n.QueuedBytes+n.RetainedBytes))
	set("publish/messages/received", number(n.published))
	set("publish/messages/sent", number(n.sent))
	set("publish/messages/dropped", number(n.dropped))
	set("bytes/received", number(n.bytesIn))
	set("bytes/sent", number(n.bytesOut))
	set("subscriptions/count", number(n.Subscriptions))
	set("retained messages/count", number(n.Retained))
}

// brokers sets the topics of EMQX; there the uptime is in milliseconds.
func (s *sysTopics) brokers(now time.Time, n *counts) {
	s.set("$SYS/brokers", s.node)
	set := func(topic, value string) { s.set("$SYS/brokers/"+s.node+"/"+topic, value) }
	set("version", Version)
	set("sysdescr", "Gantry")
	set("uptime", number(now.Sub(s.startedAt).Milliseconds()))
	set("datetime", now.Format(time.RFC3339))
	set("stats/connections/count", number(n.connected))
	set("stats/sessions/count", number(n.Sessions))
	set("stats/subscriptions/count", number(n.Subscriptions))
	set("stats/retained/count", number(n.Retained))
	set("metrics/messages/received", number(n.published))
	set("metrics/messages/sent", number(n.sent))
	set("metrics/messages/dropped", number(n.dropped))
	set("metrics/packets/received", number(n.packetsIn))
	set("metrics/packets/sent", number(n.packetsOut))
	set("metrics/bytes/received", number(n.bytesIn))
	set("metrics/bytes/sent", number(n.bytesOut))
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
		{topic: "messages/received", value: func(n *counts) float64 { return n.packetsIn }},
		{topic: "messages/sent", value: func(n *counts) float64 { return n.packetsOut }},
		{topic: "publish/received", value: func(n *counts) float64 { return float64(n.published) }},
		{topic: "publish/sent", value: func(n *counts) float64 { return float64(n.sent) }},
		{topic: "publish/dropped", value: func(n *counts) float64 { return float64(n.dropped) }},
		{topic: "bytes/received", value: func(n *counts) float64 { return n.bytesIn }},
		{topic: "bytes/sent", value: func(n *counts) float64 { return n.bytesOut }},
		{topic: "connections", value: func(n *counts) float64 { return float64(n.connections) }},
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

// connection publishes that a client came or went, in the form of EMQX. These
// events are not retained. It is a broker.Config.OnConnection.
func (s *sysTopics) connection(e broker.ConnectionEvent) {
	what := "disconnected"
	if e.Connected {
		what = "connected"
		now, most := s.connected.Add(1), s.most.Load()
		for now > most && !s.most.CompareAndSwap(most, now) {
			most = s.most.Load()
		}
	} else {
		s.connected.Add(-1)
	}
	if strings.ContainsAny(e.ClientID, "+#") {
		return // its name cannot be part of a topic
	}
	at := e.At.UnixMilli()
	event := clientEvent{
		ClientID: e.ClientID, Username: e.Username, IPAddress: e.RemoteAddr.Addr().Unmap().String(), Protocol: e.Protocol, Version: e.Version,
		Listener: e.Listener, Time: at,
	}
	if e.Connected {
		seconds, expiry := int64(e.KeepAlive.Seconds()), int64(e.Expiry.Seconds())
		event.KeepAlive, event.Expiry, event.CleanStart, event.ConnectedAt = &seconds, &expiry, &e.CleanStart, at
	} else {
		event.Reason, event.DisconnectedAt = e.Reason.String(), at
	}
	payload, err := json.Marshal(&event)
	if err != nil {
		return
	}
	s.publish(&broker.Message{Topic: "$SYS/brokers/" + s.node + "/clients/" + e.ClientID + "/" + what, Payload: payload})
}

type clientEvent struct {
	ClientID       string `json:"clientid"`
	Username       string `json:"username"`
	IPAddress      string `json:"ipaddress"`
	Protocol       string `json:"proto_name"`
	Version        string `json:"proto_ver"`
	Listener       string `json:"listener"`
	KeepAlive      *int64 `json:"keepalive,omitempty"`
	Expiry         *int64 `json:"expiry_interval,omitempty"`
	CleanStart     *bool  `json:"clean_start,omitempty"`
	ConnectedAt    int64  `json:"connected_at,omitempty"`
	DisconnectedAt int64  `json:"disconnected_at,omitempty"`
	Reason         string `json:"reason,omitempty"`
	Time           int64  `json:"ts"`
}
