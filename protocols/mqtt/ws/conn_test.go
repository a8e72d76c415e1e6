package ws

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 5 * time.Second
	request  = "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)

// pair returns both ends of a connection whose request has been sent, not answered.
func pair(t *testing.T) (server *Conn, client net.Conn) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	reg := prometheus.NewRegistry()
	l, err := New(raw, Config{Name: "ws"}, nil, reg)
	require.NoError(t, err)
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	nc, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = nc.Close()
		_ = client.Close()
		require.NoError(t, l.Close())
		families, err := reg.Gather()
		require.NoError(t, err)
		require.Empty(t, families)
	})
	return nc.(*Conn), client
}

func newReader(t *testing.T, client net.Conn) *bufio.Reader {
	t.Helper()
	require.NoError(t, client.SetReadDeadline(time.Now().Add(patience)))
	return bufio.NewReader(client)
}

func answer(t *testing.T, client net.Conn) *bufio.Reader {
	t.Helper()
	r := newReader(t, client)
	res, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	return r
}

// A deadline interrupts a read wherever it is, and the next read goes on there:
// the reader of MQTT looks at the time in that way.
func TestReadGoesOnAfterADeadline(t *testing.T) {
	server, client := pair(t)
	sent := []byte(request + frame(opBinary, "hello") + frame(fin|opPing, "?") + frame(fin|opContinuation, " world") + frame(binFin, "!"))
	var got []byte
	buf := make([]byte, 100)
	for _, b := range sent {
		require.NoError(t, server.SetReadDeadline(time.Unix(1, 0)))
		_, err := server.Read(buf)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		_, err = client.Write([]byte{b})
		require.NoError(t, err)
		require.NoError(t, server.SetReadDeadline(time.Now().Add(2*time.Millisecond)))
		n, err := server.Read(buf)
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		got = append(got, buf[:n]...)
	}
	require.NoError(t, server.SetReadDeadline(time.Now().Add(patience)))
	for len(got) < len("hello world!") {
		n, err := server.Read(buf)
		require.NoError(t, err)
		got = append(got, buf[:n]...)
	}
	require.Equal(t, "hello world!", string(got))
}

// The deadline of a message that was written long ago does not fail a pong, and
// the pong leaves the deadline of the next message as it is.
func TestPongHasItsOwnTime(t *testing.T) {
	server, client := pair(t)
	_, err := io.WriteString(client, request+frame(binFin, "x"))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 1))
	require.NoError(t, err)
	r := answer(t, client)
	require.NoError(t, server.SetWriteDeadline(time.Unix(1, 0)))
	_, err = io.WriteString(client, frame(fin|opPing, "?")+frame(binFin, "y"))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 100))
	require.NoError(t, err)
	pong := make([]byte, 3)
	_, err = io.ReadFull(r, pong)
	require.NoError(t, err)
	require.Equal(t, "\x8a\x01?", string(pong))
	_, err = server.Write([]byte("late"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestNothingIsWrittenBeforeTheAnswer(t *testing.T) {
	server, _ := pair(t)
	_, err := server.Write([]byte("x"))
	require.ErrorIs(t, err, errClosing)
	require.NoError(t, server.CloseWrite())
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestNothingFollowsAClose(t *testing.T) {
	server, client := pair(t)
	_, err := io.WriteString(client, request+frame(binFin, "x")+frame(fin|opClose, "")+frame(binFin, "y"))
	require.NoError(t, err)
	buf := make([]byte, 200)
	n, err := server.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "x", string(buf[:n]))
	for range 2 {
		_, err = server.Read(buf)
		require.ErrorIs(t, err, io.EOF)
	}
	_, err = server.WriteBuffers(net.Buffers{[]byte("x")})
	require.ErrorIs(t, err, errClosing)
	require.NoError(t, server.Close())
	rest, err := io.ReadAll(answer(t, client))
	require.NoError(t, err)
	require.Equal(t, "\x88\x02\x03\xe8", string(rest), "one Close frame, and nothing else")
}

// stuckWriter writes to a client that does not read, and returns how that ends.
func stuckWriter(t *testing.T, server *Conn, client net.Conn) <-chan error {
	t.Helper()
	_, err := io.WriteString(client, request+frame(binFin, "x"))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 1))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		for message := make([]byte, 1<<20); ; {
			if _, err := server.WriteBuffers(net.Buffers{message}); err != nil {
				ended <- err
				return
			}
		}
	}()
	// It is stuck when a short look at it finds the lock held all the time.
	require.Eventually(t, func() bool {
		for range 50 {
			if server.wmu.TryLock() {
				server.wmu.Unlock()
				return false
			}
			time.Sleep(time.Millisecond)
		}
		return true
	}, patience, time.Millisecond)
	return ended
}

