package main

import (
	"context"
	"fmt"
	"time"
)

// The load of the wildcard group: 100 clients with 1,000 filters each, and as
// many publishers, each of which rotates through 1,000 topics. Every message
// matches one filter.
const (
	wildcardClients = 100
	wildcardFilters = 1000
)

// wildcard compares delivery among 100,000 subscriptions, and what these cost.
func wildcard(ctx context.Context, f *flags) error {
	l := load{pairs: wildcardClients, publishers: 1, subscribers: 1, payload: f.Payload, filters: wildcardFilters, ahead: 200}
	const all = wildcardClients * wildcardFilters
	t := newTable(fmt.Sprintf("%d subscriptions with wildcards, QoS 0, %d B", all, f.Payload), "deliveries/s", "of mosquitto", "µs CPU/msg", "B resident per subscription", "subscriptions/s")
	var lines [2]string
	var rates [2]float64
	for i, p := range mqttServers {
		s, err := p.start(f)
		if err != nil {
			return err
		}
		each, took, err := weighFilters(s, &l)
		if err == nil {
			var r result
			r, err = l.run(ctx, s, f.For)
			rates[i] = r.rate()
			lines[i] = fmt.Sprintf("%.2f\t%.0f\t%.0f", r.cpuPerMessage(), each, all/took.Seconds())
		}
		s.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	t.row("gantry\t%.0f\t%.1f ×\t%s", rates[0], rates[0]/rates[1], lines[0])
	t.row("mosquitto\t%.0f\t\t%s", rates[1], lines[1])
	return t.Flush()
}

// weighFilters subscribes to all filters and disconnects.
func weighFilters(s *server, l *load) (bytesEach float64, took time.Duration, err error) {
	conns := make([]*mqttConn, l.pairs)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		if conns[i], err = s.dial(fmt.Sprintf("filters-%d", i)); err != nil {
			return 0, 0, err
		}
	}
	before, err := s.resident()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	for i, c := range conns {
		if err := l.subscribe(c, i); err != nil {
			return 0, 0, err
		}
	}
	took = time.Since(start)
	after, err := s.resident()
	return (after - before) / float64(l.pairs*l.filters), took, err
}
