package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// asyncStore is a memStore with a goroutine that commits, a bound on what
// waits for it, and a share of batches that fail.
type asyncStore struct {
	*memStore
	slots chan struct{} // one for each batch that waits
	more  chan struct{}
	ended chan struct{}
}

// newAsyncStore starts the committer. failing is the share of batches with
// messages that fail.
func newAsyncStore(t *testing.T, waiting int, failing float64) *asyncStore {
	s := &asyncStore{memStore: newMemStore(), slots: make(chan struct{}, waiting), more: make(chan struct{}, 1), ended: make(chan struct{})}
	s.held = true
	s.fail = func(b *Batch) error {
		if has(b, OpEnqueue) && rand.Float64() < failing {
			return errDisk
		}
		return nil
	}
	stop := make(chan struct{})
	go func() {
		defer close(s.ended)
		for {
			select {
			case <-stop:
				s.flush()
				return
			case <-s.more:
				if rand.IntN(4) == 0 { // a slow fsync, so that batches gather
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				}
				s.flush()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-s.ended })
	return s
}

func (s *asyncStore) Commit(ctx context.Context, b *Batch, done func(error)) error {
	if ctx == nil {
		select {
		case s.slots <- struct{}{}:
		default:
			return ErrBusy
		}
	} else {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := s.memStore.Commit(ctx, b, func(err error) {
		<-s.slots
		if done != nil {
			done(err)
		}
	})
	select {
	case s.more <- struct{}{}:
	default:
	}
	return err
}

const (
	stressPublishers = 4
	stressMessages   = 400 // of each publisher
	stressDeadline   = 60 * time.Second
)

// TestStress lets publishers, takeovers, subscription churn, clean starts,
// a slow disk and failing commits meet, and checks that every durable
// subscriber gets every acknowledged message in the order of its publisher.
func TestStress(t *testing.T) {
	for _, memory := range []int{1, 3000, 1 << 20} {
		t.Run(fmt.Sprint("memory ", memory), func(t *testing.T) {
			store := newAsyncStore(t, 16, 0.02)
			b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = memory })
			var subscribers, background sync.WaitGroup
			stop := make(chan struct{})
			subs := make([]*stressSub, 3)
			for i := range subs {
				subs[i] = &stressSub{t: t, id: fmt.Sprint("sub", i)}
				subs[i].connect(b)
				subs[i].subscribe()
				subscribers.Go(func() { subs[i].run(b) })
			}
			for i := range 3 {
				background.Go(func() { churn(t, b, i, stop) })
			}
			for p := range stressPublishers {
				subscribers.Go(func() { stressPublish(t, b, p) })
			}
			subscribers.Wait()
			close(stop)
			background.Wait()
			for _, s := range subs {
				require.Zero(t, s.drain(b).QueuedBytes)
				st := b.find(s.id)
				require.Empty(t, st.reserved)
				require.Empty(t, st.unsaved)
				require.Zero(t, st.handing)
			}
		})
	}
}

// stressPublish publishes until each message was accepted; half of the
// publishers must not be blocked.
func stressPublish(t *testing.T, b *Broker, p int) {
	c := connect(t, b, fmt.Sprint("pub", p))
	ctx := context.Background()
	if p%2 == 0 {
		ctx = NoWait
	}
	for n := range stressMessages {
		for {
			m := &Message{Topic: fmt.Sprint("t/", p), Payload: fmt.Appendf(nil, "%d:%d", p, n), QoS: 1, Retain: n%8 == 0}
			if r := <-c.send(ctx, m, 0); r.OK() {
				break
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// stressSub is a durable subscriber that reconnects all the time.
type stressSub struct {
	t      *testing.T
	id     string
	client *client
	newest [stressPublishers]int // highest number seen, plus one
}

func (s *stressSub) connect(b *Broker) {
	s.client = connect(s.t, b, s.id, durable, func(r *ConnectRequest) { r.ReceiveMaximum = uint16(rand.IntN(10)) })
}

func (s *stressSub) subscribe() {
	done := make(chan Reason, 1)
	s.client.Subscribe([]Subscription{{Filter: "t/+", QoS: 1, RetainHandling: 2}}, func(r []Reason, _ []QoS) { done <- r[0] })
	require.Equal(s.t, Success, <-done)
}

func (s *stressSub) run(b *Broker) {
	deadline := time.After(stressDeadline)
	for !s.complete() {
		switch rand.IntN(40) {
		case 0:
			s.connect(b) // takes over
		case 1:
			s.client.Close(Closing{})
			s.connect(b)
		}
		ds := s.client.Next(make([]Delivery, 0, 1+rand.IntN(20)))
		if len(ds) == 0 {
			select {
			case <-s.client.woken:
			case <-deadline:
				s.t.Errorf("%s waits for ever: %v %+v", s.id, s.newest, b.find(s.id).spill)
				return
			}
		}
		for _, d := range ds {
			s.see(d)
		}
	}
}

func (s *stressSub) complete() bool {
	for _, n := range s.newest {
		if n < stressMessages {
			return false
		}
	}
	return true
}

// drain completes what repetitions are left.
func (s *stressSub) drain(b *Broker) SessionInfo {
	s.connect(b)
	deadline := time.Now().Add(stressDeadline)
	for {
		for _, d := range s.client.take() {
			s.client.Acked(d.PacketID)
		}
		info, _ := b.Session(s.id)
		if info.QueuedBytes == 0 || time.Now().After(deadline) {
			return info
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *stressSub) see(d Delivery) {
	var p, n int
	if _, err := fmt.Sscanf(string(d.Message.Payload), "%d:%d", &p, &n); err != nil {
		s.t.Error(err)
	}
	if n > s.newest[p] {
		s.t.Errorf("%s: publisher %d: %d comes after %d", s.id, p, n, s.newest[p]-1)
	}
	s.newest[p] = max(s.newest[p], n+1)
	if rand.IntN(10) > 0 {
		s.client.Acked(d.PacketID)
		return
	}
	go s.client.Acked(d.PacketID) // out of order, perhaps of a connection that has ended
}

// churn subscribes, unsubscribes and starts clean under a client identifier
// that gets the same messages, and looks at listings.
func churn(t *testing.T, b *Broker, i int, stop chan struct{}) {
	var ended atomic.Bool
	go func() { <-stop; ended.Store(true) }()
	for n := 0; !ended.Load(); n++ {
		c := connect(t, b, fmt.Sprint("churn", i%2), durable, func(r *ConnectRequest) { r.CleanStart = n%2 == 0 })
		c.Subscribe([]Subscription{{Filter: "t/#", QoS: 1}, {Filter: fmt.Sprint("x/", n%5)}}, func([]Reason, []QoS) {})
		for range 3 {
			for _, d := range c.Next(make([]Delivery, 0, 5)) {
				c.Acked(d.PacketID)
			}
		}
		c.Unsubscribe([]string{fmt.Sprint("x/", n%5)}, func([]Reason) {})
		b.Stats()
		b.Sessions()
		if n%3 == 0 {
			c.Close(Closing{})
		}
	}
}
