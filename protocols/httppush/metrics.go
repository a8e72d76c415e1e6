package httppush

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by the listeners that have the same registry.
type metrics struct {
	requests *prometheus.CounterVec // by code class: 2xx, 4xx …
	refused  *prometheus.CounterVec // by limit: connections, pending, bytes
	inFlight prometheus.Gauge
	ack      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_http_requests_total", Help: "Answered HTTP requests by class of the status code.",
		}, []string{"code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gantry_http_refused_total", Help: "Connections and requests refused because a limit was reached.",
		}, []string{"limit"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gantry_http_requests_in_flight", Help: "HTTP requests that are being served.",
		}),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_http_ack_seconds", Help: "Time from publishing to the broker's last answer, per request.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
	}
	if reg == nil {
		return m, nil
	}
	var errs [4]error
	m.requests, errs[0] = register(reg, m.requests)
	m.refused, errs[1] = register(reg, m.refused)
	m.inFlight, errs[2] = register(reg, m.inFlight)
	m.ack, errs[3] = register(reg, m.ack)
	return m, errors.Join(errs[:]...)
}

// register returns the collector that is registered under this description:
// another listener may have been there before.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("register metrics of the http listener: %w", err)
	}
	return c, nil
}

// codeClass is the label for a status.
func codeClass(status int) string {
	switch status / 100 {
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}
