package coap

import (
	"sync"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func TestPing(t *testing.T) {
	s, _ := start(t, testConfig())
	c := dial(t, s)
	c.silence()
}

// What must not be answered, and what must be rejected with RST
// (RFC 7252 sections 3, 4.2, 4.3).
func TestRejectedDatagrams(t *testing.T) {
	s, _ := start(t, testConfig())
	c := dial(t, s)
	for _, tc := range []struct {
		name  string
		data  []byte
		reset bool
	}{
		{"empty datagram", []byte{}, false},
		{"three bytes", []byte{0x40, 0x01, 0x12}, false},
		{"version 0", []byte{0x00, 0x01, 0x12, 0x34}, false},
		{"version 2", []byte{0x80, 0x01, 0x12, 0x34}, false},
		{"ack", []byte{0x60, 0x00, 0x12, 0x34}, false},
		{"rst", []byte{0x70, 0x00, 0x12, 0x34}, false},
		{"ack with a request code", []byte{0x60, 0x01, 0x12, 0x34}, false},
		{"rst with a request code", []byte{0x70, 0x03, 0x12, 0x34}, false},
		{"ack with a response", []byte{0x60, 0x45, 0x12, 0x34}, false},
		{"malformed ack", []byte{0x6F, 0x45, 0x12, 0x34}, false},
		{"non empty message", []byte{0x50, 0x00, 0x12, 0x34}, false},
		{"con empty with token", []byte{0x41, 0x00, 0x12, 0x34, 0x01}, true},
		{"con empty with payload", []byte{0x40, 0x00, 0x12, 0x34, 0xFF, 0x01}, true},
		{"con token length 9", []byte{0x49, 0x01, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 9}, true},
		{"non token length 9", []byte{0x59, 0x01, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"con token cut", []byte{0x44, 0x01, 0x12, 0x34, 1, 2}, true},
		{"con marker without payload", []byte{0x40, 0x01, 0x12, 0x34, 0xFF}, true},
		{"non marker without payload", []byte{0x50, 0x01, 0x12, 0x34, 0xFF}, false},
		{"con option cut", []byte{0x40, 0x01, 0x12, 0x34, 0xB5, 'p', 's'}, true},
		{"con option delta 15", []byte{0x40, 0x01, 0x12, 0x34, 0xF0}, true},
		{"con option length 15", []byte{0x40, 0x01, 0x12, 0x34, 0x0F}, true},
		{"con option number overflow", []byte{0x40, 0x01, 0x12, 0x34, 0xE0, 0xFF, 0xFF}, true},
		{"con class 1", []byte{0x40, 0x21, 0x12, 0x34}, true},
		{"con class 6", []byte{0x40, 0xC1, 0x12, 0x34}, true},
		{"con class 7", []byte{0x40, 0xE1, 0x12, 0x34}, true},
		{"con response to nothing", []byte{0x40, 0x45, 0x12, 0x34}, true},
		{"non class 1", []byte{0x50, 0x21, 0x12, 0x34}, false},
		{"non class 7", []byte{0x50, 0xE1, 0x12, 0x34}, false},
		{"non response to nothing", []byte{0x50, 0x45, 0x12, 0x34}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &client{t: t, conn: c.conn, mid: c.mid}
			defer func(c0 *client) { c0.mid = c.mid }(c)
			c.write(tc.data)
			if tc.reset {
				m := c.read()
				require.Equal(t, message.Reset, m.Type)
				require.Equal(t, codes.Empty, m.Code)
				require.Equal(t, int32(0x1234), m.MessageID)
			}
			c.silence()
		})
	}
}

func TestMethodsAndOptions(t *testing.T) {
	s, _ := start(t, testConfig())
	c := dial(t, s)
	for _, tc := range []struct {
		name string
		req  req
		want codes.Code
	}{
		{"delete", req{code: codes.DELETE, path: []string{"ps", "a"}}, codes.MethodNotAllowed},
		{"fetch", req{code: codeFetch, path: []string{"ps", "a"}}, codes.MethodNotAllowed},
		{"ipatch", req{code: codeIPatch, path: []string{"ps", "a"}}, codes.MethodNotAllowed},
		{"unknown method", req{code: 31, path: []string{"ps", "a"}}, codes.MethodNotAllowed},
		{"other path", req{code: codes.GET, path: []string{"other"}}, codes.NotFound},
		{"no path", req{code: codes.GET}, codes.NotFound},
		{"proxy uri", req{code: codes.GET, options: []message.Option{{ID: message.ProxyURI, Value: []byte("coap://x/y")}}}, codes.ProxyingNotSupported},
		{"proxy scheme", req{code: codes.GET, path: []string{"ps", "a"}, options: []message.Option{{ID: message.ProxyScheme, Value: []byte("coap")}}}, codes.ProxyingNotSupported},
		{"unknown critical option", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(65001, 1)}}, codes.BadOption},
		{"unknown elective option", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(65000, 1)}}, codes.Changed},
		{"oscore", req{code: codes.POST, path: []string{"ps", "a"}, options: []message.Option{opt(9)}}, codes.BadOption},
		{"if-match", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.IfMatch, 1)}}, codes.BadOption},
		{"if-none-match", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.IfNoneMatch)}}, codes.BadOption},
		{"accept twice", req{code: codes.GET, path: []string{"ps", "a"}, options: []message.Option{opt(message.Accept, 50), opt(message.Accept, 60)}}, codes.BadOption},
		{"accept too long", req{code: codes.GET, path: []string{"ps", "a"}, options: []message.Option{opt(message.Accept, 1, 2, 3)}}, codes.BadOption},
		{"uri-port too long", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.URIPort, 1, 2, 3)}}, codes.BadOption},
		{"uri-host and uri-port", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.URIHost, 'h'), opt(message.URIPort, 1, 2)}}, codes.Changed},
		{"content-format twice", req{code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(message.ContentFormat, 50), opt(message.ContentFormat, 60)}}, codes.Changed},
		{"block1 in get", req{code: codes.GET, path: []string{"ps", "a"}, options: []message.Option{opt(message.Block1, 6)}}, codes.BadOption},
		{"post to discovery", req{code: codes.POST, path: []string{".well-known", "core"}}, codes.MethodNotAllowed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, s)
			tc.req.token = "tk"
			require.Equal(t, tc.want, c.do(tc.req).Code)
		})
	}
	// Non-confirmable with an unknown critical option: rejected silently.
	c.send(req{typ: message.NonConfirmable, code: codes.PUT, path: []string{"ps", "a"}, options: []message.Option{opt(65001, 1)}})
	c.silence()
}

