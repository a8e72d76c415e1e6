package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"gantry/gateway/admin"
)

// delayedCmds ask a running gateway.
type delayedCmds struct {
	Ls delayedLsCmd `cmd:"" help:"List the messages."`
	Rm delayedRmCmd `cmd:"" help:"Delete messages for good."`
}

type delayedLsCmd struct {
	operator
	Count int    `short:"n" default:"1000" help:"How many messages at most, 1 to 10000."`
	After uint64 `help:"Only those with a higher id."`
}

// Run prints a line per message.
func (c *delayedLsCmd) Run(ctx context.Context, s streams) error {
	if c.Count < 1 || c.Count > 10000 {
		return errors.New("-n must be from 1 to 10000")
	}
	client, _, err := c.client()
	if err != nil {
		return err
	}
	page, err := client.Delayed(ctx, c.After, c.Count)
	if err != nil {
		return explain(err)
	}
	if c.JSON {
		return printJSON(s.out, page)
	}
	return printDelayed(s.out, page)
}

func printDelayed(w io.Writer, page *admin.DelayedPage) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tDUE\tTOPIC\tCLIENT\tSIZE\tQOS\tATTEMPTS\tREASON")
	for _, d := range page.Delayed {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", d.ID, d.Due.Local().Format(time.DateTime), printable(d.Topic), printable(d.ClientID), d.Size, d.QoS, d.Attempts, d.Reason)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if page.Next == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "more: --after %d\n", page.Next)
	return err
}

type delayedRmCmd struct {
	target
	IDs []uint64 `arg:"" name:"id" help:"Numbers of the messages, as ls shows them."`
}

// Run deletes one after the other, and goes on behind one that is not there.
func (c *delayedRmCmd) Run(ctx context.Context) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range c.IDs {
		if err := client.DeleteDelayed(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("message %d: %w", id, explain(err)))
		}
	}
	return errors.Join(errs...)
}
