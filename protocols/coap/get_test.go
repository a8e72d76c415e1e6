package coap

import (
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func get(topic string, opts ...message.Option) req {
	return req{code: codes.GET, token: "g", path: []string{"ps", topic}, options: opts}
}

func uintOf(t testing.TB, m message.Message, id message.OptionID) uint32 {
	t.Helper()
	v, err := m.Options.GetUint32(id)
	require.NoError(t, err, "option %v", id)
	return v
}

func TestGetRetained(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	require.Equal(t, codes.NotFound, c.do(get("a")).Code)
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("{}"), Retain: true, Properties: &broker.Properties{ContentType: "application/json"}})
	m := c.do(get("a"))
	require.Equal(t, codes.Content, m.Code)
	require.Equal(t, "{}", string(m.Payload))
	require.EqualValues(t, 50, uintOf(t, m, message.ContentFormat))
	require.EqualValues(t, 86400, uintOf(t, m, message.MaxAge))
	etag, err := m.Options.GetBytes(message.ETag)
	require.NoError(t, err)
	require.Len(t, etag, 8)
	require.False(t, m.Options.HasOption(message.Observe))

	valid := c.do(get("a", opt(message.ETag, 1, 2), opt(message.ETag, etag...)))
	require.Equal(t, codes.Valid, valid.Code)
	require.Empty(t, valid.Payload)
	got, err := valid.Options.GetBytes(message.ETag)
	require.NoError(t, err)
	require.Equal(t, etag, got)

	require.Equal(t, codes.Content, c.do(get("a", opt(message.Accept, 50))).Code)
	require.Equal(t, codes.NotAcceptable, c.do(get("a", opt(message.Accept, 60))).Code)

	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("[]"), Retain: true})
	m = c.do(get("a", opt(message.ETag, etag...)))
	require.Equal(t, codes.Content, m.Code)
	require.False(t, m.Options.HasOption(message.ContentFormat))
	require.EqualValues(t, 42, uintOf(t, c.do(get("a", opt(message.Accept, 42))), message.ContentFormat))
	require.EqualValues(t, 0, uintOf(t, c.do(get("a", opt(message.Accept))), message.ContentFormat))
	require.Equal(t, codes.NotAcceptable, c.do(get("a", opt(message.Accept, 50))).Code)

	publish(t, b, &broker.Message{Topic: "a", Retain: true})
	require.Equal(t, codes.NotFound, c.do(get("a")).Code)
	require.Equal(t, codes.BadRequest, c.do(get("+")).Code)
	require.Equal(t, codes.BadRequest, c.do(get("a#")).Code)
}

func TestGetExpiring(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), Retain: true, Expires: time.Now().Add(100 * time.Second).UnixMilli()})
	m := dial(t, s).do(get("a"))
	require.InDelta(t, 99, uintOf(t, m, message.MaxAge), 1)
}

func TestPutThenGetOverCoAP(t *testing.T) {
	s, _ := start(t, testConfig())
	r := put("a/b", "21")
	r.query = []string{"r=true"}
	r.options = []message.Option{opt(message.ContentFormat, 0x2D, 0x16)} // 11542
	require.Equal(t, codes.Changed, dial(t, s).do(r).Code)
	m := dial(t, s).do(req{code: codes.GET, token: "g", path: []string{"ps", "a", "b"}})
	require.Equal(t, "21", string(m.Payload))
	require.EqualValues(t, 11542, uintOf(t, m, message.ContentFormat))
}

func TestDiscovery(t *testing.T) {
	s, _ := start(t, testConfig())
	for _, tc := range []struct {
		query string
		found bool
	}{{"", true}, {"rt=core.ps.coll", true}, {"rt=core.ps*", true}, {"rt=core.ps.", false}, {"rt=other", false}} {
		r := req{code: codes.GET, path: []string{".well-known", "core"}}
		if tc.query != "" {
			r.query = []string{tc.query}
		}
		buf := r.bytes(t)
		c := dial(t, s)
		c.write(buf)
		m := c.read()
		require.Equal(t, codes.Content, m.Code)
		require.EqualValues(t, 40, uintOf(t, m, message.ContentFormat))
		require.Equal(t, tc.found, len(m.Payload) > 0, tc.query)
		if tc.found {
			require.Contains(t, string(m.Payload), `</ps>;rt="core.ps core.ps.coll"`)
		}
	}
	require.LessOrEqual(t, headerSize+message.MaxTokenSize+3+len(linkFormat("")), safeReply)
	r := req{code: codes.GET, path: []string{".well-known", "core"}, options: []message.Option{opt(message.Accept, 50)}}
	require.Equal(t, codes.NotAcceptable, dial(t, s).do(r).Code)
}
