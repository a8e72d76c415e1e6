package httppush

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestRawPublish(t *testing.T) {
	f := start(t)
	a := f.do("POST", "/v1/topics/plant/7?retain=true&expiry=60", "21.5", "Content-Type: text/plain; charset=utf-8", "X-Client-Id: dev-1")
	require.Equal(t, 200, a.StatusCode, a.body)
	require.Len(t, a.json(t)["id"], 32)
	m := f.gate.last()
	require.Equal(t, "plant/7", m.Topic)
	require.Equal(t, "21.5", string(m.Payload))
	require.Equal(t, broker.QoS(1), m.QoS, "the default of a raw publish")
	require.True(t, m.Retain)
	require.Equal(t, "text/plain; charset=utf-8", m.Properties.ContentType)
	require.EqualValues(t, 60_000, m.Expires-m.Time)
	require.Equal(t, "dev-1", m.ClientID)
	require.Equal(t, "http", m.Protocol)

	a = f.do("PUT", "/v1/topics/plant/8?qos=2", "x")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, broker.QoS(2), f.gate.last().QoS)
	require.Nil(t, f.gate.last().Properties)

	a = f.do("POST", "/v1/topics/plant/8?qos=0", "x")
	require.Equal(t, 202, a.StatusCode, "QoS 0 is accepted, no more")
}

func TestNoSubscribersIsASuccess(t *testing.T) {
	f := start(t)
	a := f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 200, a.StatusCode)
	require.EqualValues(t, 16, a.json(t)["reason_code"])
	require.Equal(t, "no_matching_subscribers", a.json(t)["message"])
	require.Len(t, a.json(t)["id"], 32)
	f.subscriber("#")
	a = f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 200, a.StatusCode)
	require.NotContains(t, a.json(t), "reason_code")
}

