package quic

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/protocols/mqtt"
	"gantry/protocols/mqtt/wire"
)

// publishOnce sends a message with QoS 2 and goes through its handshake.
func (c *client) publishOnce(topic, payload string) {
	c.t.Helper()
	c.send(0x34, text(topic)+"\x00\x01\x00"+payload)
	c.expect(0x50)
	c.send(0x62, "\x00\x01")
	c.expect(0x70)
}

// getsOnce reads a message with QoS 2 and returns its identifier.
func (d *data) getsOnce() (id string) {
	d.t.Helper()
	h, got, err := packet(d.in)
	require.NoError(d.t, err)
	require.EqualValues(d.t, 0x34, h)
	n := 2 + int(got[0])<<8 + int(got[1])
	return string(got[n : n+2])
}

// ended waits until the server has taken note of the end of all data streams.
func (r *rig) ended() {
	r.t.Helper()
	eventually(r.t, "the stream has ended", func() bool { return r.value("gantry_quic_data_streams") == 0 })
}

// PUBREL does not get lost with a stream, and what the client may have on its
// way is free again: more deliveries than its receive maximum go through.
func TestReleaseWithoutItsStream(t *testing.T) {
	for name, end := range map[string]func(*data, *client, string){
		"ended, PUBREC on the control stream": func(d *data, c *client, id string) {
			require.NoError(t, d.s.Close())
			_, _, err := packet(d.in)
			require.ErrorIs(t, err, io.EOF)
			c.send(0x50, id)
		},
		"reset, PUBREC on the control stream": func(d *data, c *client, id string) {
			d.s.CancelWrite(0)
			d.s.CancelRead(0)
			c.send(0x50, id)
		},
		"reset before PUBREL is read": func(d *data, _ *client, id string) {
			d.send(0x50, id)
			h, _, err := packet(d.in) // so that the server has PUBREC
			require.NoError(t, err)
			require.EqualValues(t, 0x62, h)
			d.s.CancelWrite(0)
			d.s.CancelRead(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newMultiRig(t, mqtt.Config{})
			pub, c := r.connect("pub", false), r.dial()
			c.send(0x10, "\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x02"+text("c")) // receive maximum 2
			c.expect(0x20)
			for round := range 5 {
				d := c.data()
				topic := fmt.Sprint("q", round)
				d.subscribe(topic, 2)
				pub.publishOnce(topic, "x")
				id := d.getsOnce()
				end(d, c, id)
				_, got := c.expect(0x62)
				require.Equal(t, id, string(got))
				c.send(0x70, id)
				r.ended()
			}
		})
	}
}

// PUBREL comes where PUBREC came from, not where the message went.
func TestReleaseFollowsReceived(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c, pub := r.connect("c", false), r.connect("pub", false)
	d, other := c.data(), c.data()
	d.subscribe("q", 2)
	pub.publishOnce("q", "x")
	id := d.getsOnce()
	other.send(0x50, id)
	other.expect(0x62, id)
	c.send(0x50, id) // again, elsewhere
	_, got := c.expect(0x62)
	require.Equal(t, id, string(got))
}

// Messages that come while a stream is ended in order come on it or on the
// control stream.
func TestNothingIsLostAtTheEndOfAStream(t *testing.T) {
	const rounds, messages = 60, 20
	r := newMultiRig(t, mqtt.Config{})
	c, pub := r.connect("c", true), r.connect("pub", false)
	for round := range rounds {
		topic := fmt.Sprint("q", round)
		d := c.data()
		d.subscribe(topic, 1)
		sent := make(chan error, 1)
		go func() {
			var err error
			for n := range byte(messages) {
				if err == nil {
					err = sendOn(pub.nc, 0x32, text(topic)+string([]byte{0, n + 1, 0}))
				}
			}
			sent <- err
		}()
		require.NoError(t, d.s.Close())
		got := 0
		take := func(h byte, b []byte) {
			if h&0xF0 == 0x30 {
				got++
				n := 2 + int(b[1])
				c.send(0x40, string(b[n:n+2]))
			}
		}
		for {
			h, b, err := packet(d.in)
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			take(h, b)
		}
		for got < messages {
			h, b, err := packet(c.in)
			require.NoError(t, err, "round %d: %d messages", round, got)
			take(h, b)
		}
		require.NoError(t, <-sent)
		for range messages {
			pub.expect(0x40)
		}
	}
}

