//go:build unix

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Damaged files of the queue and of the store: the gateway starts, says which
// files, raises alarms, counts what is lost, and serves the rest.
func TestDamagedFiles(t *testing.T) {
	u := standIn(t)
	u.away()
	g := startGateway(t, bridgeTo(u, "max_bytes: 1MiB")) // files of 64 KiB
	l := &ledger{}
	a := l.open("old", pad)
	for life := range 2 { // a file of the store is of one life
		g.Restart()
		w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
		for range 150 {
			require.Zero(t, a.offer(t, w, "plant/a"))
		}
		g.retain(50*life, 50*(life+1))
	}
	g.Kill()

	queued := segmentsOf(t, filepath.Join(g.data, "queue", "cloud"))
	require.Greater(t, len(queued), 3)
	stored := segmentsOf(t, filepath.Join(g.data, "store"))
	require.Greater(t, len(stored), 1)
	overwrite(t, queued[1], false)
	overwrite(t, queued[2], true)
	overwrite(t, stored[0], true)

	g.Restart()
	for _, path := range []string{queued[2], stored[0]} {
		g.requireSetAside(path)
	}
	g.awaitAlarm("bridge_queue_damaged:cloud")
	g.awaitAlarm("store_damaged")
	require.Equal(t, "99", g.retained("elsewhere/99"), "the other file of the store is served")

	w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
	require.Zero(t, a.offer(t, w, "plant/a"))
	u.back()
	v := l.settle(g, u)
	t.Log(v)
	require.Zero(t, v.reordered+v.duplicates+v.retried+v.strange, "%q", v.examples)
	require.Positive(t, v.lost)
	require.Less(t, v.lost, 70, "what one file holds, and what 64 bytes touch")
	// How many records a wholly destroyed file held is not known for sure.
	require.Positive(t, g.bridge().Dropped["damaged"], "what is known to be lost is counted")
	require.LessOrEqual(t, g.bridge().Dropped["damaged"], v.lost)
	eventually(t, "the file with a hole is set aside once what is left of it is delivered", func() bool {
		return len(setAside(t, queued[1])) == 1
	})
	g.requireSetAside(queued[1])
}

// stem is a log file's name without what may be added to it.
func stem(path string) string { return strings.TrimSuffix(filepath.Base(path), ".seg") }

// setAside are the files in the quarantine folder that come from path.
func setAside(t testing.TB, path string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(path), "quarantine", stem(path)+"*"))
	require.NoError(t, err)
	return found
}

func (g *gateway) requireSetAside(path string) {
	g.t.Helper()
	require.Len(g.t, setAside(g.t, path), 1, path)
	require.NoFileExists(g.t, path)
	require.Contains(g.t, g.Output(), stem(path), "the log names it")
}

// retain sets the retained values elsewhere/FROM to elsewhere/TO-1 by HTTP.
func (g *gateway) retain(from, to int) {
	g.t.Helper()
	for n := from; n < to; n++ {
		url := fmt.Sprintf("http://%s/v1/topics/elsewhere/%d?retain=true", g.http, n)
		status, err := post(context.Background(), operatorClient, url, "keeper", fmt.Append(nil, n))
		require.NoError(g.t, err)
		require.Equal(g.t, http.StatusOK, status)
	}
}

// retained reads a retained value by HTTP.
func (g *gateway) retained(topic string) string {
	g.t.Helper()
	resp, err := operatorClient.Get("http://" + g.http + "/v1/topics/" + topic)
	require.NoError(g.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(g.t, err)
	require.Equal(g.t, http.StatusOK, resp.StatusCode, "%s", body)
	return string(body)
}

// overwrite destroys a file, or 64 bytes in the middle of it.
func overwrite(t *testing.T, path string, whole bool) {
	t.Helper()
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	hole := body[len(body)/2:][:64]
	if whole {
		hole = body
	}
	for i := range hole {
		hole[i] = 0xA5
	}
	require.NoError(t, os.WriteFile(path, body, 0o600))
}
