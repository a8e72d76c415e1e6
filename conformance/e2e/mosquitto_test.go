//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
)

// mosquitto are the command line clients, by one way and with one version.
type mosquitto struct {
	t        testing.TB
	pub, sub string
	common   []string
}

// The command line clients that everybody has: each version by each way that
// they know.
func TestMosquittoClients(t *testing.T) {
	t.Parallel()
	pub, sub := servers.Tool(t, "mosquitto_pub"), servers.Tool(t, "mosquitto_sub")
	d := openDoors(t, "")
	at := func(addr string, more ...string) []string {
		host, port := hostPort(t, addr)
		return append([]string{"-h", host, "-p", port}, more...)
	}
	for name, way := range map[string][]string{
		"tcp":  at(d.mqtt),
		"tls":  at(d.tls, "--cafile", d.authority.CA, "--cert", d.device.Cert, "--key", d.device.Key),
		"unix": {"--unix", d.unix},
	} {
		for _, version := range []string{"31", "311", "5"} {
			t.Run(name+"/"+version, func(t *testing.T) {
				t.Parallel()
				m := &mosquitto{t, pub, sub, append([]string{"-V", version, "-k", "60"}, way...)}
				m.round(name+version, version == "5")
			})
		}
	}
}

// round has the clients do what clients do. Place begins their topics and
// client identifiers.
func (m *mosquitto) round(place string, is5 bool) {
	live := m.listen("-i", place+"live", "-q", "2", "-t", place+"/#")
	for qos := range 3 {
		m.publish("-q", fmt.Sprint(qos), "-t", place+"/a", "-m", fmt.Sprint("m", qos))
		live.hears("%s/a m%d %d 0", place, qos, qos)
	}
	m.publish("-q", "1", "-t", place+"/state", "-m", "on", "-r")
	live.hears("%s/state on 1 0", place)
	late := m.listen("-i", place+"late", "-q", "1", "-t", place+"/state")
	late.hears("%s/state on 1 1", place)
	m.publish("-q", "1", "-t", place+"/state", "-r", "-n")
	late.hears("%s/state  1 0", place)
	live.hears("%s/state  1 0", place)

	session := []string{"-c", "-i", place + "away", "-q", "1", "-t", place + "/b"}
	if is5 {
		session = append(session, "-x", "60")
	}
	m.run(m.sub, append(session, "-E")...) // subscribes and leaves
	for i := range 3 {
		m.publish("-q", "1", "-t", place+"/b", "-m", fmt.Sprint(i))
		live.hears("%s/b %d 1 0", place, i)
	}
	require.Equal(m.t, "0\n1\n2\n", m.run(m.sub, append(session, "-C", "3")...))

	mortal := m.listen("-i", place+"mortal", "-t", place+"/nothing", "--will-topic", place+"/will", "--will-payload", "gone", "--will-qos", "1")
	require.NoError(m.t, mortal.cmd.Process.Kill())
	live.hears("%s/will gone 1 0", place)
}

func (m *mosquitto) publish(args ...string) { m.run(m.pub, args...) }

func (m *mosquitto) run(program string, args ...string) string {
	m.t.Helper()
	out, err := tool(m.t.Context(), "", program, append(args, m.common...)...)
	require.NoError(m.t, err)
	return out
}

// listener is a running mosquitto_sub.
type listener struct {
	t     testing.TB
	cmd   *exec.Cmd
	lines chan string // of what it prints about messages, and "subscribed"
}

// listen returns when mosquitto_sub is subscribed.
func (m *mosquitto) listen(args ...string) *listener {
	m.t.Helper()
	const mark = "message: "
	args = append(append(args, m.common...), "-d", "-F", mark+"%t %p %q %r")
	// Into a pipe it would print when it has 4 KiB.
	args = append([]string{"-oL", m.sub}, args...)
	l := &listener{m.t, exec.Command(servers.Tool(m.t, "stdbuf"), args...), make(chan string, 100)}
	out, err := l.cmd.StdoutPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, l.cmd.Start())
	read := make(chan struct{})
	go func() { // ends with the process
		defer close(read)
		for in := bufio.NewScanner(out); in.Scan(); {
			if line, ok := strings.CutPrefix(in.Text(), mark); ok {
				l.lines <- line
			} else if strings.HasPrefix(in.Text(), "Subscribed") {
				l.lines <- "subscribed"
			}
		}
	}()
	m.t.Cleanup(func() {
		_ = l.cmd.Process.Kill() // ended already where the test has killed it
		<-read
		_ = l.cmd.Wait()
	})
	l.hears("subscribed")
	return l
}

// hears takes the next line.
func (l *listener) hears(format string, args ...any) {
	l.t.Helper()
	want := fmt.Sprintf(format, args...)
	select {
	case got := <-l.lines:
		require.Equal(l.t, want, got)
	case <-time.After(patience):
		l.t.Fatalf("mosquitto_sub does not print %q", want)
	}
}
