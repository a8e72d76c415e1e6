package gateway

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// documented reads the topics of the tables whose first column has a title,
// with the lists in braces spelt out.
func documented(t *testing.T, title string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/sys-topics.md")
	require.NoError(t, err)
	topics, inside := map[string]bool{}, false
	for line := range strings.SplitSeq(string(text), "\n") {
		switch {
		case !strings.HasPrefix(line, "|"):
			inside = false
		case strings.HasPrefix(line, "| "+title+" |"):
			inside = true
		case inside && strings.HasPrefix(line, "| `"):
			for _, topic := range spellOut(strings.ReplaceAll(strings.Split(line, "`")[1], "{node}", "test")) {
				require.False(t, topics[topic], "%s is there twice", topic)
				topics[topic] = true
			}
		}
	}
	require.NotEmpty(t, topics, title)
	return topics
}

var braces = regexp.MustCompile(`\{[^{}]*,[^{}]*\}`)

func spellOut(topic string) []string {
	at := braces.FindStringIndex(topic)
	if at == nil {
		return []string{topic}
	}
	var all []string
	for choice := range strings.SplitSeq(topic[at[0]+1:at[1]-1], ",") {
		all = append(all, spellOut(topic[:at[0]]+choice+topic[at[1]:])...)
	}
	return all
}

func TestDocumentedTopicsArePublished(t *testing.T) {
	g, stop := start(t, testConfig(t))
	stop()
	want, got := documented(t, "topic"), g.sys.last
	for topic := range want {
		require.Contains(t, got, topic, "documented, not published")
	}
	for topic, value := range got {
		require.True(t, want[topic], "%s is published, not documented", topic)
		require.NotEmpty(t, value, topic)
	}
	require.Greater(t, len(got), 130)
}

// Every topic that mosquitto publishes is published here, in the same form, or
// documented as absent.
func TestTopicsOfMosquitto(t *testing.T) {
	for _, program := range []string{"mosquitto", "mosquitto_sub"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("GANTRY_REQUIRE_REAL") != "1" {
			t.Skip(program + " is not installed")
		}
	}
	g, stop := start(t, testConfig(t))
	stop()
	absent := slices.Collect(maps.Keys(documented(t, "absent topic")))
	form := regexp.MustCompile(`\d+`)
	theirs := mosquittoTopics(t)
	require.Greater(t, len(theirs), 50)
	for topic, value := range theirs {
		mine, here := g.sys.last[topic]
		if !here {
			require.True(t, slices.ContainsFunc(absent, func(a string) bool {
				return a == topic || strings.HasSuffix(a, "/#") && strings.HasPrefix(topic, strings.TrimSuffix(a, "#"))
			}), "%s is neither published nor documented as absent", topic)
			continue
		}
		if !strings.HasSuffix(topic, "/version") {
			require.Equal(t, form.ReplaceAllString(value, "0"), form.ReplaceAllString(mine, "0"), topic)
		}
	}
}

// mosquittoTopics starts a mosquitto and returns what it retains below $SYS.
func mosquittoTopics(t *testing.T) map[string]string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	require.NoError(t, free.Close())
	conf := t.TempDir() + "/mosquitto.conf"
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, "listener %s 127.0.0.1\nallow_anonymous true\nsys_interval 1\n", port), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	server := exec.CommandContext(ctx, "mosquitto", "-c", conf)
	require.NoError(t, server.Start())
	defer func() {
		cancel()
		_ = server.Wait()
	}()
	topics := map[string]string{}
	for len(topics) < 2 || topics["$SYS/broker/uptime"] < "1" { // the first values come with the first interval
		require.NoError(t, ctx.Err())
		out, _ := exec.CommandContext(ctx, "mosquitto_sub", "-p", port, "-t", "$SYS/#", "-F", "%t\t%p", "-W", "2").Output()
		for line := range strings.Lines(string(out)) {
			topic, value, ok := strings.Cut(strings.TrimSpace(line), "\t")
			if ok {
				topics[topic] = value
			}
		}
	}
	return topics
}
