package seglog_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
)

const killBatch = 16

// appendUntilKilled is the child: it appends batches for ever and prints the first sequence number and the number of each batch once it
// is acknowledged.
func appendUntilKilled() {
	dir := os.Getenv("SEGLOG_KILL_DIR")
	start, err := strconv.ParseUint(os.Getenv("SEGLOG_KILL_START"), 10, 64)
	check(err)
	l, err := seglog.Open(dir, seglog.Options{SegmentBytes: 64 << 10})
	check(err)
	for i := start; ; i += killBatch {
		recs := make([][]byte, killBatch)
		for j := range recs {
			recs[j] = body(i+uint64(j), 20+int((i+uint64(j))%300))
		}
		_, err := l.Append(context.Background(), func(c seglog.Committed) {
			check(c.Err)
			fmt.Printf("%d %d\n", c.First, i)
		}, recs...)
		check(err)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestKill kills a writing process again and again and looks for every record that it saw acknowledged.
func TestKill(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 6
	}
	dir := t.TempDir()
	acked := map[uint64]uint64{} // sequence number → record number
	start := uint64(0)
	for range rounds {
		lines := runAndKill(t, dir, start)
		for _, line := range lines {
			var seq, i uint64
			_, err := fmt.Sscanf(line, "%d %d", &seq, &i)
			require.NoError(t, err)
			for j := range uint64(killBatch) {
				if _, twice := acked[seq+j]; twice {
					t.Fatalf("sequence number %d was given twice", seq+j)
				}
				acked[seq+j] = i + j
			}
			start = i + killBatch
		}
		start += 1_000_000
		verifyAcked(t, dir, acked)
	}
	require.Greater(t, len(acked), rounds*killBatch)
}

func runAndKill(t *testing.T, dir string, start uint64) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "SEGLOG_KILL_DIR="+dir, "SEGLOG_KILL_START="+strconv.FormatUint(start, 10))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		if len(lines) == 0 { // it works; let it run a little
			time.AfterFunc(time.Duration(30+rand.IntN(120))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		lines = append(lines, sc.Text())
	}
	require.Error(t, cmd.Wait(), "the child ends only by being killed")
	require.NotEmpty(t, lines)
	if last := lines[len(lines)-1]; len(lines) > 1 { // the kill may have torn the last line
		var a, b uint64
		if n, _ := fmt.Sscanf(last, "%d %d", &a, &b); n != 2 || len(last) < len(lines[len(lines)-2]) {
			lines = lines[:len(lines)-1]
		}
	}
	return lines
}

func verifyAcked(t *testing.T, dir string, acked map[uint64]uint64) {
	t.Helper()
	l := open(t, dir, seglog.Options{SegmentBytes: 64 << 10})
	found := 0
	for _, rec := range readAll(t, l, 0) {
		i := checkBody(t, rec.payload)
		if want, ok := acked[rec.seq]; ok {
			require.Equal(t, want, i, "record %d changed", rec.seq)
			found++
		}
	}
	require.Equal(t, len(acked), found, "acknowledged records are missing")
	require.Zero(t, l.Stats().Quarantined, "a kill is no damage")
	require.Zero(t, l.Stats().CorruptBytes, "a kill is no damage")
	require.NoError(t, l.Close())
}
