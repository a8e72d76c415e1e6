package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/bridge/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sinkFunc func(ctx context.Context, feed *Feed) error

func (f sinkFunc) Run(ctx context.Context, feed *Feed) error { return f(ctx, feed) }

func openQueue(t testing.TB) *queue.Queue {
	t.Helper()
	q, err := queue.Open(queue.Config{Dir: t.TempDir(), Name: "b", MaxBytes: 1 << 20, WhenFull: queue.Refuse}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

// put appends n records and waits until they are durable.
func put(t testing.TB, q *queue.Queue, n int) {
	t.Helper()
	done := make(chan error, n)
	for i := range n {
		require.NoError(t, q.Append(t.Context(), fmt.Appendf(nil, "record %d", i), func(err error) { done <- err }))
	}
	for range n {
		require.NoError(t, <-done)
	}
}

// forward runs a sink under a forwarder that retries at once.
func forward(t testing.TB, q *queue.Queue, sink sinkFunc, reg prometheus.Registerer) *Forwarder {
	t.Helper()
	f, err := NewForwarder(ForwarderConfig{
		Bridge: "b", MinBackoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond, FailedBackoff: 5 * time.Millisecond,
	}, q, sink, nil, reg)
	require.NoError(t, err)
	go func() { _ = f.Run(context.Background()) }() // Close waits for it
	await(t, func() bool { return f.Status().State != Stopped })
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func await(t testing.TB, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, time.Millisecond)
}

// confirmAll is a sink that confirms what it reads.
func confirmAll(ctx context.Context, feed *Feed) error {
	feed.Connected()
	for {
		ready := feed.Ready()
		seq, rec, err := feed.Read()
		switch {
		case err == nil:
			feed.Pin(seq + 1)
			feed.Sent(seq + 1)
			feed.Confirm(seq+1, 1, len(rec))
		case errors.Is(err, io.EOF):
			select {
			case <-ready:
			case <-feed.Stopping():
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return err
		}
	}
}

func TestForwards(t *testing.T) {
	q := openQueue(t)
	put(t, q, 10)
	reg := prometheus.NewRegistry()
	f := forward(t, q, confirmAll, reg)
	put(t, q, 5)
	await(t, func() bool { return f.Status().Confirmed == 15 })
	s := f.Status()
	require.Equal(t, Connected, s.State)
	require.Zero(t, s.OldestUnconfirmed)
	require.Zero(t, s.Queue.Records)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.NoError(t, f.Close())
	require.Equal(t, Stopped, f.Status().State)
	require.NoError(t, f.Close(), "twice")
	families, err = reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
	require.Error(t, f.Run(t.Context()), "closed")
}

func TestRetriesForEver(t *testing.T) {
	q := openQueue(t)
	put(t, q, 3)
	runs := atomic.Int32{}
	f := forward(t, q, func(ctx context.Context, feed *Feed) error {
		seq, _, err := feed.Read()
		if err != nil || seq != q.Frontier() {
			return fmt.Errorf("a run begins at %d: %w", seq, err)
		}
		switch n := runs.Add(1); {
		case n == 3:
			panic("in the sink")
		case n < 6:
			return errors.New("not yet")
		}
		feed.Rewind(seq)
		return confirmAll(ctx, feed)
	}, nil)
	await(t, func() bool { return f.Status().Confirmed == 3 })
	s := f.Status()
	require.Equal(t, "not yet", s.LastError)
	require.EqualValues(t, 5, s.Retries)
	require.EqualValues(t, 6, runs.Load())
}

// A reader of the log sees that an outage is over.
func TestLogTellsOfTheEndOfAnOutage(t *testing.T) {
	lines := &logLines{}
	tries := atomic.Int32{}
	f, err := NewForwarder(ForwarderConfig{Bridge: "b", MinBackoff: time.Millisecond}, openQueue(t), sinkFunc(func(ctx context.Context, feed *Feed) error {
		if tries.Add(1) == 1 {
			return errors.New("not yet")
		}
		feed.Connected()
		return confirmAll(ctx, feed) // tells it once more
	}), slog.New(slog.NewTextHandler(lines, nil)), nil)
	require.NoError(t, err)
	go func() { _ = f.Run(context.Background()) }() // Close waits for it
	await(t, func() bool { return f.Status().State == Connected })
	require.NoError(t, f.Close())
	text := lines.String()
	require.Contains(t, text, "cannot deliver")
	require.Equal(t, 1, strings.Count(text, "bridge is connected"), text)
}

// logLines keeps what is logged.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestPermanentErrorShowsAsFailed(t *testing.T) {
	require.NoError(t, Permanent(nil))
	q := openQueue(t)
	good := atomic.Bool{}
	f := forward(t, q, func(ctx context.Context, feed *Feed) error {
		if good.Load() {
			return confirmAll(ctx, feed)
		}
		return fmt.Errorf("log in: %w", Permanent(errors.New("wrong password")))
	}, nil)
	await(t, func() bool { return f.Status().State == Failed })
	require.Equal(t, "log in: wrong password", f.Status().LastError)
	good.Store(true)
	await(t, func() bool { return f.Status().State == Connected })
}

func TestPauseAndResume(t *testing.T) {
	q := openQueue(t)
	f := forward(t, q, confirmAll, nil)
	put(t, q, 1)
	await(t, func() bool { return f.Status().Confirmed == 1 })
	f.Pause()
	await(t, func() bool { return f.Status().State == Paused })
	put(t, q, 4)
	require.EqualValues(t, 1, f.Status().Confirmed)
	require.EqualValues(t, 4, f.Status().Queue.Records)
	f.Resume()
	await(t, func() bool { return f.Status().Confirmed == 5 })
	f.Pause()
	require.NoError(t, f.Close(), "while paused")
}

func TestResumeEndsAWait(t *testing.T) {
	q := openQueue(t)
	runs := atomic.Int32{}
	f, err := NewForwarder(ForwarderConfig{Bridge: "b", MinBackoff: time.Hour, MaxBackoff: time.Hour}, q,
		sinkFunc(func(context.Context, *Feed) error { runs.Add(1); return errors.New("down") }), nil, nil)
	require.NoError(t, err)
	go func() { _ = f.Run(context.Background()) }()
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	await(t, func() bool { return !f.Status().NextTry.IsZero() })
	require.WithinDuration(t, time.Now().Add(45*time.Minute), f.Status().NextTry, 16*time.Minute)
	f.Resume()
	await(t, func() bool { return runs.Load() == 2 })
}

// TestStopWaitsForConfirmations stops a sink that has something under way.
func TestStopWaitsForConfirmations(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		want    uint64
	}{"in time": {time.Minute, 1}, "too late": {time.Millisecond, 0}} {
		t.Run(name, func(t *testing.T) {
			q := openQueue(t)
			put(t, q, 1)
			sent := make(chan struct{})
			f, err := NewForwarder(ForwarderConfig{Bridge: "b", StopTimeout: c.timeout}, q, sinkFunc(func(ctx context.Context, feed *Feed) error {
				feed.Connected()
				feed.Sent(2)
				close(sent)
				<-feed.Stopping()
				if c.want == 0 {
					<-ctx.Done()
					return ctx.Err()
				}
				feed.Confirm(feed.Frontier()+1, 1, 1)
				return nil
			}), nil, nil)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- f.Run(ctx) }()
			<-sent
			await(t, func() bool { return f.Status().OldestUnconfirmed > 0 })
			cancel()
			require.NoError(t, <-ended)
			require.Equal(t, c.want, f.Status().Confirmed)
			require.Zero(t, f.Status().Retries)
			require.NoError(t, f.Close())
		})
	}
}

