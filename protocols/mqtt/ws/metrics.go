package ws

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg        prometheus.Registerer
	upgrades   *prometheus.CounterVec
	violations *prometheus.CounterVec
}

func newMetrics(listener string, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		upgrades: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_ws_upgrades_total", Help: "Requests for a WebSocket by how they ended.",
		}, []string{"result"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_ws_violations_total", Help: "WebSockets closed because the client broke the protocol, by close code.",
		}, []string{"code"}),
	}
	for _, r := range []string{"accepted", "bad_request", "path", "origin", "subprotocol"} {
		m.upgrades.WithLabelValues(r)
	}
	for _, c := range []uint16{codeProtocolError, codeUnsupported, codeInvalidData, codeTooBig} {
		m.violations.WithLabelValues(strconv.Itoa(int(c)))
	}
	if reg == nil {
		return m, nil
	}
	m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"listener": listener}, reg)
	if err := m.reg.Register(m.upgrades); err != nil {
		return nil, err
	}
	if err := m.reg.Register(m.violations); err != nil {
		m.reg.Unregister(m.upgrades)
		return nil, err
	}
	return m, nil
}

func (m *metrics) upgrade(result string) { m.upgrades.WithLabelValues(result).Inc() }

func (m *metrics) violation(code uint16) { m.violations.WithLabelValues(strconv.Itoa(int(code))).Inc() }

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	m.reg.Unregister(m.upgrades)
	m.reg.Unregister(m.violations)
}
