package quic

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// bareStream is a stream without a connection, for what needs none.
func bareStream(t testing.TB, control bool, v wire.Version) *stream {
	t.Helper()
	ms, err := newMetrics("bare", nil)
	require.NoError(t, err)
	m := &mux{
		c:       &Conn{l: &Listener{cfg: Config{MaxPacketSize: 4096}, metrics: ms, log: discard}},
		version: v, release: make(map[uint16]*pubrel),
	}
	m.ids.init()
	m.ids.resumed = true
	st := newStream(m, nil)
	st.control = control
	return st
}

// feed gives bytes to a stream and returns what goes on to package mqtt.
func (st *stream) feed(b []byte) (out []byte, err error) {
	st.buf, st.r, st.w = append(st.buf[st.r:st.w:st.w], b...), 0, st.w-st.r+len(b)
	for {
		n, need, first, err := st.scan()
		if n < 0 || st.r+n > st.w || need < 0 || need > st.m.c.l.cfg.MaxPacketSize {
			return out, fmt.Errorf("scan: n %d, need %d of %d bytes", n, need, st.w-st.r)
		}
		out = append(out, st.buf[st.r:st.r+n]...)
		st.r += n
		out = append(out, first...)
		if err != nil || len(first) == 0 {
			return out, err
		}
	}
}

// conversation is packets of a client on a data stream, version 5.
var conversation = []string{
	"\x32\x09\x00\x03a/b\x00\x07\x00x",
	"\x34\x09\x00\x03a/b\x00\x08\x00x",
	"\x30\x06\x00\x03a/b\x00",
	"\x82\x13\x00\x01\x00\x00\x03a/#\x01\x00\x07$queue/\x00",
	"\xa2\x08\x00\x02\x00\x00\x03a/#",
	"\x40\x02\x00\x01",
	"\x50\x02\x00\x01",
	"\x62\x02\x00\x08",
	"\x70\x02\x00\x01",
}

// However a conversation is cut into pieces, the same packets go on, and none
// before its last byte.
func TestPacketsInPieces(t *testing.T) {
	all := []byte(strings.Join(conversation, ""))
	want, err := bareStream(t, false, wire.V5).feed(bytes.Clone(all))
	require.NoError(t, err)
	require.False(t, bytes.Equal(all, want), "identifiers are replaced")
	for cut := range all {
		st := bareStream(t, false, wire.V5)
		first, err := st.feed(bytes.Clone(all[:cut]))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(want, first))
		whole(t, first)
		second, err := st.feed(bytes.Clone(all[cut:]))
		require.NoError(t, err)
		require.Equal(t, want, append(first, second...))
	}
	st := bareStream(t, false, wire.V5)
	var out []byte
	for i := range all {
		b, err := st.feed(all[i : i+1 : i+1])
		require.NoError(t, err)
		out = append(out, b...)
	}
	require.Equal(t, want, out)
}

// whole checks that b is packets that package mqtt takes.
func whole(t *testing.T, b []byte) {
	t.Helper()
	for len(b) > 0 {
		h, ok, err := wire.ParseHeader(b, wire.V5)
		require.NoError(t, err)
		require.True(t, ok && h.Total() <= len(b))
		b = b[h.Total():]
	}
}

// Nothing that a client sends makes the mux fail; what goes on from a data
// stream is packets that do not end the connection.
func FuzzStream(f *testing.F) {
	for _, p := range conversation {
		f.Add([]byte(p), false, uint8(5), uint8(3))
		f.Add([]byte(p), true, uint8(4), uint8(1))
	}
	f.Add([]byte(strings.Join(conversation, "")), false, uint8(5), uint8(100))
	f.Add([]byte("\x82\x0f\x00\x01\x00\x00\x06$share\x00\x00\x01#\x00"), false, uint8(5), uint8(0))
	f.Add([]byte("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00\xf0\x00"), true, uint8(0), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, control bool, version, cut uint8) {
		v := wire.Version(version)
		if !control && (v < wire.V31 || v > wire.V5) || control && v > wire.V5 {
			return
		}
		st := bareStream(t, control, v)
		at := min(int(cut), len(b))
		out, err := st.feed(bytes.Clone(b[:at]))
		if err == nil {
			var more []byte
			more, err = st.feed(bytes.Clone(b[at:]))
			out = append(out, more...)
		}
		if control {
			require.NoError(t, err)
			return
		}
		if err != nil {
			require.NotZero(t, streamCode(err), "%v", err)
		}
		for len(out) > 0 {
			h, ok, err := wire.ParseHeader(out, v)
			require.NoError(t, err)
			require.True(t, ok && h.Total() <= len(out))
			require.NoError(t, st.check(h, out[h.Size:h.Total()]))
			out = out[h.Total():]
		}
		st.m.routes.of([]byte("a/b"))
		st.m.routes.drop(st)
		require.Empty(t, st.m.routes.exact)
		require.Empty(t, st.m.routes.wild)
	})
}

