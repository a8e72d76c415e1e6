//go:build unix

package e2e

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// segmentsOf are the log files in a folder, oldest first: their names sort so.
func segmentsOf(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, "log files in %s", dir)
	return paths
}

func newestSegment(t testing.TB, dir string) string {
	t.Helper()
	segments := segmentsOf(t, dir)
	return segments[len(segments)-1]
}
