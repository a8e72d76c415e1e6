//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reading is the payload of the simulated devices.
type reading struct {
	Device string `json:"device"`
	N      int    `json:"n"`
	Pad    string `json:"pad,omitempty"`
}

func parseReading(t testing.TB, payload []byte) reading {
	t.Helper()
	var r reading
	require.NoError(t, json.Unmarshal(payload, &r), "%q", payload)
	return r
}

// account is what one device knows of its messages, which are numbered from 0.
// It belongs to the goroutine of the device while that runs.
type account struct {
	device string
	pad    string
	sent   []int // how often it was sent
	acked  []bool
	ledger *ledger
}

// next returns the number of a new message.
func (a *account) next() int {
	a.sent = append(a.sent, 0)
	a.acked = append(a.acked, false)
	return len(a.sent) - 1
}

// payload of message n, which is about to be sent.
func (a *account) payload(n int) []byte {
	a.sent[n]++
	body, err := json.Marshal(reading{a.device, n, a.pad})
	if err != nil {
		panic(err) // of a struct of texts and numbers
	}
	return body
}

func (a *account) ack(n int) {
	if !a.acked[n] {
		a.acked[n] = true
		a.ledger.acked.Add(1)
	}
}

// ledger holds the accounts of all devices.
type ledger struct {
	accounts []*account
	acked    atomic.Int64 // messages; may be read while devices run
}

// open adds an account. Pad makes each payload longer.
func (l *ledger) open(device string, pad int) *account {
	a := &account{device: device, pad: strings.Repeat("x", pad), ledger: l}
	l.accounts = append(l.accounts, a)
	return a
}

func (l *ledger) sent() (n int) {
	for _, a := range l.accounts {
		n += len(a.sent)
	}
	return n
}

// verdict compares what was acknowledged with what has arrived.
type verdict struct {
	acknowledged, delivered int
	lost                    int // acknowledged, not arrived
	retried                 int // arrived more than once, but not more often than the device sent it
	duplicates              int // arrived more often than the device sent it
	reordered               int // first arrived after a later one of the same device
	strange                 int // never sent, or of a device that should not be there
	examples                []string
}

func (v verdict) String() string {
	return fmt.Sprintf("acknowledged %d  delivered %d  duplicates %d (and %d that devices repeated)  lost %d",
		v.acknowledged, v.delivered, v.duplicates, v.retried, v.lost)
}

func (v *verdict) note(format string, args ...any) {
	if len(v.examples) < 20 {
		v.examples = append(v.examples, fmt.Sprintf(format, args...))
	}
}

// arrivals are the readings of each device in the order in which they came.
type arrivals map[string][]int

func arrivalsOf(t testing.TB, records []*kgo.Record) arrivals {
	t.Helper()
	a := arrivals{}
	for _, r := range records {
		m := parseReading(t, r.Value)
		require.Equal(t, m.Device, string(r.Key))
		a[m.Device] = append(a[m.Device], m.N)
	}
	return a
}

// with is a ledger for comparing: it holds the accounts of both.
func (l *ledger) with(other *ledger) *ledger {
	return &ledger{accounts: slices.Concat(l.accounts, other.accounts)}
}

// settle waits until the bridge has nothing queued, and judges what Kafka holds
// then. It belongs after the devices have ended.
func (l *ledger) settle(g *gateway, u uplink) verdict {
	g.t.Helper()
	g.awaitDrained()
	return l.compare(arrivalsOf(g.t, u.Consume(topic)))
}

func (l *ledger) compare(got arrivals) verdict {
	var v verdict
	known := 0
	for _, a := range l.accounts {
		v.compare(a, got[a.device])
		if len(got[a.device]) > 0 {
			known++
		}
	}
	if others := len(got) - known; others > 0 {
		v.strange += others
		v.note("%d devices without an account", others)
	}
	return v
}

// compareOnly is compare for the devices with part in their name.
func (l *ledger) compareOnly(part string, got arrivals) verdict {
	some, of := &ledger{}, arrivals{}
	for _, a := range l.accounts {
		if strings.Contains(a.device, part) {
			some.accounts = append(some.accounts, a)
			of[a.device] = got[a.device]
		}
	}
	return some.compare(of)
}

func (v *verdict) compare(a *account, got []int) {
	times := make([]int, len(a.sent))
	last := -1
	for _, n := range got {
		v.delivered++
		if n >= len(times) {
			v.strange++
			v.note("%s %d was never sent", a.device, n)
			continue
		}
		times[n]++
		if times[n] == 1 && n < last {
			v.reordered++
			v.note("%s %d arrived after %d", a.device, n, last)
		}
		last = max(last, n)
	}
	for n, sent := range a.sent {
		v.count(a, n, times[n], sent)
	}
}

func (v *verdict) count(a *account, n, times, sent int) {
	if a.acked[n] {
		v.acknowledged++
	}
	switch {
	case times == 0 && a.acked[n]:
		v.lost++
		v.note("%s %d was acknowledged and is lost", a.device, n)
	case times > sent:
		v.duplicates += times - sent
		v.note("%s %d was sent %d times and arrived %d times", a.device, n, sent, times)
	}
	if repeated := min(times, sent) - 1; repeated > 0 {
		v.retried += repeated
		v.note("%s %d was sent %d times and arrived %d times", a.device, n, sent, times)
	}
}

// requireKept fails unless all that was acknowledged is there, in order.
func (v verdict) requireKept(t testing.TB) {
	t.Helper()
	t.Log(v)
	explanation := strings.Join(v.examples, "\n")
	require.Zero(t, v.lost, "lost\n%s", explanation)
	require.Zero(t, v.reordered, "reordered\n%s", explanation)
	require.Zero(t, v.strange, "never sent\n%s", explanation)
}

// requireOnce is requireKept, and nothing arrived twice, whatever the devices
// repeated.
func (v verdict) requireOnce(t testing.TB) {
	t.Helper()
	v.requireKept(t)
	require.Zero(t, v.duplicates, "duplicates\n%s", strings.Join(v.examples, "\n"))
	require.Zero(t, v.retried, "repeated\n%s", strings.Join(v.examples, "\n"))
}

// requireExact is requireOnce for a run without crashes: nothing else arrived.
func (v verdict) requireExact(t testing.TB) {
	t.Helper()
	v.requireOnce(t)
	require.Equal(t, v.acknowledged, v.delivered)
}

// TestVerdictSeesWhatIsWrong: a judge who always acquits would go unnoticed.
func TestVerdictSeesWhatIsWrong(t *testing.T) {
	l := &ledger{}
	a := l.open("d", 0)
	for range 6 {
		n := a.next()
		a.payload(n)
		if n < 5 {
			a.ack(n)
		}
	}
	a.payload(0)
	v := l.compare(arrivals{"d": {0, 0, 2, 1, 4, 4, 9}, "e": {0}})
	v.examples = nil
	require.Equal(t, verdict{acknowledged: 5, delivered: 7, lost: 1, retried: 1, duplicates: 1, reordered: 1, strange: 2}, v)
}
