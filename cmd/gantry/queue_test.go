package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/bridge"
	"gantry/bridge/queue"
	"gantry/gateway"
	"gantry/gateway/admin"
)

func TestQueueThroughTheGateway(t *testing.T) {
	at := fakeAdmin(t, map[string]any{
		"/api/v1/bridges": []admin.Bridge{{Name: "cloud", QueuedRecords: 12, QueuedBytes: 3 << 20, MaxBytes: 1 << 30, OldestAgeSeconds: 5, DeadLetters: 2}},
		"/api/v1/bridges/cloud/peek?n=2": []admin.Record{
			{Seq: 7, Time: time.Unix(0, 0), Topic: "plant", Key: "dev\x1b[2J", Size: 500, Payload: "a\x1b", Encoding: admin.EncodingUTF8, Truncated: true},
			{Seq: 8, Time: time.Unix(0, 0), Topic: "plant", Size: 1, Payload: "/w==", Encoding: admin.EncodingBase64},
		},
		"/api/v1/bridges/cloud/peek?dead=true&n=10": []admin.Record{{Seq: 1, Reason: "too large"}},
	})
	r := gantry(t, "", append([]string{"queue", "ls"}, at...)...)
	require.Equal(t, result{0, "NAME   RECORDS  BYTES  OF    OLDEST  DEAD\ncloud  12       3MiB   1GiB  5s      2\n", ""}, r)

	r = gantry(t, "", append([]string{"queue", "peek", "cloud", "-n", "2"}, at...)...)
	require.Zero(t, r.code, r.err)
	lines := strings.Split(r.out, "\n")
	require.Contains(t, lines[1], `"dev\x1b[2J"`)
	require.Contains(t, lines[1], `"a\x1b"...`)
	require.Contains(t, lines[2], `"\xff"`)
	require.NotContains(t, r.out, "\x1b", "a payload must not reach the terminal")

	r = gantry(t, "", append([]string{"queue", "peek", "cloud", "--dead", "--json"}, at...)...)
	var records []admin.Record
	require.NoError(t, json.Unmarshal([]byte(r.out), &records), r.err)
	require.Equal(t, "too large", records[0].Reason)
}

// With no gateway the data folder tells, and stays as it is.
func TestQueueOffline(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GANTRY_DATA_DIR", dir)
	t.Setenv("GANTRY_ADMIN_BIND", "127.0.0.1:1")
	fill(t, gateway.QueueDir(dir, "cloud"), 3)

	r := gantry(t, "", "queue", "ls", "--json")
	require.Zero(t, r.code, r.err)
	var queues []queueInfo
	require.NoError(t, json.Unmarshal([]byte(r.out), &queues))
	require.Len(t, queues, 1)
	require.Equal(t, "cloud", queues[0].Name)
	require.EqualValues(t, 3, queues[0].Records)
	require.Positive(t, queues[0].Bytes)

	before := listing(t, dir)
	r = gantry(t, "", "queue", "peek", "cloud", "-n", "2")
	require.Zero(t, r.code, r.err)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines[1], `plant  device  7     "value 0"`)
	require.Equal(t, before, listing(t, dir))
}

func TestQueueErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	r := gantry(t, "", "queue", "ls")
	require.Equal(t, 1, r.code)
	require.Equal(t, "gantry: no gateway answers, and its data cannot be read: stat gantry-data: no such file or directory\n", r.err)

	require.NoError(t, os.Mkdir("gantry-data", 0o700))
	require.Equal(t, result{0, "NAME  RECORDS  BYTES  OF  OLDEST  DEAD\n", ""}, gantry(t, "", "queue", "ls"))
	require.Contains(t, gantry(t, "", "queue", "peek", "none").err, "gantry: no gateway answers, and its data cannot be read: ")
	require.Contains(t, gantry(t, "", "queue", "peek", "../x").err, "is not the name of a bridge")
	require.Contains(t, gantry(t, "", "queue", "peek", "x", "-n", "0").err, "at least 1")

	// Who names a gateway wants that one, not a folder.
	r = gantry(t, "", "queue", "ls", "--admin", "127.0.0.1:1", "--token-file", file(t, "token", testToken))
	require.Contains(t, r.err, "gantry: no gateway answers: ")
}

// fill makes a queue with records in it, as a gateway leaves it.
func fill(t *testing.T, dir string, n int) {
	t.Helper()
	q, err := queue.Open(queue.Config{Dir: dir, Name: "cloud", MaxBytes: 1 << 20}, nil)
	require.NoError(t, err)
	for i := range n {
		// version, flags (key), time, topic, key, no headers, no message, value
		rec := fmt.Appendf(nil, "\x01\x04\x00\x05plant\x06device\x00\x00value %d", i)
		require.NoError(t, new(bridge.Record).Decode(rec))
		done := make(chan error, 1)
		require.NoError(t, q.Append(t.Context(), rec, func(err error) { done <- err }))
		require.NoError(t, <-done)
	}
	require.NoError(t, q.Close())
}

// listing returns the files below a folder with their contents.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	}))
	return files
}
