//go:build unix

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp"
	"github.com/stretchr/testify/require"
)

// smallQueue is the cap in these tests; pad is the size of their payloads, and
// more than fits are sent.
const (
	smallQueue = 512 << 10
	pad        = 1000
	tooMany    = 3 * smallQueue / pad
)

func fullQueue(t *testing.T, policy string) (fakeUplink, *gateway) {
	t.Helper()
	u := standIn(t)
	u.away()
	return u, startGateway(t, bridgeTo(u, fmt.Sprintf("max_bytes: %d, when_full: %s", smallQueue, policy)))
}

// offer publishes one message of the account with QoS 1 and returns the reason
// code of its PUBACK.
func (a *account) offer(t testing.TB, w *wire, topic string) (reason byte) {
	t.Helper()
	n := a.next()
	ack, err := w.ask(publication(topic, 1, uint16(n%60000)+1, a.payload(n)), packets.Puback)
	require.NoError(t, err)
	if ack.ReasonCode < 0x80 {
		a.ack(n)
	}
	return ack.ReasonCode
}

// when_full: refuse. Each protocol is told, nothing that was acknowledged is
// lost, and there is room again once Kafka is back.
func TestFullQueueRefuses(t *testing.T) {
	u, g := fullQueue(t, "refuse")
	l := &ledger{}
	a := l.open("refused", pad)
	w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
	const quotaExceeded = 0x97
	var reason byte
	for range tooMany {
		if reason = a.offer(t, w, "plant/a"); reason != 0 {
			break
		}
	}
	require.EqualValues(t, quotaExceeded, reason)

	g.requireVersion3ClosedWithoutAck(l)
	g.requireCoAPAndHTTPRefused()
	free := (&ledger{}).open("free", 0)
	require.EqualValues(t, 0x10, free.offer(t, w, "elsewhere"), "a topic that no route takes is not refused")

	b := g.bridge()
	require.Equal(t, "retrying", b.State)
	require.Equal(t, "refuse", b.WhenFull)
	require.EqualValues(t, smallQueue, b.MaxBytes)
	require.LessOrEqual(t, b.QueuedBytes, b.MaxBytes)
	require.GreaterOrEqual(t, b.Refused, 4)
	require.Zero(t, b.lost())
	require.GreaterOrEqual(t, g.metric("gantry_bridge_refused_total", `bridge="cloud"`, `reason="full"`), 4.0)
	require.Contains(t, g.awaitAlarm("bridge_refusing:cloud"), "refused")

	u.back()
	eventually(t, "room again", func() bool { return a.offer(t, w, "plant/a") == 0 })
	g.awaitDrained()
	for n, acked := range a.acked {
		if !acked {
			a.sent[n] = 0 // the device was told that it was not taken: it must not arrive
		}
	}
	v := l.compare(arrivalsOf(t, u.Consume(topic)))
	v.requireKept(t)
	require.Zero(t, v.duplicates, "refused, and arrived all the same: %q", v.examples)
}

func (g *gateway) requireVersion3ClosedWithoutAck(l *ledger) {
	g.t.Helper()
	a := l.open("version-3", pad)
	w, _ := g.connect(hello{version: v311, id: a.device, clean: true})
	require.NoError(g.t, w.send(publication("plant/a", 1, 1, a.payload(a.next()))))
	p, err := w.read(patience)
	require.Error(g.t, err, "instead of closing it answers %+v", p)
	a.sent[0] = 0 // refused: must not arrive
}

func (g *gateway) requireCoAPAndHTTPRefused() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := udp.Dial(g.coap)
	require.NoError(g.t, err)
	defer func() { _ = conn.Close() }()
	body := strings.Repeat("x", pad)
	resp, err := conn.Put(ctx, "/ps/plant/a", message.TextPlain, bytes.NewReader([]byte(body)))
	require.NoError(g.t, err)
	require.Equal(g.t, codes.TooManyRequests, resp.Code())
	status, err := post(ctx, operatorClient, "http://"+g.http+"/v1/topics/plant/a", "refused-http", []byte(body))
	require.NoError(g.t, err)
	require.Equal(g.t, http.StatusTooManyRequests, status)
}

