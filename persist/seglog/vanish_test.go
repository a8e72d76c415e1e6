package seglog_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
)

// TestFolderDeletedWhileOpen: a file that was deleted can still be written and synced, but what it holds is gone after a restart, so an
// appender must be told.
func TestFolderDeletedWhileOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := open(t, dir, seglog.Options{})
	appendWait(t, l, body(0, 100))
	require.NoError(t, os.RemoveAll(dir))
	require.Eventually(t, func() bool {
		_, err := tryAppend(l, body(1, 100))
		return err != nil
	}, 10*time.Second, 10*time.Millisecond, "appends still succeed without a folder")
	_, err := tryAppend(l, body(2, 100))
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.Mkdir(dir, 0o750))
	c := appendWait(t, l, body(3, 100))
	require.NoError(t, l.Close())
	recs := readAll(t, open(t, dir, seglog.Options{}), 0)
	require.Len(t, recs, 1)
	require.Equal(t, c.First, recs[0].seq)
	require.Equal(t, body(3, 100), recs[0].payload)
}
