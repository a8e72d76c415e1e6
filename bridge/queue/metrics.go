package queue

import (
	"github.com/prometheus/client_golang/prometheus"

	"gantry/persist/seglog"
)

// metrics exports Stats, and what has to be measured at each commit.
type metrics struct {
	q       *Queue
	reg     prometheus.Registerer
	fsync   prometheus.Histogram
	group   prometheus.Histogram
	gauges  []figure
	totals  []figure
	dropped *prometheus.Desc
}

type figure struct {
	desc  *prometheus.Desc
	value func(*Stats) float64
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(q *Queue) *metrics {
	labels := prometheus.Labels{"queue": q.cfg.Name}
	fig := func(name, help string, value func(*Stats) float64) figure {
		return figure{prometheus.NewDesc("gantry_queue_"+name, help, nil, labels), value}
	}
	return &metrics{
		q: q,
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_queue_fsync_seconds", Help: "Time of an fsync of the queue.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_queue_commit_records", Help: "Records in one write of a group commit.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		gauges: []figure{
			fig("records", "Records on disk that are not confirmed.", func(s *Stats) float64 { return float64(s.Records) }),
			fig("bytes", "Bytes of the records that are not confirmed, as stored.", func(s *Stats) float64 { return float64(s.Bytes) }),
			fig("disk_bytes", "Bytes of the queue's folder without dead letters.", func(s *Stats) float64 { return float64(s.DiskBytes) }),
			fig("max_bytes", "Cap of the queue's folder.", func(s *Stats) float64 { return float64(s.MaxBytes) }),
			fig("oldest_age_seconds", "Age of the oldest record that is not confirmed.", func(s *Stats) float64 { return s.OldestAge.Seconds() }),
			fig("waiting_records", "Records that wait in memory for room on disk.", func(s *Stats) float64 { return float64(s.Waiting) }),
			fig("waiting_bytes", "Bytes of the records that wait in memory.", func(s *Stats) float64 { return float64(s.WaitingBytes) }),
			fig("dead_letters", "Records in the dead-letter folder.", func(s *Stats) float64 { return float64(s.DeadLetters) }),
			fig("dead_letter_bytes", "Bytes of the dead-letter folder.", func(s *Stats) float64 { return float64(s.DeadBytes) }),
		},
		totals: []figure{
			fig("appended_total", "Records committed to disk.", func(s *Stats) float64 { return float64(s.Appended) }),
			fig("appended_bytes_total", "Bytes committed to disk, framing included.", func(s *Stats) float64 { return float64(s.AppendedBytes) }),
			fig("confirmed_total", "Records that the receiver confirmed.", func(s *Stats) float64 { return float64(s.Confirmed) }),
			fig("refused_total", "Appends refused because the queue was full.", func(s *Stats) float64 { return float64(s.Refused) }),
			fig("failed_total", "Records whose commit failed.", func(s *Stats) float64 { return float64(s.Failed) }),
			fig("dead_letters_total", "Records put into the dead-letter folder.", func(s *Stats) float64 { return float64(s.Buried) }),
			fig("fsync_errors_total", "Failed fsyncs.", func(s *Stats) float64 { return float64(s.SyncErrors) }),
			fig("corrupt_bytes_total", "Damaged bytes that were stepped over.", func(s *Stats) float64 { return float64(s.CorruptBytes) }),
			fig("quarantined_total", "Files set aside because of damage.", func(s *Stats) float64 { return float64(s.Quarantined) }),
		},
		dropped: prometheus.NewDesc("gantry_queue_dropped_total", "Records lost, by reason.", []string{"reason"}, labels),
	}
}

// onCommit runs on the committer of the log.
func (m *metrics) onCommit(c seglog.CommitInfo) {
	if c.Synced && c.Err == nil {
		m.fsync.Observe(c.Sync.Seconds())
	}
	if c.Records > 0 && c.Err == nil {
		m.group.Observe(float64(c.Records))
	}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	if err := reg.Register(m); err != nil {
		return err
	}
	m.reg = reg
	return nil
}

func (m *metrics) unregister() {
	if m.reg != nil {
		m.reg.Unregister(m)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.fsync.Describe(ch)
	m.group.Describe(ch)
	ch <- m.dropped
	for _, f := range m.gauges {
		ch <- f.desc
	}
	for _, f := range m.totals {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.q.Stats()
	m.fsync.Collect(ch)
	m.group.Collect(ch)
	for reason, n := range s.Dropped {
		ch <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(n), reason)
	}
	for _, f := range m.gauges {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, f.value(&s))
	}
	for _, f := range m.totals {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, f.value(&s))
	}
}
