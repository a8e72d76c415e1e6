package coap

import (
	"fmt"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func (s *Server) observers(t testing.TB) int {
	return int(metricValue(t, s.loops[0].metrics.observers))
}

func TestObserve(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("kept"), Retain: true, QoS: 1})
	m := c.do(register("t1", "a"))
	require.Equal(t, codes.Content, m.Code)
	require.Equal(t, "kept", string(m.Payload))
	last := uintOf(t, m, message.Observe)

	for i := range 20 {
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte(fmt.Sprint(i)), QoS: 1})
	}
	for i := range 20 {
		m := c.read()
		require.Equal(t, message.Confirmable, m.Type)
		require.Equal(t, codes.Content, m.Code)
		require.Equal(t, "t1", string(m.Token))
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
		seq := uintOf(t, m, message.Observe)
		require.Greater(t, seq, last)
		last = seq
		c.silence() // the next one waits for the acknowledgement
		c.ack(m)
	}
	c.silence()
	require.Equal(t, 1, s.observers(t))

	end := c.do(req{code: codes.GET, token: "t1", path: []string{"ps", "a"}, options: []message.Option{observeOpt(1)}})
	require.Equal(t, codes.Content, end.Code)
	require.False(t, end.Options.HasOption(message.Observe))
	require.Zero(t, s.observers(t))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), QoS: 1})
	c.silence()
}

func TestObserveWithoutRetainedAndWildcard(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "w/1", Payload: []byte("kept"), Retain: true, QoS: 1})
	c := dial(t, s)
	m := c.do(register("none", "b"))
	require.Equal(t, codes.Content, m.Code)
	require.Empty(t, m.Payload)
	require.True(t, m.Options.HasOption(message.Observe))

	m = c.do(register("wild", "w/#"))
	require.Empty(t, m.Payload)
	kept := c.read()
	require.Equal(t, "kept", string(kept.Payload))
	require.Equal(t, "wild", string(kept.Token))
	c.ack(kept)
	publish(t, b, &broker.Message{Topic: "w/2/3", Payload: []byte("new")})
	require.Equal(t, "new", string(c.read().Payload))

	c = dial(t, s)
	c.do(register("rh2", "w/#", "rh=2"))
	c.do(register("rh2x", "w/1", "rh=2"))
	c.silence()
}

func TestObserveQoSAndTypes(t *testing.T) {
	s, b := start(t, testConfig())
	for _, tc := range []struct {
		query     []string
		typ       message.Type
		published broker.QoS
		want      message.Type
	}{
		{nil, message.Confirmable, 0, message.NonConfirmable},
		{nil, message.Confirmable, 1, message.Confirmable},
		{nil, message.Confirmable, 2, message.Confirmable},
		{nil, message.NonConfirmable, 1, message.NonConfirmable},
		{[]string{"qos=0"}, message.Confirmable, 1, message.NonConfirmable},
		{[]string{"q=2"}, message.NonConfirmable, 2, message.Confirmable},
	} {
		c := dial(t, s)
		r := register("t", "a", tc.query...)
		r.typ = tc.typ
		require.Equal(t, codes.Content, c.do(r).Code)
		for range 3 { // a second and third: the first was completed towards the broker
			publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), QoS: tc.published})
			m := c.read()
			require.Equal(t, tc.want, m.Type, "%+v", tc)
			if m.Type == message.Confirmable {
				c.ack(m)
			}
		}
		c.do(req{code: codes.GET, token: "t", path: []string{"ps", "a"}, options: []message.Option{observeOpt(1)}})
	}
}

func TestObserveNoLocal(t *testing.T) {
	s, _ := start(t, testConfig())
	c := dial(t, s)
	require.Equal(t, codes.Content, c.do(register("t", "a", "nl=1")).Code)
	require.Equal(t, codes.Changed, c.do(put("a", "own")).Code)
	c.silence()
	require.Equal(t, codes.Changed, dial(t, s).do(put("a", "other")).Code)
	require.Equal(t, "other", string(c.read().Payload))
}

func TestEvery32ndNotificationIsConfirmable(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	c.do(register("t", "a"))
	for i := 1; i <= 2*confirmEvery; i++ {
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte(fmt.Sprint(i))})
		m := c.read()
		require.Equal(t, i%confirmEvery == 0, m.Type == message.Confirmable, "notification %d", i)
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
		if m.Type == message.Confirmable {
			c.ack(m)
		}
	}
}

