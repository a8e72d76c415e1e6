package kafka

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"gantry/bridge"
	"gantry/bridge/queue"
	"gantry/conformance/servers"
)

// The test program runs itself as the gateway of these tests.
const (
	childDir   = "GANTRY_TEST_KAFKA_CHILD_DIR"
	childAddr  = "GANTRY_TEST_KAFKA_CHILD_ADDR"
	childRound = "GANTRY_TEST_KAFKA_CHILD_ROUND"
)

// child forwards the queue in dir until it is killed.
func child(dir, addr string) {
	fail := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	q, err := queue.Open(queue.Config{Dir: dir, Name: "cloud", MaxBytes: 1 << 30}, nil)
	fail(err)
	records, err := strconv.Atoi(os.Getenv(childRound))
	fail(err)
	sink, err := New(Config{Bridge: "cloud", Node: "edge-01", Dir: dir, Brokers: []string{addr}, RoundRecords: records}, nil, nil)
	fail(err)
	f, err := bridge.NewForwarder(bridge.ForwarderConfig{Bridge: "cloud", MinBackoff: 5 * time.Millisecond}, q, sink, nil, nil)
	fail(err)
	fail(f.Run(context.Background()))
}

func TestGatewayKilled(t *testing.T) {
	k := servers.Kfake(t)
	k.CreateTopic("t", 4)
	killGateways(t, k.Addr, k.Consume, 8000, 100)
}

func TestRealGatewayKilled(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("t", 4)
	killGateways(t, k.Addr, k.Consume, 100_000, 1000)
}

// killGateways ends one gateway after the other with SIGKILL at a random moment
// while it sends a backlog in rounds of so many records.
func killGateways(t *testing.T, addr string, consume func(string) []*kgo.Record, backlog, records int) {
	const kills = 8
	g := newRig(t, addr)
	program, err := os.Executable()
	require.NoError(t, err)
	unseen := 0
	for range kills {
		g.publish("t/a", backlog)
		require.NoError(t, g.queue.Close()) // commits
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), childDir+"="+g.cfg.Dir, childAddr+"="+addr, childRound+"="+strconv.Itoa(records))
		cmd.Stderr = os.Stderr
		before := len(consume("t"))
		require.NoError(t, cmd.Start())
		g.await(func() bool { return len(consume("t")) > before })
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond) // a random moment
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait(), "killed")
		g.openQueue()
		unseen += len(consume("t")) - (g.published - int(g.queue.Stats().Records))
	}
	g.start()
	g.awaitEmpty()
	requireExact(t, consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	t.Logf("%d records, %d kills; %d records were in the log and not yet confirmed on disk", g.published, kills, unseen)
}
