package broker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DelayedInfo describes a message that waits to be published later.
type DelayedInfo struct {
	ID       uint64 // grows with acceptance, below 2^53, not used again
	Topic    string
	ClientID string
	Due      time.Time
	Size     int // of the payload, in bytes
	QoS      QoS
	Retain   bool
	Attempts int    // to publish it, that failed
	Reason   Reason // of the last one; Success when there was none
}

func (d *delayedMessage) info() DelayedInfo {
	m := d.message
	return DelayedInfo{
		ID: d.id, Topic: m.Topic, ClientID: m.ClientID, Due: time.UnixMilli(d.due), Size: len(m.Payload), QoS: m.QoS, Retain: m.Retain,
		Attempts: d.attempts, Reason: d.reason,
	}
}

// Delayed lists up to limit messages that wait to be published later, in the
// order of their IDs and only those above after.
func (b *Broker) Delayed(after uint64, limit int) []DelayedInfo { return b.delayed.page(after, limit) }

// DeleteDelayed deletes a message that waits to be published later, and waits
// until that is durable. It reports false when there is no such message, or
// when it is being published. When ctx ends early, the outcome is open.
func (b *Broker) DeleteDelayed(ctx context.Context, id uint64) (bool, error) {
	d := b.delayed.takeOut(id)
	if d == nil {
		return false, nil
	}
	if !d.stored {
		b.delayed.forget(d)
		return true, nil
	}
	outcome := make(chan error, 1)
	settle := func(err error) {
		if err != nil {
			b.delayed.wait(d, b.delayedDue)
		} else {
			b.delayed.forget(d)
		}
		outcome <- err
	}
	if err := b.commit(ctx, &Batch{Ops: []Op{{Kind: OpDelayDone, Seq: id}}}, settle); err != nil {
		b.delayed.wait(d, b.delayedDue)
		return false, err
	}
	select {
	case err := <-outcome:
		return err == nil, err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// delayedCounters are totals since start.
type delayedCounters struct {
	published atomic.Uint64
	retries   atomic.Uint64
	refused   atomic.Uint64
}

// DelayedStats are the counters and gauges of what is published later.
type DelayedStats struct {
	Waiting      int
	WaitingBytes int64
	Held         int    // of them, those that could not be published yet, and those behind them
	Published    uint64 // at their time, since start
	Retries      uint64 // attempts that failed
	Refused      uint64 // publishers that got QuotaExceeded because of the caps
}

func (b *Broker) delayedStats() DelayedStats {
	c := &b.stats.delayed
	s := DelayedStats{Published: c.published.Load(), Retries: c.retries.Load(), Refused: c.refused.Load()}
	q := &b.delayed
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Waiting, s.WaitingBytes = len(q.all), q.bytes
	for _, l := range q.lanes {
		s.Held += 1 + len(l.waiting)
	}
	return s
}

var (
	descDelayed          = desc("delayed_messages", "Messages that wait to be published later.")
	descDelayedBytes     = desc("delayed_bytes", "Bytes of messages that wait to be published later.")
	descDelayedHeld      = desc("delayed_held_messages", "Delayed messages whose time has come and that were not taken yet, and those behind them.")
	descDelayedPublished = desc("delayed_published_total", "Delayed messages that were published.")
	descDelayedRetries   = desc("delayed_retries_total", "Attempts to publish a delayed message that failed.")
	descDelayedRefused   = desc("delayed_refused_total", "Publishes refused because too much waits to be published later.")
)

func describeDelayed(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descDelayed, descDelayedBytes, descDelayedHeld, descDelayedPublished, descDelayedRetries, descDelayedRefused,
	} {
		ch <- d
	}
}

func (s *DelayedStats) collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(descDelayed, float64(s.Waiting))
	gauge(descDelayedBytes, float64(s.WaitingBytes))
	gauge(descDelayedHeld, float64(s.Held))
	count(descDelayedPublished, s.Published)
	count(descDelayedRetries, s.Retries)
	count(descDelayedRefused, s.Refused)
}
