package quic

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt"
)

func TestMessagesOfEachQoS(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	sub, pub := r.connect("sub", false), r.connect("pub", false)
	sub.subscribe("a/#", 2)
	pub.send(0x30, text("a/0")+"\x00zero")
	sub.gets("a/0", "zero")

	pub.publish("a/1", "one")
	_, body := sub.expect(0x32)
	require.Equal(t, text("a/1")+"\x00\x01\x00one", string(body))
	sub.send(0x40, "\x00\x01")

	pub.send(0x34, text("a/2")+"\x00\x09\x00two")
	_, body = pub.expect(0x50)
	require.Equal(t, "\x00\x09", string(body))
	pub.send(0x62, "\x00\x09")
	pub.expect(0x70)
	_, body = sub.expect(0x34)
	require.True(t, strings.HasSuffix(string(body), "two"), "%q", body)
	id := string(body[5:7])
	sub.send(0x50, id)
	sub.expect(0x62)
	sub.send(0x70, id)
	sub.send(0xC0, "")
	sub.expect(0xD0)
}

func TestRetainedMessage(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	r.connect("pub", false).send(0x31, text("state")+"\x00on")
	eventually(t, "it is kept", func() bool { return r.broker.Stats().Retained == 1 })
	sub := r.connect("sub", false)
	sub.send(0x82, "\x00\x01\x00"+text("state")+"\x00")
	sub.expect(0x90)
	_, body := sub.expect(0x31)
	require.Equal(t, text("state")+"\x00on", string(body))
}

// A client whose connection is lost has its will published; one that closes in
// order has not.
func TestWill(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	sub := r.connect("sub", false)
	sub.subscribe("will/#", 0)
	connect := func(id string) *client {
		c := r.dial()
		c.send(0x10, "\x00\x04MQTT\x05\x06\x00\x3c\x00"+text(id)+"\x00"+text("will/"+id)+text("gone"))
		c.expect(0x20)
		return c
	}
	polite := connect("polite")
	polite.send(0xE0, "")
	polite.ends()
	require.NoError(t, connect("closes").nc.QUIC.CloseWithError(0, ""))
	sub.gets("will/closes", "gone")
	require.NoError(t, connect("ends").nc.Stream.Close())
	sub.gets("will/ends", "gone")
	connect("resets").nc.CancelWrite(0)
	sub.gets("will/resets", "gone")
}

// The end of the stream is the end of the connection, and the client is told so
// with the code of EMQX.
func TestEndOfStreamClosesConnection(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	c := r.connect("c", false)
	require.NoError(t, c.nc.Stream.Close())
	<-c.nc.QUIC.Context().Done()
	_, err := c.nc.Stream.Read(make([]byte, 1))
	var closed *quic.ApplicationError
	require.ErrorAs(t, err, &closed)
	require.EqualValues(t, 1, closed.ErrorCode)
}

func TestSessionIsResumed(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	c := r.connect("c", true)
	c.subscribe("q", 1)
	require.NoError(t, c.nc.Close())
	eventually(t, "the session is detached", func() bool { return !r.broker.Sessions()[0].Connected })
	r.connect("pub", false).publish("q", "kept")
	c = r.dial()
	require.True(t, c.join("c", true, 60))
	_, body := c.expect(0x32)
	require.True(t, strings.HasSuffix(string(body), "kept"))
}

// A packet of the largest size passes in both directions, a larger one is
// refused.
func TestLargePackets(t *testing.T) {
	const limit = 4 << 20
	r := newRig(t, Config{}, mqtt.Config{MaxPacketSize: limit})
	c := r.connect("c", false)
	c.subscribe("big", 0)
	payload := strings.Repeat("x", limit-5-len(text("big")+"\x00\x07\x00"))
	c.send(0x32, text("big")+"\x00\x07\x00"+payload)
	for range 2 { // the message and its acknowledgement, in any order
		h, body, err := packet(c.in)
		require.NoError(t, err)
		if h == 0x30 {
			require.Equal(t, text("big")+"\x00"+payload, string(body))
			continue
		}
		require.EqualValues(t, 0x40, h)
	}
	var sent sync.WaitGroup
	sent.Go(func() { _ = sendOn(c.nc, 0x32, text("big")+"\x00\x07\x00"+payload+"x") })
	require.EqualValues(t, 0x95, c.ends())
	sent.Wait()
}

// A client that does not read is disconnected; until then its messages wait,
// and others are served.
func TestSlowReader(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{WriteTimeout: 500 * time.Millisecond})
	slow, pub := r.connect("slow", false), r.connect("pub", false)
	slow.subscribe("flood", 0)
	payload := strings.Repeat("x", 100_000)
	for range 120 { // more than the windows of the client take
		pub.publish("flood", payload)
	}
	eventually(t, "the slow client is given up", func() bool { return r.value("gantry_mqtt_write_timeouts_total") == 1 })
	pub.publish("flood", payload)
}

// A reader that stops for a while gets everything when it goes on.
func TestReaderThatPauses(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	sub, pub := r.connect("sub", false), r.connect("pub", false)
	sub.subscribe("flow", 0)
	payload := strings.Repeat("x", 20_000)
	for range 200 {
		pub.publish("flow", payload)
	}
	for range 200 {
		sub.gets("flow", payload)
	}
}

func TestKeepAlive(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	c := r.dial()
	c.join("c", false, 1)
	require.EqualValues(t, 0x8D, c.ends())
}

// Both the client that is taken over and those of a gateway that stops are told
// why.
func TestReasonReachesClient(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	first := r.connect("c", false)
	second := r.connect("c", false)
	require.EqualValues(t, 0x8E, first.ends())
	closed := make(chan error, 1)
	go func() { closed <- r.srv.Close() }()
	require.EqualValues(t, 0x8B, second.ends())
	require.NoError(t, <-closed)
}

// A client that opens no stream, or sends nothing on it, is dropped.
func TestConnectTimeout(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{ConnectTimeout: 300 * time.Millisecond})
	qc := dialOnly(t, r)
	<-qc.Context().Done()
	c := r.dial()
	c.send(0x10, "") // the stream is there with its first byte
	require.Zero(t, c.ends())
	eventually(t, "nobody is left", func() bool { return r.srv.Connections() == 0 })
}

// A refused CONNECT is answered before the connection ends.
func TestRefusalReachesClient(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	c := r.dial()
	c.send(0x10, "\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01x"+text("c"))
	_, body := c.expect(0x20)
	require.EqualValues(t, 0x8C, body[1])
	_, _, err := packet(c.in)
	require.Error(t, err)
	require.ErrorIs(t, err, io.EOF)
}

// A client that reads late still learns why it was disconnected, and a server
// that stops does not wait for it.
func TestLateReaderIsTold(t *testing.T) {
	r := newRig(t, Config{}, mqtt.Config{})
	late, never := r.connect("late", false), r.connect("never", false)
	r.broker.Kick("late", broker.Administrative)
	r.broker.Kick("never", broker.Administrative)
	eventually(t, "MQTT is done with them", func() bool { return r.srv.Connections() == 0 })
	require.EqualValues(t, 0x98, late.ends())
	began := time.Now()
	require.NoError(t, r.srv.Close())
	require.Less(t, time.Since(began), lingerTimeout/2)
	<-never.nc.QUIC.Context().Done()
}
