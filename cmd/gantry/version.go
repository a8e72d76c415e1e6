package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"gantry/gateway"
)

type versionCmd struct{}

// Run prints the version, and the commit where the program was built in a repository.
func (versionCmd) Run(s streams) error {
	_, err := fmt.Fprintf(s.out, "gantry %s%s, %s %s/%s\n", gateway.Version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	if revision == "" {
		return ""
	}
	return " (commit " + revision + dirty + ")"
}
