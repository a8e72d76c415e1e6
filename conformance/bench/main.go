// Command bench measures the gateway beside mosquitto, on the same machine and
// in the same run: the load comes from this process, the servers are processes
// of their own. It prints figures and judges nothing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
)

type flags struct {
	For     time.Duration `default:"5s" help:"How long each measurement takes."`
	Gantry  string        `default:"bin/gantry" placeholder:"PATH" help:"The gateway's program."`
	Payload int           `default:"128" help:"Bytes of a payload."`
	Idle    int           `default:"2000" help:"Connections of the idle measurement."`
	Only    string        `placeholder:"NAME" help:"Run one group only: pubsub, durable, kafka, coap or idle."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("bench"), kong.Description("Measures the gateway beside mosquitto."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f *flags) error {
	for _, g := range []struct {
		name string
		run  func(context.Context, *flags) error
	}{
		{"pubsub", pubsub}, {"idle", idle}, {"durable", durable}, {"kafka", toKafka}, {"coap", coapPut},
	} {
		if f.Only != "" && f.Only != g.name {
			continue
		}
		if err := g.run(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		fmt.Println()
	}
	return nil
}

// pubsub compares the delivery of messages between clients.
func pubsub(ctx context.Context, f *flags) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "deliveries/s, %d B\tgantry\tmosquitto\tratio\tgantry µs CPU/msg\tmosquitto µs CPU/msg\t\n", f.Payload)
	for _, l := range []load{
		{name: "QoS 0, 10 → 10", pairs: 10, publishers: 1, subscribers: 1},
		{name: "QoS 1, 10 → 10", pairs: 10, publishers: 1, subscribers: 1, qos: 1},
		{name: "QoS 0, fan-in 50 → 1", pairs: 1, publishers: 50, subscribers: 1},
		{name: "QoS 1, fan-in 50 → 1", pairs: 1, publishers: 50, subscribers: 1, qos: 1},
		{name: "QoS 0, fan-out 1 → 50", pairs: 1, publishers: 1, subscribers: 50},
		{name: "QoS 1, fan-out 1 → 50", pairs: 1, publishers: 1, subscribers: 50, qos: 1},
	} {
		l.payload = f.Payload
		var got [2]result
		for i, start := range []func(*flags, string) (*server, error){startGantry, startMosquitto} {
			r, err := measure(ctx, f, start, &l)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			got[i] = r
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.1f\t%.2f\t%.2f\t\n", l.name, got[0].rate(), got[1].rate(), got[0].rate()/got[1].rate(), got[0].cpuPerMessage(), got[1].cpuPerMessage())
	}
	return t.Flush()
}

func measure(ctx context.Context, f *flags, start func(*flags, string) (*server, error), l *load) (result, error) {
	s, err := start(f, "")
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	return l.run(ctx, s, f.For)
}

// idle compares what a connection costs that does nothing.
func idle(ctx context.Context, f *flags) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "idle\tresident at start\t%d connections\tper connection\t\n", f.Idle)
	for _, p := range []struct {
		name  string
		start func(*flags, string) (*server, error)
	}{{"gantry", startGantry}, {"mosquitto", startMosquitto}} {
		s, err := p.start(f, "")
		if err != nil {
			return err
		}
		before, after, err := holdIdle(ctx, s, f.Idle)
		s.stop()
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%.1f MiB\t%.1f MiB\t%.1f KiB\t\n", p.name, before/(1<<20), after/(1<<20), (after-before)/float64(f.Idle)/1024)
	}
	return t.Flush()
}
