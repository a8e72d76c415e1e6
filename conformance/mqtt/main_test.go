//go:build unix

package mqtt

import (
	"context"
	"crypto/tls"
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

	"gantry/conformance/pki"
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

// gantryTargets runs a gantry with a listener for each transport until the test
// ends, and a second one that lets nobody in. A race or a panic in them fails
// the test.
func gantryTargets(t testing.TB) map[Transport]Target {
	t.Helper()
	a := pki.New(t)
	server := a.Issue("server", nil)
	secure := fmt.Sprintf("tls: {cert: %q, key: %q}", server.Cert, server.Key)
	addrs := map[Transport]string{}
	var lines []string
	listen := func(transport Transport, addr, bind, more string) {
		addrs[transport] = addr
		lines = append(lines, fmt.Sprintf("    - {name: %s, bind: %q, %s}", transport, bind, more))
	}
	for transport, more := range map[Transport]string{
		TCP: "", TLS: secure, WebSocket: "transport: websocket", SecureWebSocket: "transport: websocket, " + secure,
		QUIC: "transport: quic, " + secure,
	} {
		bind := freeAddr(t)
		listen(transport, string(transport)+"://"+bind, bind, more)
	}
	certified := freeAddr(t)
	listen("certified", "tls://"+certified, certified,
		fmt.Sprintf("tls: {cert: %q, key: %q, client_ca: %q, client_auth: require}", server.Cert, server.Key, a.CA))
	client := a.Issue("client", nil)
	pair, err := tls.LoadX509KeyPair(client.Cert, client.Key)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "mqtt.sock")
	listen(Unix, "unix:"+path, "unix:"+path, "")
	runGantry(t, "loopback", strings.Join(lines, "\n"), strings.TrimPrefix(addrs[TCP], "tcp://"))
	closed := freeAddr(t)
	runGantry(t, "never", fmt.Sprintf("    - {name: closed, bind: %q}", closed), closed)

	targets := map[Transport]Target{}
	for _, transport := range Transports {
		targets[transport] = Target{
			Addr: addrs[transport], WebSocket: addrs[WebSocket], Refuses: closed,
			TLS: &tls.Config{RootCAs: a.Pool}, Certified: addrs["certified"], Certificate: &pair,
		}
	}
	return targets
}

// runGantry runs one until the test ends; alive is one of its listeners.
func runGantry(t testing.TB, anonymous, listeners, alive string) {
	t.Helper()
	program, err := gantry()
	require.NoError(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "gantry.yaml")
	text := fmt.Sprintf("node: suite\ndata_dir: %s\nlisteners:\n  mqtt:\n%s\nauth: {anonymous: %s}\nadmin: {bind: %q}\n",
		filepath.Join(dir, "data"), listeners, anonymous, freeAddr(t))
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
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", alive)
			if err != nil {
				return err
			}
			return nc.Close()
		},
	})
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