func TestDuplicateGetsSameReply(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	for _, typ := range []message.Type{message.Confirmable, message.NonConfirmable} {
		c := dial(t, s)
		r := put("a", "1")
		r.typ, r.mid = typ, 77
		first := c.do(r)
		require.Equal(t, codes.Changed, first.Code)
		require.Equal(t, first, c.do(r))
		require.Equal(t, "1", string(o.next().Payload))

		r.token, r.payload = "q", "2" // the message id is reused, the token is new: another request
		require.Equal(t, codes.Changed, c.do(r).Code)
		require.Equal(t, "2", string(o.next().Payload))
		c.silence()
		require.Nil(t, o.poll())
	}
	require.Equal(t, 2.0, metricValue(t, s.loops[0].metrics.duplicates))
}

func TestDedupRingForgetsOldestFinished(t *testing.T) {
	var d dedup
	for i := range 3 * dedupEntries {
		d.add(&exchange{mid: uint16(i), at: time.Duration(i), waiting: i == 5}, dedupEntries)
	}
	now := time.Duration(3 * dedupEntries)
	require.Len(t, d.ring, dedupEntries)
	require.NotNil(t, d.find(5, token{}, false, now), "a pending exchange must stay")
	require.Nil(t, d.find(6, token{}, false, now))
	require.NotNil(t, d.find(3*dedupEntries-1, token{}, false, now))
	require.Nil(t, d.find(3*dedupEntries-1, token{}, true, now), "another type is another request")
	require.Nil(t, d.find(3*dedupEntries-1, token{}, false, now+exchangeLifetime), "the lifetime is over")
	for len(d.ring) > 0 {
		d.remove(d.ring[len(d.ring)/2])
		require.Equal(t, len(d.ring), len(d.mids))
	}
}

