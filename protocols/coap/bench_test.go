package coap

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/stretchr/testify/require"
)

// BenchmarkConfirmablePut sends PUTs of 50 bytes and waits for 2.04, on as many
// sockets as the name says, one request outstanding on each. The
// client's work is included.
func BenchmarkConfirmablePut(b *testing.B) {
	for _, sockets := range []int{1, 50} {
		b.Run("gantry/sockets="+strconv.Itoa(sockets), func(b *testing.B) {
			s, _ := start(b, testConfig())
			benchmarkPut(b, s.Addr().(*net.UDPAddr), sockets, "ps")
		})
		b.Run("libcoap/sockets="+strconv.Itoa(sockets), func(b *testing.B) {
			benchmarkPut(b, libcoapServer(b), sockets, "example_data")
		})
	}
}

// libcoapServer starts libcoap's example server, which keeps what is PUT to it
// in memory: the same work without sessions and topics.
func libcoapServer(b *testing.B) *net.UDPAddr {
	b.Helper()
	path, err := exec.LookPath("coap-server-notls")
	if err != nil {
		b.Skip("coap-server-notls is not installed (package libcoap3-bin)")
	}
	probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(b, err)
	addr := probe.LocalAddr().(*net.UDPAddr)
	require.NoError(b, probe.Close())
	cmd := exec.Command(path, "-A", "127.0.0.1", "-p", strconv.Itoa(addr.Port), "-v", "0")
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	time.Sleep(200 * time.Millisecond)
	return addr
}

func benchmarkPut(b *testing.B, to *net.UDPAddr, sockets int, root string) {
	conns := make([]*net.UDPConn, sockets)
	for i := range conns {
		conn, err := net.DialUDP("udp", nil, to)
		require.NoError(b, err)
		defer conn.Close()
		conns[i] = conn
	}
	payload := string(testBody(50))
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			path := []string{root, "bench"}
			if root != "ps" {
				path = []string{root}
			}
			data := req{code: codes.PUT, token: "tokn", path: path, payload: payload, mid: 1}.bytes(b)
			buf := make([]byte, 2048)
			for n := i; n < b.N; n += sockets {
				data[2], data[3] = byte(n>>8), byte(n)
				data[4], data[5], data[6], data[7] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
				if _, err := conn.Write(data); err != nil {
					b.Error(err)
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := conn.Read(buf); err != nil || codes.Code(buf[1])>>5 != 2 {
					b.Errorf("answer %v to request %d: %v", buf[1], n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkHandle is the way of one PUT through the loop without sockets.
func BenchmarkHandle(b *testing.B) {
	l, rec, d := bareLoop(b)
	data := put("plant/1/temperature", string(testBody(50))).bytes(b)
	for b.Loop() {
		data[2]++
		data[3] += data[2] & 1
		data[4]++
		d.data = data
		l.turn(false, func() { l.handleGuarded(d) })
		rec.sent = rec.sent[:0]
	}
}
