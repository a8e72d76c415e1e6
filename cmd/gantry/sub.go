package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gantry/cmd/gantry/internal/mqtt"
)

type subCmd struct {
	peer
	Topics  []string `short:"t" name:"topic" required:"" sep:"none" placeholder:"FILTER" help:"Topic filter; may be repeated."`
	Verbose bool     `short:"v" help:"Print the topic before the payload."`
	Count   int      `short:"C" placeholder:"N" help:"End after N messages."`
	Wait    timeout  `short:"W" placeholder:"SECONDS" help:"End after so many seconds; an error if -C asked for more messages."`
	Durable bool     `short:"c" name:"disable-clean-session" help:"Keep the session and what is queued in it after the command ends; needs -i."`
	Fresh   bool     `short:"R" name:"no-retained" help:"Do not print retained messages that were there before."`
}

// timeout is a number of seconds, or a duration with a unit.
type timeout time.Duration

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *timeout) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil {
		d, err = time.ParseDuration(string(text) + "s")
	}
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a number of seconds", text)
	}
	*t = timeout(d)
	return nil
}

// Run prints messages until the count, the time, the context or the connection ends. A message is acknowledged after it was printed.
func (c *subCmd) Run(ctx context.Context, s streams) error {
	p := &printer{w: s.out, cmd: c, done: make(chan struct{})}
	o := c.options()
	o.Durable, o.OnMessage = c.Durable, p.print
	client, err := mqtt.Dial(ctx, o)
	if err != nil {
		return err
	}
	err = c.receive(ctx, client, p)
	client.Close()
	return errors.Join(err, p.err)
}

func (c *subCmd) receive(ctx context.Context, client mqtt.Client, p *printer) error {
	if err := client.Subscribe(ctx, c.Topics, c.QoS); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	var over <-chan time.Time
	if c.Wait > 0 {
		over = time.After(time.Duration(c.Wait))
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return nil
	case <-client.Lost():
		return fmt.Errorf("connection lost: %w", client.Err())
	case <-over:
		if c.Count > 0 {
			return fmt.Errorf("fewer than %d messages within %s", c.Count, time.Duration(c.Wait))
		}
		return nil
	}
}

// printer writes messages. It is called by one goroutine at a time; err may be read after the client is closed.
type printer struct {
	w       io.Writer
	cmd     *subCmd
	printed int
	done    chan struct{} // closed when no more is wanted
	err     error
}

// print reports whether it took the message.
func (p *printer) print(m mqtt.Message) bool {
	if p.finished() {
		return false
	}
	if m.Retain && p.cmd.Fresh {
		return true
	}
	line := make([]byte, 0, len(m.Topic)+len(m.Payload)+2)
	if p.cmd.Verbose {
		line = append(append(line, m.Topic...), ' ')
	}
	line = append(append(line, m.Payload...), '\n')
	if _, p.err = p.w.Write(line); p.err != nil {
		close(p.done)
		return false
	}
	p.printed++
	if p.finished() {
		close(p.done)
	}
	return true
}

func (p *printer) finished() bool {
	return p.err != nil || p.cmd.Count > 0 && p.printed >= p.cmd.Count
}
