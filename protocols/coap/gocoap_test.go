package coap

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/pkg/runner/periodic"
	"github.com/plgd-dev/go-coap/v3/udp"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func dialGoCoAP(t *testing.T, s *Server) *udpclient.Conn {
	t.Helper()
	// Its own runner outlives the connection by seconds.
	stop := make(chan struct{})
	conn, err := udp.Dial(s.Addr().String(), options.WithPeriodicRunner(periodic.New(stop, 50*time.Millisecond)))
	require.NoError(t, err)
	t.Cleanup(func() {
		close(stop)
		require.NoError(t, conn.Close())
		<-conn.Done()
	})
	return conn
}

func TestGoCoAPClient(t *testing.T) {
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	conn := dialGoCoAP(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	for _, size := range []int{10, 5000} {
		body := testBody(size)
		resp, err := conn.Put(ctx, "/ps/a", message.AppOctets, bytes.NewReader(body), message.Option{ID: message.URIQuery, Value: []byte("retain=true")})
		require.NoError(t, err)
		require.Equal(t, codes.Changed, resp.Code())
		require.Equal(t, body, o.next().Payload)

		resp, err = conn.Get(ctx, "/ps/a")
		require.NoError(t, err)
		got, err := resp.ReadBody()
		require.NoError(t, err)
		require.Equal(t, body, got)
		format, err := resp.ContentFormat()
		require.NoError(t, err)
		require.Equal(t, message.AppOctets, format)
	}
	require.NoError(t, conn.Close())
}

func TestGoCoAPObserve(t *testing.T) {
	s, b := start(t, testConfig())
	conn := dialGoCoAP(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	bodies := make(chan string, 100)
	obs, err := conn.Observe(ctx, "/ps/a", func(m *pool.Message) {
		body, err := m.ReadBody()
		if err == nil {
			bodies <- string(body)
		}
	})
	require.NoError(t, err)
	for i := range 20 {
		publish(t, b, &broker.Message{Topic: "a", Payload: []byte(fmt.Sprint(i)), QoS: 1})
	}
	want := append([]string{""}, func() (all []string) {
		for i := range 20 {
			all = append(all, fmt.Sprint(i))
		}
		return all
	}()...)
	for _, w := range want {
		select {
		case got := <-bodies:
			require.Equal(t, w, got)
		case <-time.After(patience):
			t.Fatalf("no notification %q", w)
		}
	}
	require.NoError(t, obs.Cancel(ctx))
	require.Zero(t, s.observers(t))
}
