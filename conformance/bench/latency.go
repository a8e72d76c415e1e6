package main

import (
	"context"
	"fmt"
)

// latencyRate is the load at which delays are compared, in messages per second
// of ten pairs together: far below what any of the servers can do.
const latencyRate = 10_000

// latency compares the delays of messages at a fixed rate.
func latency(ctx context.Context, f *flags) error {
	t := newTable(fmt.Sprintf("ms at %d msg/s, %d B", latencyRate, f.Payload), "p50", "p99", "p99.9", "µs CPU/msg", "lost", "p99 of mosquitto / p99 of gantry")
	for _, over := range []transport{overTCP, overTLS, overWebSocket, overQUIC} {
		for _, qos := range []byte{0, 1} {
			b := beat{over: over, pairs: 10, rate: latencyRate, qos: qos, payload: f.Payload}
			if err := compareBeat(ctx, f, t, fmt.Sprintf("%s, QoS %d", over, qos), &b); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

// latencyRounds are measured in turn, and the one with the lowest p99 counts:
// what else the machine does in a round is in the delays of all of it.
const latencyRounds = 3

func compareBeat(ctx context.Context, f *flags, t table, name string, b *beat) error {
	servers := serversOver(b.over)
	best, cpu := make([]measured, len(servers)), make([]float64, len(servers))
	for round := range latencyRounds {
		for i, p := range servers {
			m, used, err := beatOnce(ctx, f, p, b)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, p.name, err)
			}
			m.lost += best[i].lost
			if lost := m.lost; round > 0 && m.at(99) > best[i].at(99) {
				best[i].lost = lost
				continue
			}
			best[i], cpu[i] = m, used
		}
	}
	for i, p := range servers {
		ratio := ""
		if i > 0 {
			ratio = fmt.Sprintf("%.1f", best[i].at(99)/best[0].at(99))
		}
		t.row("%s, %s\t%s\t%.1f\t%d\t%s", name, p.name, best[i].percentiles(), cpu[i], best[i].lost, ratio)
	}
	return nil
}

// beatOnce returns µs of CPU per message beside the delays.
func beatOnce(ctx context.Context, f *flags, p starter, b *beat) (m measured, cpu float64, err error) {
	s, err := p.start(f)
	if err != nil {
		return m, 0, err
	}
	defer s.stop()
	before := s.cpu()
	m, err = b.run(ctx, s, f.For)
	messages := 2 * float64(b.rate) * (warm + f.For).Seconds()
	return m, (s.cpu() - before).Seconds() * 1e6 / messages, err
}