func TestEMQXForm(t *testing.T) {
	f := start(t)
	body := `{"topic":"t","payload":"AAE=","payload_encoding":"base64","qos":1}`
	a := f.do("POST", "/api/v5/publish", body, jsonType)
	require.Equal(t, 202, a.StatusCode)
	require.Equal(t, map[string]any{"reason_code": 16.0, "message": "no_matching_subscribers"}, a.json(t))
	require.Equal(t, []byte{0, 1}, f.gate.last().Payload)

	f.subscriber("t")
	a = f.do("POST", "/api/v5/publish", body, "Content-Type: application/json; charset=UTF-8")
	require.Equal(t, 200, a.StatusCode)
	require.Len(t, a.json(t), 1)
	require.Len(t, a.json(t)["id"], 32)

	a = f.do("POST", "/api/v5/publish/bulk", "["+body+","+body+"]", jsonType)
	require.Equal(t, 200, a.StatusCode)
	require.Regexp(t, `^\[\{"id":"[0-9a-f]{32}"\},\{"id":"[0-9a-f]{32}"\}\]$`, a.body)

	a = f.do("POST", "/api/v5/publish/bulk", "["+body+`,{"topic":"u","payload":""}]`, jsonType)
	require.Equal(t, 202, a.StatusCode)
	require.Regexp(t, `^\[\{"id":"\w+"\},\{"reason_code":16,"message":"no_matching_subscribers"\}\]$`, a.body)

	before := len(f.gate.messages())
	a = f.do("POST", "/api/v5/publish/bulk", "["+body+`,{"topic":"bad/#","payload":""}]`, jsonType)
	require.Equal(t, 400, a.StatusCode)
	require.EqualValues(t, 144, a.json(t)["reason_code"])
	require.Len(t, f.gate.messages(), before, "a batch with an error publishes nothing")

	f.gate.set(func(g *gate) { g.reason, g.only = broker.QuotaExceeded, "u" })
	a = f.do("POST", "/api/v5/publish/bulk", "["+body+`,{"topic":"u","payload":"","qos":1}]`, jsonType)
	require.Equal(t, 429, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	require.Regexp(t, `^\[\{"id":"\w+"\},\{"reason_code":151,"message":"quota_exceeded"\}\]$`, a.body)
}

func TestBulkKeepsOrder(t *testing.T) {
	f := start(t)
	var body bytes.Buffer
	for i := range maxBulk {
		fmt.Fprintf(&body, `,{"topic":"t","qos":1,"payload":"%d"}`, i)
	}
	a := f.do("POST", "/api/v5/publish/bulk", "["+body.String()[1:]+"]", jsonType)
	require.Equal(t, 202, a.StatusCode)
	for i, m := range f.gate.messages() {
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
	}
}

func TestErrors(t *testing.T) {
	big := strings.Repeat("x", 2000)
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxBody = 1000 })
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status, reason     int
	}{
		"unknown path":               {"GET", "/", "", nil, 404, 0},
		"no topic":                   {"POST", "/v1/topics", "", nil, 404, 0},
		"empty topic":                {"POST", "/v1/topics/", "", nil, 400, 144},
		"wildcard":                   {"POST", "/v1/topics/a/%23", "", nil, 400, 144},
		"plus":                       {"POST", "/v1/topics/a/+", "", nil, 400, 144},
		"NUL":                        {"POST", "/v1/topics/a%00", "", nil, 400, 144},
		"topic is not UTF-8":         {"POST", "/v1/topics/%ff", "", nil, 400, 144},
		"reserved topic":             {"POST", "/v1/topics/$SYS/x", "", nil, 403, 135},
		"wildcard read":              {"GET", "/v1/topics/a/%23", "", nil, 400, 144},
		"nothing retained":           {"GET", "/v1/topics/a", "", nil, 404, 0},
		"query on a read":            {"GET", "/v1/topics/a?qos=1", "", nil, 400, 0},
		"method":                     {"DELETE", "/v1/topics/a", "", nil, 405, 0},
		"method on publish":          {"GET", "/api/v5/publish", "", nil, 405, 0},
		"method on bulk":             {"PUT", "/api/v5/publish/bulk", "", nil, 405, 0},
		"qos":                        {"POST", "/v1/topics/a?qos=3", "", nil, 400, 0},
		"qos empty":                  {"POST", "/v1/topics/a?qos=", "", nil, 400, 0},
		"qos twice":                  {"POST", "/v1/topics/a?qos=1&qos=1", "", nil, 400, 0},
		"retain":                     {"POST", "/v1/topics/a?retain=yes", "", nil, 400, 0},
		"expiry zero":                {"POST", "/v1/topics/a?expiry=0", "", nil, 400, 0},
		"expiry too large":           {"POST", "/v1/topics/a?expiry=4294967296", "", nil, 400, 0},
		"expiry with unit":           {"POST", "/v1/topics/a?expiry=1m", "", nil, 400, 0},
		"unknown parameter":          {"POST", "/v1/topics/a?retian=1", "", nil, 400, 0},
		"bad query":                  {"POST", "/v1/topics/a?qos=%zz", "", nil, 400, 0},
		"semicolon":                  {"POST", "/v1/topics/a?qos=1;retain=1", "", nil, 400, 0},
		"content type":               {"POST", "/v1/topics/a", "", []string{"Content-Type: nonsense;;"}, 415, 0},
		"two content types":          {"POST", "/v1/topics/a", "", []string{"Content-Type: a/b", "Content-Type: a/b"}, 415, 0},
		"content coding":             {"POST", "/v1/topics/a", "x", []string{"Content-Encoding: gzip"}, 415, 0},
		"body too large":             {"POST", "/v1/topics/a", big, nil, 413, 149},
		"JSON without type":          {"POST", "/api/v5/publish", "{}", nil, 415, 0},
		"JSON as a form":             {"POST", "/api/v5/publish", "{}", []string{"Content-Type: application/x-www-form-urlencoded"}, 415, 0},
		"JSON in Latin-1":            {"POST", "/api/v5/publish", "{}", []string{"Content-Type: application/json; charset=iso-8859-1"}, 415, 0},
		"JSON too large":             {"POST", "/api/v5/publish", big, []string{jsonType}, 413, 149},
		"JSON broken":                {"POST", "/api/v5/publish", "{", []string{jsonType}, 400, 0},
		"JSON with query":            {"POST", "/api/v5/publish?x=1", "{}", []string{jsonType}, 400, 0},
		"bulk broken":                {"POST", "/api/v5/publish/bulk", "{}", []string{jsonType}, 400, 0},
		"bulk of two clients":        {"POST", "/api/v5/publish/bulk", `[{"topic":"t","payload":"","clientid":"a"},{"topic":"t","payload":""}]`, []string{jsonType}, 400, 133},
		"client ids differ":          {"POST", "/api/v5/publish", `{"topic":"t","payload":"","clientid":"a"}`, []string{jsonType, "X-Client-Id: b"}, 400, 133},
		"client id empty":            {"POST", "/v1/topics/a", "", []string{"X-Client-Id: "}, 400, 133},
		"client id twice":            {"POST", "/v1/topics/a", "", []string{"X-Client-Id: a", "X-Client-Id: a"}, 400, 133},
		"client id is not UTF-8":     {"POST", "/v1/topics/a", "", []string{"X-Client-Id: \xff"}, 400, 133},
		"client id too long":         {"POST", "/v1/topics/a", "", []string{"X-Client-Id: " + strings.Repeat("x", 600)}, 400, 133},
		"wrong password":             {"POST", "/v1/topics/a", "", []string{"anna:wrong@"}, 401, 134},
		"unknown user":               {"GET", "/v1/topics/a", "", []string{"carl:x@"}, 401, 134},
		"wrong password in JSON":     {"POST", "/api/v5/publish", `{"topic":"t","payload":""}`, []string{jsonType, "anna:wrong@"}, 401, 134},
		"bearer":                     {"POST", "/v1/topics/a", "", []string{"Authorization: Bearer x"}, 401, 140},
		"broken basic":               {"POST", "/v1/topics/a", "", []string{"Authorization: Basic !!!"}, 401, 140},
		"user is not UTF-8":          {"POST", "/v1/topics/a", "", []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("\xff:x"))}, 401, 140},
		"two authorizations":         {"POST", "/v1/topics/a", "", []string{"anna:secret@", "Authorization: Basic x"}, 401, 140},
		"page of another origin":     {"POST", "/v1/topics/a", "", []string{"Origin: http://evil.example"}, 403, 0},
		"page of a null origin":      {"POST", "/v1/topics/a", "", []string{"Origin: null"}, 403, 0},
		"cross-site read":            {"GET", "/v1/topics/a", "", []string{"Sec-Fetch-Site: cross-site"}, 403, 0},
		"rebound name":               {"GET", "/v1/topics/a", "", []string{"Host: evil.example:8080"}, 421, 0},
		"preflight of a foreign one": {"OPTIONS", "/v1/topics/a", "", []string{"Origin: http://evil.example"}, 403, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.do(c.method, c.path, c.body, c.headers...)
			require.Equal(t, c.status, a.StatusCode, a.body)
			require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
			p := a.json(t)
			require.EqualValues(t, c.status, p["status"])
			require.Equal(t, http.StatusText(c.status), p["title"])
			require.Equal(t, "about:blank", p["type"])
			require.NotEmpty(t, p["detail"])
			require.NotEmpty(t, p["message"])
			require.Equal(t, codeName(c.status), p["code"])
			if c.reason != 0 {
				require.EqualValues(t, c.reason, p["reason_code"])
			}
			if c.status == 405 {
				require.Contains(t, a.Header.Get("Allow"), "POST")
			}
			if c.status == 401 {
				require.Contains(t, a.Header.Get("WWW-Authenticate"), "Basic")
			}
		})
	}
	require.Empty(t, f.gate.messages(), "nothing refused was published")
}

