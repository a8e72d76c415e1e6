// Command gantry is the appliance and the tools around it: it runs the gateway, checks a configuration, publishes and subscribes as an MQTT client, and
// shows what a gateway does. It only reads arguments and prints; the work is in package gateway and below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"gantry/gateway/config"
)

// commands are the command line.
type commands struct {
	Help helpFlag `help:"Show help."` // without -h: that is the host, as in other MQTT tools

	Run     runCmd      `cmd:"" help:"Run the gateway until SIGTERM or SIGINT."`
	Check   checkCmd    `cmd:"" help:"Check a configuration file and show every problem with its line."`
	Pub     pubCmd      `cmd:"" help:"Publish messages to an MQTT server."`
	Sub     subCmd      `cmd:"" help:"Subscribe at an MQTT server and print what arrives."`
	Status  statusCmd   `cmd:"" help:"Show the state of a running gateway."`
	Bridges bridgesCmd  `cmd:"" help:"Show the bridges of a running gateway."`
	Bridge  bridgeCmds  `cmd:"" help:"Pause or resume a bridge of a running gateway."`
	Queue   queueCmds   `cmd:"" help:"Look into the queues of the bridges, also while no gateway runs."`
	Delayed delayedCmds `cmd:"" help:"Show or delete messages that wait to be published later."`
	Version versionCmd  `cmd:"" help:"Show the version of this program."`
}

// helpFlag prints the help of the command it stands at.
type helpFlag bool

// BeforeReset is called by kong as soon as the flag is seen, before anything that is missing counts as an error.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	ctx.Exit(0)
	return nil
}

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the exit code: 0, or 1 after it has said on the error stream what is wrong.
func execute(ctx context.Context, args []string, s streams) int {
	parser := kong.Must(&commands{},
		kong.Name("gantry"),
		kong.Description("Gateway from MQTT, CoAP and HTTP to Kafka. 'gantry COMMAND --help' shows the flags of a command."),
		kong.NoDefaultHelp(),
		kong.Writers(s.out, s.err),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
	)
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(s.err, "gantry: %v; see gantry --help\n", err)
		return 1
	}
	if err := command.Run(); err != nil {
		complain(s.err, err)
		return 1
	}
	return 0
}

// complain prints an error: one line, or one for each problem of a configuration.
func complain(w io.Writer, err error) {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		fmt.Fprintln(w, problems)
		return
	}
	fmt.Fprintf(w, "gantry: %v\n", err)
}
