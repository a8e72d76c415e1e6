package proxyproto

import "github.com/prometheus/client_golang/prometheus"

// reasons why a connection is closed before it is accepted.
var reasons = []string{"untrusted", "malformed", "timeout", "closed"}

type metrics struct {
	reg     prometheus.Registerer
	vec     *prometheus.CounterVec
	refused map[string]prometheus.Counter
}

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{refused: make(map[string]prometheus.Counter)}
	m.vec = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gantry_proxyproto_refused_total", Help: "Connections closed because they had no PROXY header that counts, by reason.",
	}, []string{"reason"})
	for _, r := range reasons {
		m.refused[r] = m.vec.WithLabelValues(r)
	}
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
