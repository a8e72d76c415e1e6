package coap

import (
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestEveryReasonHasACode(t *testing.T) {
	for _, r := range broker.Reasons() {
		c, ok := codeTable[r]
		require.True(t, ok, "no code for %v", r)
		require.Equal(t, r.OK(), class(c) == 2, "%v", r)
		require.Equal(t, !r.OK(), class(c) == 4 || class(c) == 5, "%v", r)
	}
	require.Equal(t, codes.Unauthorized, connectCode(broker.NotAuthorized))
	require.Equal(t, codes.Forbidden, codeOf(broker.NotAuthorized))
}

func TestPublishMapsToMessage(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	for _, tc := range []struct {
		name string
		req  req
		want broker.Message
		ct   string
	}{
		{"con is qos 1", put("a", "x"), broker.Message{Topic: "a", QoS: 1}, ""},
		{"non is qos 0", req{typ: message.NonConfirmable, code: codes.POST, path: []string{"ps", "a"}, payload: "x"}, broker.Message{Topic: "a"}, ""},
		{"levels", req{code: codes.POST, path: []string{"ps", "a", "b", "c"}, payload: "x"}, broker.Message{Topic: "a/b/c", QoS: 1}, ""},
		{"empty levels stay", req{code: codes.PUT, path: []string{"ps", "", "a", "", "b", ""}, payload: "x"}, broker.Message{Topic: "/a//b/", QoS: 1}, ""},
		{"percent decoded", put("a%2Fb%20c", "x"), broker.Message{Topic: "a/b c", QoS: 1}, ""},
		{"percent meant", put("100%", "x"), broker.Message{Topic: "100%", QoS: 1}, ""},
		{"percent half valid", put("%41%zz", "x"), broker.Message{Topic: "%41%zz", QoS: 1}, ""},
		{"query names", req{code: codes.PUT, path: []string{"ps", "a"}, query: []string{"qos=2", "retain=true"}, payload: "x"}, broker.Message{Topic: "a", QoS: 2, Retain: true}, ""},
		{"short query names", req{code: codes.PUT, path: []string{"ps", "a"}, query: []string{"q=0", "r=1"}, payload: "x"}, broker.Message{Topic: "a", Retain: true}, ""},
		{"json", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.ContentFormat, 50)}, payload: "x"}, broker.Message{Topic: "a", QoS: 1}, "application/json"},
		{"text", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.ContentFormat)}, payload: "x"}, broker.Message{Topic: "a", QoS: 1}, "text/plain;charset=utf-8"},
		{"unknown format", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.ContentFormat, 0xFE, 0xDC)}, payload: "x"}, broker.Message{Topic: "a", QoS: 1}, "application/x-coap-cf;n=65244"},
		{"empty payload", put("a", ""), broker.Message{Topic: "a", QoS: 1}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.token = "tk"
			require.Equal(t, codes.Changed, dial(t, s).do(tc.req).Code)
			got := o.next()
			require.Equal(t, tc.want.Topic, got.Topic)
			require.Equal(t, tc.want.QoS, got.QoS)
			require.Equal(t, tc.want.Retain, got.Retain)
			require.Equal(t, tc.req.payload, string(got.Payload))
			require.Equal(t, "coap", got.Protocol)
			require.Regexp(t, `^coap-127\.0\.0\.1:\d+$`, got.ClientID)
			if tc.ct == "" {
				require.Nil(t, got.Properties)
				return
			}
			require.Equal(t, tc.ct, got.Properties.ContentType)
		})
	}
}

func TestPublishExpiry(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	for _, name := range []string{"expiry", "ex"} {
		r := put("a", "x")
		r.query = []string{name + "=60"}
		require.Equal(t, codes.Changed, dial(t, s).do(r).Code)
		require.InDelta(t, time.Now().Add(time.Minute).UnixMilli(), o.next().Expires, 5000)
	}
}