func TestBrokerReasonsBecomeAnswers(t *testing.T) {
	f := start(t)
	for _, r := range broker.Reasons() {
		if r.OK() || r == broker.Closed {
			continue
		}
		f.gate.set(func(g *gate) { g.reason = r })
		for _, a := range []*answer{
			f.do("POST", "/v1/topics/t", "x"),
			f.do("POST", "/api/v5/publish", `{"topic":"t","payload":"x","qos":1}`, jsonType),
		} {
			require.Equal(t, codes[r].status, a.StatusCode, r)
			require.EqualValues(t, codes[r].mqtt, a.json(t)["reason_code"], r)
			require.Equal(t, codes[r].name, a.json(t)["message"], r)
		}
	}
}

func TestTopicsKeepEmptyLevels(t *testing.T) {
	f := start(t)
	for path, topic := range map[string]string{"/a/": "/a/", "a//b": "a//b", "": "", "a/../b": "a/../b", "a%2F%2Fb": "a//b", "./x": "./x", "%20": " "} {
		conn, r := f.raw("POST /v1/topics/" + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
		a := f.readAnswer(r, "POST")
		conn.Close()
		if topic == "" {
			require.Equal(t, 400, a.StatusCode)
			continue
		}
		require.Equal(t, 200, a.StatusCode, path)
		require.Equal(t, topic, f.gate.last().Topic)
	}
}

func TestRetained(t *testing.T) {
	f := start(t)
	f.do("PUT", "/v1/topics/a/b?retain=1", `{"v":1}`, "Content-Type: application/json")
	a := f.do("GET", "/v1/topics/a/b", "")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, `{"v":1}`, a.body)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	require.Equal(t, "nosniff", a.Header.Get("X-Content-Type-Options"))
	require.Contains(t, a.Header.Get("Content-Security-Policy"), "sandbox")
	tag := a.Header.Get("ETag")
	require.Regexp(t, `^"[0-9a-f]{32}"$`, tag)

	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		a = f.do("GET", "/v1/topics/a/b", "", "If-None-Match: "+match)
		require.Equal(t, 304, a.StatusCode, match)
		require.Empty(t, a.body)
	}
	a = f.do("GET", "/v1/topics/a/b", "", `If-None-Match: "x"`)
	require.Equal(t, 200, a.StatusCode)
	a = f.do("HEAD", "/v1/topics/a/b", "")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, "7", a.Header.Get("Content-Length"))
	require.Empty(t, a.body)

	eventually(t, "another millisecond", func() bool { return time.Now().UnixMilli() > f.gate.last().Time })
	f.do("PUT", "/v1/topics/a/b?retain=1", `{"v":1}`, "Content-Type: application/json")
	a = f.do("GET", "/v1/topics/a/b", "", "If-None-Match: "+tag)
	require.Equal(t, 200, a.StatusCode, "the same value, published anew, is a new one")

	f.do("PUT", "/v1/topics/raw?retain=1", "\x00\xff")
	a = f.do("GET", "/v1/topics/raw", "")
	require.Equal(t, "application/octet-stream", a.Header.Get("Content-Type"))
	require.Equal(t, "\x00\xff", a.body)

	f.do("PUT", "/v1/topics/a/b?retain=1", "")
	require.Equal(t, 404, f.do("GET", "/v1/topics/a/b", "").StatusCode, "an empty payload clears the value")
}

