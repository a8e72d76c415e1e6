//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
)

// eachPaho runs a test with each generation of the Python client.
func eachPaho(t *testing.T, f func(t *testing.T, python string)) {
	for _, paho := range []string{servers.Paho1, servers.Paho2} {
		t.Run(paho, func(t *testing.T) { f(t, servers.Python(t, paho)) })
	}
}

// Programs written for the Python client run as they are.
func TestPahoPrograms(t *testing.T) {
	eachPaho(t, func(t *testing.T, python string) {
		g := startGateway(t, "")
		host, port := hostPort(t, g.mqtt)
		for name, want := range map[string]string{
			"many_topics": "connected 0\ngranted 0 1\n/wjw/znqs/123456789/1/up hello 0 0\n/wjw/znqs/123456789/2/up hello 0 0\n",
			"retained":    "9 1\n10 0\n11 0\n12 0\n",
			"persistent":  "session present 0\nsession present 1\nround 0\nround 1\nround 2\n",
			"options5":    "all as MQTT 5 says\n",
			"shared":      "each to one of two\n",
		} {
			t.Run(name, func(t *testing.T) {
				require.Equal(t, want, runScript(t, python, name, host, port))
			})
		}
	})
}

// runScript runs one of the programs and returns what it prints.
func runScript(t *testing.T, python, name string, args ...string) string {
	t.Helper()
	out, err := tool(t.Context(), "", python, append([]string{"-B", script(t, name)}, args...)...)
	require.NoError(t, err)
	return out
}

func script(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name+".py"))
	require.NoError(t, err)
	return path
}

// A will comes when the client dies, and when it is silent for 1.5 times its
// keep alive, and not when it leaves in order.
func TestPahoWills(t *testing.T) {
	t.Parallel() // it mostly waits
	eachPaho(t, func(t *testing.T, python string) {
		g := startGateway(t, "")
		sub, _ := g.connect(hello{version: v311, id: "mourner"})
		require.NoError(t, sub.subscribe("wills/#", 1))

		polite := g.mortal(python, "polite", 60)
		require.NoError(t, polite.stdin.Close())
		require.NoError(t, polite.cmd.Wait())

		killed := g.mortal(python, "killed", 60)
		require.NoError(t, killed.cmd.Process.Kill())
		require.Equal(t, "wills/killed", receive(t, sub).TopicName, "and none of the polite one before it")

		const keepAlive = 2
		frozen := g.mortal(python, "frozen", keepAlive)
		since := time.Now()
		require.NoError(t, frozen.cmd.Process.Signal(syscall.SIGSTOP))
		require.Equal(t, "wills/frozen", receive(t, sub).TopicName)
		require.GreaterOrEqual(t, time.Since(since), keepAlive*time.Second, "not before the keep alive is over")
	})
}

// mortal is a Python program with a will, which leaves in order when its
// standard input ends.
type mortal struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// mortal starts a connected client with a will.
func (g *gateway) mortal(python, id string, keepAlive int) mortal {
	t := g.t
	host, port := hostPort(t, g.mqtt)
	cmd := exec.Command(python, "-B", script(t, "will"), host, port, id, fmt.Sprint(keepAlive))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // ended already where all went well
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "connected 0", strings.TrimSpace(line))
	return mortal{cmd, stdin}
}
