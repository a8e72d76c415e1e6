package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Clients that connect and disconnect, per second. The handshake of TLS and
// QUIC costs both sides so much that two cores cannot do it at the full rate.
const (
	stormRate     = 2000
	stormRateTLS  = 500
	stormRateQUIC = 100 // most of the work is the clients', who each open a socket
)

const (
	stormTimeout = 5 * time.Second
	stormSources = 50 // addresses that the clients come from
)

// storm measures connects at a fixed rate, and the delays of a small load beside it.
func storm(ctx context.Context, f *flags) error {
	t := newTable("connects (CONNECT to CONNACK, ms)", "per second", "succeeded", "p50", "p99", "p99.9", "µs CPU each", "healthy p99", "p99 of mosquitto / p99 of gantry")
	for _, c := range []struct {
		over transport
		rate int
	}{{overTCP, stormRate}, {overTLS, stormRateTLS}, {overQUIC, stormRateQUIC}} {
		var gantry float64
		for _, p := range serversOver(c.over) {
			s, err := p.start(f)
			if err != nil {
				return err
			}
			r, err := stormBeside(ctx, s, c.over, c.rate, f.For)
			s.stop()
			if err != nil {
				return fmt.Errorf("%s over %s: %w", p.name, c.over, err)
			}
			ratio := ""
			if p99 := r.at(99); gantry == 0 {
				gantry = p99
			} else {
				ratio = fmt.Sprintf("%.1f", p99/gantry)
			}
			t.row("%s, %s\t%d\t%.2f %%\t%s\t%.0f\t%.2f\t%s", p.name, c.over, c.rate, 100*float64(len(r.delays))/float64(r.tried),
				r.percentiles(), r.cpu.Seconds()*1e6/float64(r.tried), r.healthy.at(99), ratio)
		}
	}
	return t.Flush()
}

type stormResult struct {
	delays  // of those that succeeded
	tried   int
	cpu     time.Duration // of the server, the healthy load included
	healthy measured
}

func stormBeside(ctx context.Context, s *server, over transport, rate int, d time.Duration) (r stormResult, err error) {
	done := make(chan error, 1)
	before := s.cpu()
	go func() {
		var err error
		r.healthy, err = healthy.run(ctx, s, d)
		done <- err
	}()
	time.Sleep(warm / 2) // the healthy clients are connected before it begins, and measured while it goes on
	r.tried, r.delays = connects(ctx, s, over, rate, warm+d)
	err = <-done
	r.cpu = s.cpu() - before
	return r, err
}

// connects lets clients come and go at a fixed rate. A delay runs from the
// moment at which the client was to come.
func connects(ctx context.Context, s *server, over transport, rate int, d time.Duration) (tried int, ok delays) {
	var wg sync.WaitGroup
	var mu sync.Mutex // covers ok
	start := time.Now()
	interval := time.Second / time.Duration(rate)
	for due := time.Duration(0); due < d && ctx.Err() == nil; due += interval {
		if ahead := due - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		n := tried
		wg.Go(func() {
			if s.comeAndGo(over, n) != nil {
				return
			}
			delay := time.Since(start) - due
			mu.Lock()
			ok = append(ok, delay)
			mu.Unlock()
		})
		tried++
	}
	wg.Wait()
	slices.Sort(ok)
	return tried, ok
}

// disconnect is the DISCONNECT packet.
var disconnect = []byte{0xe0, 0}

func (s *server) comeAndGo(over transport, n int) error {
	nc, err := s.open(over, source(n%stormSources))
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(stormTimeout)); err != nil {
		return err
	}
	c := newMQTTConn(nc, 64)
	if err := c.connect(fmt.Sprintf("storm-%d", n)); err != nil {
		return err
	}
	_, err = c.Write(disconnect)
	return err
}