// A content type from an MQTT client must not break the answer.
func TestRetainedWithStrangeType(t *testing.T) {
	f := start(t)
	done := make(chan broker.Reason, 1)
	f.broker.Inject(context.Background(), &broker.Message{
		Topic: "t", Payload: []byte("x"), Retain: true, Properties: &broker.Properties{ContentType: "text/html\r\nX-Evil: 1"},
	}, func(r broker.Reason) { done <- r })
	<-done
	a := f.do("GET", "/v1/topics/t", "")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, "application/octet-stream", a.Header.Get("Content-Type"))
	require.Empty(t, a.Header.Get("X-Evil"))
}

// The central promise: no 200 before the broker has answered.
func TestAnswersOnlyAfterDone(t *testing.T) {
	for _, path := range []string{"/v1/topics/t?qos=1", "/v1/topics/t?qos=2", "/api/v5/publish"} {
		t.Run(path, func(t *testing.T) {
			f := start(t)
			f.gate.shut, f.gate.entered = true, make(chan string, 100)
			const requests = 50
			var answered atomic.Int32
			var wg sync.WaitGroup
			for i := range requests {
				wg.Go(func() {
					body, header := "x", "X-Client-Id: c"+fmt.Sprint(i%5)
					if strings.HasPrefix(path, "/api") {
						body = `{"topic":"t","payload":"x","qos":1}`
					}
					a, err := f.try("POST", path, body, header, jsonType)
					answered.Add(1)
					if err == nil && a.StatusCode != 200 && a.StatusCode != 202 {
						err = fmt.Errorf("status %d", a.StatusCode)
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			for range requests {
				<-f.gate.entered
			}
			require.Zero(t, answered.Load(), "answered although nothing is durable")
			f.gate.open(broker.Success)
			wg.Wait()
			require.Len(t, f.gate.messages(), requests)
			require.EqualValues(t, requests, f.metric("gantry_http_ack_seconds", ""))
		})
	}
}

func TestFailureAfterAcceptanceIsTold(t *testing.T) {
	f := start(t)
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	got := make(chan *answer, 1)
	go func() { a, _ := f.try("POST", "/v1/topics/t", "x"); got <- a }()
	<-f.gate.entered
	f.gate.open(broker.ServerUnavailable)
	a := <-got
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
}

func TestUnconfirmedIsNotASuccess(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.AckTimeout = 50 * time.Millisecond })
	f.gate.shut = true
	a := f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 503, a.StatusCode)
	require.Contains(t, a.json(t)["detail"], "may still be delivered")
	a = f.do("POST", "/api/v5/publish/bulk", `[{"topic":"t","payload":"","qos":1}]`, jsonType)
	require.Equal(t, 503, a.StatusCode)
	require.JSONEq(t, `[{"reason_code":137,"message":"server_busy"}]`, a.body)
	require.Len(t, f.server.slots, 2, "what the broker still works on keeps its place")
	f.gate.open(broker.Success)
	require.Empty(t, f.server.slots)
}

func TestBackPressureEndsWithTheTimeout(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.AckTimeout = 50 * time.Millisecond })
	f.gate.block = true
	a := f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 503, a.StatusCode)
	require.EqualValues(t, 137, a.json(t)["reason_code"])
}