func TestResetEndsOneObservation(t *testing.T) {
	s, b := start(t, testConfig())
	for _, qos := range []broker.QoS{0, 1} {
		c := dial(t, s)
		c.do(register("t1", "a"))
		c.do(register("t2", "b"))
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), QoS: qos})
		c.reset(c.read())
		c.silence()
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte("y"), QoS: qos})
		c.silence()
		publish(t, b, &broker.Message{Topic: "b", Payload: []byte("z"), QoS: qos})
		m := c.read()
		require.Equal(t, "t2", string(m.Token))
		c.reset(m)
		c.silence()
		require.Zero(t, s.observers(t))
	}
}

func TestRegistrationIsIdempotent(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	for range 3 {
		require.Equal(t, codes.Content, c.do(register("t", "a")).Code)
	}
	require.Equal(t, 1, s.observers(t))
	c.do(register("other", "a")) // the same resource under a new token replaces
	require.Equal(t, 1, s.observers(t))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("1")})
	require.Equal(t, "other", string(c.read().Token))
	c.silence()
	c.do(register("other", "b")) // the same token for another resource replaces
	require.Equal(t, 1, s.observers(t))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("2")})
	publish(t, b, &broker.Message{Topic: "b", Payload: []byte("3")})
	require.Equal(t, "3", string(c.read().Payload))
	c.silence()
}

func TestOverlappingObservationsEachGetTheirNotification(t *testing.T) {
	s, b := start(t, testConfig())
	c := dial(t, s)
	c.do(register("t1", "a/+"))
	c.do(register("t2", "a/b"))
	for i := range 3 {
		publish(t, b, &broker.Message{Topic: "a/b", Payload: []byte(fmt.Sprint(i)), QoS: 1})
	}
	for i := range 3 {
		tokens := map[string]bool{}
		var both []message.Message
		for range 2 {
			m := c.read()
			require.Equal(t, fmt.Sprint(i), string(m.Payload))
			tokens[string(m.Token)] = true
			both = append(both, m)
		}
		require.Len(t, tokens, 2)
		c.ack(both[1])
		c.silence()
		c.ack(both[0])
	}
	c.silence()
}

func TestObserveShared(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("old"), Retain: true})
	members := []*client{dial(t, s), dial(t, s)}
	for _, c := range members {
		m := c.do(register("t", "$share/g/a"))
		require.Equal(t, codes.Content, m.Code)
		require.Empty(t, m.Payload, "no retained value")
	}
	for range 5 {
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x")})
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte("y")})
		got := []string{string(members[0].read().Payload), string(members[1].read().Payload)}
		require.ElementsMatch(t, []string{"x", "y"}, got)
	}
	for _, c := range members {
		c.silence()
	}
}

func TestRefusedRegistrations(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), Retain: true, Properties: &broker.Properties{ContentType: "application/json"}})
	c := dial(t, s)
	require.Equal(t, codes.BadRequest, c.do(register("t", "a/#/b")).Code)
	r := register("t", "a")
	r.options = append(r.options, opt(message.Accept, 60))
	m := c.do(r)
	require.Equal(t, codes.NotAcceptable, m.Code)
	require.False(t, m.Options.HasOption(message.Observe))
	require.Zero(t, s.observers(t))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("y")})
	c.silence()
}

func TestReregistrationWithETag(t *testing.T) {
	s, b := start(t, testConfig())
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), Retain: true})
	c := dial(t, s)
	m := c.do(register("t", "a"))
	r := register("t", "a")
	r.options = append(r.options, message.Option{ID: message.ETag, Value: mustBytes(t, m, message.ETag)})
	m = c.do(r)
	require.Equal(t, codes.Valid, m.Code)
	require.True(t, m.Options.HasOption(message.Observe))
	require.Equal(t, 1, s.observers(t))
}

func TestObservationCap(t *testing.T) {
	cfg := testConfig()
	cfg.MaxObservationsPerPeer = 3
	s, _ := start(t, cfg)
	c := dial(t, s)
	for i := range 3 {
		require.Equal(t, codes.Content, c.do(register(fmt.Sprint(i), fmt.Sprint("a", i))).Code)
	}
	require.Equal(t, codes.TooManyRequests, c.do(register("x", "x")).Code)
	require.Equal(t, codes.Content, c.do(register("0", "a0")).Code, "a renewal is no new one")
}

func TestUnansweredNotificationEndsSession(t *testing.T) {
	cfg := testConfig()
	cfg.AckTimeout = 5 * time.Millisecond
	s, b := start(t, cfg)
	c := dial(t, s)
	c.do(register("t1", "a"))
	c.do(register("t2", "b"))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x"), QoS: 1})
	first := c.read()
	for range 4 {
		require.Equal(t, first, c.read())
	}
	require.Eventually(t, func() bool { return s.observers(t) == 0 }, patience, time.Millisecond)
	c.silence()
	require.Zero(t, metricValue(t, s.loops[0].metrics.sessions))
	require.Equal(t, codes.Content, c.do(register("t1", "a")).Code, "the client may come back")
}

