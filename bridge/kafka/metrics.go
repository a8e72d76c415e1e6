package kafka

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reg  prometheus.Registerer
	list []prometheus.Collector

	resets, rounds, resent prometheus.Counter
}

func (m *metrics) register(name string, reg prometheus.Registerer) error {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.list = append(m.list, c)
		return c
	}
	m.resets = counter("gantry_kafka_dedup_resets_total",
		"Times that records under way may have arrived twice, because the broker or the journal had lost what is needed to tell.")
	m.rounds = counter("gantry_kafka_rounds_total", "New rounds sent.")
	m.resent = counter("gantry_kafka_resent_batches_total", "Batches sent again, because it was not known whether they had arrived.")
	if reg == nil {
		m.list = nil
		return nil
	}
	m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"bridge": name}, reg)
	for i, c := range m.list {
		if err := m.reg.Register(c); err != nil {
			m.list = m.list[:i]
			m.unregister()
			return err
		}
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.list {
		m.reg.Unregister(c)
	}
	m.list = nil
}
