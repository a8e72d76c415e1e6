package bridge

import (
	"time"

	"gantry/bridge/queue"
)

// State of a bridge.
type State string

// The states of a bridge.
const (
	Connecting State = "connecting"  // first try since the start or since the last good connection
	Connected  State = "connected"   // records are confirmed as they come
	CatchingUp State = "catching_up" // connected, and more is queued than was sent so far
	Retrying   State = "retrying"    // the last try failed, the next one follows by itself
	Paused     State = "paused"      // by an operator; records are queued
	Failed     State = "failed"      // only an operator can help; tried once a minute
	Stopped    State = "stopped"     // not running
)

// Status is a bridge at one moment, for operators.
type Status struct {
	Bridge string
	State  State
	Since  time.Time // of the state

	LastError   string // of the last failed try, also when a later one went well
	LastErrorAt time.Time
	NextTry     time.Time // zero unless the bridge waits
	Retries     uint64

	Confirmed      uint64 // records, since the start of the process
	ConfirmedBytes uint64
	Rate           float64 // confirmed records per second, over the last ten seconds
	ByteRate       float64
	DeadLetters    uint64 // since the start of the process

	// OldestUnconfirmed is the age of the oldest send without confirmation, 0
	// when there is none. It grows when the other side is connected but dead.
	OldestUnconfirmed time.Duration

	Queue queue.Stats
}

func (l *ledger) status(now time.Time) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		State: l.state, Since: l.since, LastErrorAt: l.lastErrAt, NextTry: l.nextTry, Retries: l.retries,
		Confirmed: l.records, ConfirmedBytes: l.bytes, DeadLetters: l.dead, LastError: l.lastText,
	}
	s.Rate, s.ByteRate = l.rate.perSecond(now)
	if len(l.unconfirmed) > 0 {
		s.OldestUnconfirmed = now.Sub(l.unconfirmed[0].at)
	}
	if s.State == Connected && !l.behindAt.IsZero() && now.Sub(l.behindAt) > catchUpAfter {
		s.State, s.Since = CatchingUp, l.behindAt
	}
	return s
}

// meter sums over the last seconds, one bucket each. The zero value is ready.
type meter struct {
	buckets [11]bucket // the present second and the ten before it
}

type bucket struct {
	second         int64
	records, bytes int
}

func (m *meter) add(now time.Time, records, bytes int) {
	second := now.Unix()
	b := &m.buckets[int(second%int64(len(m.buckets)))]
	if b.second != second {
		*b = bucket{second: second}
	}
	b.records += records
	b.bytes += bytes
}

// perSecond is the mean over the ten full seconds before now.
func (m *meter) perSecond(now time.Time) (records, bytes float64) {
	second := now.Unix()
	const window = 10
	for _, b := range m.buckets {
		if b.second < second && b.second >= second-window {
			records += float64(b.records) / window
			bytes += float64(b.bytes) / window
		}
	}
	return records, bytes
}
