// Command bench measures the gateway beside mosquitto, on the same machine and
// in the same run: the load comes from this process, the servers are processes
// of their own. It prints figures and judges nothing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type flags struct {
	For     time.Duration `default:"5s" help:"How long each measurement takes."`
	Gantry  string        `default:"bin/gantry" placeholder:"PATH" help:"The gateway's program."`
	Payload int           `default:"128" help:"Bytes of a payload."`
	Idle    []int         `default:"10000,50000" help:"Connections of the idle measurement, as far as the limit of open files permits."`
	Only    []string      `placeholder:"NAME" help:"Run these groups only: pubsub, transport, latency, idle, wildcard, stalled, storm, durable, kafka, coap."`
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
	if err := raiseFileLimit(); err != nil {
		return err
	}
	for _, g := range []struct {
		name string
		run  func(context.Context, *flags) error
	}{
		{"pubsub", pubsub},
		{"transport", transports},
		{"latency", latency},
		{"idle", idle},
		{"wildcard", wildcard},
		{"stalled", stalled},
		{"storm", storm},
		{"durable", durable},
		{"kafka", toKafka},
		{"coap", coapPut},
	} {
		if len(f.Only) > 0 && !slices.Contains(f.Only, g.name) {
			continue
		}
		if err := g.run(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		fmt.Println()
	}
	return nil
}
