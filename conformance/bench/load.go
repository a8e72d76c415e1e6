package main

import (
	"cmp"
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
	over                           transport
	filters                        int // each subscriber has so many, with a wildcard, and the publishers rotate
	ahead                          int // messages of one pair that are published and not delivered, 2,000 by default
}

const (
	batch = 50 // packets in one write
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

// running is a load that has been started.
type running struct {
	load   *load
	server *server
	pairs  []*pair
	conns  []*mqttConn
	errs   chan error // the first one
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// run makes the load for a second, and then measures.
func (l *load) run(ctx context.Context, s *server, d time.Duration) (result, error) {
	r, err := l.start(ctx, s)
	if err != nil {
		return result{}, err
	}
	defer r.stop()
	if err := r.wait(ctx, warm); err != nil {
		return result{}, err
	}
	before, start := l.count(r.pairs, s), time.Now()
	if err := r.wait(ctx, d); err != nil {
		return result{}, err
	}
	after := l.count(r.pairs, s)
	return result{in: after.in - before.in, out: after.out - before.out, cpu: after.cpu - before.cpu, took: time.Since(start)}, nil
}

// start connects all clients and lets them run.
func (l *load) start(ctx context.Context, s *server) (*running, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{load: l, server: s, errs: make(chan error, 1), cancel: cancel}
	for i := range l.pairs {
		p := &pair{limit: int64(cmp.Or(l.ahead, 2000))}
		p.moved.L = &p.mu
		r.pairs = append(r.pairs, p)
		if err := r.startPair(ctx, i); err != nil {
			r.stop()
			return nil, err
		}
	}
	return r, nil
}

func (r *running) startPair(ctx context.Context, i int) error {
	l, p := r.load, r.pairs[i]
	for j := range l.subscribers {
		c, err := r.dial(fmt.Sprintf("sub-%d-%d", i, j))
		if err != nil {
			return err
		}
		if err := l.subscribe(c, i); err != nil {
			return err
		}
		r.wg.Go(func() { r.fail(ctx, c.receive(p.arrived, nil)) })
	}
	for j := range l.publishers {
		c, err := r.dial(fmt.Sprintf("pub-%d-%d", i, j))
		if err != nil {
			return err
		}
		w := newWindow(cmp.Or(l.window, 100))
		if l.qos > 0 {
			r.wg.Go(func() { acknowledgements(c, w, p) })
		}
		r.wg.Go(func() { r.fail(ctx, l.publish(ctx, c, l.topics(i), p, w)) })
	}
	return nil
}

func (r *running) dial(clientID string) (*mqttConn, error) {
	c, err := r.server.dialOver(cmp.Or(r.load.over, overTCP), nil, clientID)
	if err == nil {
		r.conns = append(r.conns, c)
	}
	return c, err
}

// fail keeps the first error of a load that is not over.
func (r *running) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	select {
	case r.errs <- err:
	default:
	}
}

func (r *running) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-r.errs:
		return err
	case <-time.After(d):
		return nil
	}
}

func (r *running) stop() {
	r.cancel()
	for _, p := range r.pairs {
		p.end()
	}
	closeAll(r.conns)
	r.wg.Wait()
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
func (l *load) publish(ctx context.Context, c *mqttConn, topics []string, p *pair, w *window) error {
	packets := make([]outgoing, len(topics))
	for i, topic := range topics {
		packets[i].bytes, packets[i].idAt = publishPacket(topic, l.qos, l.payload)
	}
	defer context.AfterFunc(ctx, w.end)()
	n := min(batch, max(1, w.free/2))
	out := make([]byte, 0, n*len(packets[0].bytes))
	id, next := uint16(0), 0
	for ctx.Err() == nil && p.await(int64(l.subscribers)) {
		if l.qos > 0 && !w.take(n) {
			return nil
		}
		out = out[:0]
		for range n {
			o := packets[next]
			if l.qos > 0 {
				id = id%0xffff + 1
				binary.BigEndian.PutUint16(o.bytes[o.idAt:], id)
			}
			out = append(out, o.bytes...)
			next = (next + 1) % len(packets)
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		p.sent.Add(int64(n))
	}
	return nil
}

// outgoing is a PUBLISH and where its identifier lies.
type outgoing struct {
	bytes []byte
	idAt  int
}

func acknowledgements(c *mqttConn, w *window, p *pair) {
	defer w.end()
	for {
		n := 0
		err := c.packets(func(kind byte, _ []byte) {
			if kind == 0x40 {
				n++
			}
		})
		w.give(n)
		p.acked.Add(int64(n))
		if err != nil {
			return
		}
	}
}
