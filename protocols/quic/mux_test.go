package quic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"gantry/protocols/mqtt"
)

func newMultiRig(t testing.TB, mc mqtt.Config) *rig {
	t.Helper()
	mc.NoTopicAliases = true
	return newRig(t, Config{MultiStream: true, MaxPacketSize: mc.MaxPacketSize}, mc)
}

// data is a data stream of a client.
type data struct {
	t  testing.TB
	s  *quic.Stream
	in *bufio.Reader
}

func (c *client) data() *data {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.nc.QUIC.OpenStreamSync(ctx)
	require.NoError(c.t, err)
	require.NoError(c.t, s.SetDeadline(time.Now().Add(2*patience)))
	return &data{c.t, s, bufio.NewReader(s)}
}

func (d *data) send(head byte, body string) {
	d.t.Helper()
	require.NoError(d.t, sendOn(d.s, head, body))
}

func (d *data) expect(head byte, body string) {
	d.t.Helper()
	h, got, err := packet(d.in)
	require.NoError(d.t, err)
	require.Equal(d.t, head, h, "%q", got)
	require.Equal(d.t, body, string(got))
}

// subscribe uses packet identifier 1, on whatever stream.
func (d *data) subscribe(filter string, qos byte) {
	d.t.Helper()
	d.send(0x82, "\x00\x01\x00"+text(filter)+string([]byte{qos}))
	d.expect(0x90, "\x00\x01\x00"+string([]byte{qos}))
}

// ackAndMessage reads a PUBACK and a message, in any order, and returns the
// latter.
func (d *data) ackAndMessage(ack string) (message string) {
	d.t.Helper()
	acked := false
	for range 2 {
		h, got, err := packet(d.in)
		require.NoError(d.t, err)
		if h == 0x40 {
			require.Equal(d.t, ack, string(got))
			acked = true
			continue
		}
		message = string(got)
	}
	require.True(d.t, acked)
	return message
}

// aborted waits until the server has ended the stream, and returns its code.
func (d *data) aborted() quic.StreamErrorCode {
	d.t.Helper()
	for {
		_, _, err := packet(d.in)
		var reset *quic.StreamError
		if errors.As(err, &reset) && reset.Remote {
			return reset.ErrorCode
		}
		require.NoError(d.t, err)
	}
}

func (c *client) ping() {
	c.t.Helper()
	c.send(0xC0, "")
	c.expect(0xD0)
}

// The same identifiers on each stream do not meet: answers come back on the
// stream where they are waited for, messages on that of their SUBSCRIBE.
func TestStreamsHaveTheirOwnIdentifiers(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.connect("c", false)
	a, b := c.data(), c.data()
	a.subscribe("a/+", 1)
	b.subscribe("b", 2)
	c.subscribe("#", 0)
	for range 3 {
		a.send(0x32, text("b")+"\x00\x07\x00from a")
		b.send(0x32, text("a/1")+"\x00\x07\x00from b")
		got := a.ackAndMessage("\x00\x07")
		require.True(t, strings.HasSuffix(got, "from b"))
		a.send(0x40, got[5:7])
		got = b.ackAndMessage("\x00\x07")
		require.True(t, strings.HasSuffix(got, "from a"))
		b.send(0x40, got[3:5])
	}
	c.send(0x32, text("x")+"\x00\x07\x00control") // matches the subscription of the control stream
	for range 2 {
		h, got, err := packet(c.in)
		require.NoError(t, err)
		if h == 0x30 {
			require.Equal(t, text("x")+"\x00control", string(got))
		}
	}
	a.send(0xA2, "\x00\x02\x00"+text("a/+"))
	a.expect(0xB0, "\x00\x02\x00\x00")
}

