package mqtt

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// gate is a recorder that holds acknowledgements until the test opens it.
type gate struct {
	mu   sync.Mutex
	held map[string]*broker.Publication // by payload
	all  []*broker.Message
}

func (*gate) Name() string { return "gate" }

func (g *gate) Record(_ context.Context, p *broker.Publication) broker.Reason {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, p.Message)
	if p.Message.QoS > 0 {
		if g.held == nil {
			g.held = make(map[string]*broker.Publication)
		}
		p.Matched()
		p.Hold()
		g.held[string(p.Message.Payload)] = p
	}
	return broker.Success
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

func (g *gate) open(payload string, r broker.Reason) {
	g.mu.Lock()
	p := g.held[payload]
	delete(g.held, payload)
	g.mu.Unlock()
	p.Done(r)
}

// refusing is a hook that answers each publish with the reason its topic names.
type refusing map[string]broker.Reason

func (refusing) Name() string { return "refuse" }

func (r refusing) Rewrite(p *broker.Publication) broker.Reason { return r[p.Message.Topic] }

func TestPublishFlows(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V311, "sub", 2)
	sub.send("82 06 0001 0001 't' 02")
	sub.expect("90 03 0001 02")
	p := r.connect(wire.V5, "pub", 2)

	p.send("30 05 0001 't' 00 'a'", "32 07 0001 't' 0007 00 'b'", "34 07 0001 't' 0007 00 'c'")
	p.expect("40 02 0007", "50 02 0007")
	p.send("62 02 0007")
	p.expect("70 02 0007")
	sub.expect("30 04 0001 't' 'a'", "32 06 0001 't' 0001 'b'", "34 06 0001 't' 0002 'c'")
	sub.send("40 02 0001", "50 02 0002")
	sub.expect("62 02 0002")
	sub.send("70 02 0002")
	sub.expectSilence()
}

func TestPublishAnswers(t *testing.T) {
	r := newRig(t, Config{}, refusing{"busy": broker.ServerBusy, "quota": broker.QuotaExceeded, "acl": broker.NotAuthorized, "fault": broker.Unspecified})
	for _, c := range []struct {
		name, topic string
		code        string
		v3          string // answer, "" = closed
	}{
		{"nobody there", "nobody", "10", "40 02 0001"},
		{"not authorized", "acl", "87", "40 02 0001"},
		{"reserved topic", "$SYS/x", "87", "40 02 0001"},
		{"too many levels", strings.Repeat("/", 128), "90", "40 02 0001"},
		{"busy", "busy", "97", ""},
		{"quota", "quota", "97", ""},
		{"fault", "fault", "80", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := fmt.Sprintf("%04x '%s'", len(c.topic), c.topic)
			size := 2 + len(c.topic) + 2
			p := r.connect(wire.V5, "v5", 2)
			p.t = t
			length := fmt.Sprintf("%02x", size+1)
			if size+1 > 127 {
				length = fmt.Sprintf("%02x01", (size+1)&127|128)
			}
			p.send("32 "+length+topic+"0001 00", "34 "+length+topic+"0002 00")
			p.expect("40 03 0001 "+c.code, "50 03 0002 "+c.code)
			if size > 127 {
				return
			}
			p = r.connect(wire.V311, "v3", 2)
			p.t = t
			p.send(fmt.Sprintf("32 %02x %s 0001", size, topic))
			if c.v3 != "" {
				p.expect(c.v3)
				p.expectSilence()
				return
			}
			p.expectClosed()
		})
	}
}

func TestAckWaitsForTheDisk(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 2, "11 0000000a")
	sub.send("82 07 0001 00 0001 't' 01")
	sub.expect("90 04 0001 00 01")
	for _, v := range []wire.Version{wire.V311, wire.V5} {
		p := r.connect(v, "pub", 2)
		r.store.hold()
		p.send("32 06 0001 't' 0001" + map[wire.Version]string{wire.V311: "'x'", wire.V5: "00"}[v])
		eventually(t, func() bool { return r.store.pending() > 0 }, "commit")
		p.expectSilence()
		r.store.release()
		p.expect("40 02 0001")

		r.store.fail(errors.New("disk full"))
		p.send("32 06 0001 't' 0002" + map[wire.Version]string{wire.V311: "'x'", wire.V5: "00"}[v])
		if v == wire.V5 {
			p.expect("40 03 0002 97")
		} else {
			p.expectClosed()
		}
		r.store.fail(nil)
	}
}

// [MQTT-4.6.0-2]: in the order of receipt, whatever is durable first.
func TestAcksLeaveInOrder(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	p := r.connect(wire.V5, "p", 2)
	p.send("32 07 0001 't' 0003 00 'a'", "34 07 0001 't' 0002 00 'b'", "32 07 0001 't' 0001 00 'c'", "62 02 0009")
	eventually(t, func() bool { return g.count() == 3 }, "all recorded: the reader did not wait")
	g.open("c", broker.Success)
	g.open("b", broker.QuotaExceeded)
	p.expectSilence()
	g.open("a", broker.Success)
	p.expect("40 02 0003", "50 03 0002 97", "40 02 0001", "70 03 0009 92")
}

