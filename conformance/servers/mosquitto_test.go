//go:build unix

package servers

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// output runs a program for at most half a minute.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

func TestMosquittoComesBackWithItsData(t *testing.T) {
	pub, sub := Tool(t, "mosquitto_pub"), Tool(t, "mosquitto_sub")
	m := Mosquitto(t, "autosave_interval 1", "autosave_on_changes true")
	_, port, err := net.SplitHostPort(m.Addr)
	require.NoError(t, err)
	read := func() string {
		return output(t, sub, "-h", "127.0.0.1", "-p", port, "-t", "state", "-C", "1", "-W", "10")
	}

	output(t, pub, "-h", "127.0.0.1", "-p", port, "-q", "1", "-r", "-t", "state", "-m", "open")
	require.Eventually(t, func() bool {
		saved, err := os.ReadFile(filepath.Join(m.Dir, "mosquitto.db"))
		return err == nil && bytes.Contains(saved, []byte("open"))
	}, 10*time.Second, 10*time.Millisecond, "autosave_on_changes has to take effect")
	m.Kill()
	require.Zero(t, m.PID())
	_, err = net.Dial("tcp", m.Addr)
	require.Error(t, err)
	m.Restart()
	require.Equal(t, "open", read(), "after Kill")

	output(t, pub, "-h", "127.0.0.1", "-p", port, "-q", "1", "-r", "-t", "state", "-m", "shut")
	life := m.PID()
	m.Restart()
	require.NotEqual(t, life, m.PID())
	require.Equal(t, "shut", read(), "after Restart of a running broker")
	require.Contains(t, m.Output(), "mosquitto version")
}

func TestMosquittoThatAsksForAPasswordIsReady(t *testing.T) {
	m := Mosquitto(t, "allow_anonymous false")
	require.NotZero(t, m.PID())
}

func TestPausedServerAnswersAfterResume(t *testing.T) {
	m := Mosquitto(t)
	m.Pause()
	require.Error(t, exchange(t.Context(), m.Addr, mqttConnect, isConnack))
	m.Resume()
	require.NoError(t, exchange(t.Context(), m.Addr, mqttConnect, isConnack))

	m.Pause()
	m.Stop()
	require.Zero(t, m.PID())
}

func TestServerThatCannotStartFailsTheTest(t *testing.T) {
	dir := t.TempDir()
	p := &Process{
		Dir: dir, t: t, name: "false", argv: []string{Tool(t, "false")},
		probe: func(context.Context) error { return context.DeadlineExceeded },
	}
	r, err := p.exec()
	require.NoError(t, err)
	require.ErrorContains(t, p.awaitReady(r), "it ended before it answered: exit status 1")
}
