package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"gantry/conformance/standin"
	"gantry/gateway"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

const (
	labTopic   = "lab"
	labBridge  = "uplink"
	anyPort    = "127.0.0.1:0"
	partitions = 4
)

// lab is one run.
type lab struct {
	flags   *flags
	ledger  *ledger
	kafka   *standin.Kafka
	gateway *gateway.Gateway
	admin   *admin.Client
	addrs   map[string]net.Addr
}

// run returns the verdict; an error means that the lab itself did not work.
func run(ctx context.Context, f *flags, out io.Writer) (verdict, error) {
	dir, remove, err := dataDir(f)
	if err != nil {
		return verdict{}, err
	}
	defer remove()
	l := &lab{flags: f, ledger: newLedger()}
	if l.kafka, err = standin.NewKafka(kfake.SeedTopics(partitions, labTopic)); err != nil {
		return verdict{}, err
	}
	defer l.kafka.Close()
	cfg := labConfig(dir, l.kafka.Addr)
	if l.gateway, err = gateway.New(cfg, labLog(f)); err != nil {
		return verdict{}, err
	}
	l.addrs = l.gateway.Addrs()
	token, err := admin.ReadToken(cfg.TokenPath())
	if err == nil {
		l.admin, err = admin.NewClient(l.addrs["admin"].String(), token)
	}
	if err != nil {
		return verdict{}, errors.Join(err, l.gateway.Close())
	}
	return l.serve(ctx, out)
}

func dataDir(f *flags) (dir string, remove func(), err error) {
	if f.Data != "" {
		return f.Data, func() {}, nil
	}
	dir, err = os.MkdirTemp("", "gantry-lab-")
	return dir, func() { os.RemoveAll(dir) }, err //nolint:errcheck // a temporary folder
}

func labConfig(dir, kafka string) *config.Config {
	c := config.Default()
	c.Node, c.DataDir = "lab", dir
	c.Listeners.MQTT[0].Bind, c.Listeners.CoAP[0].Bind, c.Listeners.HTTP[0].Bind, c.Admin.Bind = anyPort, anyPort, anyPort, anyPort
	c.Listeners.MQTT[0].Name, c.Listeners.CoAP[0].Name, c.Listeners.HTTP[0].Name = "mqtt", "coap", "http"
	c.Bridges = []config.Bridge{{
		Name: labBridge, Type: config.BridgeKafka, Brokers: []config.Addr{config.Addr(kafka)},
		Queue:      config.Queue{MaxBytes: config.GiB, WhenFull: config.QueueRefuse, SegmentBytes: 16 * config.MiB},
		DeadLetter: config.DeadLetter{MaxBytes: 64 * config.MiB},
		Routes:     []config.Route{{Filter: "lab/#", Topic: labTopic, Key: "${clientid}", Format: config.FormatRaw}},
	}}
	return c
}

func labLog(f *flags) *slog.Logger {
	if !f.Verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// serve runs gateway, consumer and devices, and stops them in order.
func (l *lab) serve(ctx context.Context, out io.Writer) (verdict, error) {
	outer, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var parts sync.WaitGroup
	failed := make(chan error, 2)
	parts.Go(func() { failed <- l.gateway.Run(outer) })
	parts.Go(func() { failed <- l.consume(outer) })
	screen := newScreen(out)
	ended := make(chan error, 1)
	parts.Go(func() { ended <- l.work(ctx, screen) })
	var err error
	select {
	case err = <-ended:
	case err = <-failed:
		err = fmt.Errorf("ended too early: %w", err)
	}
	stop()
	parts.Wait()
	return l.ledger.verdict(), err
}

// work lets the devices publish, cuts the uplink in the middle, and waits
// until everything that was acknowledged has come out.
func (l *lab) work(ctx context.Context, screen *screen) error {
	publishing, stop := context.WithTimeout(ctx, l.flags.For)
	defer stop()
	var devices sync.WaitGroup
	for _, p := range protocols {
		for i := range l.flags.Devices {
			d := l.ledger.device(p.name, fmt.Sprintf("%s-%03d", p.name, i))
			devices.Go(func() { d.publish(publishing, p.dial, l.addrs[p.name].String(), l.flags.Rate) })
		}
	}
	var cutErr error
	devices.Go(func() { cutErr = l.cutUplink(publishing, screen) })
	published := make(chan struct{})
	go func() {
		devices.Wait()
		close(published)
	}()
	l.watch(published, screen)
	deadline := time.After(l.flags.Settle)
	for l.ledger.verdict().lost > 0 {
		select {
		case <-deadline:
			return cutErr
		case <-time.After(100 * time.Millisecond):
			screen.draw(l.rows())
		}
	}
	screen.end(l.rows())
	return cutErr
}

func (l *lab) watch(published <-chan struct{}, screen *screen) {
	tick := time.NewTicker(screen.every)
	defer tick.Stop()
	for {
		select {
		case <-published:
			return
		case <-tick.C:
			screen.draw(l.rows())
		}
	}
}

func (l *lab) cutUplink(ctx context.Context, screen *screen) error {
	if l.flags.Cut == 0 || !pause(ctx, (l.flags.For-l.flags.Cut)/2) {
		return nil
	}
	if err := l.kafka.Cut(); err != nil {
		return err
	}
	screen.uplink(false)
	pause(ctx, l.flags.Cut)
	if err := l.kafka.Restore(); err != nil {
		return err
	}
	screen.uplink(true)
	return nil
}

// pause waits and reports whether the time passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
