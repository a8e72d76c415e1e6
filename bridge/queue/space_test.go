package queue_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/bridge/queue"
)

// deletedButOpen counts the files of a folder that are deleted and still take space because this process has them open.
func deletedButOpen(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && strings.HasPrefix(target, dir) && strings.HasSuffix(target, "(deleted)") {
			n++
		}
	}
	return n
}

// TestEmptyQueueGivesItsSpaceBack: on a full disk everybody waits for it.
func TestEmptyQueueGivesItsSpaceBack(t *testing.T) {
	dir := t.TempDir()
	q := open(t, queue.Config{Dir: dir, MaxBytes: 4 << 20, SegmentBytes: 64 << 10})
	for i := range uint64(200) {
		require.NoError(t, put(q, record(i, 1000)))
	}
	require.Positive(t, q.Stats().OldestAge, "the oldest record is looked at")
	require.Len(t, drain(t, q), 200)
	eventually(t, func() bool { return q.Stats().Segments == 1 }, "confirmed segments are deleted")
	eventually(t, func() bool { return q.Stats().Records == 0 && deletedButOpen(t, dir) == 0 }, "no deleted file is open")
}