// What waits for a stream that is aborted goes to the control stream, in its
// order: messages with QoS 1 and 2 and PUBRELs, but no answers.
func TestWaitingMessagesMoveToControl(t *testing.T) {
	st := bareStream(t, false, wire.V5)
	m := st.m
	message, release := "\x32\x06\x00\x01a\x00\x05\x00", "\x62\x02\x00\x06"
	st.gone = true
	m.release[6] = &pubrel{st: st, sent: true}
	st.leave([]byte("\x40\x02\x00\x01" + message + "\x30\x04\x00\x01b\x00" + release + message))
	require.Equal(t, message+release+message, string(m.late))
	require.Empty(t, m.release)
	require.True(t, st.closed)
}

// A filter that the client asks for on another stream stays, whenever in the end
// of the stream that had it the request comes.
func TestSubscribedAnewWhileItsStreamEnds(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c := r.connect("c", true)
	for i := range 150 {
		topic := fmt.Sprint("t", i)
		d := c.data()
		d.subscribe(topic, 0)
		d.s.CancelWrite(0)
		d.s.CancelRead(0)
		c.subscribe(topic, 0)
		r.ended()
		c.send(0xC0, "") // behind an UNSUBSCRIBE that would be on its way
		c.expect(0xD0)
		info, _ := r.broker.Session("c")
		require.Len(t, info.Subscriptions, 1, topic)
		c.send(0xA2, "\x00\x01\x00"+text(topic))
		c.expect(0xB0)
	}
}

// The steps of it, one by one.
func TestClaimedFiltersAreNotUnsubscribed(t *testing.T) {
	st := bareStream(t, false, wire.V5)
	m := st.m
	other := newStream(m, nil)
	for _, f := range []string{"before", "after", "never"} {
		m.routes.set(f, st)
	}
	ask := func(filter string) {
		body := []byte("\x00\x01\x00" + text(filter) + "\x00")
		require.NoError(t, other.request(wire.SUBSCRIBE, body))
	}
	ask("before")
	m.disown(st, m.routes.drop(st))
	require.ElementsMatch(t, []string{"after", "never"}, st.unwanted)
	other.ids = map[uint16]uint16{} // its first request is answered
	ask("after")
	b := st.nextUnsubscribe()
	require.Contains(t, string(b), text("never"))
	require.NotContains(t, string(b), "after")
	require.NotContains(t, string(b), "before")
	require.Nil(t, st.nextUnsubscribe())
}

// What comes to a stream that has just ended goes on to the control stream, of
// which this connection has none; answers are for nobody.
func TestPacketForAnEndedStream(t *testing.T) {
	st := bareStream(t, false, wire.V5)
	st.closed = true
	for packet, want := range map[string]error{
		"\x32\x06\x00\x01a\x00\x05\x00": errNoStream, // PUBLISH
		"\x40\x02\x00\x01":              nil,         // PUBACK
	} {
		h, ok, err := wire.ParseHeader([]byte(packet), wire.V5)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, st.m.enqueue(st, h, []byte(packet), nil))
	}
	require.Empty(t, st.out)
}

func TestUnwritten(t *testing.T) {
	first, second := "\x40\x02\x00\x01", "\x40\x02\x00\x02"
	both := []byte(first + second)
	for n := range both {
		want := first + second
		if n >= len(first) {
			want = second
		}
		require.Equal(t, want, string(unwritten(both, n, wire.V5)), "%d bytes", n)
	}
	require.Empty(t, unwritten(both, len(both), wire.V5))
}

