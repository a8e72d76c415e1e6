package bridge

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"gantry/bridge/queue"
)

// catchUpAfter is how long a sink may have had more to read before the bridge
// counts as catching up.
const catchUpAfter = 2 * time.Second

// Feed gives one run of a sink the records of the queue and takes its
// confirmations. Its methods are for one goroutine, except Stopping.
type Feed struct {
	queue    *queue.Queue
	reader   *queue.Reader
	stopping chan struct{}
	log      *ledger
	events   *slog.Logger
	metrics  *forwarderMetrics
}

// Frontier is the first record that is not confirmed.
func (f *Feed) Frontier() uint64 { return f.queue.Frontier() }

// Rewind lets the next Read return the first record that is there with a
// sequence number of seq or more.
func (f *Feed) Rewind(seq uint64) { f.reader = f.queue.Reader(seq) }

// Read returns the next record in order, or io.EOF when there is none yet.
// Sequence numbers ascend and may have gaps. Rec is valid until the next call.
func (f *Feed) Read() (seq uint64, rec []byte, err error) {
	seq, rec, err = f.reader.Next()
	switch {
	case err == nil:
		f.log.behind(true)
	case errors.Is(err, io.EOF):
		f.log.behind(false)
	}
	return seq, rec, err
}

// Ready returns a channel that is closed at the next commit. Take it before the
// Read that returns io.EOF, so that no commit is missed.
func (f *Feed) Ready() <-chan struct{} { return f.queue.Ready() }

// Stopping is closed when the sink has to come to an end.
func (f *Feed) Stopping() <-chan struct{} { return f.stopping }

// Connected tells that the other side accepts records now.
func (f *Feed) Connected() {
	if f.log.connected() {
		f.events.Info("bridge is connected") // the end of what the warnings before it told
	}
}

// Sent notes that all records below next are under way.
func (f *Feed) Sent(next uint64) { f.log.sent(next) }

// Pin keeps the records below next in the queue, whatever its policy, until they
// are confirmed: they are under way and must stay as they are.
func (f *Feed) Pin(next uint64) { f.queue.Pin(next) }

// Confirm lets the queue forget all records below next. Records and bytes are
// what the other side has confirmed since the last call.
func (f *Feed) Confirm(next uint64, records, bytes int) {
	f.queue.Confirm(next)
	f.log.confirmed(next, records, bytes)
	f.metrics.confirmed.Add(float64(records))
	f.metrics.confirmedBytes.Add(float64(bytes))
}

// Bury puts a record that can never be sent into the dead-letter file. When it
// returns nil the record is safe there and may be confirmed.
func (f *Feed) Bury(seq uint64, rec []byte, reason string) error {
	if err := f.queue.Bury(seq, rec, reason); err != nil {
		return err
	}
	f.log.buried()
	f.metrics.buried.Inc()
	return nil
}

// ledger is what a Forwarder knows of its sink over all its runs.
type ledger struct {
	mu sync.Mutex // covers the rest

	state     State
	since     time.Time
	behindAt  time.Time // when Read began to find records, zero when it found the end
	lastErr   error     // of the last run, nil since the connection stands
	lastText  string    // of the last error ever
	lastErrAt time.Time
	nextTry   time.Time

	records, bytes, dead, retries uint64
	progress                      bool // something was confirmed in this run
	rate                          meter
	unconfirmed                   []send // ascending
}

// send is a moment at which all records below next were under way.
type send struct {
	next uint64
	at   time.Time
}

func (l *ledger) set(s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(s)
}

// enter needs mu.
func (l *ledger) enter(s State) {
	if l.state != s {
		l.state, l.since = s, time.Now()
	}
}

func (l *ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.progress, l.nextTry = false, time.Time{}
	if l.lastErr == nil {
		l.enter(Connecting)
	} else if l.state != Failed {
		l.enter(Retrying)
	}
}

// connected reports whether the sink was not connected before.
func (l *ledger) connected() (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastErr = nil
	news = l.state != Connected
	l.enter(Connected)
	return news
}

// failed notes the end of a run and reports whether it had made progress.
func (l *ledger) failed(err error) (progress bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastErr, l.lastText, l.lastErrAt = err, err.Error(), time.Now()
	l.retries++
	l.behindAt = time.Time{}
	if IsPermanent(err) {
		l.enter(Failed)
	} else {
		l.enter(Retrying)
	}
	return l.progress
}

func (l *ledger) tryAt(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextTry = at
}

func (l *ledger) behind(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !yes:
		l.behindAt = time.Time{}
	case l.behindAt.IsZero():
		l.behindAt = time.Now()
	}
}

func (l *ledger) sent(next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.unconfirmed); n > 0 && l.unconfirmed[n-1].next >= next {
		return // sent again: its age counts from the first time
	}
	l.unconfirmed = append(l.unconfirmed, send{next: next, at: time.Now()})
}

func (l *ledger) confirmed(next uint64, records, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := 0
	for done < len(l.unconfirmed) && l.unconfirmed[done].next <= next {
		done++
	}
	l.unconfirmed = append(l.unconfirmed[:0], l.unconfirmed[done:]...)
	l.records += uint64(records)
	l.bytes += uint64(bytes)
	l.progress = true
	l.rate.add(time.Now(), records, bytes)
}

func (l *ledger) buried() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead++
}