func TestExactlyOnceOnDataStreams(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.connect("c", false)
	a, b := c.data(), c.data()
	a.subscribe("q", 2)
	b.send(0x34, text("q")+"\x00\x09\x00once")
	b.expect(0x50, "\x00\x09")
	b.send(0x3C, text("q")+"\x00\x09\x00once") // again: the same message
	b.expect(0x50, "\x00\x09")
	b.send(0x62, "\x00\x09")
	b.expect(0x70, "\x00\x09")
	b.send(0x62, "\x00\x0A") // of nothing
	b.expect(0x70, "\x00\x0A\x92")
	h, got, err := packet(a.in)
	require.NoError(t, err)
	require.EqualValues(t, 0x34, h)
	id := string(got[3:5])
	a.send(0x50, id)
	a.expect(0x62, id)
	a.send(0x70, id)
	a.send(0x32, text("q")+"\x00\x01\x00last")
	a.expect(0x40, "\x00\x01")
	h, got, err = packet(a.in)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(got), "last"), "% x %q", h, got)
}

// Each stream keeps its order, whatever the others do.
func TestOrderOfEachStream(t *testing.T) {
	const messages = 150
	r := newMultiRig(t, mqtt.Config{})
	sub, pub := r.connect("sub", false), r.connect("pub", false)
	var all sync.WaitGroup
	for i := range 5 {
		in, out := sub.data(), pub.data()
		topic := fmt.Sprintf("t/%d", i)
		in.subscribe(topic, 0)
		all.Go(func() {
			for n := range messages {
				if sendOn(out.s, 0x32, text(topic)+string([]byte{byte((n + 1) >> 8), byte(n + 1)})+"\x00"+fmt.Sprint(n)) != nil {
					return
				}
			}
		})
		all.Go(func() { _, _ = io.Copy(io.Discard, out.s) })
		defer func() {
			for n := range messages {
				in.expect(0x30, text(topic)+"\x00"+fmt.Sprint(n))
			}
			out.s.CancelRead(0)
			out.s.CancelWrite(0)
		}()
	}
	t.Cleanup(all.Wait)
}

// What is wrong on a data stream ends that stream with the code of MQTT. The
// others go on.
func TestFaultEndsOnlyTheStream(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{MaxPacketSize: 2048})
	c := r.connect("c", false)
	other := c.data()
	other.subscribe("x", 0)
	for name, test := range map[string]struct {
		head byte
		body string
		code quic.StreamErrorCode
	}{
		"CONNECT":               {0x10, "\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c", 0x82},
		"PINGREQ":               {0xC0, "", 0x82},
		"DISCONNECT":            {0xE0, "", 0x82},
		"AUTH":                  {0xF0, "", 0x82},
		"from a server":         {0x90, "\x00\x01\x00", 0x82},
		"flags":                 {0x80, "\x00\x01\x00\x00\x01a\x00", 0x81},
		"too large":             {0x30, text("x") + "\x00" + strings.Repeat("x", 2048), 0x95},
		"topic with a wildcard": {0x30, text("x/#") + "\x00", 0x81},
		"topic alias":           {0x30, text("x") + "\x03\x23\x00\x01", 0x94},
		"no filter":             {0x82, "\x00\x01\x00", 0x82},
		"short UNSUBSCRIBE":     {0xA2, "\x00\x01", 0x81},
		"short PUBACK":          {0x40, "\x00", 0x81},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.data()
			d.t = t
			_ = sendOn(d.s, test.head, test.body)
			require.Equal(t, test.code, d.aborted())
		})
	}
	require.NotZero(t, r.value("gantry_quic_data_stream_errors_total"))
	other.send(0x30, text("x")+"\x00alive")
	other.expect(0x30, text("x")+"\x00alive")
	c.ping()
	eventually(t, "places are free again", func() bool { return r.value("gantry_quic_data_streams") == 1 })
}

// A stream that the client aborts takes its subscriptions with it; the session
// lives.
func TestAbortedStreamLosesSubscriptions(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.connect("c", false)
	for name, abort := range map[string]func(*data){
		"reset": func(d *data) { d.s.CancelWrite(1) },
		"stop": func(d *data) {
			d.s.CancelRead(1)
			d.send(0x30, text("a/b")+"\x00") // it is noticed when something is written
		},
	} {
		d := c.data()
		d.send(0x82, "\x00\x01\x00"+text("a/#")+"\x00"+text("b")+"\x00"+text("$share/g/s")+"\x00")
		d.expect(0x90, "\x00\x01\x00\x00\x00\x00")
		require.Len(t, r.broker.Sessions()[0].Subscriptions, 3)
		abort(d)
		eventually(t, name, func() bool { return len(r.broker.Sessions()[0].Subscriptions) == 0 })
	}
	c.ping()
}

