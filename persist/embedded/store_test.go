package embedded_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/broker"
	"gantry/persist/embedded"
	"gantry/persist/seglog"
	"gantry/persist/storetest"
)

func TestMain(m *testing.M) {
	if os.Getenv("EMBEDDED_KILL_DIR") != "" {
		commitUntilKilled()
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, cfg embedded.Config) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(cfg, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	for _, sync := range []seglog.Sync{seglog.SyncAlways, seglog.SyncInterval, seglog.SyncNever} {
		t.Run(sync.String(), func(t *testing.T) {
			storetest.Run(t, func(t testing.TB, dir string) broker.Store {
				return open(t, embedded.Config{Dir: dir, Sync: sync})
			})
		})
	}
}

// TestStoreWhileCleaning runs the suite with a cleaner that never rests: segments are tiny and hardly anything may be dead.
func TestStoreWhileCleaning(t *testing.T) {
	storetest.Run(t, func(t testing.TB, dir string) broker.Store {
		return open(t, embedded.Config{Dir: dir, SegmentBytes: 4 << 10, CleanAbove: 1})
	})
}
