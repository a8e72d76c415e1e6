package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"gantry/gateway"
	"gantry/gateway/config"
)

type runCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file. Without one: listeners on this machine only, data in ./gantry-data."`
}

// Run runs the gateway until the context ends, then stops it in order.
func (c *runCmd) Run(ctx context.Context, s streams) error {
	cfg, err := config.Load(c.Config, os.Environ())
	if err != nil {
		return err
	}
	log := newLogger(cfg.Log, s.err)
	slog.SetDefault(log) // for libraries that have a word to say, such as about small socket buffers
	g, err := gateway.New(cfg, log)
	if err != nil {
		return err
	}
	defer explainHangup(log)()
	return g.Run(ctx)
}

// explainHangup answers SIGHUP, which by default would end the process, with a line in the log. The function that it returns restores the default.
func explainHangup(log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range hangups {
			log.Warn("this version does not reload its configuration, restart the gateway to apply a change")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-ended
	}
}

func newLogger(cfg config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		panic("BUG: log level " + string(cfg.Level) + " passed the check")
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
