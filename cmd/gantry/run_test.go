package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is a running gateway.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *lockedBuffer
	config string
	mqtt   []string // flags that lead to its MQTT listener
}

// lockedBuffer collects the log while the test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// gatewayConfig writes a configuration with an uplink that is away. It returns the file and the MQTT port.
func gatewayConfig(t *testing.T) (path string, port int) {
	t.Helper()
	port = freePort(t)
	return file(t, "gantry.yaml", fmt.Sprintf(`
node: edge
data_dir: %s
listeners:
  mqtt: [{name: tcp, bind: "127.0.0.1:%d"}]
admin: {bind: "127.0.0.1:%d"}
bridges:
  - name: cloud
    type: kafka
    brokers: ["127.0.0.1:1"]
    routes: [{filter: "plant/#", topic: "plant.${topic[1]}"}]
`, filepath.Join(t.TempDir(), "data"), port, freePort(t))), port
}

func start(t *testing.T) *process {
	t.Helper()
	path, port := gatewayConfig(t)
	p := &process{t: t, log: &lockedBuffer{}, config: path, mqtt: []string{"-p", strconv.Itoa(port)}}
	p.cmd = program(t.Context(), "run", "-c", path)
	p.cmd.Stderr = p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Kill() }
	require.NoError(t, p.cmd.Start())
	p.logged("gateway is ready")
	return p
}

func (p *process) logged(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.log.String(), text) }, 20*time.Second, 10*time.Millisecond, "%q is not in the log", text)
}

func (p *process) stop(sig os.Signal) error {
	require.NoError(p.t, p.cmd.Process.Signal(sig))
	return p.cmd.Wait()
}

// From a device to a queue on disk, seen by the operator before and after the gateway stops.
func TestRunStoresAndStops(t *testing.T) {
	p := start(t)
	r := gantry(t, "one\ntwo\n", append([]string{"pub", "-t", "plant/a", "-l", "-q", "1", "-i", "device-1"}, p.mqtt...)...)
	require.Equal(t, result{}, r)

	r = gantry(t, "", "status", "-c", p.config)
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "edge, version ")
	r = gantry(t, "", "bridges", "-c", p.config)
	require.Contains(t, r.out, "cloud  kafka")
	require.Contains(t, gantry(t, "", "queue", "ls", "-c", p.config).out, "cloud  2 ")
	online := gantry(t, "", "queue", "peek", "cloud", "-c", p.config)
	require.Contains(t, online.out, `plant.a  device-1  3     "one"`)

	require.Equal(t, result{}, gantry(t, "", "bridge", "pause", "cloud", "-c", p.config))
	state := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(gantry(t, "", "bridges", "-c", p.config).out, want) }, 20*time.Second, 10*time.Millisecond, want)
	}
	state("cloud  kafka  paused")
	require.Equal(t, result{}, gantry(t, "", "bridge", "resume", "cloud", "-c", p.config))
	state("cloud  kafka  retrying")
	require.Contains(t, gantry(t, "", "bridge", "pause", "other", "-c", p.config).err, "no bridge of that name")

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.logged("does not reload its configuration")
	require.NoError(t, p.stop(syscall.SIGTERM), p.log)
	require.Contains(t, p.log.String(), "msg=stopped")

	require.Equal(t, online, gantry(t, "", "queue", "peek", "cloud", "-c", p.config))
	require.Contains(t, gantry(t, "", "queue", "ls", "-c", p.config).out, "cloud  2 ")
}

// What keeps a gateway from starting is one line and exit code 1.
func TestRunErrors(t *testing.T) {
	p := start(t)
	fails := func(want string, config string, env ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := program(ctx, "run", "-c", config)
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), "%s", out)
		last := lastLine(string(out))
		require.True(t, strings.HasPrefix(last, "gantry: "), last)
		require.Contains(t, last, want)
	}
	fails("is in use by another gateway", p.config)
	other, _ := gatewayConfig(t)
	text, err := os.ReadFile(other)
	require.NoError(t, err)
	taken := strings.Replace(string(text), `mqtt: [{name: tcp, bind: "127.0.0.1:`, `mqtt: [{name: tcp, bind: "127.0.0.1:`+p.mqtt[1]+`"}, {name: x, bind: "127.0.0.1:`, 1)
	fails("address already in use", file(t, "gantry.yaml", taken))
	fails("create data folder", other, "GANTRY_DATA_DIR="+file(t, "data", "a file")+"/data")
	require.NoError(t, p.stop(syscall.SIGINT), p.log)
}

func TestRunRefusesABadConfiguration(t *testing.T) {
	bad := file(t, "gantry.yaml", "broker: {durability: fast}\n")
	out, err := program(t.Context(), "run", "-c", bad).CombinedOutput()
	require.Error(t, err)
	require.Equal(t, bad+`:1: broker.durability: "fast" is not sync, interval or memory`+"\n", string(out))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
