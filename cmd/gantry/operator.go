package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"text/tabwriter"
	"time"

	"gantry/gateway/admin"
	"gantry/gateway/config"
)

// target are the flags that say which gateway to ask. By default it is the one that the configuration describes.
type target struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file of the gateway. Without one: the defaults, data in ./gantry-data."`
	Admin  string `placeholder:"HOST:PORT" help:"Admin address, instead of admin.bind of the configuration."`
	Token  string `name:"token-file" placeholder:"FILE" help:"File with the admin token, instead of admin.token_file of the configuration."`
}

// operator are the flags of a command that shows something.
type operator struct {
	target
	JSON bool `name:"json" help:"Print JSON as the admin interface answers it."`
}

// client returns a client for the gateway, and the configuration.
func (o *target) client() (*admin.Client, *config.Config, error) {
	cfg, err := config.Load(o.Config, os.Environ())
	if err != nil {
		return nil, nil, err
	}
	address, file := string(cfg.Admin.Bind), cfg.TokenPath()
	if o.Admin != "" {
		address = o.Admin
	}
	if o.Token != "" {
		file = o.Token
	}
	token, err := admin.ReadToken(file)
	if err != nil {
		return nil, cfg, err
	}
	c, err := admin.NewClient(address, token)
	return c, cfg, err
}

// notRunning reports whether an error of target.client or of a request means that no gateway runs, rather than that something is wrong.
func notRunning(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// explain makes one clear line of the error of a request.
func explain(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no gateway answers: %w", err)
	}
	return err
}

type statusCmd struct{ operator }

// Run prints what the gateway does.
func (c *statusCmd) Run(ctx context.Context, s streams) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return explain(err)
	}
	if c.JSON {
		return printJSON(s.out, st)
	}
	return printStatus(s.out, st)
}

func printStatus(w io.Writer, st *admin.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "node\t%s, version %s, up %s\n", st.Node, st.Version, time.Duration(st.UptimeSeconds)*time.Second)
	fmt.Fprintf(t, "connections\t%s\n", counts(st.Connections))
	for _, l := range st.Listeners {
		fmt.Fprintf(t, "listener\t%s\n", listener(&l))
	}
	fmt.Fprintf(t, "sessions\t%d with %d subscriptions\n", st.Sessions, st.Subscriptions)
	fmt.Fprintf(t, "retained\t%d\n", st.Retained)
	fmt.Fprintf(t, "delayed\t%d\n", st.Delayed)
	fmt.Fprintf(t, "messages\t%d in, %d out, dropped: %s\n", st.Messages.In, st.Messages.Out, counts(st.Messages.Dropped))
	fmt.Fprintf(t, "store\t%s, %s\n", st.Store.Type, writable(st.Store))
	fmt.Fprintf(t, "memory\t%s, %d goroutines\n", size(int64(st.Process.MemoryBytes)), st.Process.Goroutines)
	for _, a := range st.Alarms {
		fmt.Fprintf(t, "alarm\t%s since %s: %s\n", a.Name, a.Since.Local().Format(time.DateTime), a.Detail)
	}
	return t.Flush()
}

func listener(l *admin.Listener) string {
	s := fmt.Sprintf("%s: %s over %s at %s, clients: %d", l.Name, l.Protocol, l.Transport, l.Address, l.Clients)
	if l.Connections != nil {
		s += fmt.Sprintf(", connections: %d of %d", *l.Connections, l.MaxConnections)
	}
	return s
}

func writable(s admin.StoreStatus) string {
	switch {
	case s.Writable:
		return "writable"
	case s.Detail == "":
		return "not writable"
	}
	return "not writable: " + s.Detail
}

type bridgesCmd struct{ operator }

// Run prints a table of the bridges.
func (c *bridgesCmd) Run(ctx context.Context, s streams) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	bridges, err := client.Bridges(ctx)
	if err != nil {
		return explain(err)
	}
	if c.JSON {
		return printJSON(s.out, bridges)
	}
	return printBridges(s.out, bridges)
}

// bridgeCmds change a bridge of a running gateway.
type bridgeCmds struct {
	Pause  bridgePauseCmd  `cmd:"" help:"Stop sending until resume or a restart of the gateway; messages are queued."`
	Resume bridgeResumeCmd `cmd:"" help:"Go on sending; a bridge that waits for its next try tries at once."`
}

type bridgePauseCmd struct {
	target
	Name string `arg:"" help:"Name of the bridge."`
}

// Run pauses.
func (c *bridgePauseCmd) Run(ctx context.Context) error {
	return c.change(ctx, c.Name, (*admin.Client).PauseBridge)
}

type bridgeResumeCmd struct {
	target
	Name string `arg:"" help:"Name of the bridge."`
}

// Run resumes.
func (c *bridgeResumeCmd) Run(ctx context.Context) error {
	return c.change(ctx, c.Name, (*admin.Client).ResumeBridge)
}

func (o *target) change(ctx context.Context, name string, how func(*admin.Client, context.Context, string) error) error {
	client, _, err := o.client()
	if err != nil {
		return err
	}
	return explain(how(client, ctx, name))
}

func printBridges(w io.Writer, bridges []admin.Bridge) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tTYPE\tSTATE\tQUEUED\tBYTES\tOF\tOLDEST\tDELIVERED\tPER SECOND\tDROPPED\tREFUSED\tDEAD\tLAST ERROR")
	for _, b := range bridges {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\t%.0f\t%s\t%d\t%d\t%s\n",
			b.Name, b.Type, b.State, b.QueuedRecords, size(b.QueuedBytes), size(b.MaxBytes), seconds(b.OldestAgeSeconds),
			b.Delivered, b.RatePerSecond, counts(b.Dropped), b.Refused, b.DeadLetters, b.LastError)
	}
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
