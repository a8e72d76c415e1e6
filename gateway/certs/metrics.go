package certs

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg              prometheus.Registerer
	once             sync.Once
	reloads          *prometheus.CounterVec
	reloaded, failed prometheus.Counter
	notAfter         prometheus.Gauge
}

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_certs_reloads_total", Help: "Changed certificate files by whether they were taken into use.",
		}, []string{"result"}),
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gantry_certs_expiry_timestamp_seconds", Help: "When the certificate of a listener expires, in seconds since 1970.",
		}),
	}
	m.reloaded, m.failed = m.reloads.WithLabelValues("ok"), m.reloads.WithLabelValues("failed")
	if reg == nil {
		return m, nil
	}
	m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	if err := m.reg.Register(m.reloads); err != nil {
		return nil, err
	}
	if err := m.reg.Register(m.notAfter); err != nil {
		m.reg.Unregister(m.reloads)
		return nil, err
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	m.once.Do(func() {
		m.reg.Unregister(m.reloads)
		m.reg.Unregister(m.notAfter)
	})
}
