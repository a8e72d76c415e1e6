package secure

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the library writes while the owner reads is not subject to the deadline
// of the owner's last write; the owner's next write is.
func TestAnswersHaveTheirOwnTime(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	nc, err := ln.Accept()
	require.NoError(t, err)
	defer nc.Close()

	b := &base{Conn: nc}
	require.NoError(t, b.SetWriteDeadline(time.Unix(1, 0)))
	_, err = b.Write([]byte("answer"))
	require.NoError(t, err)
	buf := make([]byte, 6)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.ReadFull(client, buf)
	require.NoError(t, err)
	require.Equal(t, "answer", string(buf))

	write := func() error { _, err := b.Write([]byte("x")); return err }
	require.ErrorIs(t, b.owned(write), os.ErrDeadlineExceeded)
	require.NoError(t, b.SetDeadline(time.Now().Add(patience)))
	require.NoError(t, b.owned(write))
}
