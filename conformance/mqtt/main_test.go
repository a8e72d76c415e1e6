//go:build unix

package mqtt

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
	"gantry/conformance/standin"
)

var update = flag.Bool("update", false, "write docs/conformance.md")

const buildsWithin = 10 * time.Minute // on a machine that has nothing compiled yet

// folder holds the program that the tests build; "" until then.
var folder string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most checks wait for a server or for time, not for a processor.
	if err := flag.Set("test.parallel", "24"); err != nil {
		panic(err)
	}
	code := m.Run()
	if folder != "" {
		if err := os.RemoveAll(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// gantry builds the program and returns its path.
var gantry = sync.OnceValues(func() (path string, err error) {
	if err := servers.DependOnProduct(); err != nil {
		return "", err
	}
	if folder, err = os.MkdirTemp("", "gantry-conformance-"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildsWithin)
	defer cancel()
	path = filepath.Join(folder, "gantry")
	args := slices.Concat([]string{"build"}, buildFlags, []string{"-o", path, "gantry/cmd/gantry"})
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gantry: %w\n%s", err, out)
	}
	return path, nil
})

// startGantry runs a gantry until the test ends. A race or a panic in it fails
// the test.
func startGantry(t testing.TB) Target {
	open := gantryWith(t, "loopback")
	closed := gantryWith(t, "never")
	return Target{Addr: open, WebSocket: NoListener, Refuses: closed}
}

func gantryWith(t testing.TB, anonymous string) (addr string) {
	t.Helper()
	program, err := gantry()
	require.NoError(t, err)
	dir := t.TempDir()
	addr, admin := freeAddr(t), freeAddr(t)
	file := filepath.Join(dir, "gantry.yaml")
	text := fmt.Sprintf(`
node: suite
data_dir: %s
listeners:
  mqtt: [{name: tcp, bind: "%s"}]
auth: {anonymous: %s}
admin: {bind: "%s"}
`, filepath.Join(dir, "data"), addr, anonymous, admin)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var p *servers.Process
	t.Cleanup(func() {
		out := p.Output()
		for _, bad := range []string{"DATA RACE", "goroutine 1 [", "BUG:", "panicked"} {
			require.NotContains(t, out, bad)
		}
	})
	p = servers.Start(t, servers.Program{
		Name: "gantry", Dir: dir, Argv: []string{program, "run", "-c", file}, Env: environment(),
		Answers: func(ctx context.Context) error {
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			return nc.Close()
		},
	})
	return addr
}

// environment is that of the tests without their own variables: to the program
// each GANTRY_ variable is a setting.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "GANTRY_") })
}

func freeAddr(t testing.TB) string {
	t.Helper()
	port, err := standin.FreePort()
	require.NoError(t, err)
	return standin.Loopback(port)
}

// startMosquitto runs a mosquitto with WebSocket, or skips the test.
func startMosquitto(t testing.TB) Target {
	t.Helper()
	version, err := exec.Command(servers.Tool(t, "mosquitto"), "-h").CombinedOutput()
	if !strings.Contains(string(version), "version 2.0.11") {
		t.Skipf("the verdicts are those of %s; here is %.40q (%v)", Mosquitto, version, err)
	}
	port, err := standin.FreePort()
	require.NoError(t, err)
	m := servers.Mosquitto(t, fmt.Sprintf("listener %d 127.0.0.1", port), "protocol websockets")
	return Target{Addr: m.Addr, WebSocket: standin.Loopback(port), Refuses: servers.Mosquitto(t, "allow_anonymous false").Addr}
}
