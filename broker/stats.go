package broker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// DropReason says why an accepted message did not reach one of its receivers.
type DropReason uint8

// The reasons of a drop; their names are label values.
const (
	DropQueueFull    DropReason = iota // the session's queue was at its cap
	DropExpired                        // its message expiry passed
	DropTooLarge                       // larger than the receiver's Maximum Packet Size
	DropStore                          // the store could not keep it or read it back
	DropUnsendable                     // the adapter's protocol, or a recorder of a delayed message, cannot carry it
	DropDisconnected                   // only in memory, and its receiver's connection ended
	DropSessionEnded                   // kept for its receiver, whose session ended first
	dropReasons
)

var dropNames = [dropReasons]string{"queue_full", "expired", "too_large", "store", "unsendable", "disconnected", "session_ended"}

func (d DropReason) String() string { return dropNames[d] }

// counters are what the broker counts. Each is a total since start.
type counters struct {
	refused         atomic.Uint64
	dropped         [dropReasons]atomic.Uint64
	connects        atomic.Uint64
	disconnects     atomic.Uint64
	refusedConnects atomic.Uint64
	takeovers       atomic.Uint64
	expiredSessions atomic.Uint64
	wills           atomic.Uint64
	storeErrors     atomic.Uint64
	autoRefused     atomic.Uint64
	refusedKept     atomic.Uint64
	unmatched       atomic.Uint64
	resumed         atomic.Uint64
	discarded       atomic.Uint64
	ended           atomic.Uint64
	unretained      [retainedLimitCount]atomic.Uint64
	delayed         delayedCounters
}

func (c *counters) drop(r DropReason) { c.dropped[r].Add(1) }

// Listener is where a connection came in, as its adapter said.
type Listener struct{ Protocol, Name string }

// Stats is a snapshot of the broker's counters and gauges.
type Stats struct {
	Received, Sent  [3]uint64 // messages, by QoS, since start
	ReceivedBytes   uint64    // of their payloads
	SentBytes       uint64
	Refused         uint64 // publishes that got a negative answer
	Unmatched       uint64 // messages that nobody took: no subscriber, no bridge, not retained
	Dropped         map[string]uint64
	Connects        uint64
	Disconnects     uint64
	RefusedConnects uint64
	Takeovers       uint64
	ExpiredSessions uint64
	Wills           uint64
	StoreErrors     uint64
	AutoRefused     uint64 // automatic subscriptions that a client went without
	// RefusedKept are the connects that got QuotaExceeded, because as many
	// sessions are kept as SessionConfig.MaxKept allows.
	RefusedKept uint64
	Resumed     uint64 // connects that found their session
	Discarded   uint64 // sessions that ended because their client wanted, or had, another one
	Ended       uint64 // sessions that ended, those included
	// Unretained are the messages that were not retained because of a limit:
	// "count", "bytes" or "payload". With QoS 1 and 2 they were refused.
	Unretained map[string]uint64
	Sessions   int
	Kept       int              // of them, those that outlive their connection
	Connected  map[string]int   // attached sessions, by protocol
	Clients    map[Listener]int // the same, by listener
	// Subscriptions counts each filter of each session. Shared are those of
	// them that are shared subscriptions; Filters is how many different filters
	// there are, the prefix of a shared one not counted; Subscribers is how many
	// sessions have a subscription.
	Subscriptions, Shared, Filters, Subscribers int
	Retained                                    int64
	RetainedBytes                               int64
	Queued                                      int   // messages in all sessions, in flight included
	InFlight                                    int   // of them, sent and not completed
	QueuedBytes                                 int64 // of QoS 1 and 2
	Delayed                                     DelayedStats
}

// Stats returns the broker's counters. It visits every session.
func (b *Broker) Stats() Stats {
	c := &b.stats
	s := Stats{
		Refused: c.refused.Load(), Connects: c.connects.Load(), Disconnects: c.disconnects.Load(),
		RefusedConnects: c.refusedConnects.Load(), Takeovers: c.takeovers.Load(), ExpiredSessions: c.expiredSessions.Load(),
		Wills: c.wills.Load(), StoreErrors: c.storeErrors.Load(), AutoRefused: c.autoRefused.Load(),
		Retained: b.retained.count.Load(), RetainedBytes: b.retained.bytes.Load(),
		Dropped: make(map[string]uint64, dropReasons), Connected: make(map[string]int, 3), Clients: make(map[Listener]int, 4),
		Delayed: b.delayedStats(), RefusedKept: c.refusedKept.Load(), Unretained: make(map[string]uint64, retainedLimitCount),
		Unmatched: c.unmatched.Load(), Resumed: c.resumed.Load(), Discarded: c.discarded.Load(), Ended: c.ended.Load(),
	}
	s.Subscriptions, s.Shared, s.Filters = b.router.counts()
	b.addTraffic(&s)
	for l := limitNone + 1; l < retainedLimitCount; l++ {
		s.Unretained[retainedLimitNames[l]] = c.unretained[l].Load()
	}
	for r := range c.dropped {
		s.Dropped[DropReason(r).String()] = c.dropped[r].Load()
	}
	b.mu.Lock()
	all := make([]*sessionState, 0, len(b.sessions))
	for _, st := range b.sessions {
		all = append(all, st)
	}
	s.Kept = b.kept
	b.mu.Unlock()
	s.Sessions = len(all)
	for _, st := range all {
		st.mu.Lock()
		if st.owner != nil {
			s.Connected[st.protocol]++
			s.Clients[Listener{st.owner.protocol, st.owner.listener}]++
		}
		if len(st.subs) > 0 {
			s.Subscribers++
		}
		s.InFlight += st.window.len()
		s.Queued += st.queue.len() + st.window.len() + st.spill.count
		s.QueuedBytes += st.bytes
		st.mu.Unlock()
	}
	return s
}

