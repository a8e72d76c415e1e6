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
	if err := config.Check(c.Config, os.Environ(), gateway.CheckFiles); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "%s: ok\n", c.Config)
	return err
}
