package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/gateway/admin"
)

func TestDelayedLs(t *testing.T) {
	due := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	at := fakeAdmin(t, map[string]any{"/api/v1/delayed?after=3&limit=2": admin.DelayedPage{Next: 12, Delayed: []admin.Delayed{
		{ID: 11, Topic: "a/b", ClientID: "dev\x1b[2J", Due: due, Size: 5, QoS: 1},
		{ID: 12, Topic: "c", ClientID: "dev", Due: due, Size: 6, QoS: 2, Attempts: 3, Reason: "quota exceeded"},
	}}})
	args := append([]string{"delayed", "ls", "-n", "2", "--after", "3"}, at...)
	r := gantry(t, "", args...)
	require.Zero(t, r.code, r.err)
	lines := strings.Split(r.out, "\n")
	require.Equal(t, []string{"11", "2026-01-02", "03:04:05", "a/b"}, strings.Fields(lines[1])[:4])
	require.NotContains(t, r.out, "\x1b")
	require.Equal(t, []string{"12", "2026-01-02", "03:04:05", "c", "dev", "6", "2", "3", "quota", "exceeded"}, strings.Fields(lines[2]))
	require.Equal(t, "more: --after 12", lines[3])

	r = gantry(t, "", append(args, "--json")...)
	var page admin.DelayedPage
	require.NoError(t, json.Unmarshal([]byte(r.out), &page))
	require.Len(t, page.Delayed, 2)
	require.Contains(t, gantry(t, "", append([]string{"delayed", "ls", "-n", "0"}, at...)...).err, "-n must be")
}

func TestDelayedRm(t *testing.T) {
	var deleted []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deleted = append(deleted, r.Method+" "+r.URL.Path)
		if strings.HasSuffix(r.URL.Path, "/2") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	at := []string{"--admin", strings.TrimPrefix(s.URL, "http://"), "--token-file", file(t, "token", testToken+"\n")}
	r := gantry(t, "", append([]string{"delayed", "rm", "1", "2", "3"}, at...)...)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "message 2: ")
	require.Equal(t, []string{"DELETE /api/v1/delayed/1", "DELETE /api/v1/delayed/2", "DELETE /api/v1/delayed/3"}, deleted)
	require.Equal(t, 1, gantry(t, "", append([]string{"delayed", "rm", "x"}, at...)...).code)
}
