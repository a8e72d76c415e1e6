package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"gantry/bridge/queue"
	"gantry/gateway"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

// queueCmds ask a running gateway. Where none runs they read the data folder of the configuration, without changing it.
type queueCmds struct {
	Ls   queueLsCmd   `cmd:"" help:"List the queues."`
	Peek queuePeekCmd `cmd:"" help:"Show the first records of a queue, without taking them out."`
}

type queueLsCmd struct{ operator }

// queueInfo is one line of gantry queue ls.
type queueInfo struct {
	Name             string  `json:"name"`
	Records          uint64  `json:"records"`
	Bytes            int64   `json:"bytes"`
	MaxBytes         int64   `json:"max_bytes,omitempty"` // of a running gateway
	OldestAgeSeconds float64 `json:"oldest_age_seconds"`
	DeadLetters      uint64  `json:"dead_letters"`
}

// Run prints one line per queue.
func (c *queueLsCmd) Run(ctx context.Context, s streams) error {
	queues, err := c.list(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, queues)
	}
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tRECORDS\tBYTES\tOF\tOLDEST\tDEAD")
	for _, q := range queues {
		limit := "-"
		if q.MaxBytes > 0 {
			limit = size(q.MaxBytes)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\n", q.Name, q.Records, size(q.Bytes), limit, seconds(q.OldestAgeSeconds), q.DeadLetters)
	}
	return t.Flush()
}

func (c *queueLsCmd) list(ctx context.Context) ([]queueInfo, error) {
	client, cfg, err := c.client()
	if err == nil {
		var bridges []admin.Bridge
		if bridges, err = client.Bridges(ctx); err == nil {
			return queuesOf(bridges), nil
		}
	}
	if !c.offline(err) {
		return nil, explain(err)
	}
	return queuesBelow(cfg)
}

// offline reports whether an error means that the data folder is to be read instead: no gateway runs, and the user did not name one.
func (o *target) offline(err error) bool { return o.Admin == "" && o.Token == "" && notRunning(err) }

func queuesOf(bridges []admin.Bridge) []queueInfo {
	queues := make([]queueInfo, len(bridges))
	for i, b := range bridges {
		queues[i] = queueInfo{b.Name, b.QueuedRecords, b.QueuedBytes, b.MaxBytes, b.OldestAgeSeconds, b.DeadLetters}
	}
	return queues
}

// queuesBelow reads every queue folder, also that of a bridge that is not configured any more.
func queuesBelow(cfg *config.Config) ([]queueInfo, error) {
	folders, err := os.ReadDir(filepath.Dir(gateway.QueueDir(cfg.DataDir, "any")))
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(cfg.DataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("no gateway answers, and its data cannot be read: %w", err)
	}
	queues := []queueInfo{}
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		q, err := inspect(gateway.QueueDir(cfg.DataDir, folder.Name()))
		if err != nil {
			return nil, err
		}
		queues = append(queues, q)
	}
	return queues, nil
}

func inspect(dir string) (queueInfo, error) {
	s, err := queue.Inspect(dir)
	if err != nil {
		return queueInfo{}, err
	}
	q := queueInfo{Name: filepath.Base(dir), Records: s.Records, Bytes: s.Bytes, DeadLetters: s.DeadLetters}
	for oldest, err := range s.All() {
		if err != nil {
			return q, err
		}
		q.OldestAgeSeconds = max(0, time.Since(oldest.Time).Seconds())
		break
	}
	return q, nil
}

type queuePeekCmd struct {
	operator
	Name  string `arg:"" help:"Name of the bridge."`
	Count int    `short:"n" default:"10" help:"How many records."`
	Dead  bool   `help:"Show the dead letters: what the receiver refused for good, and why."`
}

// Run prints the first records.
func (c *queuePeekCmd) Run(ctx context.Context, s streams) error {
	if c.Count < 1 {
		return errors.New("-n must be at least 1")
	}
	records, err := c.records(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, records)
	}
	return printRecords(s.out, records)
}

func (c *queuePeekCmd) records(ctx context.Context) ([]admin.Record, error) {
	client, cfg, err := c.client()
	if err == nil {
		var records []admin.Record
		if records, err = client.Peek(ctx, c.Name, c.Count, c.Dead); err == nil {
			return records, nil
		}
	}
	if !c.offline(err) {
		return nil, explain(err)
	}
	dir := gateway.QueueDir(cfg.DataDir, c.Name)
	if filepath.Base(dir) != c.Name {
		return nil, fmt.Errorf("%q is not the name of a bridge", c.Name)
	}
	queued, err := gateway.PeekQueue(dir, c.Count, c.Dead)
	if err != nil {
		return nil, fmt.Errorf("no gateway answers, and its data cannot be read: %w", err)
	}
	records := make([]admin.Record, len(queued))
	for i := range queued {
		records[i] = admin.Preview(&queued[i])
	}
	return records, nil
}

// printRecords prints a line per record. Bytes that a terminal might obey are escaped.
func printRecords(w io.Writer, records []admin.Record) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SEQ\tTIME\tTOPIC\tKEY\tSIZE\tPAYLOAD\tREASON")
	for _, r := range records {
		payload := r.Payload
		if r.Encoding == admin.EncodingBase64 {
			if b, err := base64.StdEncoding.DecodeString(r.Payload); err == nil {
				payload = string(b)
			}
		}
		text := strconv.Quote(payload)
		if r.Truncated {
			text += "..."
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Seq, r.Time.Local().Format(time.DateTime), printable(r.Topic), printable(r.Key), r.Size, text, printable(r.Reason))
	}
	return t.Flush()
}
