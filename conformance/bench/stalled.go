package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The flood of the group stalled: 20 MB/s to one subscriber.
const (
	floodRate    = 20_000
	floodPayload = 1024
	floodTopic   = "flood"
	floodBatch   = 20
)

// healthy is the load of the clients that must not notice what others do.
var healthy = beat{pairs: 10, rate: 1000, qos: 1, payload: 128}

// bounded is mosquitto with its own cap on what waits for a client.
func bounded(*flags) (*server, error) { return startMosquitto("max_queued_messages 1000") }

// stalled measures what a subscriber that does not read costs the server and
// the other clients: memory, and the delays of a small load beside it.
func stalled(ctx context.Context, f *flags) error {
	t := newTable(fmt.Sprintf("healthy clients (%d msg/s, QoS 1), ms", healthy.rate), "p50", "p99", "p99.9", "lost", "resident before", "most resident", "flood msg/s")
	for _, c := range []struct {
		name         string
		flood, reads bool
		qos          byte
	}{
		{name: "alone"},
		{"beside a flood to a reader, QoS 0", true, true, 0},
		{"beside a flood to one who does not read, QoS 0", true, false, 0},
		{"the same, QoS 1", true, false, 1},
	} {
		for _, p := range []starter{mqttServers[0], {"mosquitto", bounded}} {
			s, err := p.start(f)
			if err != nil {
				return err
			}
			fl := flood{qos: c.qos, reads: c.reads, off: !c.flood}
			m, err := fl.beside(ctx, s, f.For)
			s.stop()
			if err != nil {
				return fmt.Errorf("%s, %s: %w", p.name, c.name, err)
			}
			t.row("%s, %s\t%s\t%d\t%.1f MiB\t%.1f MiB\t%.0f", p.name, c.name, m.percentiles(), m.lost, m.before/(1<<20), m.most/(1<<20), m.rate)
		}
	}
	return t.Flush()
}

// flood is a publisher to a subscriber who may not read.
type flood struct {
	qos   byte
	reads bool
	off   bool
	sent  atomic.Int64
}

type stalledResult struct {
	measured
	before, most float64 // resident bytes
	rate         float64 // of the flood
}

// beside measures the healthy clients beside the flood.
func (fl *flood) beside(ctx context.Context, s *server, d time.Duration) (r stalledResult, err error) {
	if r.before, err = s.resident(); err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if !fl.off {
		if err := fl.start(ctx, s, &wg); err != nil {
			return r, err
		}
	}
	most := make(chan float64, 1)
	wg.Go(func() { most <- s.peak(ctx) })
	start := time.Now()
	r.measured, err = healthy.run(ctx, s, d)
	r.rate = float64(fl.sent.Load()) / time.Since(start).Seconds()
	cancel()
	r.most = <-most
	return r, err
}

// peak is the most memory that the server had until ctx ended.
func (s *server) peak(ctx context.Context) (most float64) {
	for ctx.Err() == nil {
		if now, err := s.resident(); err == nil {
			most = max(most, now)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return most
}

// start subscribes and lets the publisher run until ctx ends. A publisher that
// the server holds up sends less.
func (fl *flood) start(ctx context.Context, s *server, wg *sync.WaitGroup) error {
	sub, err := s.dial("flooded")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { sub.Close() })
	if err := sub.subscribe(fl.qos, floodTopic); err != nil {
		return err
	}
	if fl.reads {
		wg.Go(func() { _ = sub.receive(func(int) {}, nil) })
	} else if tcp, ok := sub.Conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(4096) // the kernel is not to read in its place
	}
	pub, err := s.dial("flood")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { pub.Close() })
	wg.Go(func() { _ = pub.discard() })
	wg.Go(func() { fl.publish(ctx, pub) })
	return nil
}

func (fl *flood) publish(ctx context.Context, c *mqttConn) {
	one, idAt := publishPacket(floodTopic, fl.qos, floodPayload)
	var out []byte
	id := uint16(0)
	tick := time.NewTicker(time.Second * floodBatch / floodRate)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		out = out[:0]
		for range floodBatch {
			if fl.qos > 0 {
				id = id%0xffff + 1
				binary.BigEndian.PutUint16(one[idAt:], id)
			}
			out = append(out, one...)
		}
		if _, err := c.Write(out); err != nil {
			return // the load is over
		}
		fl.sent.Add(floodBatch)
	}
}
