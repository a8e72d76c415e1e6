//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
	"gantry/conformance/standin"
)

// gateway is a running gantry with a listener of each protocol, on ports and in
// a folder of its own.
type gateway struct {
	*servers.Process
	t    testing.TB
	file string // its configuration
	data string // its data folder

	mqtt, coap, http, admin string // addresses
}

// freeAddr is free for TCP and UDP.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		port, err := standin.FreePort()
		require.NoError(t, err)
		addr := standin.Loopback(port)
		if c, err := net.ListenPacket("udp", addr); err == nil {
			require.NoError(t, c.Close())
			return addr
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return ""
}

// configure writes a configuration. More is further YAML: bridges, broker.
func configure(t testing.TB, more string) *gateway {
	t.Helper()
	return configureWith(t, "", more)
}

// configureWith is configure with further MQTT listeners: entries of a YAML list,
// one a line.
func configureWith(t testing.TB, listeners, more string) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{
		t: t, file: filepath.Join(dir, "gantry.yaml"), data: filepath.Join(dir, "data"),
		mqtt: freeAddr(t), coap: freeAddr(t), http: freeAddr(t), admin: freeAddr(t),
	}
	text := fmt.Sprintf(`
node: edge-01
data_dir: %s
listeners:
  coap: [{name: udp, bind: "%s"}]
  http: [{name: web, bind: "%s"}]
  mqtt:
    - {name: tcp, bind: "%s"}
%s
admin: {bind: "%s"}
%s
`, g.data, g.coap, g.http, g.mqtt, listeners, g.admin, more)
	require.NoError(t, os.WriteFile(g.file, []byte(text), 0o600))
	return g
}

// start runs the gateway until the test ends. A race or a panic in it fails the
// test.
func (g *gateway) start() *gateway {
	g.t.Helper()
	g.t.Cleanup(func() {
		out := g.Output()
		require.NotContains(g.t, out, "DATA RACE")
		require.NotContains(g.t, out, "goroutine 1 [")
		require.NotContains(g.t, out, "BUG:")
	})
	g.Process = servers.Start(g.t, servers.Program{
		Name: "gantry", Dir: filepath.Dir(g.file), Argv: []string{program, "run", "-c", g.file}, Env: environment(), Answers: g.ready,
	})
	return g
}

func startGateway(t testing.TB, more string) *gateway {
	t.Helper()
	return configure(t, more).start()
}

func (g *gateway) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := operatorClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", resp.Status)
	}
	return nil
}

// operatorClient keeps no connection that a killed gateway leaves dead.
var operatorClient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// api asks the operator interface and decodes its JSON into answer.
func (g *gateway) api(path string, answer any) {
	g.t.Helper()
	token, err := os.ReadFile(filepath.Join(g.data, "admin.token"))
	require.NoError(g.t, err)
	req, err := http.NewRequest(http.MethodGet, "http://"+g.admin+path, nil)
	require.NoError(g.t, err)
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := operatorClient.Do(req)
	require.NoError(g.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(g.t, err)
	require.Equal(g.t, http.StatusOK, resp.StatusCode, "%s", body)
	require.NoError(g.t, json.Unmarshal(body, answer), "%s", body)
}

// bridgeState is the part of /api/v1/bridges that tests read.
type bridgeState struct {
	Name          string         `json:"name"`
	State         string         `json:"state"`
	QueuedRecords int            `json:"queued_records"`
	QueuedBytes   int64          `json:"queued_bytes"`
	MaxBytes      int64          `json:"max_bytes"`
	WhenFull      string         `json:"when_full"`
	Delivered     int            `json:"delivered"`
	Dropped       map[string]int `json:"dropped"`
	Refused       int            `json:"refused"`
	DeadLetters   int            `json:"dead_letters"`
	LastError     string         `json:"last_error"`
}

// lost is how many records were dropped for whatever reason.
func (b bridgeState) lost() (n int) {
	for _, of := range b.Dropped {
		n += of
	}
	return n
}

// bridge returns the state of the only bridge.
func (g *gateway) bridge() bridgeState {
	g.t.Helper()
	var all []bridgeState
	g.api("/api/v1/bridges", &all)
	require.Len(g.t, all, 1)
	return all[0]
}

// drainsWithin is generous for an Apache Kafka that has just been started on a
// busy machine.
const drainsWithin = 90 * time.Second

// awaitDrained waits until Kafka has confirmed all that is queued.
func (g *gateway) awaitDrained() {
	g.t.Helper()
	deadline := time.Now().Add(drainsWithin)
	for b := g.bridge(); b.QueuedRecords > 0; b = g.bridge() {
		if time.Now().After(deadline) {
			g.t.Fatalf("after %s the bridge has not drained: %+v", drainsWithin, b)
		}
		time.Sleep(4 * poll)
	}
}

// gatewayState is the part of /api/v1/status that tests read.
type gatewayState struct {
	Node        string         `json:"node"`
	Connections map[string]int `json:"connections"`
	Sessions    int            `json:"sessions"`
	Retained    int            `json:"retained"`
	Alarms      []struct {
		Name   string `json:"name"`
		Detail string `json:"detail"`
	} `json:"alarms"`
}

func (g *gateway) status() gatewayState {
	g.t.Helper()
	var s gatewayState
	g.api("/api/v1/status", &s)
	return s
}

// awaitAlarm returns the detail of the alarm once it is raised.
func (g *gateway) awaitAlarm(name string) (detail string) {
	g.t.Helper()
	eventually(g.t, "alarm "+name, func() bool {
		for _, a := range g.status().Alarms {
			if a.Name == name {
				detail = a.Detail
				return true
			}
		}
		return false
	})
	return detail
}

var sample = regexp.MustCompile(`(?m)^(\w+)(\{[^}]*\})? (\S+)$`)

// metric returns the sum of the samples of the name whose labels contain each
// of the parts.
func (g *gateway) metric(name string, parts ...string) (sum float64) {
	g.t.Helper()
	resp, err := operatorClient.Get("http://" + g.admin + "/metrics")
	require.NoError(g.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(g.t, err)
	found := false
	for _, m := range sample.FindAllStringSubmatch(string(body), -1) {
		if m[1] != name || !containsAll(m[2], parts) {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		require.NoError(g.t, err)
		sum, found = sum+v, true
	}
	require.True(g.t, found, "no sample of %s with %q", name, parts)
	return sum
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// outcome is how a command ended.
type outcome struct {
	code     int
	out, err string
}

// command runs gantry with arguments and no other input than stdin.
func command(t testing.TB, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = t.TempDir(), environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "gantry %s does not end:\n%s%s", strings.Join(args, " "), out.String(), errs.String())
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError))
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}
