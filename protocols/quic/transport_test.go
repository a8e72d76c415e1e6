package quic

import (
	"context"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"gantry/conformance/quicdial"
)

// dialOnly opens a connection without a stream.
func dialOnly(t testing.TB, r *rig) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	qc, err := quic.DialAddr(ctx, r.ln.Addr().String(), quicdial.TLS(r.clientTLS()), quicdial.Config())
	require.NoError(t, err)
	t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
	return qc
}