// slowCore holds the outcome of publishes until the test releases it.
func slowCore() (core *fakeCore, release func(broker.Reason), published *sync.WaitGroup) {
	var mu sync.Mutex
	var waiting []func(broker.Reason)
	published = &sync.WaitGroup{}
	core = &fakeCore{publish: func(_ *broker.Message, done func(broker.Reason)) {
		mu.Lock()
		defer mu.Unlock()
		waiting = append(waiting, done)
		published.Done()
	}}
	return core, func(r broker.Reason) {
		mu.Lock()
		defer mu.Unlock()
		for _, done := range waiting {
			done(r)
		}
		waiting = nil
	}, published
}

func TestSlowStoreGetsEmptyAckThenSeparateResponse(t *testing.T) {
	core, release, published := slowCore()
	cfg := testConfig()
	cfg.AckTimeout = 100 * time.Millisecond
	s := startWith(t, cfg, core)
	c := dial(t, s)
	published.Add(1)
	r := put("a", "1")
	started := time.Now()
	r.mid = c.send(r)
	c.write(r.bytes(t)) // a duplicate before the empty ACK is not answered by itself
	ack := c.read()
	require.GreaterOrEqual(t, time.Since(started), 95*time.Millisecond)
	require.Equal(t, message.Acknowledgement, ack.Type)
	require.Equal(t, codes.Empty, ack.Code)
	require.Equal(t, int32(r.mid), ack.MessageID)
	c.silence()

	c.write(r.bytes(t)) // the ACK was lost
	require.Equal(t, ack, c.read())

	published.Wait()
	release(broker.Success)
	first := c.read()
	require.Equal(t, message.Confirmable, first.Type)
	require.Equal(t, codes.Changed, first.Code)
	require.Equal(t, r.token, string(first.Token))
	require.NotEqual(t, int32(r.mid), first.MessageID)
	again := c.read() // not acknowledged: sent again
	require.Equal(t, first, again)

	c.write(r.bytes(t))
	dup := c.read()
	for dup.Type == message.Confirmable { // a retransmission may have come between
		require.Equal(t, first, dup)
		dup = c.read()
	}
	require.Equal(t, ack, dup)
	c.ack(first)
	c.silence()
	require.Zero(t, s.loops[0].outstanding())
}

// outstanding counts the unacknowledged messages of all peers.
func (l *loop) outstanding() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.peers {
		n += len(p.out)
	}
	return n
}

func TestResetStopsSeparateResponse(t *testing.T) {
	core, release, published := slowCore()
	cfg := testConfig()
	cfg.EmptyAckAfter = 5 * time.Millisecond
	s := startWith(t, cfg, core)
	c := dial(t, s)
	published.Add(1)
	c.send(put("a", "1"))
	require.Equal(t, codes.Empty, c.read().Code)
	published.Wait()
	release(broker.QuotaExceeded)
	m := c.read()
	require.Equal(t, codes.TooManyRequests, m.Code)
	c.reset(m)
	c.silence()
	require.Zero(t, s.loops[0].outstanding())
}

func TestSlowClientDoesNotHoldOthers(t *testing.T) {
	hang := make(chan func(broker.Reason), 100)
	core := &fakeCore{publish: func(m *broker.Message, done func(broker.Reason)) {
		if m.Topic == "slow" {
			hang <- done
			return
		}
		done(broker.Success)
	}}
	s := startWith(t, testConfig(), core)
	slow, quick := dial(t, s), dial(t, s)
	for i := range 32 {
		r := put("slow", "x")
		r.mid = uint16(i + 1)
		slow.send(r)
	}
	refused := slow.do(put("slow", "one more than may be pending"))
	require.Equal(t, codes.ServiceUnavailable, refused.Code)
	for range 200 {
		require.Equal(t, codes.Changed, quick.do(put("quick", "x")).Code)
	}
	for range 32 {
		(<-hang)(broker.Success)
	}
}

func TestNoResponse(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	c := dial(t, s)
	for _, tc := range []struct {
		value byte
		topic string
		heard bool
	}{
		{26, "a", false},
		{2, "a", false},
		{8, "a", true},
		{0, "a", true},
		{8, "a+", false}, // 4.00
		{2, "a+", true},
	} {
		r := put(tc.topic, "x")
		r.typ, r.options = message.NonConfirmable, []message.Option{opt(message.NoResponse, tc.value)}
		r.mid = c.nextMID()
		for range 2 { // a duplicate is neither published nor answered otherwise
			c.send(r)
			if tc.heard {
				require.Equal(t, message.NonConfirmable, c.read().Type)
			}
			c.silence()
		}
		if tc.topic == "a" {
			o.next()
		}
		require.Nil(t, o.poll())
	}
	r := put("a", "x")
	r.options = []message.Option{opt(message.NoResponse, 2)}
	r.mid = c.send(r)
	m := c.read()
	require.Equal(t, codes.Empty, m.Code)
	require.Equal(t, message.Acknowledgement, m.Type)
	c.silence()
}