// A stream that the client ends in order gets the answers that it waits for,
// and ends. What was subscribed to on it comes on the control stream.
func TestEndedStream(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.connect("c", false)
	d := c.data()
	d.subscribe("a", 0)
	d.send(0x32, text("b")+"\x00\x05\x00x")
	d.send(0x34, text("b")+"\x00\x06\x00x")
	require.NoError(t, d.s.Close())
	acked := false
	for {
		h, got, err := packet(d.in)
		if err != nil {
			require.ErrorIs(t, err, io.EOF)
			break
		}
		acked = acked || h == 0x40 && string(got[:2]) == "\x00\x05"
	}
	require.True(t, acked)
	r.connect("pub", false).publish("a", "moves")
	c.gets("a", "moves")
	require.Len(t, r.broker.Sessions(), 2)
}

// The answer may take its time: a stream that the client has ended waits for it.
func TestEndedStreamWaitsForAnswer(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	d := r.connect("c", false).data()
	r.store.hold(true)
	defer r.store.hold(false)
	d.send(0x33, text("kept")+"\x00\x05\x00x")
	require.NoError(t, d.s.Close())
	require.NoError(t, d.s.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, _, err := packet(d.in)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	r.store.hold(false)
	require.NoError(t, d.s.SetReadDeadline(time.Now().Add(patience)))
	h, got, err := packet(d.in)
	require.NoError(t, err)
	require.EqualValues(t, 0x40, h)
	require.Equal(t, "\x00\x05", string(got[:2]))
	_, _, err = packet(d.in)
	require.ErrorIs(t, err, io.EOF)
}

// What a stream leaves open does not count against the client for good.
func TestLostStreamFreesReceiveMaximum(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{ReceiveMaximum: 2})
	c := r.connect("c", false)
	for round := range 6 {
		d := c.data()
		for id := range byte(2) {
			d.send(0x34, text("a")+string([]byte{0, id + 1, 0}))
			h, _, err := packet(d.in)
			require.NoError(t, err)
			require.EqualValues(t, 0x50, h)
		}
		if round%2 == 0 {
			d.s.CancelWrite(0)
		} else {
			require.NoError(t, d.s.Close())
		}
		_, _, err := packet(d.in) // the server has noticed
		require.Error(t, err)
		c.ping()
	}
}

// Data streams wait for CONNACK, and there are fifteen at most.
func TestDataStreamsAreCapped(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.dial()
	early := c.data()
	early.send(0x82, "\x00\x01\x00"+text("a")+"\x00")
	c.join("c", false, 60)
	early.expect(0x90, "\x00\x01\x00\x00")
	for range dataStreams - 1 {
		c.data()
	}
	_, err := c.nc.QUIC.OpenStream()
	require.ErrorIs(t, err, &quic.StreamLimitReachedError{})
	require.NoError(t, early.s.Close())
	c.data().subscribe("b", 0)
}

// A data stream that the client does not read holds up nobody: QoS 0 is dropped.
func TestStreamThatIsNotRead(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c, pub := r.connect("c", false), r.connect("pub", false)
	slow := c.data()
	slow.subscribe("flood", 0)
	payload := strings.Repeat("x", 50_000)
	for r.value("gantry_quic_dropped_messages_total") == 0 {
		pub.publish("flood", payload)
	}
	c.ping()
	d := c.data()
	d.subscribe("quick", 0)
	pub.publish("quick", "here")
	d.expect(0x30, text("quick")+"\x00here")
}

// With QoS 1 nothing is dropped: a client that does not take it is disconnected
// in the end, and gets everything on its next connection.
func TestUnreadStreamLosesNothing(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{WriteTimeout: 500 * time.Millisecond})
	c, pub := r.connect("c", true), r.connect("pub", false)
	c.data().subscribe("flood", 1)
	payload := strings.Repeat("x", 100_000)
	const messages = 40
	for range messages {
		pub.publish("flood", payload)
	}
	eventually(t, "it is given up", func() bool { return r.value("gantry_mqtt_write_timeouts_total") == 1 })
	c = r.dial()
	require.True(t, c.join("c", true, 60))
	for range messages {
		_, got, err := packet(c.in)
		require.NoError(t, err)
		require.Len(t, got, 2+5+2+1+len(payload))
		c.send(0x40, string(got[7:9]))
	}
}

