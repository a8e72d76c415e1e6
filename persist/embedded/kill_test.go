package embedded_test

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

	"gantry/broker"
	"gantry/persist/embedded"
	"gantry/persist/storetest"
)

func killConfig(dir string) embedded.Config {
	return embedded.Config{Dir: dir, SegmentBytes: 32 << 10, CleanAbove: 128 << 10}
}

// killStep is batch number n of the child: it depends on nothing else. Its retained message says how many batches there were.
func killStep(n uint64) []broker.Op {
	id := fmt.Sprintf("client-%d", n%5)
	other := fmt.Sprintf("client-%d", (n+1)%5)
	mark := message("step", 0)
	mark.Payload = strconv.AppendUint(nil, n, 10)
	ops := []broker.Op{{Kind: broker.OpRetain, Message: mark}}
	if n < 5 {
		return append(ops, put(id))
	}
	m := message(fmt.Sprintf("topic/%d", n), int(n*37%400))
	ops = append(ops, broker.Op{Kind: broker.OpEnqueue, Message: m, Targets: []broker.Target{
		{ClientID: id, Seq: n, QoS: 1}, {ClientID: other, Seq: n, QoS: 2, SubscriptionIDs: []uint32{uint32(n)}},
	}})
	if n > 100 { // far behind, except what stays for ever
		if (n-100)%50 != 0 {
			old := fmt.Sprintf("client-%d", (n-100)%5)
			ops = append(ops, broker.Op{Kind: broker.OpDequeue, ClientID: old, Seq: n - 100})
		}
		ops = append(ops, broker.Op{Kind: broker.OpDequeue, ClientID: fmt.Sprintf("client-%d", (n-99)%5), Seq: n - 100})
	}
	switch n % 7 {
	case 0:
		sub := broker.Subscription{Filter: fmt.Sprintf("f/%d", n%21), ID: uint32(n)}
		ops = append(ops, broker.Op{Kind: broker.OpSubscribe, ClientID: id, Subscription: &sub})
	case 1:
		ops = append(ops, broker.Op{Kind: broker.OpReleased, ClientID: other, Seq: n})
	case 2:
		ops = append(ops, broker.Op{Kind: broker.OpSent, ClientID: id, Seq: n})
	}
	if n%701 == 0 {
		ops = append(ops, broker.Op{Kind: broker.OpDeleteSession, ClientID: id}, put(id))
	}
	return ops
}

// commitUntilKilled is the child: it commits steps without waiting and prints the number of each one that was acknowledged.
func commitUntilKilled() {
	start, err := strconv.ParseUint(os.Getenv("EMBEDDED_KILL_START"), 10, 64)
	mustChild(err)
	s, err := embedded.Open(killConfig(os.Getenv("EMBEDDED_KILL_DIR")), nil, nil)
	mustChild(err)
	for n := start; ; n++ {
		err := s.Commit(context.Background(), &broker.Batch{Ops: killStep(n)}, func(err error) {
			mustChild(err)
			fmt.Printf("%d.\n", n)
		})
		mustChild(err)
	}
}

func mustChild(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestKill kills a committing process again and again. What is found afterwards is the state after a number of batches that is not less
// than the number acknowledged.
func TestKill(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	m := storetest.NewModel()
	next := uint64(0)
	for range rounds {
		acked := runAndKill(t, dir, next)
		s := open(t, killConfig(dir))
		got, err := storetest.Read(s)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.False(t, s.Damage().Any(), "%+v", s.Damage())

		var last uint64
		for _, r := range got.State.Retained {
			last, err = strconv.ParseUint(string(r.Payload), 10, 64)
			require.NoError(t, err)
		}
		require.GreaterOrEqual(t, last, acked, "acknowledged batches are lost")
		for ; next <= last; next++ {
			m.Apply(killStep(next)...)
		}
		storetest.Same(t, m.Snapshot(), got)
	}
	t.Logf("%d batches in %d lives", next, rounds)
}

// runAndKill returns the last acknowledged step.
func runAndKill(t *testing.T, dir string, start uint64) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "EMBEDDED_KILL_DIR="+dir, "EMBEDDED_KILL_START="+strconv.FormatUint(start, 10))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := 0
	for sc := bufio.NewScanner(out); sc.Scan(); lines++ {
		if lines == 0 { // it works; let it run a little
			time.AfterFunc(time.Duration(20+rand.IntN(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		var n uint64
		if _, err := fmt.Sscanf(sc.Text(), "%d.", &n); err == nil && sc.Text() == fmt.Sprintf("%d.", n) { // not torn by the kill
			acked = n
		}
	}
	require.Error(t, cmd.Wait(), "the child ends only by being killed")
	require.Positive(t, lines)
	return acked
}
