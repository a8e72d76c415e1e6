package servers

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is a testing.TB that records how a test was ended.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (*verdict) Helper() {}

func (v *verdict) Skipf(format string, args ...any) {
	v.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (v *verdict) Fatalf(format string, args ...any) {
	v.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func judge(call func(testing.TB)) *verdict {
	v, done := &verdict{}, make(chan struct{})
	go func() {
		defer close(done)
		call(v)
	}()
	<-done
	return v
}

func TestMissingProgramSkips(t *testing.T) {
	t.Setenv(requireRealEnv, "")
	t.Setenv("PATH", t.TempDir())
	v := judge(func(t testing.TB) { Tool(t, "no-such-program", "kcat") })
	require.Empty(t, v.failed)
	require.Contains(t, v.skipped, "no-such-program or kcat is not installed")
	require.Contains(t, v.skipped, "apt-get install -y kcat")
}

func TestMissingProgramFailsWhereRealServersAreRequired(t *testing.T) {
	t.Setenv(requireRealEnv, "1")
	t.Setenv("PATH", t.TempDir())
	v := judge(func(t testing.TB) { Tool(t, "no-such-program") })
	require.Empty(t, v.skipped)
	require.Contains(t, v.failed, "no-such-program is not installed")
}

func TestToolTakesTheFirstThatIsThere(t *testing.T) {
	require.Equal(t, Tool(t, "go"), Tool(t, "no-such-program", "go"))
}