// Close does not wait for a client that takes nothing.
func TestCloseCutsShort(t *testing.T) {
	server, client := pair(t)
	require.NoError(t, server.SetWriteDeadline(time.Now().Add(time.Hour)))
	ended := stuckWriter(t, server, client)
	closed := make(chan error, 1)
	go func() { closed <- server.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(controlTimeout / 2):
		require.Fail(t, "Close waits")
	}
	require.Error(t, <-ended)
}

// deadlines notes the write deadline that holds.
type deadlines struct {
	net.Conn
	write time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

// A pong that comes to its turn while Close waits, and the adapter's next message,
// get no more time than Close has.
func TestNothingOutlastsClose(t *testing.T) {
	var d deadlines
	c := &Conn{nc: &d}
	now := time.Now()
	require.NoError(t, c.SetWriteDeadline(now.Add(time.Minute)))
	require.NoError(t, c.endWrites(now.Add(partTimeout)))
	for name, set := range map[string]func() error{
		"pong":         func() error { return c.limitWrite(now.Add(controlTimeout)) },
		"after a pong": func() error { return c.limitWrite(time.Time{}) },
		"message":      func() error { return c.SetWriteDeadline(now.Add(time.Minute)) },
		"second Close": func() error { return c.endWrites(now.Add(time.Minute)) },
	} {
		require.NoError(t, set())
		require.Equal(t, now.Add(partTimeout), d.write, name)
	}
}

// A frame that was cut short is the last one: what followed it would be read as its payload.
func TestNothingFollowsACutFrame(t *testing.T) {
	server, client := pair(t)
	ended := stuckWriter(t, server, client)
	require.NoError(t, server.SetWriteDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	require.NoError(t, server.SetWriteDeadline(time.Time{}))
	_, err := server.Write([]byte("x"))
	require.ErrorIs(t, err, errClosing)
	require.ErrorIs(t, server.writeControl(opPong, nil, patience), errClosing)
}

// Reads, writes, deadlines and Close at the same time: no race, no deadlock, and what arrives is whole frames.
func TestConcurrentUse(t *testing.T) {
	server, client := pair(t)
	_, err := io.WriteString(client, request+frame(binFin, "x"))
	require.NoError(t, err)
	_, err = server.Read(make([]byte, 1)) // nothing may be written before
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 512)
		for {
			if _, err := server.Read(buf); err != nil {
				return
			}
		}
	})
	r := answer(t, client)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(time.Minute))) // all of it, on a busy machine
	wg.Go(func() {
		for {
			if _, err := io.WriteString(client, frame(fin|opPing, "ping")+frame(binFin, "data")); err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		message := bytes.Repeat([]byte("m"), gatherAbove)
		for i := 0; ; i++ {
			_ = server.SetWriteDeadline(time.Now().Add(patience))
			if _, err := server.WriteBuffers(net.Buffers{message[:i%gatherAbove], message}); err != nil {
				return
			}
		}
	})
	closed := make(chan error, 1)
	messages, pongs := 0, 0
	for {
		first, err := r.ReadByte()
		if err != nil {
			break
		}
		n := readLength(t, r)
		payload := make([]byte, n)
		_, err = io.ReadFull(r, payload)
		if err != nil {
			break // cut short by Close
		}
		switch first {
		case fin | opBinary:
			messages++
		case fin | opPong:
			pongs++
			require.Equal(t, "ping", string(payload))
		case fin | opClose:
		default:
			require.Failf(t, "not a frame", "%#x", first)
		}
		if messages > 100 && pongs > 10 && closed != nil {
			go func(c chan<- error) { c <- server.Close() }(closed)
			require.NoError(t, <-closed)
			closed = nil
		}
	}
	require.Nil(t, closed, "ended by Close")
	_ = client.Close()
	wg.Wait()
}

func readLength(t *testing.T, r *bufio.Reader) int {
	t.Helper()
	b, err := r.ReadByte()
	require.NoError(t, err)
	more := map[byte]int{126: 2, 127: 8}[b]
	if more == 0 {
		return int(b)
	}
	n := 0
	for range more {
		b, err := r.ReadByte()
		require.NoError(t, err)
		n = n<<8 | int(b)
	}
	return n
}

func TestBadPath(t *testing.T) {
	_, err := New(nil, Config{Path: "mqtt"}, nil, nil)
	require.ErrorContains(t, err, "does not begin with /")
}
