package embedded

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gantry/persist/seglog"
)

// metrics counts for Prometheus and for Stats.
type metrics struct {
	commits     counter
	failed      counter
	refused     counter
	lost        counter
	undecodable counter
	missing     counter
	segments    counter
	copied      counter
	copiedBytes counter
	cleanErrors counter
	syncs       prometheus.Histogram
	groups      prometheus.Histogram

	reg        prometheus.Registerer
	registered []prometheus.Collector
}

// counter can be read back.
type counter struct{ n atomic.Uint64 }

func (c *counter) Inc()          { c.n.Add(1) }
func (c *counter) Add(n int)     { c.n.Add(uint64(n)) }
func (c *counter) value() uint64 { return c.n.Load() }

func newMetrics() *metrics {
	return &metrics{
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_embedded_sync_seconds", Help: "Duration of the fsyncs of the store.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15),
		}),
		groups: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gantry_embedded_group_records", Help: "Batches that shared one write.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
	}
}

func (m *metrics) onCommit(c seglog.CommitInfo) {
	if c.Synced {
		m.syncs.Observe(c.Sync.Seconds())
	}
	if c.Records > 0 {
		m.groups.Observe(float64(c.Records))
	}
}

func (m *metrics) committed(err error) {
	if err != nil {
		m.failed.Inc()
		return
	}
	m.commits.Inc()
}

func (m *metrics) cleaned(p *pass, segments int) {
	m.segments.Add(segments)
	m.copied.Add(p.copied)
	m.copiedBytes.Add(int(p.bytes))
}

func (m *metrics) register(reg prometheus.Registerer, s *Store) error {
	if reg == nil {
		return nil
	}
	m.reg = reg
	count := func(name, help string, c *counter) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "gantry_embedded_" + name, Help: help},
			func() float64 { return float64(c.value()) })
	}
	gauge := func(name, help string, f func(Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gantry_embedded_" + name, Help: help},
			func() float64 { return f(s.Stats()) })
	}
	for _, c := range []prometheus.Collector{
		m.syncs, m.groups,
		count("commits_total", "Batches on disk.", &m.commits),
		count("commit_errors_total", "Batches that could not be written.", &m.failed),
		count("refused_total", "Batches refused because the store is full.", &m.refused),
		count("lost_total", "Stored values that could not be read any more.", &m.lost),
		count("undecodable_total", "Stored batches of a form that this program does not know.", &m.undecodable),
		count("missing_total", "Stored batches that were damaged and could not be recovered.", &m.missing),
		count("cleaned_segments_total", "Segments given up by the cleaner.", &m.segments),
		count("copied_records_total", "Records that the cleaner copied because something in them lives.", &m.copied),
		count("copied_bytes_total", "Bytes that the cleaner copied.", &m.copiedBytes),
		count("clean_errors_total", "Attempts of the cleaner that were given up.", &m.cleanErrors),
		gauge("log_bytes", "Size of the log.", func(s Stats) float64 { return float64(s.Bytes) }),
		gauge("live_bytes", "Estimated size of what lives in the log.", func(s Stats) float64 { return float64(s.LiveBytes) }),
		gauge("corrupt_bytes", "Damaged bytes stepped over since the start.", func(s Stats) float64 { return float64(s.CorruptBytes) }),
		gauge("sessions", "Stored sessions.", func(s Stats) float64 { return float64(s.Sessions) }),
		gauge("queued_messages", "Entries of all stored queues.", func(s Stats) float64 { return float64(s.Queued) }),
		gauge("retained_messages", "Stored retained messages.", func(s Stats) float64 { return float64(s.Retained) }),
		gauge("delayed_messages", "Stored messages that are to be published later.", func(s Stats) float64 { return float64(s.Delayed) }),
	} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return err
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.reg.Unregister(c)
	}
	m.registered = nil
}

// Stats are figures of now and since Open.
type Stats struct {
	Sessions  int
	Retained  int
	Delayed   int
	Queued    int64 // entries of all queues
	Bytes     int64 // size of the log
	LiveBytes int64 // estimate of what lives in it
	Pending   int   // bytes that wait for the disk

	Commits     uint64 // batches on disk
	Failed      uint64 // batches that could not be written
	Refused     uint64 // batches refused with ErrFull
	Cleaned     uint64 // segments given up by the cleaner
	CopiedBytes uint64 // by the cleaner
	CleanErrors uint64 // attempts of the cleaner that were given up
	DiskFull    bool   // it lives on Config.Reserve and takes only what deletes

	Damage
}

// Damage is what could not be read back since Open.
type Damage struct {
	Missing     uint64 // acknowledged batches that were not found at Open
	Undecodable uint64 // batches of a form that this program does not know
	Lost        uint64 // values: bodies of queued messages, records of sessions

	// Of the log; a power cut in the middle of a write can cause these without a loss.
	CorruptBytes uint64 // stepped over
	Quarantined  uint64 // files set aside in the folder quarantine
}

// Any reports whether something was lost that had been acknowledged. That is a reason for an alarm: the disk is failing or somebody
// wrote to the files.
func (d Damage) Any() bool { return d.Missing+d.Undecodable+d.Lost > 0 }

// Damage returns what could not be read back since Open.
func (s *Store) Damage() Damage {
	disk := s.disk.Stats()
	return Damage{
		CorruptBytes: disk.CorruptBytes, Quarantined: disk.Quarantined,
		Missing: s.metrics.missing.value(), Undecodable: s.metrics.undecodable.value(), Lost: s.metrics.lost.value(),
	}
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	m := s.metrics
	out := Stats{
		Bytes: s.disk.Bytes(), Commits: m.commits.value(), Failed: m.failed.value(), Refused: m.refused.value(),
		Cleaned: m.segments.value(), CopiedBytes: m.copiedBytes.value(), CleanErrors: m.cleanErrors.value(), Damage: s.Damage(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Sessions, out.Retained, out.Delayed, out.Queued = len(s.clients), len(s.retained), len(s.delayed), s.queued
	out.LiveBytes, out.Pending, out.DiskFull = s.live, s.pending, s.short
	return out
}
