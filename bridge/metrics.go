package bridge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// registration remembers what was registered, to take it back.
type registration struct {
	reg  prometheus.Registerer
	list []prometheus.Collector
}

// add registers the collectors with the label bridge=name, all or none.
func (r *registration) add(name string, reg prometheus.Registerer, list ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	r.reg = prometheus.WrapRegistererWith(prometheus.Labels{"bridge": name}, reg)
	for _, c := range list {
		if err := r.reg.Register(c); err != nil {
			r.unregister()
			return err
		}
		r.list = append(r.list, c)
	}
	return nil
}

func (r *registration) unregister() {
	for _, c := range r.list {
		r.reg.Unregister(c)
	}
	r.list = nil
}

type stageMetrics struct {
	registration
	queued, dropped prometheus.Counter
	refused         *prometheus.CounterVec
}

func (m *stageMetrics) register(name string, reg prometheus.Registerer) error {
	m.queued = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gantry_bridge_queued_total", Help: "Records that are on disk in the queue of the bridge.",
	})
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gantry_bridge_dropped_total", Help: "QoS 0 records that the queue did not take.",
	})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gantry_bridge_refused_total", Help: "QoS 1 and 2 records that the queue did not take, so that the publisher was told.",
	}, []string{"reason"})
	return m.add(name, reg, m.queued, m.dropped, m.refused)
}

type forwarderMetrics struct {
	registration
	confirmed, confirmedBytes, buried, retries prometheus.Counter
}

func (m *forwarderMetrics) register(f *Forwarder, reg prometheus.Registerer) error {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m.confirmed = counter("gantry_bridge_confirmed_total", "Records that the other side has confirmed.")
	m.confirmedBytes = counter("gantry_bridge_confirmed_bytes_total", "Bytes of values that the other side has confirmed.")
	m.buried = counter("gantry_bridge_dead_letters_total", "Records that went to the dead-letter file.")
	m.retries = counter("gantry_bridge_retries_total", "Times the sink was started again after an error.")
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gantry_bridge_oldest_unconfirmed_seconds", Help: "Age of the oldest send that is not confirmed, 0 when there is none.",
	}, func() float64 { return f.ledger.status(time.Now()).OldestUnconfirmed.Seconds() })
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gantry_bridge_connected", Help: "1 while the sink is connected, also while it catches up.",
	}, func() float64 {
		if s := f.ledger.status(time.Now()).State; s == Connected || s == CatchingUp {
			return 1
		}
		return 0
	})
	return m.add(f.cfg.Bridge, reg, m.confirmed, m.confirmedBytes, m.buried, m.retries, age, up)
}
