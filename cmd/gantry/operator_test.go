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

const testToken = "0123456789abcdef0123456789abcdef"

// fakeAdmin answers paths with values, and the flags that lead to it.
func fakeAdmin(t *testing.T, answers map[string]any) []string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, ok := answers[r.URL.RequestURI()]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+testToken:
			w.WriteHeader(http.StatusUnauthorized)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_ = json.NewEncoder(w).Encode(v)
		}
	}))
	t.Cleanup(s.Close)
	return []string{"--admin", strings.TrimPrefix(s.URL, "http://"), "--token-file", file(t, "token", testToken+"\n")}
}

func TestStatus(t *testing.T) {
	open := 3
	at := fakeAdmin(t, map[string]any{"/api/v1/status": admin.Status{
		Listeners: []admin.Listener{
			{Name: "secure", Protocol: "mqtt", Transport: "tls", Address: "[::]:8883", Clients: 2, Connections: &open, MaxConnections: 10000},
			{Name: "udp", Protocol: "coap", Transport: "udp", Address: "[::]:5683", Clients: 1},
		},
		Version: "v1", Node: "edge", UptimeSeconds: 90, Connections: map[string]int{"mqtt": 2, "coap": 1, "http": 0}, Sessions: 4, Subscriptions: 5, Retained: 6,
		Messages: admin.MessageCounts{In: 10, Out: 20, Dropped: map[string]uint64{"expired": 3}},
		Store:    admin.StoreStatus{Type: "embedded", Detail: "disk full"}, Process: admin.Process{MemoryBytes: 40 << 20, Goroutines: 7},
		Alarms: []admin.Alarm{{Name: "store", Since: time.Now(), Detail: "disk full"}},
	}})
	r := gantry(t, "", append([]string{"status"}, at...)...)
	require.Zero(t, r.code, r.err)
	for _, want := range []string{
		"secure: mqtt over tls at [::]:8883, clients: 2, connections: 3 of 10000\n", "udp: coap over udp at [::]:5683, clients: 1\n",
		"edge, version v1, up 1m30s", "1 coap, 2 mqtt", "4 with 5 subscriptions", "10 in, 20 out, dropped: 3 expired",
		"embedded, not writable: disk full", "40MiB, 7 goroutines", "store since ",
	} {
		require.Contains(t, r.out, want)
	}
	r = gantry(t, "", append([]string{"status", "--json"}, at...)...)
	var st admin.Status
	require.NoError(t, json.Unmarshal([]byte(r.out), &st))
	require.Equal(t, "edge", st.Node)
}

func TestBridges(t *testing.T) {
	at := fakeAdmin(t, map[string]any{"/api/v1/bridges": []admin.Bridge{{
		Name: "cloud", Type: "kafka", State: admin.BridgeRetrying, QueuedRecords: 12, QueuedBytes: 3 << 20, MaxBytes: 1 << 30, OldestAgeSeconds: 3661,
		Delivered: 99, RatePerSecond: 1.4, LastError: "connection refused",
	}}})
	r := gantry(t, "", append([]string{"bridges"}, at...)...)
	require.Zero(t, r.code, r.err)
	require.Equal(t, []string{"cloud", "kafka", "retrying", "12", "3MiB", "1GiB", "1h1m1s", "99", "1", "0", "0", "0", "connection", "refused"},
		strings.Fields(strings.Split(r.out, "\n")[1]))
}

func TestOperatorErrors(t *testing.T) {
	at := fakeAdmin(t, nil)
	r := gantry(t, "", append([]string{"status"}, at...)...)
	require.Equal(t, result{1, "", "gantry: admin interface answered 404 Not Found\n"}, r)

	at[3] = file(t, "token", strings.Repeat("x", 32))
	require.Contains(t, gantry(t, "", append([]string{"bridges"}, at...)...).err, "401 Unauthorized")

	at[1] = "127.0.0.1:1" // nobody listens on tcpmux
	require.Contains(t, gantry(t, "", append([]string{"status"}, at...)...).err, "gantry: no gateway answers: ")

	t.Chdir(t.TempDir())
	require.Contains(t, gantry(t, "", "status").err, "read admin token: open gantry-data/admin.token: no such file")
}

func TestTexts(t *testing.T) {
	require.Equal(t, []string{"0B", "999B", "0.977KiB", "64MiB", "1.5GiB", "5e+03TiB"},
		[]string{size(0), size(999), size(1000), size(64 << 20), size(3 << 29), size(5000 << 40)})
	require.Equal(t, []string{"0s", "1.3s", "1m1s", "27h46m40s"}, []string{seconds(0), seconds(1.26), seconds(61.4), seconds(100000)})
	require.Equal(t, "0", counts(map[string]int{"a": 0}))
}
