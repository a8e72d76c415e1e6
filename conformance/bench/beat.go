package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// beat is a load at a fixed rate, whose delays are measured. A message's delay
// runs from the moment at which it was to be sent, so that a server that
// holds the sender up does not look fast.
type beat struct {
	over    transport
	pairs   int
	rate    int // messages per second of all pairs together
	qos     byte
	payload int
}

// pulse is a beat that has been started.
type pulse struct {
	beat     *beat
	start    time.Time
	pubs     []*mqttConn
	subs     []*mqttConn
	wg       sync.WaitGroup
	sent     int
	received atomic.Int64

	mu     sync.Mutex // covers delays
	delays delays
	from   time.Duration // messages that were due earlier are not measured
}

// measured is what a beat gave.
type measured struct {
	delays
	lost int64 // not delivered within lostAfter
}

// lostAfter is how long after the last message nothing is expected any more.
const lostAfter = 5 * time.Second

// run beats for a second, and then measures.
func (b *beat) run(ctx context.Context, s *server, d time.Duration) (measured, error) {
	p := &pulse{beat: b, from: warm}
	defer p.stop()
	for i := range b.pairs {
		if err := p.connect(s, i); err != nil {
			return measured{}, err
		}
	}
	p.start = time.Now()
	for i := range b.pairs {
		p.wg.Go(func() { _ = p.subs[i].receive(func(int) {}, p.arrived) })
		p.wg.Go(func() { _ = p.pubs[i].discard() })
	}
	if err := p.send(ctx, warm+d); err != nil {
		return measured{}, err
	}
	for end := time.Now().Add(lostAfter); p.received.Load() < int64(p.sent) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.delays)
	return measured{p.delays, int64(p.sent) - p.received.Load()}, nil
}

func (p *pulse) connect(s *server, i int) error {
	over := cmp.Or(p.beat.over, overTCP)
	sub, err := s.dialOver(over, nil, fmt.Sprintf("beat-sub-%d", i))
	if err != nil {
		return err
	}
	p.subs = append(p.subs, sub)
	pub, err := s.dialOver(over, nil, fmt.Sprintf("beat-pub-%d", i))
	if err != nil {
		return err
	}
	p.pubs = append(p.pubs, pub)
	return sub.subscribe(p.beat.qos, beatTopic(i))
}

func beatTopic(i int) string { return fmt.Sprintf("beat/%d", i) }

func (p *pulse) arrived(payload []byte) {
	at := time.Since(p.start)
	p.received.Add(1)
	due := time.Duration(binary.BigEndian.Uint64(payload))
	if due < p.from {
		return
	}
	p.mu.Lock()
	p.delays = append(p.delays, at-due)
	p.mu.Unlock()
}

// send keeps the rate: what is late is sent at once.
func (p *pulse) send(ctx context.Context, d time.Duration) error {
	b := p.beat
	payload := max(b.payload, 8)
	packets := make([]outgoing, b.pairs)
	for i := range packets {
		packets[i].bytes, packets[i].idAt = publishPacket(beatTopic(i), b.qos, payload)
	}
	interval := time.Second / time.Duration(b.rate)
	id := uint16(0)
	for due := time.Duration(0); due < d; due += interval {
		if ahead := due - time.Since(p.start); ahead > 0 {
			time.Sleep(ahead)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		i := p.sent % b.pairs
		o := packets[i]
		if i == 0 {
			id = id%0xffff + 1
		}
		if b.qos > 0 {
			binary.BigEndian.PutUint16(o.bytes[o.idAt:], id)
		}
		binary.BigEndian.PutUint64(o.bytes[len(o.bytes)-payload:], uint64(due))
		if _, err := p.pubs[i].Write(o.bytes); err != nil {
			return err
		}
		p.sent++
	}
	return nil
}

func (p *pulse) stop() {
	closeAll(slices.Concat(p.pubs, p.subs))
	p.wg.Wait()
}

// delays are sorted once they are complete.
type delays []time.Duration

// at is a percentile in milliseconds.
func (d delays) at(percent float64) float64 {
	if len(d) == 0 {
		return 0
	}
	i := min(len(d)-1, int(percent/100*float64(len(d))))
	return d[i].Seconds() * 1e3
}

// percentiles are the cells of a table.
func (d delays) percentiles() string {
	return fmt.Sprintf("%.2f\t%.2f\t%.2f", d.at(50), d.at(99), d.at(99.9))
}
