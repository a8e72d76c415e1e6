package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"text/tabwriter"
)

// pubsub compares the delivery of messages between clients over TCP.
func pubsub(ctx context.Context, f *flags) error {
	return compare(ctx, f, []load{
		{name: "QoS 0, 10 → 10", pairs: 10, publishers: 1, subscribers: 1},
		{name: "QoS 1, 10 → 10", pairs: 10, publishers: 1, subscribers: 1, qos: 1},
		{name: "QoS 0, fan-in 50 → 1", pairs: 1, publishers: 50, subscribers: 1},
		{name: "QoS 1, fan-in 50 → 1", pairs: 1, publishers: 50, subscribers: 1, qos: 1},
		{name: "QoS 0, fan-out 1 → 50", pairs: 1, publishers: 1, subscribers: 50},
		{name: "QoS 1, fan-out 1 → 50", pairs: 1, publishers: 1, subscribers: 50, qos: 1},
	})
}

// transports compares it over the others.
func transports(ctx context.Context, f *flags) error {
	var loads []load
	for _, over := range []transport{overTLS, overWebSocket} {
		for _, qos := range []byte{0, 1} {
			loads = append(loads, load{name: fmt.Sprintf("%s, QoS %d, 10 → 10", over, qos), pairs: 10, publishers: 1, subscribers: 1, qos: qos, over: over})
		}
	}
	if err := compare(ctx, f, loads); err != nil {
		return err
	}
	return quicBesideTLS(ctx, f)
}

// quicBesideTLS compares the gateway with itself: mosquitto has no QUIC.
func quicBesideTLS(ctx context.Context, f *flags) error {
	t := newTable(fmt.Sprintf("\ngantry, deliveries/s, %d B", f.Payload), "QUIC", "TLS", "ratio", "QUIC µs CPU/msg", "TLS µs CPU/msg")
	for _, qos := range []byte{0, 1} {
		var got [2]result
		for i, over := range []transport{overQUIC, overTLS} {
			l := load{pairs: 10, publishers: 1, subscribers: 1, qos: qos, payload: f.Payload, over: over}
			r, err := measure(ctx, f, mqttServers[0], &l)
			if err != nil {
				return fmt.Errorf("%s, QoS %d: %w", over, qos, err)
			}
			got[i] = r
		}
		t.row("QoS %d, 10 → 10\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f", qos, got[0].rate(), got[1].rate(), got[0].rate()/got[1].rate(), got[0].cpuPerMessage(), got[1].cpuPerMessage())
	}
	return t.Flush()
}

func compare(ctx context.Context, f *flags, loads []load) error {
	t := newTable(fmt.Sprintf("deliveries/s, %d B", f.Payload), "gantry", "mosquitto", "ratio", "gantry µs CPU/msg", "mosquitto µs CPU/msg")
	for _, l := range loads {
		l.payload = cmp.Or(l.payload, f.Payload)
		var got [2]result
		for i, p := range mqttServers {
			r, err := measure(ctx, f, p, &l)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", l.name, p.name, err)
			}
			got[i] = r
		}
		t.row("%s\t%.0f\t%.0f\t%.1f\t%.2f\t%.2f", l.name, got[0].rate(), got[1].rate(), got[0].rate()/got[1].rate(), got[0].cpuPerMessage(), got[1].cpuPerMessage())
	}
	return t.Flush()
}

func measure(ctx context.Context, f *flags, p starter, l *load) (result, error) {
	s, err := p.start(f)
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	return l.run(ctx, s, f.For)
}

// table prints aligned columns, the first line of which are its heads.
type table struct{ *tabwriter.Writer }

func newTable(heads ...string) table {
	t := table{tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)}
	for _, h := range heads {
		fmt.Fprint(t, h, "\t")
	}
	fmt.Fprintln(t)
	return t
}

// row adds a line; its cells are separated by tabs.
func (t table) row(format string, args ...any) { fmt.Fprintf(t, format+"\t\n", args...) }