func TestQoS2(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	p := r.connect(wire.V5, "p", 2)
	p.send("34 07 0001 't' 0001 00 'x'", "3c 07 0001 't' 0001 00 'x'")
	eventually(t, func() bool { return g.count() == 1 }, "recorded")
	g.open("x", broker.Success)
	p.expect("50 02 0001", "50 02 0001")
	p.send("3c 07 0001 't' 0001 00 'x'")
	p.expect("50 02 0001")
	p.send("62 02 0001", "62 02 0001")
	p.expect("70 02 0001", "70 03 0001 92")
	require.Len(t, g.all, 1, "routed once")
}

func TestReceiveMaximumV5(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{ReceiveMaximum: 2}, g)
	p := r.connect(wire.V5, "p", 2)
	// QoS 0 and a QoS 2 publish that comes again do not count.
	p.send("34 07 0001 't' 0001 00 'a'", "3c 07 0001 't' 0001 00 'a'", "30 05 0001 't' 00 'z'", "32 07 0001 't' 0002 00 'b'")
	eventually(t, func() bool { return g.count() == 2 }, "recorded")
	g.open("a", broker.Success)
	g.open("b", broker.Success)
	p.expect("50 02 0001", "50 02 0001", "40 02 0002")
	// PUBREC gave nothing back, PUBACK did: room for one.
	p.send("32 07 0001 't' 0003 00 'c'")
	eventually(t, func() bool { return g.count() == 1 }, "recorded")
	g.open("c", broker.Success)
	p.expect("40 02 0003")
	p.send("62 02 0001")
	p.expect("70 02 0001")
	p.send("62 02 0001") // unknown by now: gives nothing back
	p.expect("70 03 0001 92")
	p.send("32 07 0001 't' 0004 00 'd'", "32 07 0001 't' 0005 00 'e'")
	p.expectSilence()
	p.send("32 07 0001 't' 0006 00 'f'")
	p.expectDisconnect(0x93)
	g.open("d", broker.Success)
	g.open("e", broker.Success)
}

func TestOlderClientIsNotReadFromWhileItsWindowIsFull(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{ReceiveMaximum: 1}, g)
	p := r.connect(wire.V311, "p", 2)
	const n = 200 // more than may wait
	for i := range n {
		p.send(fmt.Sprintf("32 09 0001 't' %04x '%04d'", i+1, i))
	}
	eventually(t, func() bool { return g.count() == r.srv.maxAcks }, "window full")
	require.Never(t, func() bool { return g.count() > r.srv.maxAcks }, 50*time.Millisecond, time.Millisecond)
	for i := range n {
		payload := fmt.Sprintf("%04d", i)
		eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.held[payload] != nil }, "recorded")
		g.open(payload, broker.Success)
		p.expect(fmt.Sprintf("40 02 %04x", i+1))
	}
}

func TestTopicAliasInbound(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	p := r.connect(wire.V5, "p", 2)
	p.send("30 09 0003 'one' 03 23 0001", "30 09 0003 'two' 03 23 0010", "30 06 0000 03 23 0001", "30 06 0000 03 23 0010",
		"30 09 0003 'new' 03 23 0001", "30 06 0000 03 23 0001")
	p.expectSilence()
	var topics []string
	for _, m := range g.all {
		topics = append(topics, m.Topic)
	}
	require.Equal(t, []string{"one", "two", "one", "two", "new", "new"}, topics)
}

func TestMessageKeepsWhatItCarried(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	sub := r.connect(wire.V5, "sub", 2)
	sub.send("82 09 0001 02 0b 05 0001 't' 08") // retain as published, identifier 5
	sub.expect("90 04 0001 00 00")
	p := r.connect(wire.V5, "p", 2, "17 00") // no problem information: not about PUBLISH
	const props = "01 01 03 0001 'c' 08 0001 'r' 09 0001 ff 26 0001 'b' 0001 '1' 26 0001 'a' 0001 '2'"
	p.send("31 29 0001 't' 24" + props + "02 0000000a 23 0001 'x'")
	sub.expect("31 28 0001 't' 23" + props + "02 0000000a 0b 05 'x'")
	p.send("30 05 0001 't' 00 'y'")
	sub.expect("30 07 0001 't' 02 0b 05 'y'") // no expiry was added
	require.Equal(t, g.all[0].Time+10_000, g.all[0].Expires)
	require.Equal(t, "mqtt", g.all[0].Protocol)
	require.Equal(t, "p", g.all[0].ClientID)
}