// A filter that is refused leaves nothing behind and takes nothing from others.
func TestRefusedFilterIsForgotten(t *testing.T) {
	st := bareStream(t, false, wire.V5)
	m := st.m
	for round := range 100 {
		out, err := st.feed([]byte("\x82\x17\x00\x01\x00" + text("a/+") + "\x00" + text("$share/+g/b") + "\x00"))
		require.NoError(t, err)
		sid := string(out[2:4])
		require.Equal(t, min(round, 1), m.routes.n, "not before SUBACK")
		got, keep := m.routeAnswer(wire.SUBACK, []byte(sid+"\x00\x00\x8F"))
		require.True(t, keep)
		require.Same(t, st, got)
		require.Same(t, st, m.routes.of([]byte("a/1")))
		require.Nil(t, m.routes.of([]byte("b")))
		require.Equal(t, 1, m.routes.n)
		require.Empty(t, m.ids.owners)
	}
	out, err := st.feed([]byte("\xA2\x08\x00\x01\x00" + text("a/+")))
	require.NoError(t, err)
	require.Equal(t, 1, m.routes.n, "not before UNSUBACK")
	m.routeAnswer(wire.UNSUBACK, []byte(string(out[2:4])+"\x00\x00"))
	require.Zero(t, m.routes.n)
}

func TestRefusedFilterTakesNothing(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c, pub := r.connect("c", false), r.connect("pub", false)
	c.subscribe("a/b", 0)
	d := c.data()
	d.send(0x82, "\x00\x01\x00"+text("$share/+bad/a/b")+"\x00")
	h, got, err := packet(d.in)
	require.NoError(t, err)
	require.EqualValues(t, 0x90, h)
	require.Equal(t, byte(0x8F), got[3])
	pub.publish("a/b", "m")
	c.gets("a/b", "m")
}

func TestRoutesAreCapped(t *testing.T) {
	var r routes
	st := &stream{}
	for i := range maxRoutes + 10 {
		r.set(fmt.Sprintf("%d%s", i, strings.Repeat("/+", i%2)), st)
	}
	require.Equal(t, maxRoutes, r.n)
	r.set("0", st)
	require.Equal(t, maxRoutes, r.n, "the same again")
	r.set("0", nil)
	r.set("x", st)
	require.Same(t, st, r.of([]byte("x")))
	require.Len(t, r.drop(st), maxRoutes)
	require.Zero(t, r.n)
}

// A SUBSCRIBE that is not answered yet goes the way of its stream.
func TestPendingSubscribe(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	c, pub := r.connect("c", true), r.connect("pub", false)
	for _, reset := range []bool{false, true} {
		r.store.hold(true)
		d := c.data()
		d.send(0x82, "\x00\x01\x00"+text("a")+"\x00")
		eventually(t, "it is in the core", func() bool { i, _ := r.broker.Session("c"); return len(i.Subscriptions) == 1 })
		if reset {
			d.s.CancelWrite(0)
		} else {
			require.NoError(t, d.s.Close())
			require.NoError(t, d.s.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			_, _, err := packet(d.in)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, d.s.SetReadDeadline(time.Now().Add(patience)))
		}
		if reset {
			r.ended()
		}
		r.store.hold(false)
		if reset {
			eventually(t, "it is gone", func() bool { i, _ := r.broker.Session("c"); return len(i.Subscriptions) == 0 })
			continue
		}
		d.expect(0x90, "\x00\x01\x00\x00")
		pub.publish("a", "moves")
		c.gets("a", "moves")
		c.send(0xA2, "\x00\x01\x00"+text("a"))
		c.expect(0xB0)
	}
}

// A packet that takes longer than the keep alive is no silence while its bytes
// arrive; on any stream.
func TestSlowPacketKeepsAlive(t *testing.T) {
	r := newMultiRig(t, mqtt.Config{})
	for _, on := range []string{"control", "data"} {
		t.Run(on, func(t *testing.T) {
			t.Parallel()
			c := r.dial()
			c.join(on, false, 1)
			var w io.Writer = c.nc
			if on == "data" {
				w = c.data().s
			}
			const chunks, size = 10, 2048
			rest := chunks*size + 4
			_, err := w.Write([]byte{0x30, byte(rest&0x7f | 0x80), byte(rest>>7&0x7f | 0x80), byte(rest >> 14), 0, 1, 't', 0})
			require.NoError(t, err)
			tick := time.NewTicker(250 * time.Millisecond)
			defer tick.Stop()
			for range chunks {
				<-tick.C
				_, err = w.Write(make([]byte, size))
				require.NoError(t, err)
			}
			c.ping()
			require.EqualValues(t, 0x8D, c.ends(), "and then it is silent")
		})
	}
}