func TestBury(t *testing.T) {
	q := openQueue(t)
	put(t, q, 2)
	f := forward(t, q, func(ctx context.Context, feed *Feed) error {
		seq, rec, err := feed.Read()
		if err != nil {
			return confirmAll(ctx, feed)
		}
		if err := feed.Bury(seq, rec, "nobody wants it"); err != nil {
			return err
		}
		feed.Confirm(seq+1, 0, 0)
		return errors.New("again")
	}, nil)
	await(t, func() bool { return f.Status().State == Connected })
	require.EqualValues(t, 2, f.Status().DeadLetters)
	require.Zero(t, f.Status().Confirmed)
}

func TestBackoffGrowsAndIsCapped(t *testing.T) {
	f := &Forwarder{cfg: ForwarderConfig{}}
	f.cfg.setDefaults()
	for tries, limit := range map[int]time.Duration{0: 250 * time.Millisecond, 3: 2 * time.Second, 9: 30 * time.Second, 1000: 30 * time.Second} {
		for range 50 {
			d := f.backoff(tries, io.EOF)
			require.GreaterOrEqual(t, d, limit/2)
			require.LessOrEqual(t, d, limit)
		}
	}
	require.GreaterOrEqual(t, f.backoff(0, Permanent(io.EOF)), 30*time.Second)
}

func TestStatusOfTheLedger(t *testing.T) {
	var l ledger
	l.begin()
	require.Equal(t, Connecting, l.status(time.Now()).State)
	l.connected()
	l.behind(true)
	require.Equal(t, Connected, l.status(time.Now()).State)
	require.Equal(t, CatchingUp, l.status(time.Now().Add(3*time.Second)).State)
	l.behind(false)
	require.Equal(t, Connected, l.status(time.Now().Add(time.Hour)).State)

	l.sent(10)
	first := l.unconfirmed[0].at
	l.sent(10) // again, after a retry
	l.sent(20)
	later := first.Add(time.Minute)
	require.Equal(t, time.Minute, l.status(later).OldestUnconfirmed, "from the first time it was sent")
	l.confirmed(10, 9, 90)
	require.Less(t, l.status(later).OldestUnconfirmed, time.Minute)
	l.confirmed(20, 10, 100)
	require.Zero(t, l.status(later).OldestUnconfirmed)
	require.InDelta(t, 1.9, l.status(time.Now().Add(time.Second)).Rate, 0.01)
	require.Zero(t, l.status(time.Now().Add(time.Minute)).Rate)

	l.failed(errors.New("gone"))
	l.begin()
	require.Equal(t, Retrying, l.status(time.Now()).State)
}
