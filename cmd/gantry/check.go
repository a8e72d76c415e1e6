package main

import (
	"fmt"
	"os"

	"gantry/gateway"
	"gantry/gateway/config"
)

type checkCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"Configuration file."`
}

// Run prints one line per problem, or ok. The environment counts as it does for gantry run. The certificates of listeners are read too.
func (c *checkCmd) Run(s streams) error {
	cfg, err := config.Load(c.Config, os.Environ())
	if err != nil {
		return err
	}
	if err := gateway.CheckFiles(cfg); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: ok\n", c.Config)
	return err
}
