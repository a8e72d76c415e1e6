package secure

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	reg        prometheus.Registerer
	vec        *prometheus.CounterVec
	ok, failed prometheus.Counter
}

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{vec: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gantry_secure_handshakes_total", Help: "TLS handshakes by how they ended.",
	}, []string{"result"})}
	m.ok, m.failed = m.vec.WithLabelValues("ok"), m.vec.WithLabelValues("failed")
	if reg == nil {
		return m, nil
	}
	m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	return m, m.reg.Register(m.vec)
}

func (m *metrics) unregister() {
	if m.reg != nil {
		m.reg.Unregister(m.vec)
	}
}