// A client that leaves while the broker blocks takes its message with it; one
// that leaves after acceptance does not.
func TestClientThatLeaves(t *testing.T) {
	f := start(t)
	f.gate.block, f.gate.entered = true, make(chan string, 1)
	conn, _ := f.raw("POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
	<-f.gate.entered
	conn.Close()
	eventually(t, "back-pressure ends with the client", func() bool { return len(f.server.slots) == 0 })

	f.gate.set(func(g *gate) { g.block, g.shut = false, true })
	f.subscriber("t")
	conn, _ = f.raw("POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\ny")
	<-f.gate.entered
	conn.Close()
	require.Len(t, f.server.slots, 1)
	f.gate.open(broker.Success)
	eventually(t, "the accepted message was finished", func() bool {
		return len(f.server.slots) == 0 && f.metric("gantry_http_requests_total", "2xx") == 1
	})
}

func TestPendingLimit(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxPending = 2 })
	f.gate.shut, f.gate.entered = true, make(chan string, 2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = f.try("POST", "/v1/topics/t", "x") })
		<-f.gate.entered
	}
	a := f.do("POST", "/v1/topics/t", "x")
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	require.Equal(t, 1.0, f.metric("gantry_http_refused_total", "pending"))
	require.Len(t, f.gate.messages(), 2, "the refused one was not published")
	f.gate.set(func(g *gate) { g.entered = nil })
	f.gate.open(broker.Success)
	wg.Wait()
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x").StatusCode)
}

func TestBodyBudget(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxBody, c.MaxPendingBytes = 1000, 1500 })
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	kb := strings.Repeat("x", 1000)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = f.try("POST", "/v1/topics/t", kb) })
	<-f.gate.entered
	a := f.do("POST", "/v1/topics/t", kb)
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, 1.0, f.metric("gantry_http_refused_total", "bytes"))
	f.gate.set(func(g *gate) { g.entered = nil })
	f.gate.open(broker.Success)
	wg.Wait()
	require.Equal(t, 200, f.do("POST", "/v1/topics/t", kb).StatusCode)
}

func TestChunkedBodies(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxBody = 1000 })
	send := func(n int) *answer {
		req, err := http.NewRequest("POST", f.url+"/v1/topics/t", io.LimitReader(zeros{}, int64(n)))
		require.NoError(t, err)
		res, err := f.http.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return &answer{res, string(b)}
	}
	require.Equal(t, 200, send(1000).StatusCode)
	require.Len(t, f.gate.last().Payload, 1000)
	require.Equal(t, 413, send(1001).StatusCode)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestSlowClients(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) {
		c.HeaderTimeout, c.BodyTimeout, c.IdleTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	})
	_, r := f.raw("POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
	require.Equal(t, 408, f.readAnswer(r, "POST").StatusCode)
	for name, text := range map[string]string{
		"says nothing":      "",
		"half a header":     "POST /v1/topics/t HTTP/1.1\r\nHost: loc",
		"body nobody reads": "DELETE /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf",
		"idle":              "GET /v1/topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		_, r := f.raw(text)
		_, err := io.Copy(io.Discard, r)
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%s: the connection was not closed", name)
	}
	require.Empty(t, f.gate.messages())
}

