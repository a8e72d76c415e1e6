package mqtt

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// Connections of a Unix socket have no address by which one client could be told
// from another.
func TestHalfOpenWithoutAddress(t *testing.T) {
	ln, err := Listen("unix:" + filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	b, err := broker.New(t.Context(), broker.Config{}, &fakeStore{}, nil, nil)
	require.NoError(t, err)
	s, err := NewOn(ln, Config{Name: "u", MaxHalfOpenPerAddress: 1}, b, nil, nil)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	for range 3 {
		nc, err := net.Dial("unix", ln.Addr().String())
		require.NoError(t, err)
		defer nc.Close()
	}
	eventually(t, func() bool { return s.Connections() == 3 }, "all are accepted")
	require.NoError(t, s.Close())
	require.NoError(t, <-ended)
	require.NoError(t, b.Close())
}

// A listener whose socket somebody has removed leaves alone the one that another
// gateway has put in its place.
func TestCloseLeavesTheSocketOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	a, err := Listen("unix:" + path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	b, err := Listen("unix:" + path)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	nc, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, nc.Close())
	require.NoError(t, b.Close())
	require.NoFileExists(t, path)
}