func TestRoutes(t *testing.T) {
	var r routes
	a, b := &stream{}, &stream{}
	of := func(topic string) *stream { return r.of([]byte(topic)) }
	require.Nil(t, of("x"))
	r.set("x", a)
	r.set("$share/g/x", b)
	r.set("y/#", a)
	r.set("y/+", b)
	r.set("$exclusive/z/+", b)
	require.Same(t, a, of("x"))
	require.Same(t, a, of("y/1"))
	require.Same(t, b, of("z/1"))
	r.set("x", nil)
	require.Same(t, b, of("x"))
	r.set("y/#", b)
	require.Same(t, b, of("y/1/2"))
	require.ElementsMatch(t, []string{"$share/g/x", "y/#", "y/+", "$exclusive/z/+"}, r.drop(b))
	require.Nil(t, of("y/1"))
	require.Empty(t, r.exact)
}

// UNSUBSCRIBE for many filters goes in several packets.
func TestAppendUnsubscribe(t *testing.T) {
	var want, got []string
	for i := range 100 {
		want = append(want, strings.Repeat("f", 3*i+1))
	}
	want = append(want, strings.Repeat("long", 1000))
	for _, v := range []wire.Version{wire.V311, wire.V5} {
		got = nil
		for rest := want; len(rest) > 0; {
			var p []byte
			p, rest = appendUnsubscribe(nil, 77, rest, v)
			h, ok, err := wire.ParseHeader(p, v)
			require.NoError(t, err)
			require.True(t, ok)
			require.Len(t, p, h.Total())
			u, err := wire.ParseUnsubscribe(p[h.Size:], v)
			require.NoError(t, err)
			require.EqualValues(t, 77, u.PacketID)
			got = append(got, u.Filters...)
		}
		require.Equal(t, want, got)
	}
}

// Identifiers of all streams are different, and are used again when answered.
func TestIdentifiers(t *testing.T) {
	var d ids
	d.init()
	control, a := &stream{control: true, ids: map[uint16]uint16{}}, &stream{ids: map[uint16]uint16{}}
	seen := map[uint16]bool{}
	for id := uint16(1); id <= 3000; id++ {
		for _, st := range []*stream{control, a} {
			sid, _ := d.enter(st, id, false)
			require.False(t, sid == 0 || seen[sid])
			require.True(t, !st.control || sid == id, "the control stream keeps its own")
			seen[sid] = true
			again, _ := d.enter(st, id, false)
			require.Equal(t, sid, again)
		}
	}
	taken, _ := d.enter(control, 0xFFFF, false)
	require.NotZero(t, taken)
	require.False(t, seen[taken], "what a data stream uses is not given twice")
	for sid := range seen {
		st, id := d.answer(wire.PUBACK, sid, false)
		require.True(t, st == a || id == sid)
	}
	require.Empty(t, a.ids)
	for range 0xFFFE {
		require.NotZero(t, d.own())
	}
	require.Zero(t, d.own(), "all are in use")
	sid, _ := d.enter(a, 1, false)
	require.Zero(t, sid)
}

// A write that is no packets is an error of this program, and is not guessed at.
func TestWriteOfHalfPackets(t *testing.T) {
	m := bareStream(t, true, wire.V5).m
	for _, b := range []string{"\x40", "\x40\x02\x00", "\x40\x02\x00\x01\x40"} {
		_, err := m.write([]byte(b), nil)
		require.ErrorIs(t, err, errPacket, "% x", b)
	}
	_, err := m.write([]byte("\x30\x05\x00\x01a\x00"), []byte("xx"))
	require.ErrorIs(t, err, errPacket)
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadline()
		passed := func() bool {
			select {
			case <-d.wait():
				return true
			default:
				return false
			}
		}
		require.False(t, passed())
		d.set(time.Now().Add(time.Minute))
		first := d.wait()
		d.set(time.Now().Add(time.Hour)) // who waits, waits longer
		time.Sleep(30 * time.Minute)
		require.False(t, passed())
		time.Sleep(31 * time.Minute)
		<-first
		require.True(t, passed())
		d.set(time.Time{})
		require.False(t, passed())
		d.set(time.Now())
		require.True(t, passed())
		d.stop()
	})
}

func TestStreamCodes(t *testing.T) {
	for reason, code := range map[broker.Reason]int{
		broker.Malformed: 0x81, broker.ProtocolError: 0x82, broker.InvalidTopic: 0x90, broker.InvalidFilter: 0x8F, broker.InvalidAlias: 0x94,
	} {
		require.EqualValues(t, code, streamCode(fmt.Errorf("wrapped: %w", &broker.Error{Reason: reason})))
	}
	require.EqualValues(t, 0x93, streamCode(errNoIDs))
	require.Zero(t, streamCode(os.ErrDeadlineExceeded))
}
