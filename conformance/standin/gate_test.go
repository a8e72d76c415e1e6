package standin

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGateClosesDuringACut(t *testing.T) {
	g, err := newGate("127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, g.Cut())
	accepted := make(chan error, 1)
	go func() {
		_, err := g.Accept()
		accepted <- err
	}()
	require.NoError(t, g.Close())
	require.ErrorIs(t, <-accepted, net.ErrClosed)
	require.NoError(t, g.Restore())
	_, err = net.Dial("tcp", g.Addr().String())
	require.Error(t, err, "a closed gate does not come back")
}
