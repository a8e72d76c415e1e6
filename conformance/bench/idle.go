package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// spareFiles are left for what is not a connection.
const spareFiles = 300

// raiseFileLimit lets this process and the servers open as many files as they may.
func raiseFileLimit() error {
	l, err := fileLimit()
	if err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

func fileLimit() (l syscall.Rlimit, err error) {
	err = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return l, err
}

// idle compares what a connection costs that does nothing.
func idle(ctx context.Context, f *flags) error {
	t := newTable("idle", "resident at start", "connections", "resident with them", "KiB each", "connects/s", "of mosquitto")
	limit, err := fileLimit()
	if err != nil {
		return err
	}
	most := int(min(limit.Max, 1<<20)) - spareFiles
	measured := make(map[int]bool)
	for _, want := range f.Idle {
		n := min(want, most)
		if n < want {
			fmt.Printf("%d idle connections: no more than %d, by the limit of open files\n", want, n)
		}
		if measured[n] {
			continue
		}
		measured[n] = true
		for _, over := range []transport{overTCP, overTLS} {
			if err := compareIdle(ctx, f, t, over, n); err != nil {
				return fmt.Errorf("%d over %s: %w", n, over, err)
			}
		}
	}
	if err := compareIdle(ctx, f, t, overQUIC, idleQUIC); err != nil {
		return fmt.Errorf("%d over QUIC: %w", idleQUIC, err)
	}
	return t.Flush()
}

// idleQUIC is the count over QUIC: each client has a socket, and this process
// needs far more memory for them than the server.
const idleQUIC = 2000

func compareIdle(ctx context.Context, f *flags, t table, over transport, n int) error {
	var each []float64
	var lines []string
	for _, p := range serversOver(over) {
		s, err := p.start(f)
		if err != nil {
			return err
		}
		before, after, took, err := holdIdle(ctx, s, over, n)
		s.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		each = append(each, (after-before)/float64(n)/1024)
		lines = append(lines, fmt.Sprintf("%s, %s\t%.1f MiB\t%d\t%.1f MiB\t%.1f\t%.0f",
			p.name, over, before/(1<<20), n, after/(1<<20), each[len(each)-1], float64(n)/took.Seconds()))
	}
	ratio := ""
	if len(each) > 1 {
		ratio = fmt.Sprintf("%.1f ×", each[0]/each[1])
	}
	t.row("%s\t%s", lines[0], ratio)
	for _, line := range lines[1:] {
		t.row("%s\t", line)
	}
	return nil
}

// idleDialers connect at the same time.
const idleDialers = 8

// settleIdle is how long connections are idle before they are weighed: servers
// give back what they used for the handshake a second later.
const settleIdle = 3 * time.Second

// holdIdle opens n connections that do nothing and returns the resident bytes
// before and with them, and how long the opening took.
func holdIdle(ctx context.Context, s *server, over transport, n int) (before, after float64, took time.Duration, err error) {
	if before, err = s.resident(); err != nil {
		return 0, 0, 0, err
	}
	opened := make([][]net.Conn, idleDialers)
	defer func() { closeAll(slices.Concat(opened...)) }()
	errs := make([]error, idleDialers)
	var wg sync.WaitGroup
	start := time.Now()
	for d := range idleDialers {
		wg.Go(func() {
			for i := d; i < n && errs[d] == nil; i += idleDialers {
				var c net.Conn
				if c, errs[d] = s.openIdle(over, i); errs[d] == nil {
					opened[d], errs[d] = append(opened[d], c), ctx.Err()
				}
			}
		})
	}
	wg.Wait()
	took = time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(settleIdle)
	after, err = s.resident()
	return before, after, took, err
}

// openIdle connects and subscribes without a buffer that stays.
func (s *server) openIdle(over transport, i int) (net.Conn, error) {
	nc, err := s.open(over, source(i/perSource))
	if err != nil {
		return nil, err
	}
	c := newMQTTConn(nc, 64)
	if err = c.connect(fmt.Sprintf("idle-%d", i)); err == nil {
		err = c.subscribe(0, fmt.Sprintf("idle/%d", i))
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}