func TestRefusedPublish(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	deep := []string{"ps"}
	for range maxTopicLevels + 1 {
		deep = append(deep, "l")
	}
	long := string(make([]byte, 250))
	for _, tc := range []struct {
		name string
		req  req
	}{
		{"no topic", req{path: []string{"ps"}}},
		{"empty topic", req{path: []string{"ps", ""}}},
		{"plus", req{path: []string{"ps", "a", "+"}}},
		{"hash", req{path: []string{"ps", "#"}}},
		{"encoded hash", req{path: []string{"ps", "a%23"}}},
		{"nul", req{path: []string{"ps", "a%00b"}}},
		{"not utf-8", req{path: []string{"ps", "a\xff"}}},
		{"encoded not utf-8", req{path: []string{"ps", "a%ff"}}},
		{"deep", req{path: deep}},
		{"long", req{path: []string{"ps", long, long, long, long, long}}},
		{"qos 3", req{path: []string{"ps", "a"}, query: []string{"qos=3"}}},
		{"qos text", req{path: []string{"ps", "a"}, query: []string{"qos=one"}}},
		{"retain text", req{path: []string{"ps", "a"}, query: []string{"retain=maybe"}}},
		{"expiry zero", req{path: []string{"ps", "a"}, query: []string{"expiry=0"}}},
		{"expiry negative", req{path: []string{"ps", "a"}, query: []string{"expiry=-1"}}},
		{"rh 3", req{path: []string{"ps", "a"}, query: []string{"rh=3"}}},
		{"client id with nul", req{path: []string{"ps", "a"}, query: []string{"c=a%00"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.code = codes.PUT
			m := dial(t, s).do(tc.req)
			require.Equal(t, codes.BadRequest, m.Code)
			require.LessOrEqual(t, len(m.Payload), maxDiagnostic)
			require.Nil(t, o.poll())
		})
	}
	// $SYS belongs to the broker.
	require.Equal(t, codes.Forbidden, dial(t, s).do(req{code: codes.PUT, path: []string{"ps", "$SYS", "a"}}).Code)
}

// The cap holds for a body that needs no blocks, and for one of a single block.
func TestBodyOfOneDatagramIsCapped(t *testing.T) {
	cfg := testConfig()
	cfg.MaxBody = 64
	s, b := start(t, cfg)
	o := subscribeTo(t, b, "#")
	c := dial(t, s)
	require.Equal(t, codes.Changed, c.do(put("a", string(make([]byte, 64)))).Code)
	require.Len(t, o.next().Payload, 64)
	block := put("a", string(make([]byte, 65)))
	block.options = []message.Option{opt(message.Block1, 6)}
	for _, r := range []req{put("a", string(make([]byte, 65))), block} {
		m := c.do(r)
		require.Equal(t, codes.RequestEntityTooLarge, m.Code)
		size, err := m.Options.GetUint32(message.Size1)
		require.NoError(t, err)
		require.EqualValues(t, 64, size)
	}
	require.Nil(t, o.poll())
}

func TestTruncatedRequestIsToldToUseBlocks(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	m := dial(t, s).do(put("a", string(make([]byte, 1600))))
	require.Equal(t, codes.RequestEntityTooLarge, m.Code)
	size, err := m.Options.GetUint32(message.Size1)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20, size)
	require.Nil(t, o.poll())
}

func TestCredentials(t *testing.T) {
	b := newBroker(t, broker.Config{Authenticate: gate{"u": "pw", "v": "other"}})
	s := startWith(t, testConfig(), brokerConnector{b})
	c := dial(t, s)
	try := func(query ...string) codes.Code {
		r := put("a", "x")
		r.query = append(query, "c=dev")
		return c.do(r).Code
	}
	require.Equal(t, codes.Unauthorized, try(), "anonymous")
	require.Equal(t, codes.Unauthorized, try("u=u", "p=bad"))
	require.Equal(t, codes.Changed, try("u=u", "p=pw"))
	require.Equal(t, codes.Unauthorized, try(), "the session of a peer does not vouch for a request without credentials")
	require.Equal(t, codes.Unauthorized, try("u=u", "p=bad"))
	require.Equal(t, codes.Changed, try("u=v", "p=other"))
	require.Equal(t, codes.Changed, try("username=u", "password=pw"))
	require.Equal(t, 1.0, metricValue(t, s.loops[0].metrics.sessions))
}

func TestClientIDsOfOnePeer(t *testing.T) {
	cfg := testConfig()
	cfg.MaxSessionsPerPeer = 2
	s, b := start(t, cfg)
	o := subscribeTo(t, b, "#")
	c := dial(t, s)
	for _, id := range []string{"one", "two", "three", "one"} {
		r := put("a", "x")
		r.query = []string{"clientid=" + id}
		require.Equal(t, codes.Changed, c.do(r).Code)
		require.Equal(t, id, o.next().ClientID)
	}
	require.Equal(t, 2.0, metricValue(t, s.loops[0].metrics.sessions))
}

func TestFormatTable(t *testing.T) {
	for n := range 1 << 16 {
		require.Equal(t, n, contentFormat(contentType(n)))
	}
	require.Equal(t, 0, contentFormat("text/plain"))
	require.Equal(t, 0, contentFormat("Text/Plain; charset=UTF-8"))
	require.Equal(t, 50, contentFormat("application/JSON"))
	require.Equal(t, noFormat, contentFormat("application/x-unheard-of"))
	require.Equal(t, noFormat, contentFormat(""))
	require.Equal(t, noFormat, contentFormat("application/x-coap-cf;n=65536"))
	require.Equal(t, noFormat, contentFormat("application/x-coap-cf;n=-1"))
}
