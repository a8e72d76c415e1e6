package quic

import "github.com/prometheus/client_golang/prometheus"

// metrics of one listener; its name is a constant label.
type metrics struct {
	reg prometheus.Registerer
	all []prometheus.Collector

	ok, failed, overLimit, halfOpen prometheus.Counter // how handshakes ended
	handshaking                     prometheus.Gauge
	retries                         prometheus.Counter
	moves                           prometheus.Counter

	streams          prometheus.Gauge // data streams
	aborted, dropped prometheus.Counter
}

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	if reg != nil {
		m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	}
	handshakes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gantry_quic_handshakes_total", Help: "QUIC handshakes by how they ended. A client that is refused may count once per packet of its first flight.",
	}, []string{"result"})
	m.ok, m.failed = handshakes.WithLabelValues("ok"), handshakes.WithLabelValues("failed")
	m.overLimit, m.halfOpen = handshakes.WithLabelValues("max_connections"), handshakes.WithLabelValues("max_handshakes")
	m.handshaking = prometheus.NewGauge(prometheus.GaugeOpts{Name: "gantry_quic_handshakes", Help: "Handshakes that run."})
	m.all = []prometheus.Collector{handshakes, m.handshaking}
	m.retries = m.counter("gantry_quic_retries_total", "Packets that were answered with the request to prove the address; a client sends up to two.")
	m.moves = m.counter("gantry_quic_migrations_total", "Connections whose client went on from another address.")
	m.streams = prometheus.NewGauge(prometheus.GaugeOpts{Name: "gantry_quic_data_streams", Help: "Open data streams."})
	m.all = append(m.all, m.streams)
	m.aborted = m.counter("gantry_quic_data_stream_errors_total", "Data streams ended because the client broke the protocol on them.")
	m.dropped = m.counter("gantry_quic_dropped_messages_total", "QoS 0 messages for data streams that the client does not read.")
	return m, m.register()
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
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

func (m *metrics) unregister(n int) {
	if m.reg == nil {
		return
	}
	for _, c := range m.all[:n] {
		m.reg.Unregister(c)
	}
}
