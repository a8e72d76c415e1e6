//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gantry/conformance/servers"
)

const (
	// patience bounds every wait for something that takes moments.
	patience     = 30 * time.Second
	buildsWithin = 10 * time.Minute // on a machine that has nothing compiled yet
	poll         = 5 * time.Millisecond
)

// program is the path of the built gantry.
var program string

func TestMain(m *testing.M) {
	code, err := build(m.Run)
	if err == nil && code == 0 {
		err = leaks()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// leaks reports goroutines that outlive the tests. Those of go-coap's client
// take up to 4 s to notice that their connection is closed.
func leaks() (err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = goleak.Find(); err == nil {
			return nil
		}
	}
	return err
}

// build makes the program for as long as run runs.
func build(run func() int) (code int, err error) {
	if err := servers.DependOnProduct(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "gantry-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(context.Background(), buildsWithin)
	defer cancel()
	program = filepath.Join(dir, "gantry")
	args := slices.Concat([]string{"build"}, buildFlags, []string{"-o", program, "gantry/cmd/gantry"})
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build gantry: %w\n%s", err, out)
	}
	return run(), nil
}

// environment is that of the tests without their own variables: to the program
// each GANTRY_ variable is a setting.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "GANTRY_") })
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", patience, what)
		}
		time.Sleep(poll)
	}
}

// few is n, or less with -short.
func few(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}