// An identifier that a lost stream has left open in the session is not mistaken
// for that of a new message.
func TestResumedSessionForgetsStreams(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	sub := r.connect("sub", false)
	sub.subscribe("q", 0)
	c := r.connect("c", true)
	d := c.data()
	d.send(0x34, text("q")+"\x00\x01\x00first")
	d.expect(0x50, "\x00\x01")
	sub.gets("q", "first")
	require.NoError(t, c.nc.Close())
	eventually(t, "it is detached", func() bool { i, _ := r.broker.Session("c"); return !i.Connected })
	c = r.dial()
	require.True(t, c.join("c", true, 60))
	d = c.data()
	d.send(0x34, text("q")+"\x00\x01\x00second")
	d.expect(0x50, "\x00\x01")
	sub.gets("q", "second")
	d.send(0x62, "\x00\x01")
	d.expect(0x70, "\x00\x01")
	// The control stream goes on where it was.
	c.send(0x34, text("q")+"\x00\x02\x00third")
	c.expect(0x50)
	require.NoError(t, c.nc.Close())
	eventually(t, "it is detached", func() bool { i, _ := r.broker.Session("c"); return !i.Connected })
	c = r.dial()
	require.True(t, c.join("c", true, 60))
	c.send(0x3C, text("q")+"\x00\x02\x00third")
	c.expect(0x50)
	c.send(0x62, "\x00\x02")
	_, got := c.expect(0x70)
	require.Equal(t, "\x00\x02", string(got))
	c.send(0x30, text("q")+"\x00fourth")
	sub.gets("q", "third")
	sub.gets("q", "fourth")
}

// Before version 5, too, and with large messages in both directions.
func TestDataStreamOfOldClient(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.dial()
	c.send(0x10, "\x00\x04MQTT\x04\x02\x00\x3c"+text("c"))
	c.expect(0x20)
	d := c.data()
	d.send(0x82, "\x00\x01"+text("big")+"\x00")
	d.expect(0x90, "\x00\x01\x00")
	payload := strings.Repeat("x", 1<<20-20)
	e := c.data()
	e.send(0x32, text("big")+"\x00\x07"+payload)
	e.expect(0x40, "\x00\x07")
	d.expect(0x30, text("big")+payload)
}

// The control stream is the connection: faults on it, its end and reasons to
// end it work as with one stream.
func TestControlStreamEndsAll(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{MaxPacketSize: 4096})
	c := r.connect("c", false)
	d := c.data()
	d.subscribe("a", 0)
	_ = sendOn(c.nc, 0x30, text("a")+"\x00"+strings.Repeat("x", 5000))
	require.EqualValues(t, 0x95, c.ends())
	c = r.connect("c", false)
	c.send(0x80, "")
	require.EqualValues(t, 0x81, c.ends())
	c = r.connect("c", false)
	c.data().subscribe("a", 0)
	require.NoError(t, c.nc.Stream.Close())
	<-c.nc.QUIC.Context().Done()
	var closed *quic.ApplicationError
	require.ErrorAs(t, context.Cause(c.nc.QUIC.Context()), &closed)
	require.EqualValues(t, 1, closed.ErrorCode)
	c = r.dial()
	c.join("k", false, 1)
	c.data().subscribe("a", 0)
	require.EqualValues(t, 0x8D, c.ends())
}

// Packets on data streams are signs of life.
func TestDataStreamKeepsAlive(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.dial()
	c.join("k", false, 1)
	d := c.data()
	for began := time.Now(); time.Since(began) < 2500*time.Millisecond; time.Sleep(200 * time.Millisecond) {
		d.send(0x32, text("a")+"\x00\x01\x00")
		_, _, err := packet(d.in)
		require.NoError(t, err)
	}
	c.ping()
}
