package main

import (
	"bytes"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// everybody lets in everybody.
type everybody struct{ mochi.HookBase }

func (*everybody) ID() string { return "everybody" }
func (*everybody) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}
func (*everybody) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*everybody) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

// mqttServer is a server from another code base. It returns the flags that lead to it.
func mqttServer(t *testing.T) (*mochi.Server, []string) {
	t.Helper()
	s := mochi.New(&mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, s.AddHook(new(everybody), nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, s.AddListener(listeners.NewNet("t", l)))
	require.NoError(t, s.Serve())
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, []string{"-h", "127.0.0.1", "-p", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)}
}

func TestPubSub(t *testing.T) {
	for _, version := range []string{"5", "311"} {
		t.Run(version, func(t *testing.T) {
			s, at := mqttServer(t)
			at = append(at, "-V", version)
			var wg sync.WaitGroup
			var got result
			wg.Go(func() {
				got = gantry(t, "", append([]string{"sub", "-t", "a/#", "-t", "b", "-v", "-q", "1", "-C", "5", "-W", "20"}, at...)...)
			})
			require.Eventually(t, func() bool { return len(s.Topics.Subscribers("b").Subscriptions) == 1 }, 10*time.Second, 5*time.Millisecond)
			for _, p := range []struct {
				stdin string
				args  []string
			}{
				{"", []string{"-t", "a/1", "-m", "hello", "-q", "1"}},
				{"one\ntwo\n", []string{"-t", "b", "-l", "-q", "2"}},
				{"all\nof it", []string{"-t", "b", "-s", "-q", "1"}},
				{"", []string{"-t", "a/2", "-f", file(t, "payload", "from file")}},
			} {
				r := gantry(t, p.stdin, append(append([]string{"pub"}, at...), p.args...)...)
				require.Equal(t, result{}, r)
			}
			wg.Wait()
			// The server keeps the order of one publisher; every command is one of its own.
			all := []string{"a/1 hello\n", "b one\nb two\n", "b all\nof it\n", "a/2 from file\n"}
			for _, text := range all {
				require.Contains(t, got.out, text)
			}
			require.Equal(t, result{0, got.out, ""}, got)
			require.Len(t, got.out, len(strings.Join(all, "")))
		})
	}
}

func TestSubWaits(t *testing.T) {
	_, at := mqttServer(t)
	r := gantry(t, "", append([]string{"sub", "-t", "a", "-W", "0.05"}, at...)...)
	require.Equal(t, result{}, r)
	r = gantry(t, "", append([]string{"sub", "-t", "a", "-W", "50ms", "-C", "1"}, at...)...)
	require.Equal(t, result{1, "", "gantry: fewer than 1 messages within 50ms\n"}, r)
}

func TestRetained(t *testing.T) {
	_, at := mqttServer(t)
	require.Zero(t, gantry(t, "", append([]string{"pub", "-t", "r", "-m", "kept", "-r", "-q", "1"}, at...)...).code)
	require.Equal(t, result{0, "kept\n", ""}, gantry(t, "", append([]string{"sub", "-t", "r", "-C", "1", "-W", "20"}, at...)...))
	r := gantry(t, "", append([]string{"sub", "-t", "r", "-C", "1", "-W", "0.1", "-R"}, at...)...)
	require.Equal(t, 1, r.code)
	require.Empty(t, r.out)
	require.Zero(t, gantry(t, "", append([]string{"pub", "-t", "r", "-n", "-r", "-q", "1"}, at...)...).code)
	require.Equal(t, 1, gantry(t, "", append([]string{"sub", "-t", "r", "-C", "1", "-W", "0.1"}, at...)...).code)
}

func TestPubErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	require.NoError(t, l.Close())
	for _, version := range []string{"5", "311"} {
		r := gantry(t, "", "pub", "-p", port, "-t", "a", "-m", "x", "-V", version)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, "gantry: connect to 127.0.0.1:"+port)
		require.Equal(t, 1, strings.Count(r.err, "\n"))
	}
	require.Contains(t, gantry(t, "", "pub", "-t", "a").err, "nothing to publish")
	require.Contains(t, gantry(t, "", "pub", "-t", "a", "-f", "/none").err, "/none")
	require.Contains(t, gantry(t, "", "sub", "-t", "a", "-c").err, "client id")
}

// brokenPipe takes nothing.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, net.ErrClosed }

func TestSubEndsWhenNobodyReads(t *testing.T) {
	_, at := mqttServer(t)
	require.Zero(t, gantry(t, "", append([]string{"pub", "-t", "r", "-m", "kept", "-r", "-q", "1"}, at...)...).code)
	var errs bytes.Buffer
	code := execute(t.Context(), append([]string{"sub", "-t", "r", "-W", "20"}, at...), streams{nil, brokenPipe{}, &errs})
	require.Equal(t, 1, code)
	require.Contains(t, errs.String(), net.ErrClosed.Error())
}