// The time for the body does not count while the broker is waited for: neither
// for its answer nor under back-pressure.
func TestBodyTimeoutDoesNotEndTheWait(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) {
		c.BodyTimeout, c.IdleTimeout, c.AckTimeout = 20*time.Millisecond, 20*time.Millisecond, 200*time.Millisecond
	})
	f.gate.block = true
	for _, body := range []string{"", "x"} {
		begun := time.Now()
		require.Equal(t, 503, f.do("POST", "/v1/topics/t", body).StatusCode)
		require.GreaterOrEqual(t, time.Since(begun), f.server.cfg.AckTimeout)
	}

	f = start(t, func(c *Config, _ *broker.Config) {
		c.BodyTimeout, c.IdleTimeout = 20*time.Millisecond, 20*time.Millisecond
	})
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	got := make(chan *answer, 1)
	begun := time.Now()
	go func() { a, _ := f.try("POST", "/v1/topics/t", "x"); got <- a }()
	<-f.gate.entered
	eventually(t, "the body timeout passes", func() bool { return time.Since(begun) > 100*time.Millisecond })
	f.gate.open(broker.Success)
	a := <-got
	require.NotNil(t, a)
	require.Equal(t, 200, a.StatusCode)
}

func TestHeaderLimit(t *testing.T) {
	f := start(t)
	_, r := f.raw("GET /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nX-Big: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, f.readAnswer(r, "GET").StatusCode)
}

func TestConnectionLimit(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.MaxConnections = 2 })
	get := "GET /v1/topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n"
	first, r1 := f.raw(get)
	f.readAnswer(r1, "GET")
	_, r2 := f.raw(get)
	f.readAnswer(r2, "GET")
	_, r3 := f.raw("")
	_, err := r3.ReadByte()
	require.Error(t, err)
	require.Equal(t, 1.0, f.metric("gantry_http_refused_total", "connections"))
	first.Close()
	eventually(t, "a closed connection makes room", func() bool {
		_, err := f.try("GET", "/v1/topics/t", "")
		return err == nil
	})
}

func TestKeepAliveAndPipelining(t *testing.T) {
	f := start(t)
	one := "POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n"
	_, r := f.raw(one + "1" + one + "2" + one + "3")
	for range 3 {
		require.Equal(t, 200, f.readAnswer(r, "POST").StatusCode)
	}
	var got []string
	for _, m := range f.gate.messages() {
		got = append(got, string(m.Payload))
	}
	require.Equal(t, []string{"1", "2", "3"}, got)
}

func TestOriginsThatAreAllowed(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.Origins = []string{"https://panel.example"} })
	a := f.do("OPTIONS", "/v1/topics/t", "", "Origin: https://panel.example")
	require.Equal(t, 204, a.StatusCode)
	require.Equal(t, "https://panel.example", a.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.Header.Get("Access-Control-Allow-Methods"), "PUT")
	require.Contains(t, a.Header.Get("Access-Control-Allow-Headers"), "Authorization")
	a = f.do("POST", "/v1/topics/t", "x", "Origin: https://panel.example", "Sec-Fetch-Site: cross-site")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, "https://panel.example", a.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, 403, f.do("POST", "/v1/topics/t", "x", "Origin: https://panel.example.evil").StatusCode)
	a = f.do("OPTIONS", "/v1/topics/t", "")
	require.Equal(t, 204, a.StatusCode)
	require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.Header.Get("Allow"), "PUT")
}

func TestHostsThatAreOurs(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.Hosts = []string{"Edge.example"} })
	for _, host := range []string{"edge.EXAMPLE:8080", "edge.example.", "localhost", "[::1]:80", "10.0.0.1"} {
		require.Equal(t, 200, f.do("POST", "/v1/topics/t", "x", "Host: "+host).StatusCode, host)
	}
	require.Equal(t, 421, f.do("POST", "/v1/topics/t", "x", "Host: example").StatusCode)
	_, r := f.raw("POST /v1/topics/t HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
	require.Equal(t, 200, f.readAnswer(r, "POST").StatusCode, "an old client names no host")
}