// when_full: drop_oldest. Everything is acknowledged, the oldest go, counted,
// and exactly the rest arrives.
func TestFullQueueDropsTheOldest(t *testing.T) {
	u, g := fullQueue(t, "drop_oldest")
	l := &ledger{}
	a := l.open("dropped", pad)
	w, _ := g.connect(hello{version: v5, id: a.device, clean: true})
	for range tooMany {
		require.Zero(t, a.offer(t, w, "plant/a"))
	}
	b := g.bridge()
	require.LessOrEqual(t, b.QueuedBytes, b.MaxBytes)
	dropped := b.lost()
	require.Positive(t, dropped)
	require.Equal(t, tooMany, b.QueuedRecords+dropped, "every message is queued or counted")
	require.EqualValues(t, dropped, g.metric("gantry_queue_dropped_total", `queue="cloud"`))
	eventually(t, "an alarm that counts them all", func() bool {
		return strings.Contains(g.awaitAlarm("bridge_messages_lost:cloud"), fmt.Sprint(dropped))
	})

	u.back()
	g.awaitDrained()
	got := arrivalsOf(t, u.Consume(topic))[a.device]
	require.Len(t, got, tooMany-dropped)
	for i, n := range got {
		require.Equal(t, dropped+i, n, "the newest arrive, all of them, in order")
	}
}

// when_full: block. A publisher gets no more acknowledgements, others are not
// disturbed, and it goes on when Kafka is back.
func TestFullQueueBlocks(t *testing.T) {
	u, g := fullQueue(t, "block")
	l := &ledger{}
	a := l.open("blocked", pad)
	d := &mqttDevice{work: work{account: a, topic: "plant/a", limit: tooMany}, addr: g.mqtt, version: v5, qos: 1, window: 100, answers: 2 * patience}
	workers := employ(t, d)
	eventually(t, "the queue is full and the device waits", func() bool {
		return g.metric("gantry_queue_waiting_records", `queue="cloud"`) > 0
	})
	require.Positive(t, l.acked.Load())

	other := l.open("other", 0)
	sub, _ := g.connect(hello{version: v5, id: "subscriber", clean: true})
	require.NoError(t, sub.subscribe("elsewhere/#", 1))
	w, _ := g.connect(hello{version: v5, id: other.device, clean: true})
	var stalledAt int64 // looked at when the acknowledgements that were on their way have long been read
	for i := range 200 {
		if i == 100 {
			stalledAt = l.acked.Load()
		}
		start := time.Now()
		require.Zero(t, other.offer(t, w, "elsewhere/a"))
		require.Less(t, time.Since(start), 5*time.Second)
		require.Equal(t, i, parseReading(t, receive(t, sub).Payload).N)
	}
	b := g.bridge()
	require.Equal(t, "block", b.WhenFull)
	require.LessOrEqual(t, b.QueuedBytes, b.MaxBytes)
	require.Less(t, int(l.acked.Load()), tooMany+200)
	require.Zero(t, b.Refused)
	require.Zero(t, b.lost())
	require.Equal(t, stalledAt+100, l.acked.Load(), "nothing of the blocked device was acknowledged meanwhile")

	u.back()
	workers.finish(t, toolsWithin)
	g.awaitDrained()
	got := arrivalsOf(t, u.Consume(topic))[a.device]
	require.Len(t, got, tooMany)
	for i, n := range got {
		require.Equal(t, i, n)
	}
}

// An ordered stop does not wait for a queue that waits for Kafka: who blocks is
// cut off without an acknowledgement and sends again to the next life.
func TestStopWhileTheQueueBlocks(t *testing.T) {
	u, g := fullQueue(t, "block")
	l := &ledger{}
	a := l.open("blocked", pad)
	workers := employ(t, &mqttDevice{work: work{account: a, topic: "plant/a", limit: tooMany}, addr: g.mqtt, version: v5, qos: 1, window: 100, answers: 2 * patience})
	eventually(t, "the queue is full and the device waits", func() bool {
		return g.metric("gantry_queue_waiting_records", `queue="cloud"`) > 0
	})
	start := time.Now()
	g.Stop()
	require.Zero(t, g.ExitCode())
	require.Less(t, time.Since(start), 10*time.Second)
	u.back()
	g.Restart()
	workers.finish(t, toolsWithin)
	v := l.settle(g, u)
	v.requireKept(t)
	require.Zero(t, v.duplicates, "%q", v.examples)
}
