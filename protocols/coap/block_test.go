package coap

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/broker"
)

func blockOpt(id message.OptionID, b block) message.Option {
	var e encoder
	e.addUint(id, b.value())
	return message.Option{ID: id, Value: bytes.Clone(e.options[0].Value)}
}

func block1(num uint32, more bool, szx uint8) message.Option {
	return blockOpt(message.Block1, block{num: num, more: more, szx: szx})
}

func block2(num uint32, szx uint8) message.Option {
	return blockOpt(message.Block2, block{num: num, szx: szx})
}

// part is the request for one block of a body; tokens differ per block, as
// libcoap's do.
func part(topic string, body []byte, num uint32, szx uint8, extra ...message.Option) req {
	size := 16 << szx
	end := min(len(body), (int(num)+1)*size)
	return req{
		code: codes.PUT, token: string([]byte{byte(num), byte(num >> 8), szx}), path: []string{"ps", topic},
		payload: string(body[int(num)*size : end]), options: append(extra, block1(num, end < len(body), szx)),
	}
}

func testBody(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

func TestUpload(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	for _, szx := range []uint8{0, 3, 6} {
		c := dial(t, s)
		body := testBody(5000)
		blocks := uint32((len(body) + 16<<szx - 1) / (16 << szx))
		for num := range blocks {
			r := part("a", body, num, szx)
			if num == 1 { // the 2.31 was lost: once under the same message id, once under a new one
				r.mid = c.nextMID()
				first := c.do(r)
				require.Equal(t, first, c.do(r))
				r.mid = 0
			}
			m := c.do(r)
			want := codes.Continue
			if num == blocks-1 {
				want = codes.Changed
			}
			require.Equal(t, want, m.Code)
			v := uintOf(t, m, message.Block1)
			require.Equal(t, block{num: num, more: num < blocks-1, szx: szx}.value(), v)
		}
		require.Equal(t, body, o.next().Payload)
		require.Nil(t, o.poll())
	}
	require.Zero(t, s.loops[0].uploadState(t))
}

// uploadState returns the memory that uploads hold.
func (l *loop) uploadState(t testing.TB) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	require.GreaterOrEqual(t, l.uploaded, 0)
	return l.uploaded
}

func TestUploadGapIsRefused(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	c := dial(t, s)
	body := testBody(5000)
	require.Equal(t, codes.RequestEntityIncomplete, c.do(part("a", body, 3, 6)).Code, "without a beginning")
	require.Equal(t, codes.Continue, c.do(part("a", body, 0, 6)).Code)
	require.Equal(t, codes.RequestEntityIncomplete, c.do(part("a", body, 2, 6)).Code)
	require.Equal(t, codes.RequestEntityIncomplete, c.do(part("a", body, 4, 6)).Code, "the last block alone is no body")
	require.Nil(t, o.poll())
	require.Zero(t, s.loops[0].uploadState(t))
}

func TestUploadErrors(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	body := testBody(3000)
	c := dial(t, s)
	r := part("a", body, 0, 6)
	r.payload = r.payload[:100]
	require.Equal(t, codes.BadRequest, c.do(r).Code, "a block that is not full, but not the last")
	r = part("a", body, 0, 6)
	r.options = []message.Option{block1(0, true, 7)}
	require.Equal(t, codes.BadRequest, c.do(r).Code, "reserved size")
	r = part("a", body, 0, 4)
	r.payload += "x"
	require.Equal(t, codes.BadRequest, c.do(r).Code, "longer than its size")
	r = part("a+", body, 0, 6)
	require.Equal(t, codes.BadRequest, c.do(r).Code, "bad topic at the first block already")
	require.Nil(t, o.poll())
}