func TestUnconfirmedObserverIsChecked(t *testing.T) {
	cfg := testConfig()
	cfg.ObserverCheck, cfg.AckTimeout = 20*time.Millisecond, 5*time.Millisecond
	s, _ := start(t, cfg)
	c := dial(t, s)
	c.do(register("t1", "a"))
	for range 3 {
		m := c.read()
		require.Equal(t, codes.Empty, m.Code)
		require.Equal(t, message.Confirmable, m.Type)
		c.reset(m)
	}
	require.Equal(t, 1, s.observers(t))
	require.Eventually(t, func() bool { return s.observers(t) == 0 }, patience, time.Millisecond)
}

func TestSlowObserverDoesNotHoldOthers(t *testing.T) {
	s, b := start(t, testConfig())
	deaf, keen := dial(t, s), dial(t, s)
	deaf.do(register("t", "a"))
	keen.do(register("t", "a"))
	for i := range 50 {
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte(fmt.Sprint(i)), QoS: 1})
		m := keen.read()
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
		keen.ack(m)
	}
	require.Equal(t, "0", string(deaf.read().Payload))
	deaf.silence()
}

func TestTakeoverTellsObserver(t *testing.T) {
	s, b := start(t, testConfig())
	first, second := dial(t, s), dial(t, s)
	first.do(register("t", "a", "c=dev"))
	second.do(register("t", "a", "c=dev"))
	bye := first.read()
	require.Equal(t, codes.Forbidden, bye.Code)
	require.Equal(t, "t", string(bye.Token))
	require.False(t, bye.Options.HasOption(message.Observe))
	publish(t, b, &broker.Message{Topic: "a", Payload: []byte("x")})
	require.Equal(t, "x", string(second.read().Payload))
	first.silence()
	require.True(t, b.Kick("dev", broker.Administrative))
	require.Equal(t, codes.Forbidden, second.read().Code)
	require.Eventually(t, func() bool { return s.observers(t) == 0 }, patience, time.Millisecond)
}

func TestSequenceFollowsTheClock(t *testing.T) {
	var o observation
	require.EqualValues(t, 1, o.nextSequence(0))
	require.EqualValues(t, 2, o.nextSequence(0))
	second := o.nextSequence(time.Second)
	require.EqualValues(t, time.Second>>15, second)
	require.Equal(t, second+1, o.nextSequence(time.Second))
	last := o.nextSequence(time.Minute)
	for now := time.Minute; now < time.Hour; now += 100 * time.Second {
		v := o.nextSequence(now)
		// RFC 7641 section 3.4
		fresh := last < v && v-last < 1<<23 || last > v && last-v > 1<<23
		require.True(t, fresh, "%d after %d", v, last)
		last = v
	}
}

func TestShutdownAnswers(t *testing.T) {
	core, release, published := slowCore()
	cfg := testConfig()
	cfg.DrainTimeout = patience
	s, err := newServer(cfg, core, nil, nil)
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := contextOf(t)
	go func() { ended <- s.Run(ctx) }()
	c := dial(t, s)
	require.Equal(t, codes.Content, c.do(register("watch", "a")).Code)
	published.Add(1)
	mid := c.send(put("a", "x"))
	published.Wait()
	cancel()
	require.Eventually(t, func() bool {
		s.loops[0].mu.Lock()
		defer s.loops[0].mu.Unlock()
		return s.loops[0].draining
	}, patience, time.Millisecond)
	r := put("a", "late")
	r.token = "late"
	late := c.send(r)
	m := c.read()
	for m.MessageID == int32(mid) { // the empty ACK of the first
		m = c.read()
	}
	require.Equal(t, int32(late), m.MessageID)
	require.Equal(t, codes.ServiceUnavailable, m.Code)
	require.EqualValues(t, retryDraining, uintOf(t, m, message.MaxAge))
	release(broker.Success)
	answered, farewell := false, false
	for !answered || !farewell {
		m := c.read()
		answered = answered || m.Code == codes.Changed
		farewell = farewell || m.Code == codes.ServiceUnavailable && string(m.Token) == "watch"
	}
	require.NoError(t, <-ended)
	require.NoError(t, s.Close())
}

func TestCloseEndsRunAtOnce(t *testing.T) {
	s, err := New(testConfig(), newBroker(t, broker.Config{}), nil, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.NoError(t, s.Run(t.Context()))
}
