//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The variables of make crash.
const (
	roundsEnv = "GANTRY_CRASH_ROUNDS" // kills, 30 unless set
	seedEnv   = "GANTRY_CRASH_SEED"   // of the moments and faults, to look for a failure again
)

// The gateway is killed again and again at random moments, also while it starts,
// under load of all protocols, with a subscriber that has a persistent session,
// while Kafka comes and goes and refuses, and the last write is torn.
func TestCrashLoop(t *testing.T) {
	rounds := int(fromEnvironment(t, roundsEnv, uint64(few(30, 6))))
	seed := fromEnvironment(t, seedEnv, rand.Uint64())
	t.Logf("%s=%d", seedEnv, seed)
	chance := rand.New(rand.NewPCG(seed, 0))

	u := standIn(t)
	g := startGateway(t, bridgeTo(u, "max_bytes: 1GiB"))
	sub := &historian{t: t, addr: g.mqtt, arrived: arrivals{}}
	sub.join(g)
	subscription := employ(t, worker(sub))

	// An acknowledgement of plant waits for the queue of the bridge and for the
	// session of the subscriber, one of yard and hall for only one of them.
	plant, yard, hall := &ledger{}, &ledger{}, &ledger{}
	const every = 3 * time.Millisecond
	state := &mqttDevice{
		work: work{account: plant.open("state", 0), topic: "plant/state", every: every},
		addr: g.mqtt, version: v5, qos: 1, window: 8, retain: true,
	}
	load := employ(t, slices.Concat([]device{state},
		g.fleet(plant, "plant", 1, 0, every), g.fleet(yard, "yard", 1, 0, every), g.fleet(hall, "hall", 1, 0, every))...)
	for range rounds {
		g.crash(u, chance)
	}
	for _, l := range []*ledger{plant, yard, hall} {
		seen := l.acked.Load()
		eventually(t, "devices go on after the last crash", func() bool { return l.acked.Load() > seen+50 })
	}
	load.dismiss()
	u.back()

	v := plant.with(yard).settle(g, u)
	eventually(t, "the subscriber has all that was acknowledged", func() bool { return plant.with(hall).compare(sub.copy()).lost == 0 })
	subscription.dismiss()
	t.Logf("rounds %d, in Kafka and at the subscriber:", rounds)
	v.requireKept(t)
	plant.with(hall).compare(sub.copy()).requireKept(t)
	require.Zero(t, v.duplicates, "%q", v.examples)
	g.requireRetained(state.account)
}

func fromEnvironment(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// crash is one round: some load, a fault or none, SIGKILL, and the next life.
func (g *gateway) crash(u fakeUplink, chance *rand.Rand) {
	g.t.Helper()
	moment := func() time.Duration { return time.Duration(50+chance.IntN(400)) * time.Millisecond }
	time.Sleep(moment()) // the load runs meanwhile
	switch chance.IntN(5) {
	case 0:
		u.away()
		time.Sleep(moment())
	case 1:
		u.back()
		time.Sleep(moment())
	case 2:
		refusals := []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend}
		u.Fake.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Err: refusals[chance.IntN(len(refusals))], Count: 1 + chance.IntN(3),
		})
	}
	g.Kill()
	if chance.IntN(3) == 0 {
		g.tear(chance)
	}
	if chance.IntN(4) == 0 {
		g.dieYoung(time.Duration(chance.IntN(60)) * time.Millisecond)
	}
	g.Restart()
}

// dieYoung is a life that ends while it starts.
func (g *gateway) dieYoung(after time.Duration) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), after)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "run", "-c", g.file) // killed when ctx ends
	cmd.Dir, cmd.Env = filepath.Dir(g.file), environment()
	out, _ := cmd.CombinedOutput()
	require.Error(g.t, ctx.Err(), "ended by itself: %s", out)
}

// tear puts the beginning of a record that was never completed behind what the
// newest file of the queue and of the store hold: what a power cut leaves.
func (g *gateway) tear(chance *rand.Rand) {
	g.t.Helper()
	rest := make([]byte, 1+chance.IntN(300))
	for i := range rest {
		rest[i] = byte(chance.Uint32())
	}
	for _, dir := range []string{filepath.Join(g.data, "queue", "cloud"), filepath.Join(g.data, "store")} {
		f, err := os.OpenFile(newestSegment(g.t, dir), os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(g.t, err)
		_, err = f.Write(rest)
		require.NoError(g.t, err)
		require.NoError(g.t, f.Close())
	}
}

// historian is a subscriber with a persistent session that keeps what arrives.
type historian struct {
	t    testing.TB
	addr string

	mu      sync.Mutex // covers arrived
	arrived arrivals
}

func (h *historian) hello() hello {
	return hello{version: v5, id: "historian", expirySecs: 3600}
}

// join makes the session and its subscription.
func (h *historian) join(g *gateway) {
	h.t.Helper()
	w, ack := g.connect(h.hello())
	require.False(h.t, ack.SessionPresent)
	require.NoError(h.t, w.subscribe("plant/#", 1))
	require.NoError(h.t, w.subscribe("hall/#", 1))
	require.NoError(h.t, w.bye())
}

func (h *historian) serve(ctx context.Context) error {
	w, ack, err := dialMQTT(ctx, h.addr, h.hello())
	if err != nil {
		return err
	}
	defer w.conn.Close()
	if !ack.SessionPresent {
		h.t.Error("the gateway has forgotten the persistent session")
	}
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	for {
		p, err := w.read(time.Minute)
		if err != nil {
			return err
		}
		if p.FixedHeader.Type != packets.Publish {
			continue
		}
		if err := h.keep(p); err != nil {
			return err
		}
		if err := w.acknowledge(p.PacketID); err != nil {
			return err
		}
	}
}

func (h *historian) keep(p *packets.Packet) error {
	var r reading
	if err := json.Unmarshal(p.Payload, &r); err != nil {
		h.t.Errorf("payload %q: %v", p.Payload, err)
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived[r.Device] = append(h.arrived[r.Device], r.N)
	return nil
}

func (h *historian) copy() arrivals {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := arrivals{}
	for device, n := range h.arrived {
		c[device] = append([]int(nil), n...)
	}
	return c
}

// requireRetained fails unless the retained value is the last that was
// acknowledged, or a later one.
func (g *gateway) requireRetained(a *account) {
	g.t.Helper()
	r := parseReading(g.t, []byte(g.retained("plant/state")))
	last := len(a.acked) - 1
	for last > 0 && !a.acked[last] {
		last--
	}
	require.GreaterOrEqual(g.t, r.N, last)
	require.Less(g.t, r.N, len(a.sent))
}