func TestUploadLimits(t *testing.T) {
	cfg := testConfig()
	cfg.MaxBody = 2500
	s, _ := start(t, cfg)
	c := dial(t, s)
	body := testBody(3000)
	m := c.do(part("a", body, 0, 6, opt(message.Size1, 0x0B, 0xB8)))
	require.Equal(t, codes.RequestEntityTooLarge, m.Code)
	require.EqualValues(t, 2500, uintOf(t, m, message.Size1))
	require.Equal(t, codes.Continue, c.do(part("a", body, 0, 6)).Code)
	require.Equal(t, codes.Continue, c.do(part("a", body, 1, 6)).Code)
	require.Equal(t, codes.RequestEntityTooLarge, c.do(part("a", body, 2, 6)).Code)
	require.Zero(t, s.loops[0].uploadState(t))

	cfg = testConfig()
	cfg.UploadMemory, cfg.UploadsPerPeer = 3000, 2
	s, _ = start(t, cfg)
	a, b := dial(t, s), dial(t, s)
	require.Equal(t, codes.Continue, a.do(part("a", body, 0, 6)).Code)
	require.Equal(t, codes.Continue, b.do(part("a", body, 0, 6)).Code)
	require.Equal(t, codes.ServiceUnavailable, b.do(part("b", body, 0, 6)).Code)
	require.Equal(t, codes.Continue, b.do(part("b", body[:32], 0, 0)).Code)
	require.Equal(t, codes.Continue, b.do(part("c", body[:32], 0, 0)).Code, "a third one costs the oldest")
	require.Equal(t, codes.RequestEntityIncomplete, b.do(part("a", body, 1, 6)).Code)
}

func TestUploadIdle(t *testing.T) {
	cfg := testConfig()
	cfg.UploadIdle = 20 * time.Millisecond
	s, _ := start(t, cfg)
	c := dial(t, s)
	require.Equal(t, codes.Continue, c.do(part("a", testBody(3000), 0, 6)).Code)
	require.Eventually(t, func() bool { return s.loops[0].uploadState(t) == 0 }, patience, time.Millisecond)
	require.Equal(t, codes.RequestEntityIncomplete, c.do(part("a", testBody(3000), 1, 6)).Code)
}

// Interleaved uploads with repetitions, restarts and gaps: what is published is
// exactly a body that was sent, or nothing (RFC 7959 section 2.5).
func TestUploadModel(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	rapid.Check(t, func(rt *rapid.T) {
		c := dial(t, s)
		topics := []string{"x", "y"}
		bodies := map[string][]byte{}
		next := map[string]uint32{}
		for _, tp := range topics {
			bodies[tp] = []byte(tp + strings.Repeat(tp, rapid.IntRange(17, 100).Draw(rt, "size")))
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			tp := rapid.SampledFrom(topics).Draw(rt, "topic")
			body := bodies[tp]
			last := uint32((len(body)+15)/16) - 1
			num := next[tp]
			if rapid.IntRange(0, 4).Draw(rt, "stray") == 0 {
				num = rapid.Uint32Range(0, last).Draw(rt, "num")
			}
			code := c.do(part(tp, body, num, 0)).Code
			switch {
			case num == 0:
				require.Equal(t, codes.Continue, code)
				next[tp] = 1
			case num == next[tp] && num == last:
				require.Equal(t, codes.Changed, code)
				require.Equal(t, string(body), string(o.next().Payload))
				next[tp] = 0
			case num == next[tp]:
				require.Equal(t, codes.Continue, code)
				next[tp]++
			case num < next[tp]:
				require.Equal(t, codes.Continue, code)
			default:
				require.Equal(t, codes.RequestEntityIncomplete, code)
				next[tp] = 0
			}
			require.Nil(t, o.poll())
		}
	})
}

func TestRequestTagSeparatesUploads(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	c := dial(t, s)
	one, two := testBody(40), bytes.Repeat([]byte("z"), 40)
	for num := range uint32(3) {
		c.do(part("a", one, num, 0, opt(optionRequestTag, 1)))
		c.do(part("a", two, num, 0, opt(optionRequestTag, 2)))
	}
	require.Equal(t, one, o.next().Payload)
	require.Equal(t, two, o.next().Payload)
}

