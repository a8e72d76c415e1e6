package seglog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/persist/seglog"
)

func TestMain(m *testing.M) {
	if os.Getenv("SEGLOG_KILL_DIR") != "" {
		appendUntilKilled()
		return
	}
	goleak.VerifyTestMain(m)
}

// body makes the payload of record i: its number, then bytes that follow from it.
func body(i uint64, size int) []byte {
	b := make([]byte, max(size, 8))
	binary.LittleEndian.PutUint64(b, i)
	x := i*2654435761 + 1
	for j := 8; j < len(b); j++ {
		x = x*6364136223846793005 + 1442695040888963407
		b[j] = byte(x >> 56)
	}
	return b
}

func checkBody(t testing.TB, p []byte) uint64 {
	t.Helper()
	require.GreaterOrEqual(t, len(p), 8)
	i := binary.LittleEndian.Uint64(p)
	require.Equal(t, body(i, len(p)), p, "record is not what was appended")
	return i
}

func open(t testing.TB, dir string, o seglog.Options) *seglog.Log {
	t.Helper()
	l, err := seglog.Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// appendWait appends and waits for the commit.
func appendWait(t testing.TB, l *seglog.Log, recs ...[]byte) seglog.Committed {
	t.Helper()
	c, err := tryAppend(l, recs...)
	require.NoError(t, err)
	return c
}

func tryAppend(l *seglog.Log, recs ...[]byte) (seglog.Committed, error) {
	ch := make(chan seglog.Committed, 1)
	if _, err := l.Append(context.Background(), func(c seglog.Committed) { ch <- c }, recs...); err != nil {
		return seglog.Committed{}, err
	}
	c := <-ch
	return c, c.Err
}

type got struct {
	seq     uint64
	pos     seglog.Pos
	payload []byte
}

// readAll reads to the end and checks that sequence numbers rise.
func readAll(t testing.TB, l *seglog.Log, from uint64) []got {
	t.Helper()
	r := l.NewReader(from)
	defer r.Close()
	var out []got
	last := uint64(0)
	for {
		seq, pos, p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.Greater(t, seq, last)
		require.GreaterOrEqual(t, seq, from)
		last = seq
		out = append(out, got{seq, pos, append([]byte(nil), p...)})
	}
}

func eventually(t testing.TB, cond func() bool, what string) {
	t.Helper()
	require.Eventually(t, cond, 10*time.Second, time.Millisecond, what)
}
