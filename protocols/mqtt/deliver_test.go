package mqtt

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

func TestSubscribeAnswers(t *testing.T) {
	r := newRig(t, Config{})
	seed := r.connect(wire.V311, "seed", 2)
	seed.send("33 07 0002 'rt' 0001 'v'")
	seed.expect("40 02 0001")
	p := r.connect(wire.V5, "v5", 2)
	p.send("82 2e 0001 00 0001 'a' 02 0003 'a+b' 00 0002 '#a' 01 000a '$share/g/a' 01 0007 '$share/' 00 0002 'rt' 01")
	p.expect("90 09 0001 00 02 8f 8f 01 8f 01")
	p.expect("33 08 0002 'rt' 0001 00 'v'") // behind SUBACK, retained
	p.send("a2 0a 0002 00 0001 'a' 0002 'no'")
	p.expect("b0 05 0002 00 00 11")

	p = r.connect(wire.V311, "v3", 2)
	p.send("82 11 0001 0001 'a' 02 0003 'a+b' 00 0002 '#a' 01")
	p.expect("90 05 0001 02 80 80")
	p.send("a2 05 0002 0001 'a'")
	p.expect("b0 02 0002")
}

func TestClientReceiveMaximumAndOrder(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 2, "21 0003")
	sub.send("82 07 0001 00 0001 't' 01")
	sub.expect("90 04 0001 00 01")
	pub := r.connect(wire.V311, "pub", 2)
	const n = 50
	for i := range n {
		pub.send(fmt.Sprintf("32 07 0001 't' %04x '%02d'", i+1, i))
	}
	for i := range n {
		if i >= 3 {
			sub.send(fmt.Sprintf("40 02 %04x", i-2))
		}
		sub.expect(fmt.Sprintf("32 08 0001 't' %04x 00 '%02d'", i+1, i))
	}
	sub.expectSilence()
}

// [MQTT-3.1.2-25]: what the client cannot take is treated as delivered.
func TestMaximumPacketSizeOfTheClient(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 0, "11 0000000a 27 00000014") // 20 bytes
	sub.send("82 07 0001 00 0001 't' 01")
	sub.expect("90 04 0001 00 01")
	pub := r.connect(wire.V311, "pub", 2)
	pub.send("32 12 0001 't' 0001 'thirteen byte'", "32 11 0001 't' 0002 'twelve bytes'")
	pub.expect("40 02 0001", "40 02 0002")
	sub.expect("32 12 0001 't' 0002 00 'twelve bytes'")
	require.Equal(t, uint64(1), r.broker.Stats().Dropped["too_large"])
	require.NoError(t, sub.nc.Close())
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "gone")
	sub = r.connect(wire.V5, "sub", 0, "11 0000000a 27 00000014")
	sub.expect("3a 12 0001 't' 0002 00 'twelve bytes'") // not poisoned by the large one
	sub.expectSilence()
}

func TestQoS2Outbound(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 0, "11 0000000a 21 0001")
	sub.send("82 07 0001 00 0001 't' 02")
	sub.expect("90 04 0001 00 02")
	pub := r.connect(wire.V311, "pub", 2)
	pub.send("34 06 0001 't' 0001 'a'", "34 06 0001 't' 0002 'b'")
	sub.expect("34 07 0001 't' 0001 00 'a'")
	sub.send("50 03 0001 80") // the exchange is over, and the place free
	sub.expect("34 07 0001 't' 0002 00 'b'")
	sub.send("50 02 0009")
	sub.expect("62 03 0009 92")
	sub.send("50 02 0002")
	sub.expect("62 02 0002")
	require.NoError(t, sub.nc.Close())
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "gone")
	sub = r.connect(wire.V311, "sub", 0)
	sub.expect("62 02 0002") // PUBREL again, not PUBLISH
	sub.send("50 02 0009")
	sub.expect("62 02 0009")
	sub.send("70 02 0002")
	sub.expectSilence()
}

func TestTopicAliasOutbound(t *testing.T) {
	r := newRig(t, Config{})
	sub := r.connect(wire.V5, "sub", 2, "22 0001")
	sub.send("82 07 0001 00 0001 '#' 00")
	sub.expect("90 04 0001 00 00")
	pub := r.connect(wire.V311, "pub", 2)
	pub.send("30 0b 0008 'long/one' 'x'", "30 0b 0008 'long/two' 'x'", "30 0b 0008 'long/one' 'y'", "30 08 0005 'short' 'z'")
	sub.expect("30 0f 0008 'long/one' 03 23 0001 'x'", "30 0c 0008 'long/two' 00 'x'", "30 07 0000 03 23 0001 'y'", "30 09 0005 'short' 00 'z'")

	// Defining the alias would exceed the limit, the plain packet does not.
	tight := r.connect(wire.V5, "tight", 2, "22 0001 27 00000010")
	tight.send("82 07 0001 00 0001 '#' 00")
	tight.expect("90 04 0001 00 00")
	pub.send("30 0d 0008 'long/one' 'xyz'", "30 0a 0008 'long/one'")
	tight.expect("30 0e 0008 'long/one' 00 'xyz'", "30 0e 0008 'long/one' 03 23 0001")
}

