package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"gantry/conformance/standin"
)

const bridgeYAML = `
bridges:
  - name: bench
    type: kafka
    brokers: [%q]
    queue: {max_bytes: 20GiB, when_full: refuse}
    routes: [{filter: "bench/#", topic: bench, key: "${clientid}"}]
`

// durable measures how many QoS 1 messages per second are acknowledged when
// each acknowledgement waits for the disk, beside the bare disk.
func durable(ctx context.Context, f *flags) error {
	s, err := startGantry(f, fmt.Sprintf(bridgeYAML, "127.0.0.1:1")) // nobody listens there: everything stays in the queue
	if err != nil {
		return err
	}
	defer s.stop()
	l := load{pairs: 1, publishers: 50, qos: 1, payload: f.Payload, ackedOnly: true, window: 200}
	r, err := l.run(ctx, s, f.For)
	if err != nil {
		return err
	}
	bare, err := bareDisk(filepath.Join(s.dir, "bare"), f.Payload, f.For)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "QoS 1, durability sync, into one bridge queue\tacknowledged/s\tµs CPU/msg\tof the bare file\t")
	fmt.Fprintf(t, "gantry, 50 publishers × window 200\t%.0f\t%.2f\t%.0f %%\t\n", r.rate(), r.cpu.Seconds()*1e6/float64(r.out), 100*r.rate()/bare)
	fmt.Fprintf(t, "write + fdatasync of 1024 records at a time\t%.0f\t\t\t\n", bare)
	return t.Flush()
}

// bareDisk appends groups of records to one file, each with an fsync.
func bareDisk(path string, payload int, d time.Duration) (perSecond float64, err error) {
	const group, overhead = 1024, 64
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, group*(payload+overhead))
	start := time.Now()
	n := 0
	for time.Since(start) < d {
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n += group
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// toKafka measures messages from a QoS 1 publisher to Kafka, end to end, and
// then how fast a backlog drains.
func toKafka(ctx context.Context, f *flags) error {
	k, err := standin.NewKafka(kfake.SeedTopics(4, "bench"), kfake.BrokerConfigs(map[string]string{"log.retention.bytes": "67108864"}))
	if err != nil {
		return err
	}
	defer k.Close()
	s, err := startGantry(f, fmt.Sprintf(bridgeYAML, k.Addr))
	if err != nil {
		return err
	}
	defer s.stop()
	l := load{pairs: 1, publishers: 8, qos: 1, payload: 200, ackedOnly: true, window: 200}
	before, err := endOffsets(ctx, k.Addr)
	if err != nil {
		return err
	}
	cpu, start := s.cpu(), time.Now()
	if _, err := l.run(ctx, s, f.For); err != nil {
		return err
	}
	after, err := endOffsets(ctx, k.Addr)
	if err != nil {
		return err
	}
	n, took := float64(after-before), time.Since(start).Seconds()
	used := (s.cpu() - cpu).Seconds()
	if err := k.Cut(); err != nil {
		return err
	}
	r, err := l.run(ctx, s, f.For)
	if err != nil {
		return err
	}
	drained, rate, err := drain(ctx, k, after)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "MQTT QoS 1 → queue → Kafka stand-in (in the load's process), 200 B\tmessages/s\tgantry CPU s/million\t")
	fmt.Fprintf(t, "end to end\t%.0f\t%.1f\t\n", n/took, used/n*1e6)
	fmt.Fprintf(t, "into the queue while Kafka is away\t%.0f\t\t\n", r.rate())
	fmt.Fprintf(t, "drain of a backlog of %d\t%.0f\t\t\n", drained, rate)
	return t.Flush()
}

// drain restores the uplink and measures until nothing more comes.
func drain(ctx context.Context, k *standin.Kafka, before int64) (n int64, perSecond float64, err error) {
	if err := k.Restore(); err != nil {
		return 0, 0, err
	}
	var first, last time.Time
	at := before
	for quiet := time.Now(); time.Since(quiet) < 3*time.Second || first.IsZero(); time.Sleep(20 * time.Millisecond) {
		if time.Since(quiet) > time.Minute {
			return 0, 0, fmt.Errorf("nothing came within a minute of the uplink's return")
		}
		now, err := endOffsets(ctx, k.Addr)
		if err != nil {
			return 0, 0, err
		}
		if now == at {
			continue
		}
		if first.IsZero() {
			first = time.Now()
			before = now // what came before the first look is not timed
		}
		at, last, quiet = now, time.Now(), time.Now()
	}
	return at - before, float64(at-before) / last.Sub(first).Seconds(), nil
}

// endOffsets sums the end offsets of the topic's partitions: what has arrived.
func endOffsets(ctx context.Context, addr string) (sum int64, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	ends, err := listEndOffsets(ctx, cl, "bench", 4)
	for _, e := range ends {
		sum += e
	}
	return sum, err
}