func TestDownload(t *testing.T) {
	s, b := start(t, testConfig())
	body := testBody(5000)
	publish(t, b, &broker.Message{Topic: "big", Payload: body, Retain: true})
	for _, szx := range []uint8{2, 6} {
		c := dial(t, s)
		var got []byte
		for num, more := uint32(0), true; more; num++ {
			if num == 2 { // a new value while the client reads the old one
				publish(t, b, &broker.Message{Topic: "big", Payload: []byte("new"), Retain: true})
			}
			m := c.do(get("big", block2(num, szx)))
			require.Equal(t, codes.Content, m.Code)
			v := parseBlock(mustBytes(t, m, message.Block2))
			require.Equal(t, num, v.num)
			require.Equal(t, szx, v.szx)
			if num == 0 {
				require.EqualValues(t, len(body), uintOf(t, m, message.Size2))
			}
			got, more = append(got, m.Payload...), v.more
		}
		require.Equal(t, body, got)
		require.Equal(t, codes.BadOption, c.do(get("big", block2(4000, 0))).Code)
		publish(t, b, &broker.Message{Topic: "big", Payload: body, Retain: true})
	}
	c := dial(t, s)
	m := c.do(get("big")) // the client did not ask for blocks
	require.Len(t, m.Payload, maxBlockSize)
	require.True(t, parseBlock(mustBytes(t, m, message.Block2)).more)
	require.Equal(t, codes.NotFound, c.do(get("none", block2(1, 6))).Code)
	require.Equal(t, codes.BadRequest, c.do(get("big", block2(0, 7))).Code)
}

func mustBytes(t testing.TB, m message.Message, id message.OptionID) []byte {
	t.Helper()
	v, err := m.Options.GetBytes(id)
	require.NoError(t, err)
	return v
}

// A large notification is complete once its last block was fetched; the next
// one waits for that, so that a body is never lost or mixed with another.
func TestLargeNotifications(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	require.Equal(t, codes.Content, c.do(register("t", "w/+", "qos=1")).Code)
	bodies := [][]byte{testBody(3000), bytes.Repeat([]byte("second"), 400), []byte("small")}
	for _, body := range bodies {
		publish(t, b, &broker.Message{Topic: "w/1", Payload: body, QoS: 1})
	}
	for _, body := range bodies[:2] {
		m := c.read()
		require.Equal(t, message.Confirmable, m.Type)
		require.True(t, m.Options.HasOption(message.Observe))
		got := bytes.Clone(m.Payload)
		c.ack(m)
		c.silence()
		for num := uint32(1); len(got) < len(body); num++ {
			r := req{code: codes.GET, token: "blk", mid: c.nextMID(), path: []string{"ps", "w", "+"}, query: []string{"qos=1"}, options: []message.Option{block2(num, 6)}}
			r.path = []string{"ps", "w/+"}
			m := c.do(r)
			require.Equal(t, codes.Content, m.Code)
			require.False(t, m.Options.HasOption(message.Observe))
			got = append(got, m.Payload...)
		}
		require.Equal(t, body, got)
	}
	m := c.read()
	require.Equal(t, "small", string(m.Payload))
	c.ack(m)
	c.silence()
}

func TestLargeNotificationThatNobodyFetchesDoesNotBlock(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	c.do(register("t", "a"))
	publish(t, b, &broker.Message{Topic: "a", Payload: testBody(3000), QoS: 1})
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("next"), QoS: 1})
	c.ack(c.read())
	c.silence()
	l := s.loops[0]
	l.turn(false, func() { // as if fetchPatience were over
		for _, p := range l.peers {
			for _, kept := range p.bodies {
				l.timers.set(&kept.timer, l.now)
			}
		}
	})
	m := c.read()
	require.Equal(t, "next", string(m.Payload))
}
