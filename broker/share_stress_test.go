package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	shareStressMessages   = 20_000
	shareStressPublishers = 4
)

// ledger knows of each message who has it and whether it was completed.
type ledger struct {
	t    *testing.T
	mu   sync.Mutex
	held map[string]*client // by payload: delivered and not completed
	done map[string]bool
	all  chan struct{} // closed when every message is completed
}

// got notes a delivery. A message may come twice only if whoever had it first
// has left without completing it.
func (l *ledger) got(c *client, d Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	payload := string(d.Message.Payload)
	if l.done[payload] {
		l.t.Errorf("%s comes to %s and was completed", payload, c.ClientID())
	}
	if h := l.held[payload]; h != nil && h != c {
		l.t.Errorf("%s comes to %s, and %s has it", payload, c.ClientID(), h.ClientID())
	}
	l.held[payload] = c
}

func (l *ledger) completed(payload string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, payload)
	l.done[payload] = true
	if len(l.done) == shareStressMessages {
		close(l.all)
	}
}

// left forgets what a connection had.
func (l *ledger) left(c *client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for payload, h := range l.held {
		if h == c {
			delete(l.held, payload)
		}
	}
}

// shareMember connects, works and leaves, in one of several ways, until all
// messages are completed.
type shareMember struct {
	*ledger
	broker  *Broker
	id      string
	durable bool
	ends    bool // its sessions end; those of others only lose their connection
}

func (m *shareMember) run() {
	for first := true; ; first = false {
		c := connect(m.t, m.broker, m.id, func(r *ConnectRequest) {
			r.ReceiveMaximum = uint16(1 + rand.IntN(20))
			if m.durable {
				r.Expiry = time.Hour
			}
			r.CleanStart = m.ends && rand.IntN(2) == 0
		})
		if first || m.ends {
			c.subscribeSoon("$share/g/t")
		}
		if !m.work(c) {
			return
		}
	}
}

// subscribeSoon waits until the subscription is stored.
func (c *client) subscribeSoon(filter string) {
	done := make(chan Reason, 1)
	c.Subscribe([]Subscription{{Filter: filter, QoS: 1}}, func(r []Reason, _ []QoS) { done <- r[0] })
	require.Equal(c.t, Success, <-done)
}

// work takes messages for a while and reports whether there are more.
func (m *shareMember) work(c *client) bool {
	for rounds := 5 + rand.IntN(100); rounds > 0; rounds-- {
		ds := c.Next(make([]Delivery, 0, 1+rand.IntN(20)))
		for i, d := range ds {
			m.got(c, d)
			if i > 0 && rand.IntN(50) == 0 {
				continue // it leaves with this one
			}
			if c.Acked(d.PacketID) == Success {
				m.completed(string(d.Message.Payload))
			}
		}
		if len(ds) > 0 {
			continue
		}
		select {
		case <-m.all:
			return false
		case <-c.woken:
		case <-time.After(time.Millisecond):
		}
	}
	m.leave(c)
	return true
}

func (m *shareMember) leave(c *client) {
	m.left(c)
	if m.ends && rand.IntN(3) == 0 {
		c.Unsubscribe([]string{"$share/g/t"}, func([]Reason) {})
	}
	if !m.durable || rand.IntN(2) == 0 {
		c.Close(Closing{}) // otherwise it is taken over
	}
}

// TestShareStress gives 20,000 messages to five members that come and go in
// every way, over a store that is slow and often busy: nothing that was
// acknowledged is lost, and nothing comes again that somebody has completed or
// still has.
func TestShareStress(t *testing.T) {
	for _, memory := range []int{4000, 1 << 20} {
		t.Run(fmt.Sprint("memory ", memory), func(t *testing.T) {
			store := newAsyncStore(t, 16, 0)
			b := newBroker(t, store, func(c *Config) { c.Session.MemoryBytes = memory })
			l := &ledger{t: t, held: map[string]*client{}, done: map[string]bool{}, all: make(chan struct{})}
			anchor := connect(t, b, "anchor", durable) // somebody must be there
			anchor.subscribeSoon("$share/g/t")
			anchor.Close(Closing{})
			// Members in memory would, with little of it, drop what the durable ones leave.
			kept := memory < 1<<20
			all := []*shareMember{
				{l, b, "anchor", true, false},
				{l, b, "comes back", true, false},
				{l, b, "ends", true, true},
				{l, b, "also ends", kept, true},
				{l, b, "in memory", kept, true},
			}
			var wg sync.WaitGroup
			for _, m := range all {
				wg.Go(m.run)
			}
			for p := range shareStressPublishers {
				wg.Go(func() { shareStressPublish(t, b, p) })
			}
			select {
			case <-l.all:
			case <-time.After(stressDeadline):
				t.Errorf("%d of %d messages are completed: %+v", len(l.done), shareStressMessages, b.Stats())
				close(l.all)
			}
			wg.Wait()
			require.Zero(t, b.Stats().Dropped["queue_full"]+lostWithSessions(b))
		})
	}
}

func shareStressPublish(t *testing.T, b *Broker, p int) {
	c := connect(t, b, fmt.Sprint("pub", p))
	ctx := context.Background()
	if p%2 == 0 {
		ctx = NoWait
	}
	window := make(chan struct{}, 100)
	for n := range shareStressMessages / shareStressPublishers {
		for {
			m := &Message{Topic: "t", Payload: fmt.Appendf(nil, "%d:%d", p, n), QoS: 1}
			busy := make(chan bool, 1)
			window <- struct{}{}
			c.Publish(ctx, m, 0, func(r Reason) {
				<-window
				if !r.OK() && r != ServerBusy {
					t.Errorf("publish: %v", r)
				}
				busy <- r == ServerBusy
			})
			select {
			case again := <-busy:
				if again {
					time.Sleep(50 * time.Microsecond)
					continue
				}
			default: // the window bounds what is not answered yet; the store answers no message late with busy
			}
			break
		}
	}
}