func TestShutdownAnswersWhatWaits(t *testing.T) {
	f := start(t)
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	got := make(chan *answer, 1)
	go func() { a, _ := f.try("POST", "/v1/topics/t", "x"); got <- a }()
	<-f.gate.entered
	silent, _ := f.raw("") // must not hold anything up
	defer silent.Close()
	ended := make(chan error, 1)
	go func() { ended <- f.stop() }()
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", f.server.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	begun := time.Now()
	f.gate.open(broker.Success)
	a := <-got
	require.NotNil(t, a)
	require.Equal(t, 200, a.StatusCode)
	require.NoError(t, <-ended)
	require.Less(t, time.Since(begun), f.server.cfg.DrainTimeout, "a silent connection holds up the end")
	_, connected := f.broker.Session("http-127.0.0.1")
	require.False(t, connected, "sessions end with the server")
}

func TestShutdownIsBounded(t *testing.T) {
	f := start(t, func(c *Config, _ *broker.Config) { c.DrainTimeout = 20 * time.Millisecond })
	f.gate.shut, f.gate.entered = true, make(chan string, 1)
	got := make(chan *answer, 1)
	go func() { a, _ := f.try("POST", "/v1/topics/t", "x"); got <- a }()
	<-f.gate.entered
	require.NoError(t, f.stop())
	a := <-got
	require.NotNil(t, a, "the client must be told")
	require.Equal(t, 503, a.StatusCode)
	require.EqualValues(t, 139, a.json(t)["reason_code"])
	require.Equal(t, "5", a.Header.Get("Retry-After"))
}

func TestCloseEndsRun(t *testing.T) {
	b, err := broker.New(context.Background(), broker.Config{}, nullStore{}, nil, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	s, err := New(Config{Bind: "127.0.0.1:0"}, b, nil, nil)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoError(t, <-ended)

	s, err = New(Config{Bind: "127.0.0.1:0"}, b, nil, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Run(context.Background()))
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{Bind: "x", MaxBody: -1, Origins: []string{"panel.example"}, AckTimeout: -1, MaxSessions: -1}, nil, nil, nil)
	for _, what := range []string{"bind", "max_body", "origins", "ack_timeout", "max_sessions"} {
		require.ErrorContains(t, err, what)
	}
	require.ErrorContains(t, Config{MaxBody: 10, MaxPendingBytes: 9}.Validate(), "max_pending_bytes")
	require.NoError(t, Config{}.Validate())
	require.NoError(t, Config{MaxBody: 100 << 20}.Validate())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, err = New(Config{Bind: taken.Addr().String()}, nil, nil, nil)
	require.ErrorContains(t, err, "listen for http")
}

func TestTwoListenersShareTheMetrics(t *testing.T) {
	f := start(t)
	other, err := New(Config{Bind: "127.0.0.1:0", Name: "second"}, f.broker, nil, f.reg)
	require.NoError(t, err)
	require.NoError(t, other.Close())
	require.Same(t, f.server.metrics.requests, other.metrics.requests)
	f.do("POST", "/v1/topics/t", "x")
	f.do("GET", "/nowhere", "")
	eventually(t, "requests are counted", func() bool {
		return f.metric("gantry_http_requests_total", "2xx") == 1 &&
			f.metric("gantry_http_requests_total", "4xx") == 1 && f.metric("gantry_http_requests_in_flight", "") == 0
	})
}

func TestHTTPS(t *testing.T) {
	cert := selfSigned(t)
	f := start(t, func(c *Config, _ *broker.Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true} //nolint:gosec // the test's own certificate
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: patience}
	res, err := c.Post("https://"+f.server.Addr().String()+"/v1/topics//x/", "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, 2, res.ProtoMajor)
	require.Equal(t, "/x/", f.gate.last().Topic)
	info, ok := f.broker.Session("http-127.0.0.1")
	require.True(t, ok)
	require.Equal(t, "2.0", info.Version)
}
