//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireOneLine runs the gateway, which must end by itself with exit code 1 and
// one line on standard error, beside its log, that has all the parts.
func (g *gateway) requireOneLine(parts ...string) {
	g.t.Helper()
	r := command(g.t, "", "run", "-c", g.file)
	require.Equal(g.t, 1, r.code, r.err)
	require.Empty(g.t, r.out)
	var said []string
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "time=") {
			said = append(said, line)
		}
	}
	require.Len(g.t, said, 1, r.err)
	for _, part := range parts {
		require.Contains(g.t, said[0], part)
	}
}

// lineOf is the line of the configuration file that begins with text.
func (g *gateway) lineOf(text string) int {
	g.t.Helper()
	content, err := os.ReadFile(g.file)
	require.NoError(g.t, err)
	for i, line := range strings.Split(string(content), "\n") {
		if strings.HasPrefix(line, text) {
			return i + 1
		}
	}
	require.FailNow(g.t, "not in the file", text)
	return 0
}

func TestBadConfigurationIsOneLine(t *testing.T) {
	for _, c := range []struct {
		name, more string
		parts      []string
	}{
		{"unknown key", "brokr: {durability: sync}", []string{"gantry.yaml:LINE", "brokr"}},
		{"wrong type", "broker: {sync_interval: [1]}", []string{"gantry.yaml:LINE", "sync_interval"}},
		{"no such value", "broker: {durability: often}", []string{"gantry.yaml:LINE", "often", "sync"}},
		{"no YAML", "broker: {", []string{"gantry.yaml"}},
		{"not in this version", "authorization: {default: deny}", []string{"gantry.yaml:LINE", "authorization"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := configure(t, c.more)
			c.parts[0] = strings.Replace(c.parts[0], "LINE", strconv.Itoa(g.lineOf(c.more)), 1)
			g.requireOneLine(c.parts...)
		})
	}
	t.Run("no file", func(t *testing.T) {
		g := configure(t, "")
		require.NoError(t, os.Remove(g.file))
		g.requireOneLine("gantry.yaml", "no such file")
	})
}

// Every problem has a line of its own, so that a file is mended in one go.
func TestCheckShowsAllProblems(t *testing.T) {
	g := configure(t, "broker: {durability: often, max_packet_size: 3}\nbrokr: 1")
	first := fmt.Sprint("gantry.yaml:", g.lineOf("broker: {"))
	second := fmt.Sprint("gantry.yaml:", g.lineOf("brokr: 1"))
	for _, verb := range []string{"check", "run"} {
		r := command(t, "", verb, "-c", g.file)
		require.Equal(t, 1, r.code)
		lines := strings.Split(strings.TrimSpace(r.err), "\n")
		require.Len(t, lines, 3, r.err)
		for i, part := range []string{first, first, second} {
			require.Contains(t, lines[i], part)
		}
	}
}

func TestPortInUseIsOneLine(t *testing.T) {
	for name, addr := range map[string]func(*gateway) string{
		"mqtt":  func(g *gateway) string { return g.mqtt },
		"http":  func(g *gateway) string { return g.http },
		"admin": func(g *gateway) string { return g.admin },
	} {
		t.Run(name, func(t *testing.T) {
			g := configure(t, "")
			l, err := net.Listen("tcp", addr(g))
			require.NoError(t, err)
			defer l.Close()
			g.requireOneLine(addr(g), "address already in use")
		})
	}
	t.Run("coap", func(t *testing.T) {
		g := configure(t, "")
		c, err := net.ListenPacket("udp", g.coap)
		require.NoError(t, err)
		defer c.Close()
		g.requireOneLine(g.coap, "address already in use")
	})
}

func TestDataFolderThatCannotBeUsedIsOneLine(t *testing.T) {
	t.Run("a file is in its place", func(t *testing.T) {
		g := configure(t, "")
		require.NoError(t, os.WriteFile(g.data, nil, 0o600))
		g.requireOneLine(g.data, "not a directory")
	})
	t.Run("not writable", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may write everywhere")
		}
		g := configure(t, "")
		require.NoError(t, os.Mkdir(g.data, 0o500))
		g.requireOneLine(g.data, "permission denied")
	})
	t.Run("in use by another gateway", func(t *testing.T) {
		first := startGateway(t, "")
		second := configure(t, "")
		text, err := os.ReadFile(second.file)
		require.NoError(t, err)
		shared := strings.Replace(string(text), second.data, first.data, 1)
		require.NoError(t, os.WriteFile(second.file, []byte(shared), 0o600))
		second.requireOneLine(first.data, "in use by another gateway")
		require.Equal(t, "edge-01", first.status().Node, "the first is not disturbed")
		require.NoFileExists(t, filepath.Join(filepath.Dir(second.file), "data"))
	})
}
