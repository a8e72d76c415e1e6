//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
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
	sub, exact := newHistorian(g, 1), newHistorian(g, 2)
	subscriptions := employ(t, worker(sub), worker(exact))

	m := g.site(3 * time.Millisecond)
	load := employ(t, m.devices...)
	for range rounds {
		g.crash(u, chance)
	}
	for _, l := range []*ledger{m.plant, m.yard, m.hall} {
		seen := l.acked.Load()
		eventually(t, "devices go on after the last crash", func() bool { return l.acked.Load() > seen+50 })
	}
	load.dismiss()
	u.forgive()
	u.back()

	v := m.plant.with(m.yard).settle(g, u)
	forSubscribers := m.plant.with(m.hall)
	eventually(t, "the subscribers have all that was acknowledged", func() bool {
		return forSubscribers.compare(sub.copy()).lost+forSubscribers.compare(exact.copy()).lost == 0
	})
	subscriptions.dismiss()
	t.Logf("rounds %d, in Kafka, at the QoS 1 subscriber, at the QoS 2 subscriber, QoS 2 all the way:", rounds)
	v.requireKept(t)
	require.Zero(t, v.duplicates, "%q", v.examples)
	forSubscribers.compare(sub.copy()).requireKept(t)
	forSubscribers.compare(exact.copy()).requireKept(t)
	forSubscribers.compareOnly("-qos2-", exact.copy()).requireOnce(t)
	g.requireRetained(m.state)
}

// site holds the devices of the crash loop. An acknowledgement of plant waits
// for the queue of the bridge and for the sessions of the subscribers, one of
// yard and hall for only the one or the other.
type site struct {
	plant, yard, hall *ledger
	state             *account // of the retained value
	devices           []device
}

func (g *gateway) site(every time.Duration) site {
	m := site{plant: &ledger{}, yard: &ledger{}, hall: &ledger{}}
	m.state = m.plant.open("state", 0)
	state := &mqttDevice{
		work: work{account: m.state, topic: "plant/state", every: every},
		addr: g.mqtt, version: v5, qos: 1, window: 8, retain: true,
	}
	m.devices = slices.Concat([]device{state},
		g.fleet(m.plant, "plant", 1, 0, every), g.fleet(m.yard, "yard", 1, 0, every), g.fleet(m.hall, "hall", 1, 0, every))
	return m
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
		u.refuse(refusals[chance.IntN(len(refusals))], 1+chance.IntN(3))
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
	qos  byte
	// open are the QoS 2 deliveries without PUBREL, which a PUBLISH that is sent
	// again belongs to [MQTT-4.3.3-10]. Of serve alone.
	open map[uint16]bool

	mu      sync.Mutex // covers arrived
	arrived arrivals
}

// newHistorian makes the session and its subscriptions.
func newHistorian(g *gateway, qos byte) *historian {
	g.t.Helper()
	h := &historian{t: g.t, addr: g.mqtt, qos: qos, open: map[uint16]bool{}, arrived: arrivals{}}
	w, ack := g.connect(h.hello())
	require.False(h.t, ack.SessionPresent)
	for _, filter := range []string{"plant/#", "hall/#"} {
		require.NoError(h.t, w.subscribe(filter, qos))
	}
	require.NoError(h.t, w.bye())
	return h
}

func (h *historian) hello() hello {
	return hello{version: v5, id: fmt.Sprintf("historian-%d", h.qos), expirySecs: 3600}
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
		if err := h.take(w, p); err != nil {
			return err
		}
	}
}

// take keeps a message and answers.
func (h *historian) take(w *wire, p *packets.Packet) error {
	answer := &packets.Packet{PacketID: p.PacketID}
	switch {
	case p.FixedHeader.Type == packets.Pubrel:
		delete(h.open, p.PacketID)
		answer.FixedHeader.Type = packets.Pubcomp
	case p.FixedHeader.Type != packets.Publish:
		return fmt.Errorf("packet type %d with reason %#x", p.FixedHeader.Type, p.ReasonCode)
	case p.FixedHeader.Qos == 2:
		if !h.open[p.PacketID] {
			h.open[p.PacketID] = true
			h.keep(p)
		}
		answer.FixedHeader.Type = packets.Pubrec
	default:
		h.keep(p)
		answer.FixedHeader.Type = packets.Puback
	}
	return w.send(answer)
}

func (h *historian) keep(p *packets.Packet) {
	var r reading
	if err := json.Unmarshal(p.Payload, &r); err != nil {
		h.t.Errorf("payload %q: %v", p.Payload, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived[r.Device] = append(h.arrived[r.Device], r.N)
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
