package gateway

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"gantry/broker"
)

const (
	watchEvery = 2 * time.Second
	// lossShown is how long an alarm about a loss stays after the last one: an
	// operator who looks once an hour sees it.
	lossShown = time.Hour
	// storeShown is how long the store, or a queue, counts as failing after an
	// error: when nobody publishes any more, nothing can show that it works again.
	storeShown = 10 * time.Second
	fillAlarm  = 0.8                    // part of a queue's cap
	certAlarm  = 14 * 24 * time.Hour    // before a certificate expires
	slowSync   = 250 * time.Millisecond // an fsync above it delays every acknowledgement
)

// watch raises and clears the alarms, from what the parts count.
type watch struct {
	gateway      *Gateway
	counts       map[string]*grown
	storeFailing atomic.Bool
}

// grown remembers when a counter grew last.
type grown struct {
	value uint64
	at    time.Time
}

func newWatch(g *Gateway) *watch { return &watch{gateway: g, counts: make(map[string]*grown)} }

func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		w.look(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *watch) look(now time.Time) {
	g := w.gateway
	for _, p := range g.bridges {
		w.bridge(p, now)
	}
	for _, c := range g.certs {
		c.source.Refresh()
		problem := c.source.Problem()
		w.set("certificate_files:"+c.listener, problem != nil, fmt.Sprintf("the certificate files on disk cannot be used, the last good ones are in use: %v", problem))
		expires := c.source.NotAfter()
		w.set("certificate_expires:"+c.listener, now.Add(certAlarm).After(expires), "the certificate of the listener expires on "+expires.UTC().Format(time.DateTime)+"; a replaced file is taken into use within seconds")
	}
	st := g.store.Stats()
	// A file that was set aside is one that nothing could be read from: how much it held cannot be known.
	w.set("store_damaged", st.Damage.Any() || st.Damage.Quarantined > 0, fmt.Sprintf("%+v; what could be read is served, damaged files are in %s/store/quarantine", st.Damage, g.cfg.DataDir))
	failing := w.grew("store_errors", st.Failed, now, storeShown)
	w.storeFailing.Store(failing || st.DiskFull)
	w.set("store_disk_full", st.DiskFull, "the disk is full: what would have to be stored is refused until receivers have taken enough or somebody makes room")
	w.set("store_failing", failing, fmt.Sprintf("%d batches could not be written since the start; their publishers were told", st.Failed))
	bs := g.broker.Stats()
	w.limits(&bs, now)
	w.delayed(&bs.Delayed, now)
	for reason, n := range bs.Dropped {
		name := "session_messages_dropped:" + reason
		// Publishers ask for the one, and clients that keep no session for the other.
		wanted := reason == "expired" || reason == "disconnected"
		w.set(name, !wanted && w.grew(name, n, now, lossShown), fmt.Sprintf("%d messages did not reach one of their subscribers since the start", n))
	}
}

// refusedShown is how long an alarm about refusals stays after the last one:
// who was refused tries again.
const refusedShown = time.Minute

// limits watches what is refused because the broker keeps as much as it may.
func (w *watch) limits(s *broker.Stats, now time.Time) {
	r := &w.gateway.cfg.Broker.Retained
	refused := s.Unretained["count"] + s.Unretained["bytes"]
	recent := w.grew("retained_refused", refused, now, refusedShown)
	w.set("retained_full", recent || s.Retained >= int64(r.MaxCount) || s.RetainedBytes >= int64(r.MaxBytes),
		fmt.Sprintf("%d of %d values, %d of %d bytes are retained; new ones are refused, %d were since the start", s.Retained, r.MaxCount, s.RetainedBytes, r.MaxBytes, refused))
	recent = w.grew("sessions_refused", s.RefusedKept, now, refusedShown)
	most := w.gateway.cfg.Broker.Session.MaxKept
	w.set("sessions_full", recent || s.Kept >= most,
		fmt.Sprintf("%d of %d sessions are kept; clients that ask for a new one are refused, %d were since the start", s.Kept, most, s.RefusedKept))
}

// delayed watches what cannot be published later, or not when its time comes.
func (w *watch) delayed(s *broker.DelayedStats, now time.Time) {
	c := &w.gateway.cfg.Broker.Delayed
	w.set("delayed_full", w.grew("delayed_refused", s.Refused, now, refusedShown),
		fmt.Sprintf("%d of %d messages, %d of %d bytes wait to be published later; %d were refused since the start", s.Waiting, c.MaxMessages, s.WaitingBytes, c.MaxBytes, s.Refused))
	w.set("delayed_held", s.Held > 0, fmt.Sprintf("%d delayed messages could not be published at their time and are tried again; see gantry delayed ls", s.Held))
}

func (w *watch) bridge(p *bridgePart, now time.Time) {
	q := p.queue.Stats()
	name := p.cfg.Name
	w.set("bridge_queue_filling:"+name, q.MaxBytes > 0 && float64(q.DiskBytes) >= fillAlarm*float64(q.MaxBytes),
		fmt.Sprintf("%d of %d bytes are used; at the cap: %s", q.DiskBytes, q.MaxBytes, p.cfg.Queue.WhenFull))
	failing := w.grew("queue_errors:"+name, q.Failed, now, storeShown)
	p.failing.Store(failing)
	last := "the newest write succeeded"
	if err := p.queue.Writable(); err != nil {
		last = "newest: " + err.Error()
	}
	w.set("bridge_queue_failing:"+name, failing, fmt.Sprintf("%d messages could not be written since the start; their publishers were told; %s", q.Failed, last))
	var dropped uint64
	for _, n := range q.Dropped {
		dropped += n
	}
	w.set("bridge_messages_lost:"+name, w.grew("lost:"+name, dropped, now, lossShown), fmt.Sprintf("%d queued messages were dropped since the start: %v", dropped, q.Dropped))
	w.set("bridge_refusing:"+name, w.grew("refused:"+name, q.Refused, now, refusedShown), fmt.Sprintf("%d messages were refused since the start because the queue was full; their publishers were told", q.Refused))
	w.set("bridge_dead_letters:"+name, q.DeadLetters > 0, fmt.Sprintf("%d messages were refused by the receiver for good; see gantry queue peek --dead %s", q.DeadLetters, name))
	w.set("bridge_queue_damaged:"+name, q.CorruptBytes > 0 || q.Quarantined > 0,
		fmt.Sprintf("%d damaged bytes were stepped over, %d files are in %s/quarantine", q.CorruptBytes, q.Quarantined, QueueDir(w.gateway.cfg.DataDir, name)))
	w.set("disk_slow:"+name, q.LastSync > slowSync, fmt.Sprintf("the last fsync took %s, and every acknowledgement waits for one", q.LastSync.Round(time.Millisecond)))
}

func (w *watch) set(name string, on bool, detail string) {
	if on {
		w.gateway.alarms.Raise(name, detail)
		return
	}
	w.gateway.alarms.Clear(name)
}

// grew reports whether a counter grew within the time that is shown.
func (w *watch) grew(name string, value uint64, now time.Time, shown time.Duration) bool {
	g := w.counts[name]
	if g == nil {
		g = &grown{}
		w.counts[name] = g
	}
	if value > g.value {
		g.value, g.at = value, now
	}
	return !g.at.IsZero() && now.Sub(g.at) < shown
}
