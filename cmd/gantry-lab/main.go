// Command gantry-lab is the demonstration of the gateway, with nothing
// installed: simulated devices on three protocols, a gateway, and a Kafka
// stand-in in this process. It shows what goes in and what comes out, cuts the
// uplink for a while, and ends with a verdict. It exits with 1 when anything
// that was acknowledged is not in Kafka.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type flags struct {
	For     time.Duration `default:"30s" help:"How long the devices publish."`
	Cut     time.Duration `default:"5s" help:"How long the uplink is away, in the middle of that time; 0 = never."`
	Devices int           `default:"10" help:"Devices of each protocol."`
	Rate    float64       `default:"20" help:"Messages per second of each device."`
	Settle  time.Duration `default:"30s" help:"How long to wait at the end for the queue to empty."`
	Data    string        `placeholder:"DIR" help:"Data folder. Default: a temporary one that is removed at the end."`
	Verbose bool          `short:"v" help:"Show the log of the gateway."`
}

func (f *flags) Validate() error {
	switch {
	case f.For <= 0:
		return fmt.Errorf("--for %s is not positive", f.For)
	case f.Cut < 0 || f.Cut >= f.For:
		return fmt.Errorf("--cut %s must be shorter than --for %s", f.Cut, f.For)
	case f.Devices < 1 || f.Devices > 500:
		return fmt.Errorf("--devices %d is not between 1 and 500", f.Devices)
	case f.Rate <= 0 || f.Rate > 250:
		return fmt.Errorf("--rate %g is not between 0 and 250: a CoAP client may not send more", f.Rate)
	}
	return nil
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("gantry-lab"), kong.Description("A gateway, simulated devices and a Kafka stand-in, with an uplink that is cut for a while."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	v, err := run(ctx, &f, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gantry-lab:", err)
		os.Exit(1)
	}
	fmt.Println(v)
	if v.lost > 0 {
		os.Exit(1)
	}
}