func TestRateLimit(t *testing.T) {
	cfg := testConfig()
	cfg.Rate, cfg.Burst = 0.001, 3
	s, _ := start(t, cfg)
	c := dial(t, s)
	for range 3 {
		require.Equal(t, codes.Changed, c.do(put("a", "x")).Code)
	}
	m := c.do(put("a", "x"))
	require.Equal(t, codes.TooManyRequests, m.Code)
	age, err := m.Options.GetUint32(message.MaxAge)
	require.NoError(t, err)
	require.EqualValues(t, 1, age)
	require.Equal(t, codes.Changed, dial(t, s).do(put("a", "x")).Code, "another peer has its own limit")
}

func TestMalformedDatagramKeepsPeerState(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	require.Equal(t, codes.Content, c.do(register("t", "a")).Code)
	c.write([]byte{0xFF, 0xFF, 0xFF, 0xFF, 0xFF})
	c.write([]byte{0x5F, 0x01, 0x00, 0x01})
	c.silence()
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("1")})
	require.Equal(t, "1", string(bodyOf(t, c.read())))
}

func bodyOf(t testing.TB, m message.Message) []byte {
	t.Helper()
	return m.Payload
}

func TestEveryTruncatedPrefix(t *testing.T) {
	s, _ := start(t, testConfig())
	whole := req{
		mid: 1, code: codes.PUT, token: "12345678", path: []string{"ps", "plant", "1"},
		query: []string{"qos=1", "retain=true", "c=dev"}, payload: "payload",
		options: []message.Option{opt(message.ContentFormat, 50), opt(message.NoResponse, 0), opt(300, 1, 2)},
	}.bytes(t)
	c := dial(t, s)
	for n := range whole {
		c.write(whole[:n])
	}
	// Every prefix gets one answer at most, then the ping is answered.
	mid := c.nextMID()
	ping := emptyMessage(message.Confirmable, mid)
	c.write(ping[:])
	answers := 0
	for m := c.read(); m.MessageID != int32(mid); m = c.read() {
		answers++
	}
	require.LessOrEqual(t, answers, len(whole)-headerSize)
	var p packet
	for n := range whole {
		_ = p.decode(whole[:n])
	}
	require.NoError(t, p.decode(whole))
}

func TestPeerTableForgetsTheSilentNotTheObserver(t *testing.T) {
	cfg := testConfig()
	cfg.MaxPeers = 3
	s, b := start(t, cfg)
	watcher := dial(t, s)
	require.Equal(t, codes.Content, watcher.do(register("t", "a")).Code)
	for range 10 {
		require.Equal(t, codes.Changed, dial(t, s).do(put("b", "x")).Code)
	}
	require.Equal(t, 3.0, metricValue(t, s.loops[0].metrics.peers))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("1")})
	require.Equal(t, "1", string(watcher.read().Payload))

	for range 2 {
		require.Equal(t, codes.Content, dial(t, s).do(register("t", "c")).Code)
	}
	m := dial(t, s).do(put("b", "x"))
	require.Equal(t, codes.ServiceUnavailable, m.Code)
}

func TestPanicIsContained(t *testing.T) {
	core := &fakeCore{publish: func(*broker.Message, func(broker.Reason)) { panic("test") }}
	s, err := newServer(testConfig(), core, nil, nil)
	require.NoError(t, err)
	run(t, s, "the panic of this test")
	c := dial(t, s)
	require.Equal(t, codes.InternalServerError, c.do(put("a", "x")).Code)
	c.silence()
	s.loops[0].mu.Lock()
	defer s.loops[0].mu.Unlock()
	require.Zero(t, s.loops[0].pending)
	require.Equal(t, 1.0, metricValue(t, s.loops[0].metrics.dropped[dropPanic]))
}
