//go:build unix

package servers

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedisKeepsItsDataThroughAKill(t *testing.T) {
	r := Redis(t, "--maxmemory-policy", "noeviction")
	ask := func(request, want string) {
		t.Helper()
		require.NoError(t, exchange(t.Context(), r.Addr, request+"\r\n", func(answer []byte) error {
			if string(answer) != want {
				return fmt.Errorf("answer is %q", answer)
			}
			return nil
		}))
	}
	ask("SET state open", "+OK\r\n")
	r.Kill()
	r.Restart()
	ask("GET state", "$4\r\nopen\r\n")
}
