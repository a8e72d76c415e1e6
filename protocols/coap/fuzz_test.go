package coap

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func FuzzDatagram(f *testing.F) {
	for _, r := range []req{
		put("a", "x"), register("t", "a"), get("a"),
		{typ: message.NonConfirmable, code: codes.POST, path: []string{"ps", "a"}, payload: "x"},
		{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{block1(0, true, 0)}, payload: "0123456789abcdef"},
		{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{block1(1, false, 0)}, payload: "x"},
		{code: codes.GET, path: []string{"ps", "a"}, options: []message.Option{block2(3, 2)}},
		{code: codes.GET, path: []string{".well-known", "core"}},
		{code: codes.GET, path: []string{"ps", "+"}, options: []message.Option{observeOpt(1)}, query: []string{"qos=2", "rh=1"}},
		{code: codes.GET, options: []message.Option{{ID: message.ProxyURI, Value: []byte("coap://x")}}},
		{typ: message.Acknowledgement, code: codes.Content},
		{typ: message.Reset},
	} {
		f.Add(r.bytes(f))
	}
	f.Add([]byte{0x40, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, rec, d := bareLoop(t)
		for round := range 3 { // twice as a duplicate: the answer may be repeated, not multiplied
			rec.sent = nil
			d.data, d.truncated = data, round == 2 && len(data) == maxDatagram
			l.turn(false, func() { l.handleGuarded(d) })
			checkReplies(t, data, rec.sent)
		}
		require.Zero(t, metricValue(t, l.metrics.dropped[dropPanic]))
		l.turn(true, func() {
			for _, p := range l.peers {
				l.forgetPeer(p)
			}
		})
		require.Zero(t, l.uploaded)
		require.Zero(t, l.pending)
		require.Equal(t, 0, l.lru.Len())
	})
}

func checkReplies(t *testing.T, data []byte, sent [][]byte) {
	t.Helper()
	require.LessOrEqual(t, len(sent), 1, "more than one reply")
	if len(sent) == 0 {
		return
	}
	require.GreaterOrEqual(t, len(data), headerSize)
	require.Equal(t, byte(1), data[0]>>6, "a reply to another version")
	require.Less(t, data[0]>>4&3, byte(message.Acknowledgement), "a reply to an ACK or RST")
	require.LessOrEqual(t, len(sent[0]), max(safeReply, amplification*len(data)))
	var m message.Message
	m.Options = make(message.Options, 0, 16)
	_, err := coder.DefaultCoder.Decode(sent[0], &m)
	require.NoError(t, err)
	con := data[0]>>4&3 == byte(message.Confirmable)
	require.Equal(t, con, m.Type != message.NonConfirmable, "the reply is %v", m.Type)
	if con {
		require.Equal(t, int32(binary.BigEndian.Uint16(data[2:])), m.MessageID)
	}
}

// FuzzSequence feeds several datagrams, each behind its length, to one loop
// whose session always has something to deliver, and lets time pass between
// them: uploads, observations and transfers in every order.
func FuzzSequence(f *testing.F) {
	seed := func(rs ...req) {
		var all []byte
		for i, r := range rs {
			r.mid = uint16(i + 1)
			b := r.bytes(f)
			all = append(append(all, byte(len(b))), b...)
		}
		f.Add(all)
	}
	ack := func(token string) req { return req{typ: message.Acknowledgement, token: token} }
	seed(register("t", "a"), ack(""), register("u", "+"), register("t", "b"), get("a", block2(1, 2)))
	seed(part("a", testBody(40), 0, 0), part("a", testBody(40), 1, 0), part("a", testBody(40), 2, 0))
	seed(put("a", "x"), put("a", "x"), register("t", "#", "qos=2"), get("#", observeOpt(1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, rec, d := bareLoop(t)
		l.echo.policy = EchoOff
		l.core.(*fakeCore).backlog = []*broker.Message{{Topic: "a", Payload: []byte("small")}, {Topic: "a", Payload: testBody(1500)}}
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			d.data, data = data[1:1+n], data[1+n:]
			l.turn(false, func() { l.handleGuarded(d) })
			l.base = l.base.Add(-time.Duration(n) * 100 * time.Millisecond)
			l.turn(true, l.runTimers)
			for _, b := range rec.sent { // acknowledge whatever is confirmable
				if m := emptyMessage(message.Acknowledgement, binary.BigEndian.Uint16(b[2:])); b[0]>>4&3 == 0 && n%2 == 0 {
					d.data = m[:]
					l.turn(false, func() { l.handleGuarded(d) })
				}
			}
			rec.sent = nil
		}
		require.Zero(t, metricValue(t, l.metrics.dropped[dropPanic]))
		l.turn(true, func() {
			for _, p := range l.peers {
				l.forgetPeer(p)
			}
		})
		require.Zero(t, l.uploaded)
		require.Zero(t, l.pending)
		require.Equal(t, 0, l.lru.Len())
		for _, g := range []interface{ Write(*dto.Metric) error }{l.metrics.observers, l.metrics.sessions, l.metrics.peers, l.metrics.uploads} {
			var m dto.Metric
			require.NoError(t, g.Write(&m))
			require.Zero(t, m.Gauge.GetValue())
		}
		require.Subset(t, []*timer{&l.sweep}, []*timer(l.timers))
	})
}

// go-coap's decoder must read every message that ours accepts, and in the same
// way; ours is stricter.
func FuzzDecode(f *testing.F) {
	f.Add(put("a", "x").bytes(f))
	f.Add(register("t", "a", "qos=1").bytes(f))
	f.Add([]byte{0x40, 1, 0, 1, 0xD1, 0xFF, 'x', 0xFF, 'p'})
	f.Fuzz(func(t *testing.T, data []byte) {
		var p packet
		if p.decode(data) != nil {
			return
		}
		m := message.Message{Options: make(message.Options, 0, len(data))}
		_, err := coder.DefaultCoder.Decode(data, &m)
		require.NoError(t, err)
		require.Equal(t, m.Code, p.code)
		require.Equal(t, m.Type, p.typ)
		require.Equal(t, m.MessageID, int32(p.mid))
		require.Equal(t, string(m.Token), string(p.token.bytes()))
		require.Equal(t, string(m.Payload), string(p.payload))
		for _, o := range m.Options { // theirs leaves out what has a wrong length
			require.Contains(t, p.options, o)
		}
	})
}