func TestTakeover(t *testing.T) {
	r := newRig(t, Config{})
	for _, v := range []wire.Version{wire.V5, wire.V311} {
		old := r.connect(v, "same", 2)
		next := r.connect(wire.V5, "same", 2)
		if v == wire.V5 {
			old.expectDisconnect(0x8e)
		} else {
			old.expectClosed()
		}
		next.expectSilence()
		require.NoError(t, next.nc.Close())
		eventually(t, func() bool { return r.srv.Connections() == 0 }, "gone")
	}
}

// CONNACK comes before the DISCONNECT of a connection that loses its session
// at once [MQTT-3.14.0-1].
func TestConnackPrecedesTheKick(t *testing.T) {
	r := newRig(t, Config{})
	const n = 20
	peers := make([]*peer, n)
	for i := range peers {
		peers[i] = r.dial(wire.V5)
	}
	for _, p := range peers {
		p.write(connectPacket(t, wire.V5, "same", 2))
	}
	alive := 0
	for _, p := range peers {
		h, body := p.packet()
		require.Equal(t, wire.CONNACK, h.Type)
		require.Zero(t, body[1])
		p.send("c000")
		h, body = p.packet()
		if h.Type == wire.PINGRESP {
			// The PINGREQ may still have been served before the takeover.
			if err := p.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err == nil {
				if b, err := p.r.Peek(1); timedOut(err) {
					alive++
				} else {
					require.Equal(t, byte(0xe0), b[0])
				}
			}
			continue
		}
		require.Equal(t, wire.DISCONNECT, h.Type)
		require.Equal(t, byte(0x8e), body[0])
	}
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "one owner")
	require.GreaterOrEqual(t, alive, 1)
}

// The same while CONNECT still waits for the disk.
func TestTakeoverDuringConnect(t *testing.T) {
	r := newRig(t, Config{})
	r.store.hold()
	first := r.dial(wire.V5)
	first.write(connectPacket(t, wire.V5, "same", 2, "11 0000000a"))
	eventually(t, func() bool { return r.store.pending() == 1 }, "first waits")
	second := r.dial(wire.V5)
	second.write(connectPacket(t, wire.V5, "same", 2, "11 0000000a"))
	first.expect("20 03 00 88 00")
	first.expectClosed()
	r.store.release()
	second.expect("20 0e 00 00 0b" + announced)
	second.expectSilence()
}

func TestKickTellsWhy(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect(wire.V5, "a", 2)
	require.True(t, r.broker.Kick("a", broker.Administrative))
	p.expect("e0 01 98")
	p.expectClosed()
}

// A subscriber that stops reading is cut off after the write timeout; until
// then nobody else notices, and its session can be taken over at once.
func TestSlowReaderDisturbsNobody(t *testing.T) {
	r := newRig(t, Config{WriteTimeout: 700 * time.Millisecond})
	slow := r.connect(wire.V311, "slow", 2)
	require.NoError(t, slow.nc.(*net.TCPConn).SetReadBuffer(4096))
	slow.send("82 06 0001 0001 't' 00")
	slow.expect("90 03 0001 00")
	quick := r.connect(wire.V311, "quick", 2)
	quick.send("82 06 0001 0001 't' 00")
	quick.expect("90 03 0001 00")
	pub := r.connect(wire.V311, "pub", 2)
	payload := bytes.Repeat([]byte("x"), 100_000)
	start := time.Now()
	for i := range 100 { // 10 MB: more than the sockets hold
		pub.write(publishBytes(t, "t", string(payload)))
		h, body := quick.packet()
		require.Equal(t, wire.PUBLISH, h.Type)
		require.Len(t, body, len(payload)+3, "message %d", i)
	}
	require.Less(t, time.Since(start), patience)
	eventually(t, func() bool { return r.srv.Connections() == 2 }, "the slow one is cut off")
	pub.expectSilence()
	quick.expectSilence()
}

