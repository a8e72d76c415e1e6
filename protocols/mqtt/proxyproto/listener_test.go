package proxyproto

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

func listen(t *testing.T, cfg Config) (*Listener, *prometheus.Registry) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	reg := prometheus.NewRegistry()
	l, err := New(ln, cfg, nil, reg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l, reg
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func dial(t *testing.T, l *Listener, text string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	_, err = nc.Write([]byte(text))
	require.NoError(t, err)
	return nc
}

// accepting runs Accept until the listener is closed.
func accepting(t *testing.T, l *Listener) <-chan net.Conn {
	t.Helper()
	out, ended := make(chan net.Conn, 10), make(chan error, 1)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			out <- nc
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		require.ErrorIs(t, <-ended, net.ErrClosed)
	})
	return out
}

func receive(t *testing.T, ch <-chan net.Conn) net.Conn {
	t.Helper()
	select {
	case nc := <-ch:
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	case <-time.After(patience):
		require.FailNow(t, "nothing accepted")
	}
	panic("unreachable")
}

func TestAddressComesFromTheHeader(t *testing.T) {
	l, _ := listen(t, Config{Trusted: loopback()})
	conns := accepting(t, l)
	for _, tc := range good {
		client := dial(t, l, tc.text+"hello")
		nc := receive(t, conns)
		switch {
		case tc.own:
			require.Equal(t, client.LocalAddr().String(), nc.RemoteAddr().String(), tc.name)
		default:
			got := nc.RemoteAddr().(*net.TCPAddr).AddrPort()
			require.Equal(t, tc.source != "", got.IsValid(), tc.name)
			if tc.source != "" {
				require.Equal(t, tc.source, got.String(), tc.name)
			}
		}
		five := make([]byte, 2)
		_, err := io.ReadFull(nc, five)
		require.NoError(t, err)
		_, err = client.Write([]byte(" world"))
		require.NoError(t, err)
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
		rest, err := io.ReadAll(nc)
		require.NoError(t, err)
		require.Equal(t, "hello world", string(five)+string(rest), tc.name)
		_, err = nc.(*Conn).WriteBuffers(net.Buffers{[]byte("a"), []byte("b")})
		require.NoError(t, err)
		require.NoError(t, nc.(*Conn).CloseWrite())
		answer, err := io.ReadAll(client)
		require.NoError(t, err)
		require.Equal(t, "ab", string(answer))
	}
}

func TestHeaderMayComeInPieces(t *testing.T) {
	l, _ := listen(t, Config{Trusted: loopback()})
	conns := accepting(t, l)
	nc := dial(t, l, "")
	for _, b := range []byte(good[0].text) {
		_, err := nc.Write([]byte{b})
		require.NoError(t, err)
	}
	require.Equal(t, "192.0.2.1:56324", receive(t, conns).RemoteAddr().String())
}

func expectClosed(t *testing.T, nc net.Conn) {
	t.Helper()
	require.NoError(t, nc.SetReadDeadline(time.Now().Add(patience)))
	_, err := nc.Read(make([]byte, 1))
	var ne net.Error
	require.Error(t, err)
	require.False(t, errors.As(err, &ne) && ne.Timeout(), "still open")
}

func refused(t *testing.T, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, m := range families[0].Metric {
		for _, p := range m.Label {
			if p.GetValue() == reason {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

func TestUntrustedAndMalformedAreClosed(t *testing.T) {
	t.Run("untrusted", func(t *testing.T) {
		l, reg := listen(t, Config{Name: "x", Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::1/128")}})
		conns := accepting(t, l)
		expectClosed(t, dial(t, l, good[0].text))
		require.Empty(t, conns)
		require.EqualValues(t, 1, refused(t, reg, "untrusted"))
	})
	t.Run("malformed", func(t *testing.T) {
		l, reg := listen(t, Config{Name: "x", Trusted: loopback()})
		conns := accepting(t, l)
		for _, text := range bad {
			expectClosed(t, dial(t, l, text))
		}
		require.Empty(t, conns)
		require.EqualValues(t, len(bad), refused(t, reg, "malformed"))
	})
	t.Run("silent", func(t *testing.T) {
		l, reg := listen(t, Config{Name: "x", Trusted: loopback(), HeaderTimeout: 20 * time.Millisecond})
		conns := accepting(t, l)
		expectClosed(t, dial(t, l, "PROXY TCP4 "))
		require.Empty(t, conns)
		require.EqualValues(t, 1, refused(t, reg, "timeout"))
	})
}

func TestSilentConnectionsHoldNobodyUp(t *testing.T) {
	l, _ := listen(t, Config{Trusted: loopback(), MaxPending: 2})
	conns := accepting(t, l)
	first := dial(t, l, "PROXY ")
	dial(t, l, good[0].text)
	receive(t, conns)
	dial(t, l, "PROXY ")
	dial(t, l, good[0].text) // waits for a place
	require.NoError(t, first.Close())
	receive(t, conns)
}

func TestCloseEndsWhatIsPending(t *testing.T) {
	l, _ := listen(t, Config{Trusted: loopback()})
	accepting(t, l)
	pending := dial(t, l, "PROXY ")
	require.Eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.pending) == 1 }, patience, time.Millisecond)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	expectClosed(t, pending)
}

func TestCloseWithoutAccept(t *testing.T) {
	l, _ := listen(t, Config{Trusted: loopback()})
	dial(t, l, good[0].text)
	require.NoError(t, l.Close())
	_, err := l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestNobodyTrustedIsAMistake(t *testing.T) {
	_, err := New(nil, Config{Name: "x"}, nil, nil)
	require.ErrorContains(t, err, "no address is trusted")
}

// failing fails once, as a process without file descriptors does.
type failing struct {
	net.Listener
	err error
}

func (f *failing) Accept() (net.Conn, error) {
	if err := f.err; err != nil {
		f.err = nil
		return nil, err
	}
	return f.Listener.Accept()
}

func TestAcceptGoesOnAfterAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l, err := New(&failing{ln, errors.New("no file descriptor")}, Config{Trusted: loopback()}, nil, nil)
	require.NoError(t, err)
	defer l.Close()
	_, err = l.Accept()
	require.EqualError(t, err, "no file descriptor")
	dial(t, l, good[0].text)
	nc, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, nc.Close())
}
