package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// load is one pattern of publishers and subscribers. Publishers keep at most
// ahead messages on their way, so that no server has to drop any.
type load struct {
	name                           string
	pairs, publishers, subscribers int
	qos                            byte
	payload                        int
	ackedOnly                      bool // count acknowledgements; there are no subscribers
	window                         int  // QoS 1 publishes without PUBACK, 100 by default
	topic                          string
}

const (
	ahead = 2000 // messages of one pair that are published and not delivered
	batch = 50   // packets in one write
	warm  = time.Second
)

// result is what one measurement gave.
type result struct {
	in, out int64 // messages
	cpu     time.Duration
	took    time.Duration
}

func (r result) rate() float64          { return float64(r.out) / r.took.Seconds() }
func (r result) cpuPerMessage() float64 { return r.cpu.Seconds() * 1e6 / float64(r.in+r.out) }

// pair is one topic with its publishers and subscribers.
type pair struct {
	sent, received, acked atomic.Int64
	limit                 int64 // most messages that are sent and not received, per subscriber

	mu    sync.Mutex // with moved, for publishers that are too far ahead
	moved sync.Cond  // received grew, or the load ended
	ended bool
}

// arrived counts what one subscriber got.
func (p *pair) arrived(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received.Add(int64(n))
	p.moved.Broadcast()
}

func (p *pair) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.moved.Broadcast()
}

// await blocks while the publishers are too far ahead; false means that the
// load has ended.
func (p *pair) await(subscribers int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended && subscribers > 0 && p.sent.Load()-p.received.Load()/subscribers > p.limit {
		p.moved.Wait()
	}
	return !p.ended
}

// run makes the load for a second, and then measures.
func (l *load) run(ctx context.Context, s *server, d time.Duration) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var conns []*mqttConn
	pairs := make([]*pair, l.pairs)
	for i := range pairs {
		pairs[i] = &pair{limit: ahead}
		pairs[i].moved.L = &pairs[i].mu
	}
	errs := make(chan error, 1)
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			select {
			case errs <- err:
			default:
			}
		}
	}
	defer wg.Wait()
	defer func() {
		cancel()
		for _, p := range pairs {
			p.end()
		}
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range pairs {
		topic := fmt.Sprintf("%sbench/%d", l.topic, i)
		for j := range l.subscribers {
			c, err := dial(s.addr, fmt.Sprintf("sub-%d-%d", i, j))
			if err != nil {
				return result{}, err
			}
			conns = append(conns, c)
			if err := c.subscribe(topic, l.qos); err != nil {
				return result{}, err
			}
			wg.Go(func() { fail(c.receive(pairs[i].arrived)) })
		}
		for j := range l.publishers {
			c, err := dial(s.addr, fmt.Sprintf("pub-%d-%d", i, j))
			if err != nil {
				return result{}, err
			}
			conns = append(conns, c)
			wg.Go(func() { fail(l.publish(ctx, c, topic, pairs[i])) })
		}
	}
	select {
	case err := <-errs:
		return result{}, err
	case <-time.After(warm):
	}
	before, start := l.count(pairs, s), time.Now()
	select {
	case err := <-errs:
		return result{}, err
	case <-time.After(d):
	}
	after := l.count(pairs, s)
	return result{in: after.in - before.in, out: after.out - before.out, cpu: after.cpu - before.cpu, took: time.Since(start)}, nil
}

func (l *load) count(pairs []*pair, s *server) (r result) {
	for _, p := range pairs {
		r.in += p.sent.Load()
		if l.ackedOnly {
			r.out += p.acked.Load()
			continue
		}
		r.out += p.received.Load()
	}
	r.cpu = s.cpu()
	return r
}

// publish writes batches as long as the pair is not too far ahead.
func (l *load) publish(ctx context.Context, c *mqttConn, topic string, p *pair) error {
	window := l.window
	if window == 0 {
		window = 100
	}
	one, idAt := publishPacket(topic, l.qos, l.payload)
	out := make([]byte, 0, batch*len(one))
	places := make(chan struct{}, window)
	if l.qos > 0 {
		go l.acknowledgements(c, places, p)
	}
	for id := uint16(1); ctx.Err() == nil; {
		if !p.await(int64(l.subscribers)) {
			return nil
		}
		out = out[:0]
		n := min(batch, max(1, window/2))
		for range n {
			if l.qos > 0 {
				select {
				case places <- struct{}{}:
				case <-ctx.Done():
					return nil
				}
				binary.BigEndian.PutUint16(one[idAt:], id)
				if id++; id == 0 {
					id = 1
				}
			}
			out = append(out, one...)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		p.sent.Add(int64(n))
	}
	return nil
}

func (l *load) acknowledgements(c *mqttConn, places chan struct{}, p *pair) {
	for {
		kind, _, err := c.read()
		if err != nil {
			return
		}
		if kind == 0x40 {
			<-places
			p.acked.Add(1)
		}
	}
}

// holdIdle opens n connections that do nothing and returns the resident bytes
// before and with them.
func holdIdle(ctx context.Context, s *server, n int) (before, after float64, err error) {
	if before, err = s.resident(); err != nil {
		return 0, 0, err
	}
	conns := make([]*mqttConn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := dial(s.addr, fmt.Sprintf("idle-%d", i))
		if err != nil {
			return 0, 0, err
		}
		if err := c.subscribe(fmt.Sprintf("idle/%d", i), 0); err != nil {
			return 0, 0, err
		}
		conns = append(conns, c)
		if ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
	}
	after, err = s.resident()
	return before, after, err
}