// collector exports Stats as gantry_broker_* metrics.
type collector struct{ broker *Broker }

var (
	descReceived      = desc("messages_received_total", "Messages accepted from clients.", "qos")
	descSent          = desc("messages_sent_total", "Messages handed to connections for delivery.", "qos")
	descDropped       = desc("messages_dropped_total", "Messages that did not reach one of their receivers.", "reason")
	descReceivedBytes = desc("received_payload_bytes_total", "Bytes of payload of messages accepted from clients.")
	descSentBytes     = desc("sent_payload_bytes_total", "Bytes of payload handed to connections for delivery.")
	descUnmatched     = desc("messages_unmatched_total", "Messages that nobody took: no subscriber, no bridge, not retained.")
	descRefused       = desc("messages_refused_total", "Publishes that got a negative answer.")
	descConnects      = desc("connects_total", "Sessions opened or resumed.")
	descDisconnects   = desc("disconnects_total", "Connections that ended.")
	descRefusedConn   = desc("connects_refused_total", "Connects refused by authentication.")
	descTakeovers     = desc("takeovers_total", "Connections replaced by another one of the same client.")
	descExpired       = desc("sessions_expired_total", "Sessions ended by their expiry.")
	descWills         = desc("wills_total", "Wills published.")
	descStoreErrors   = desc("store_errors_total", "Batches that the store refused or lost.")
	descAutoRefused   = desc("auto_subscriptions_refused_total", "Automatic subscriptions that a client went without.")
	descSessions      = desc("sessions", "Sessions, attached or not.")
	descConnected     = desc("sessions_connected", "Sessions with a connection.", "protocol")
	descRefusedKept   = desc("connects_over_max_kept_total", "Connects refused because too many sessions are kept.")
	descKept          = desc("sessions_kept", "Sessions that outlive their connection, those with one included.")
	descUnretained    = desc("retained_refused_total", "Messages that were not retained because of a limit.", "limit")
	descSubscriptions = desc("subscriptions", "Subscriptions of all sessions.")
	descRetained      = desc("retained_messages", "Retained values.")
	descRetainedBytes = desc("retained_bytes", "Bytes of retained values.")
	descQueued        = desc("queued_messages", "Messages that sessions hold, in flight included.")
	descQueuedBytes   = desc("queued_bytes", "Bytes of QoS 1 and 2 messages that sessions hold.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gantry_broker_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descReceived, descSent, descDropped, descRefused, descConnects, descDisconnects, descRefusedConn, descTakeovers, descExpired,
		descReceivedBytes, descSentBytes, descUnmatched, descRefusedKept, descKept, descUnretained, descWills, descStoreErrors, descAutoRefused, descSessions, descConnected, descSubscriptions, descRetained, descRetainedBytes, descQueued, descQueuedBytes,
	} {
		ch <- d
	}
	describeDelayed(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.broker.Stats()
	s.Delayed.collect(ch)
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for q, name := range []string{"0", "1", "2"} {
		count(descReceived, s.Received[q], name)
		count(descSent, s.Sent[q], name)
	}
	for reason, n := range s.Dropped {
		count(descDropped, n, reason)
	}
	count(descReceivedBytes, s.ReceivedBytes)
	count(descSentBytes, s.SentBytes)
	count(descUnmatched, s.Unmatched)
	count(descRefused, s.Refused)
	count(descConnects, s.Connects)
	count(descDisconnects, s.Disconnects)
	count(descRefusedConn, s.RefusedConnects)
	count(descTakeovers, s.Takeovers)
	count(descExpired, s.ExpiredSessions)
	count(descRefusedKept, s.RefusedKept)
	for limit, n := range s.Unretained {
		count(descUnretained, n, limit)
	}
	gauge(descKept, float64(s.Kept))
	count(descWills, s.Wills)
	count(descStoreErrors, s.StoreErrors)
	count(descAutoRefused, s.AutoRefused)
	gauge(descSessions, float64(s.Sessions))
	for p, n := range s.Connected {
		gauge(descConnected, float64(n), p)
	}
	gauge(descSubscriptions, float64(s.Subscriptions))
	gauge(descRetained, float64(s.Retained))
	gauge(descRetainedBytes, float64(s.RetainedBytes))
	gauge(descQueued, float64(s.Queued))
	gauge(descQueuedBytes, float64(s.QueuedBytes))
}
