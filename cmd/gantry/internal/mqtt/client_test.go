package mqtt

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// access lets in everybody but mallory, and refuses what is in the topic secret.
type access struct{ mochi.HookBase }

func (*access) ID() string { return "access" }

func (*access) Provides(b byte) bool {
	return bytes.Contains([]byte{mochi.OnConnectAuthenticate, mochi.OnACLCheck}, []byte{b})
}

func (*access) OnConnectAuthenticate(_ *mochi.Client, pk packets.Packet) bool {
	return string(pk.Connect.Username) != "mallory"
}
func (*access) OnACLCheck(_ *mochi.Client, topic string, _ bool) bool { return topic != "secret" }

func server(t *testing.T) string {
	t.Helper()
	_, addr := mochiServer(t)
	return addr
}

func mochiServer(t *testing.T) (s *mochi.Server, addr string) {
	t.Helper()
	s = mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, s.AddHook(&access{}, nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, s.AddListener(listeners.NewNet("t", l)))
	require.NoError(t, s.Serve())
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, l.Addr().String()
}

// inbox takes messages up to a number and refuses what comes after.
type inbox struct {
	mu    sync.Mutex
	limit int
	got   []Message
	full  chan struct{}
}

func newInbox(limit int) *inbox { return &inbox{limit: limit, full: make(chan struct{})} }

func (i *inbox) take(m Message) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.got) == i.limit {
		return false
	}
	if i.got = append(i.got, m); len(i.got) == i.limit {
		close(i.full)
	}
	return true
}

func (i *inbox) wait(t *testing.T) []Message {
	t.Helper()
	select {
	case <-i.full:
	case <-time.After(10 * time.Second):
		t.Fatal("messages did not arrive")
	}
	return i.got
}

func versions(t *testing.T, f func(t *testing.T, version string)) {
	for _, v := range []string{"5", "311"} {
		t.Run(v, func(t *testing.T) { f(t, v) })
	}
}

func dial(t *testing.T, o Options) Client {
	t.Helper()
	o.KeepAlive = time.Minute
	c, err := Dial(t.Context(), o)
	require.NoError(t, err)
	return c
}

func TestRoundTrip(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		addr, in := server(t), newInbox(3)
		sub := dial(t, Options{Addr: addr, Version: version, OnMessage: in.take})
		defer sub.Close()
		require.NoError(t, sub.Subscribe(t.Context(), []string{"a/+", "b"}, 2))
		pub := dial(t, Options{Addr: addr, Version: version})
		defer pub.Close()
		for qos, topic := range []string{"a/1", "b", "a/2"} {
			require.NoError(t, pub.Publish(t.Context(), Message{Topic: topic, Payload: []byte{0, 'x', 255}, QoS: byte(qos)}))
		}
		require.ElementsMatch(t, []Message{
			{Topic: "a/1", Payload: []byte{0, 'x', 255}},
			{Topic: "b", Payload: []byte{0, 'x', 255}, QoS: 1},
			{Topic: "a/2", Payload: []byte{0, 'x', 255}, QoS: 2},
		}, in.wait(t))
	})
}

// What was not taken stays in the session at the server, what was taken does not come again.
func TestUntakenMessagesStayWithTheServer(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		s, addr := mochiServer(t)
		durable := Options{Addr: addr, Version: version, ClientID: "d", Durable: true}
		first := newInbox(1)
		durable.OnMessage = first.take
		sub := dial(t, durable)
		require.NoError(t, sub.Subscribe(t.Context(), []string{"a"}, 1))
		pub := dial(t, Options{Addr: addr, Version: version})
		defer pub.Close()
		for _, payload := range []string{"1", "2", "3"} {
			require.NoError(t, pub.Publish(t.Context(), Message{Topic: "a", Payload: []byte(payload), QoS: 1}))
		}
		require.Equal(t, "1", string(first.wait(t)[0].Payload))
		sub.Close()
		// until the server has read what the client sent last
		require.Eventually(t, func() bool { cl, ok := s.Clients.Get("d"); return ok && cl.Closed() }, 10*time.Second, time.Millisecond)

		second := newInbox(2)
		durable.OnMessage = second.take
		sub = dial(t, durable)
		defer sub.Close()
		got := second.wait(t)
		require.ElementsMatch(t, []string{"2", "3"}, []string{string(got[0].Payload), string(got[1].Payload)})
	})
}

func TestRefusals(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		addr := server(t)
		_, err := Dial(t.Context(), Options{Addr: addr, Version: version, Username: "mallory", Password: "x"})
		require.ErrorContains(t, err, "connect to "+addr)
		c := dial(t, Options{Addr: addr, Version: version, OnMessage: newInbox(1).take})
		defer c.Close()
		require.ErrorContains(t, c.Subscribe(t.Context(), []string{"a", "secret"}, 1), "subscription secret refused")
	})
	c := dial(t, Options{Addr: server(t), Version: "5"})
	defer c.Close()
	require.Error(t, c.Publish(t.Context(), Message{Topic: "secret", QoS: 1}))
}

func TestDialErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	versions(t, func(t *testing.T, version string) {
		_, err := Dial(t.Context(), Options{Addr: addr, Version: version})
		require.ErrorContains(t, err, "connection refused")
		_, err = Dial(t.Context(), Options{Addr: addr, Version: version, Durable: true})
		require.ErrorContains(t, err, "client id")
	})
}

// A server that accepts and then says nothing must not hold the command for ever.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	versions(t, func(t *testing.T, version string) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := Dial(ctx, Options{Addr: l.Addr().String(), Version: version})
		require.Error(t, err)
	})
}

func TestLostConnection(t *testing.T) {
	versions(t, func(t *testing.T, version string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		target, cut := server(t), make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { relay(l, target, cut) })
		c := dial(t, Options{Addr: l.Addr().String(), Version: version})
		defer c.Close()
		require.NoError(t, c.Publish(t.Context(), Message{Topic: "a", QoS: 1}))
		close(cut)
		select {
		case <-c.Lost():
			require.Error(t, c.Err())
		case <-time.After(10 * time.Second):
			t.Fatal("loss not noticed")
		}
	})
}

// relay passes on one connection until cut is closed.
func relay(l net.Listener, target string, cut <-chan struct{}) {
	client, err := l.Accept()
	if err != nil {
		return
	}
	srv, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(srv, client) })
	wg.Go(func() { _, _ = io.Copy(client, srv) })
	<-cut
	client.Close()
	srv.Close()
	wg.Wait()
}
