package mqtt

import (
	"github.com/prometheus/client_golang/prometheus"

	"gantry/protocols/mqtt/wire"
)

// metrics of one listener; its name is a constant label.
type metrics struct {
	reg  prometheus.Registerer
	all  []prometheus.Collector
	open prometheus.Gauge

	packetsIn, packetsOut [16]prometheus.Counter // by packet type
	bytesIn, bytesOut     prometheus.Counter

	accepted, refused, abandoned   prometheus.Counter // how connects ended
	sockets                        prometheus.Counter
	overLimit, halfOpen, acceptErr prometheus.Counter
	violations                     prometheus.Counter
	writeTimeouts                  prometheus.Counter
	panics                         prometheus.Counter
}

const metricPrefix = "gantry_mqtt_"

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	if reg != nil {
		m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	}
	m.open = prometheus.NewGauge(prometheus.GaugeOpts{Name: metricPrefix + "connections", Help: "Open connections, those before CONNECT included."})
	m.all = append(m.all, m.open)
	in := m.vec("packets_received_total", "Packets received.", "type")
	out := m.vec("packets_sent_total", "Packets sent.", "type")
	for t := range m.packetsIn {
		m.packetsIn[t] = in.WithLabelValues(wire.Type(t).String())
		m.packetsOut[t] = out.WithLabelValues(wire.Type(t).String())
	}
	m.bytesIn = m.counter("received_bytes_total", "Bytes received.")
	m.bytesOut = m.counter("sent_bytes_total", "Bytes sent.")
	m.sockets = m.counter("sockets_total", "Connections that the listening socket accepted, those that were closed at once included.")
	connects := m.vec("connects_total", "Connection attempts by how they ended.", "result")
	m.accepted = connects.WithLabelValues("accepted")
	m.refused = connects.WithLabelValues("refused")
	m.abandoned = connects.WithLabelValues("no_connect")
	m.overLimit = connects.WithLabelValues("max_connections")
	m.halfOpen = connects.WithLabelValues("max_half_open")
	m.acceptErr = m.counter("accept_errors_total", "Errors of the listening socket; it goes on after a pause.")
	m.violations = m.counter("protocol_errors_total", "Connections ended because the client broke the protocol.")
	m.writeTimeouts = m.counter("write_timeouts_total", "Connections ended because the client did not read.")
	m.panics = m.counter("panics_total", "Connections ended by a bug of this program.")
	return m, m.register()
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: metricPrefix + name, Help: help})
	m.all = append(m.all, c)
	return c
}

func (m *metrics) vec(name, help, label string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricPrefix + name, Help: help}, []string{label})
	m.all = append(m.all, c)
	return c
}

func (m *metrics) register() error {
	if m.reg == nil {
		return nil
	}
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			m.unregister(i)
			return err
		}
	}
	return nil
}

// unregister takes the first n collectors back, so that a listener of the same
// name can be opened again.
func (m *metrics) unregister(n int) {
	if m.reg == nil {
		return
	}
	for _, c := range m.all[:n] {
		m.reg.Unregister(c)
	}
}

// tally counts packets of one batch before they reach the shared counters.
type tally [16]uint32

func (t *tally) flush(to *[16]prometheus.Counter) {
	for i, n := range t {
		if n > 0 {
			to[i].Add(float64(n))
			t[i] = 0
		}
	}
}