func TestPayloadFormatCheck(t *testing.T) {
	r := newRig(t, Config{CheckPayloadFormat: true})
	p := r.connect(wire.V5, "p", 2)
	p.send("32 09 0001 't' 0001 02 01 01 ff", "32 09 0001 't' 0002 02 01 00 ff", "32 09 0001 't' 0003 02 01 01 'x'")
	p.expect("40 03 0001 99", "40 03 0002 10", "40 03 0003 10")
	p.send("30 07 0001 't' 02 01 01 ff")
	p.expectDisconnect(0x99)
	w := r.dial(0)
	w.send("10 17 0004 'MQTT' 05 06 003c 00 0001 'w' 02 01 01 0001 't' 0001 ff")
	w.expect("20 03 00 99 00")
	w.expectClosed()
	r = newRig(t, Config{})
	p = r.connect(wire.V5, "p", 2)
	p.send("32 09 0001 't' 0001 02 01 01 ff")
	p.expect("40 03 0001 10")
}

// Payloads of all sizes arrive whole, whichever buffer they were received in,
// in one piece and in many.
func TestPayloadSizes(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	p := r.connect(wire.V311, "p", 2)
	sub := r.connect(wire.V311, "sub", 2)
	sub.send("82 06 0001 0001 't' 00")
	sub.expect("90 03 0001 00")
	sizes := []int{0, 1, 72, 73, 136, 137, 505, 512, 32 << 10, 32<<10 + 1, 70_000, 200_000, 1<<20 - 7}
	for round := range 3 {
		for _, n := range sizes {
			payload := strings.Repeat(string(rune('a'+round)), n)
			b := publishBytes(t, "t", payload)
			if round == 1 { // byte by byte around the borders
				n := min(len(b), 8)
				for i := range n {
					p.write(b[i : i+1])
				}
				b = b[n:]
			}
			if round == 2 { // with a neighbour in the same segment
				b = append(b, publishBytes(t, "t", "next")...)
			}
			p.write(b)
			h, body := sub.packet()
			require.Equal(t, wire.PUBLISH, h.Type)
			require.Equal(t, "\x00\x01t"+payload, string(body))
			if round == 2 {
				_, body = sub.packet()
				require.Equal(t, "\x00\x01tnext", string(body))
			}
		}
	}
	for i, m := range g.all { // nothing has written over what the core holds
		if string(m.Payload) != "next" {
			require.Equal(t, strings.Repeat(string(m.Payload[:min(1, len(m.Payload))]), len(m.Payload)), string(m.Payload), "message %d", i)
		}
	}
}

func publishBytes(t testing.TB, topic, payload string) []byte {
	t.Helper()
	out := wire.Outgoing{Message: &broker.Message{Topic: topic, Payload: []byte(payload)}, Version: wire.V311}
	require.NotEqual(t, wire.TooLong, out.Measure())
	return out.Append(nil)
}

func TestLateAckAfterTheConnectionEnded(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{}, g)
	p := r.connect(wire.V311, "p", 2)
	p.send("32 06 0001 't' 0001 'x'")
	eventually(t, func() bool { return g.count() == 1 }, "recorded")
	require.NoError(t, p.nc.Close())
	eventually(t, func() bool { return r.srv.Connections() == 0 }, "gone")
	g.open("x", broker.Success)
}

// blocking is a recorder under back-pressure.
type blocking struct{ entered chan struct{} }

func (*blocking) Name() string { return "blocking" }

func (b *blocking) Record(ctx context.Context, _ *broker.Publication) broker.Reason {
	b.entered <- struct{}{}
	<-ctx.Done()
	return broker.ServerBusy
}

func TestBackPressureEndsWithTheConnection(t *testing.T) {
	b := &blocking{make(chan struct{}, 1)}
	r := newRig(t, Config{}, b)
	p := r.connect(wire.V5, "p", 2)
	p.send("32 07 0001 't' 0001 00 'x'")
	receive(t, b.entered)
	require.True(t, r.broker.Kick("p", broker.Administrative))
	p.expect("e0 01 98")
	p.expectClosed()
}

// What is there and empty is forwarded too [MQTT-3.3.2-15, MQTT-3.3.2-20], also
// from the retained value.
func TestEmptyContentTypeAndResponseTopicAreForwarded(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 2)
	sub.send("82 07 0001 00 0001 't' 00")
	sub.expect("90 04 0001 00 00")
	p := r.connect(wire.V5, "p", 2)
	for _, props := range []string{"03 03 0000", "03 08 0000", "06 03 0000 08 0000", "07 03 0000 08 0001 'r'", "00"} {
		body := "0001 't' " + props + " 'x'"
		size := hex.EncodeToString([]byte{byte(len(raw(t, body)))})
		p.send("31 " + size + body)
		sub.expect("30 " + size + body)
		if props != "00" {
			late := r.connect(wire.V5, "late", 2)
			late.send("82 07 0001 00 0001 't' 00")
			late.expect("90 04 0001 00 00", "31 "+size+body)
		}
	}
}