func TestTakeoverOfAStuckConnection(t *testing.T) {
	r := newRig(t, Config{WriteTimeout: time.Minute})
	stuck := r.connect(wire.V311, "same", 2)
	require.NoError(t, stuck.nc.(*net.TCPConn).SetReadBuffer(4096))
	stuck.send("82 06 0001 0001 't' 00")
	stuck.expect("90 03 0001 00")
	pub := r.connect(wire.V311, "pub", 2)
	for range 100 {
		pub.write(publishBytes(t, "t", strings.Repeat("x", 100_000)))
	}
	pub.expectSilence()
	start := time.Now()
	next := r.connect(wire.V311, "same", 2)
	next.expectSilence()
	require.Less(t, time.Since(start), time.Second)
	eventually(t, func() bool { return r.srv.Connections() == 2 }, "the stuck one is given up")
	require.Less(t, time.Since(start), 3*farewellTimeout)
}

// Answers wait in bounded memory for a client that does not read them.
func TestAnswersAreBounded(t *testing.T) {
	r := newRig(t, Config{WriteTimeout: time.Minute})
	p := r.connect(wire.V311, "p", 2)
	require.NoError(t, p.nc.(*net.TCPConn).SetReadBuffer(4096))
	pings := bytes.Repeat([]byte{0xc0, 0}, 64<<10)
	for range 400 {
		require.NoError(t, p.nc.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err := p.nc.Write(pings); err != nil {
			require.True(t, timedOut(err))
			r.srv.mu.Lock()
			defer r.srv.mu.Unlock()
			for c := range r.srv.conns {
				c.mu.Lock()
				require.LessOrEqual(t, len(c.out), maxOut+2*largeBuffer)
				c.mu.Unlock()
			}
			return
		}
	}
	t.Fatal("the server kept reading from a client that takes no answers")
}

// More than one output buffer is waiting when the client comes back.
func TestBacklogIsDrainedInOneGo(t *testing.T) {
	r := newRigOn(t, nil, Config{}, broker.Config{Session: broker.SessionConfig{Inflight: 1000}})
	sub := r.connect(wire.V311, "sub", 0)
	sub.send("82 06 0001 0001 't' 01")
	sub.expect("90 03 0001 01")
	require.NoError(t, sub.nc.Close())
	pub := r.connect(wire.V311, "pub", 2)
	eventually(t, func() bool { return r.srv.Connections() == 1 }, "gone")
	const n = 300
	payload := strings.Repeat("x", 1000)
	for i := range n {
		pub.send(fmt.Sprintf("32 ed07 0001 't' %04x '%s'", i+1, payload))
		pub.expect(fmt.Sprintf("40 02 %04x", i+1))
	}
	sub = r.connect(wire.V311, "sub", 0)
	for i := range n {
		sub.expect(fmt.Sprintf("32 ed07 0001 't' %04x '%s'", i+1, payload))
	}
}

func TestManyMessagesArriveInOrder(t *testing.T) {
	r := newRig(t, Config{})
	const n = 4000
	subs := []*peer{r.connect(wire.V5, "s5", 2), r.connect(wire.V311, "s3", 2)}
	subs[0].send("82 07 0001 00 0001 't' 01")
	subs[0].expect("90 04 0001 00 01")
	subs[1].send("82 06 0001 0001 't' 01")
	subs[1].expect("90 03 0001 01")
	pub := r.connect(wire.V311, "pub", 2)
	var packets []byte
	for i := range n {
		packets = append(packets, raw(t, fmt.Sprintf("32 09 0001 't' %04x '%04d'", i+1, i))...)
	}
	go func() { _, _ = pub.nc.Write(packets) }()
	done := make(chan error, len(subs)+1)
	go func() { done <- expectAcks(pub, n) }()
	for _, s := range subs {
		go func() { done <- receiveInOrder(s, n) }()
	}
	for range len(subs) + 1 {
		require.NoError(t, <-done)
	}
}

func expectAcks(p *peer, n int) error {
	for i := range n {
		h, body, err := p.next()
		if err != nil {
			return err
		}
		if id := int(body[0])<<8 | int(body[1]); h.Type != wire.PUBACK || id != i+1 {
			return fmt.Errorf("ack %d: %s %d", i, h.Type, id)
		}
	}
	return nil
}

func receiveInOrder(p *peer, n int) error {
	for i := range n {
		h, body, err := p.next()
		if err != nil {
			return err
		}
		if h.Type != wire.PUBLISH || !strings.HasSuffix(string(body), fmt.Sprintf("%04d", i)) {
			return fmt.Errorf("message %d: %s %q", i, h.Type, body)
		}
		if _, err := p.nc.Write([]byte{0x40, 2, body[3], body[4]}); err != nil {
			return err
		}
	}
	return nil
}
