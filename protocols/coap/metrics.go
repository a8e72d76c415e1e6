package coap

import (
	"fmt"

	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/prometheus/client_golang/prometheus"
)

// dropReason says why a datagram was not acted upon.
type dropReason uint8

const (
	dropAddress    dropReason = iota // multicast, broadcast or impossible source
	dropNoCoAP                       // shorter than a header, or another version
	dropFormat                       // message format error
	dropUnexpected                   // response to nothing, reserved class
	dropUnmatched                    // ACK or RST for nothing outstanding
	dropOption                       // non-confirmable with an unknown critical option
	dropPeerTable                    // table full of observers
	dropEncode                       // response could not be built
	dropSend                         // refused by the system
	dropPanic                        // a bug
	dropReasons
)

var dropNames = [dropReasons]string{
	"address", "not_coap", "format", "unexpected", "unmatched", "option", "peer_table", "encode", "send", "panic",
}

// metrics are the counters of one listener, resolved once.
type metrics struct {
	received, sent, retransmits, timeouts prometheus.Counter
	duplicates, challenges, notifications prometheus.Counter
	peers, sessions, observers, uploads   prometheus.Gauge
	replies                               [6]prometheus.Counter // by class
	dropped                               [dropReasons]prometheus.Counter
	uploadsFailed                         prometheus.Counter
}

// newMetrics registers the metrics of a listener; several listeners share a
// registry by their name. A nil registry is allowed.
func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	}
	r := registrar{reg: reg}
	m := &metrics{
		received:      r.counter("datagrams_received_total", "Datagrams received."),
		sent:          r.counter("datagrams_sent_total", "Datagrams sent, retransmissions included."),
		retransmits:   r.counter("retransmits_total", "Confirmable messages sent again."),
		timeouts:      r.counter("timeouts_total", "Confirmable messages that were never acknowledged."),
		duplicates:    r.counter("duplicates_total", "Requests recognised as duplicates."),
		challenges:    r.counter("echo_challenges_total", "Requests answered 4.01 with an Echo option."),
		notifications: r.counter("notifications_total", "Notifications sent to observers."),
		uploadsFailed: r.counter("uploads_failed_total", "Block-wise uploads given up or refused."),
		peers:         r.gauge("peers", "Peers remembered."),
		sessions:      r.gauge("sessions", "Broker sessions of peers."),
		observers:     r.gauge("observers", "Observations."),
		uploads:       r.gauge("uploads", "Block-wise uploads under way."),
	}
	replies := r.counterVec("replies_total", "Responses to requests, by class of code.", "class")
	for c := range m.replies {
		if c == 2 || c == 4 || c == 5 {
			m.replies[c] = replies.WithLabelValues(fmt.Sprintf("%dxx", c))
		}
	}
	drops := r.counterVec("dropped_total", "Datagrams that were not acted upon, by reason.", "reason")
	for i, name := range dropNames {
		m.dropped[i] = drops.WithLabelValues(name)
	}
	return m, r.err
}

func (m *metrics) drop(r dropReason) { m.dropped[r].Inc() }

func (m *metrics) reply(c codes.Code) {
	if n := class(c); n < len(m.replies) && m.replies[n] != nil {
		m.replies[n].Inc()
	}
}

// registrar makes and registers collectors and keeps the first error.
type registrar struct {
	reg prometheus.Registerer
	err error
}

func (r *registrar) add(c prometheus.Collector) {
	if r.reg == nil || r.err != nil {
		return
	}
	if err := r.reg.Register(c); err != nil {
		r.err = fmt.Errorf("register coap metrics: %w", err)
	}
}

func (r *registrar) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "gantry", Subsystem: "coap", Name: name, Help: help})
	r.add(c)
	return c
}

func (r *registrar) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "gantry", Subsystem: "coap", Name: name, Help: help})
	r.add(g)
	return g
}

func (r *registrar) counterVec(name, help string, label string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "gantry", Subsystem: "coap", Name: name, Help: help}, []string{label})
	r.add(v)
	return v
}
