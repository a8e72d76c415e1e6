//go:build unix

package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

// bystander is a connected client that must not notice what others do.
type bystander struct {
	g    *gateway
	w    *wire
	sent int
}

func (g *gateway) bystander() *bystander {
	g.t.Helper()
	w, _ := g.connect(hello{version: v5, id: "bystander", clean: true})
	require.NoError(g.t, w.subscribe("calm", 1))
	return &bystander{g: g, w: w}
}

// requireUndisturbed publishes to itself.
func (b *bystander) requireUndisturbed() {
	b.g.t.Helper()
	b.sent++
	require.NoError(b.g.t, b.w.send(publication("calm", 1, uint16(b.sent), []byte("x"))))
	for range 2 { // PUBACK and PUBLISH, in either order
		p, err := b.w.read(patience)
		require.NoError(b.g.t, err)
		if p.FixedHeader.Type == packets.Publish {
			require.NoError(b.g.t, b.w.acknowledge(p.PacketID))
			continue
		}
		require.Equal(b.g.t, packets.Puback, p.FixedHeader.Type)
		require.Zero(b.g.t, p.ReasonCode)
	}
}

const (
	connect311 = "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03bad"
	connect5   = "\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03bad"
)

func TestMalformedMQTT(t *testing.T) {
	g := startGateway(t, "")
	calm := g.bystander()
	for _, c := range []struct {
		name, bytes string
		disconnect  byte // reason code of version 5, 0 = closed without a word
	}{
		{"not MQTT at all", "GET / HTTP/1.1\r\n\r\n", 0},
		{"packet before CONNECT", "\x30\x03\x00\x01a", 0},
		{"unknown protocol name", "\x10\x0c\x00\x04MQXX\x04\x02\x00\x3c\x00\x00", 0},
		{"reserved packet type", connect5 + "\x00\x00", 0x81},
		{"length of five bytes", connect5 + "\x30\xff\xff\xff\xff\x01", 0x81},
		{"QoS 3", connect5 + "\x36\x05\x00\x01a\x00\x01", 0x81},
		{"no packet id", connect5 + "\x32\x06\x00\x01a\x00\x00\x00", 0x82},
		{"topic is not UTF-8", connect5 + "\x30\x04\x00\x01\xff\x00", 0x81},
		{"wildcard in a topic", connect5 + "\x30\x04\x00\x01#\x00", 0x81},
		{"property given twice", connect5 + "\x30\x08\x00\x01a\x04\x01\x00\x01\x00", 0x82},
		{"second CONNECT", connect5 + connect5, 0x82},
		{"larger than the server takes", connect5 + "\x30\xff\xff\xff\x7f\x00\x01a\x00", 0x95},
		{"SUBSCRIBE without flags", connect5 + "\x80\x07\x00\x01\x00\x00\x01a\x01", 0x81},
		{"version 3: QoS 3", connect311 + "\x36\x05\x00\x01a\x00\x01", 0},
		{"version 3: second CONNECT", connect311 + connect311, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.mqtt)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, c.bytes)
			require.NoError(t, err)
			w := &wire{conn: conn, version: v5, in: bufio.NewReader(conn)}
			if strings.HasPrefix(c.bytes, connect311) {
				w.version = v311
			}
			require.Equal(t, c.disconnect, lastWord(t, w))
		})
		calm.requireUndisturbed()
	}
}

// lastWord reads until the connection ends and returns the reason code of a
// DISCONNECT, 0 without one.
func lastWord(t *testing.T, w *wire) (reason byte) {
	t.Helper()
	for {
		p, err := w.read(patience)
		if err != nil {
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection stays open")
			return reason
		}
		if p.FixedHeader.Type == packets.Disconnect {
			reason = p.ReasonCode
		}
	}
}

// Clients of version 3 hear it in return codes, those of a version to come as in
// version 5.
func TestRefusedConnect(t *testing.T) {
	g := startGateway(t, "")
	for name, c := range map[string]struct{ bytes, answer string }{
		"3.1.1 that says it is 3":       {"\x10\x0f\x00\x04MQTT\x03\x02\x00\x3c\x00\x03bad", "\x20\x02\x00\x01"},
		"3.1 that says it is 4":         {"\x10\x11\x00\x06MQIsdp\x04\x02\x00\x3c\x00\x03bad", "\x20\x02\x00\x01"},
		"a version to come":             {"\x10\x0f\x00\x04MQTT\x09\x02\x00\x3c\x00\x03bad", "\x84"},
		"no client id, persistent, 311": {"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", "\x20\x02\x00\x02"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.mqtt)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, c.bytes)
			require.NoError(t, err)
			answer, err := io.ReadAll(conn)
			require.NoError(t, err)
			require.Contains(t, string(answer[:min(4, len(answer))]), c.answer)
		})
	}
}

func TestMalformedCoAP(t *testing.T) {
	g := startGateway(t, "")
	calm := g.bystander()
	const (
		reset       = "\x70\x00" // RST with message id 7 follows
		badOption   = "\x60\x82" // ACK, 4.02
		notFound    = "\x60\x84" // ACK, 4.04
		badRequest  = "\x60\x80"
		notAllowed  = "\x60\x85"
		nothing     = ""
		id          = "\x00\x07"
		confirmable = "\x40"
	)
	for _, c := range []struct{ name, bytes, want string }{
		{"empty confirmable message is a ping", confirmable + "\x00" + id, reset},
		{"token of 9 bytes", "\x49\x03" + id + "123456789", reset},
		{"option longer than the message", confirmable + "\x03" + id + "\xb5ps", reset},
		{"payload marker without payload", confirmable + "\x03" + id + "\xb2ps\xff", reset},
		{"unknown critical option", confirmable + "\x03" + id + "\xb2ps\x01a" + "\xe1\x00\x01x", badOption},
		{"no such resource", confirmable + "\x03" + id + "\xb2xx", notFound},
		{"wildcard in a topic", confirmable + "\x03" + id + "\xb2ps\x01#\xffx", badRequest},
		{"method that does not exist there", confirmable + "\x04" + id + "\xb2ps\x01a", notAllowed},
		{"other version", "\x80\x03" + id + "\xb2ps\x01a", nothing},
		{"three bytes", "\x40\x03\x00", nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := exchangeUDP(t, g.coap, c.bytes, c.want == nothing)
			require.Equal(t, c.want, answer[:min(2, len(answer))])
			if c.want != nothing {
				require.Equal(t, id, answer[2:4])
			}
		})
		calm.requireUndisturbed()
	}
}

// exchangeUDP returns the answer to a datagram. Where none is expected, a ping
// follows, so that silence is known as soon as that is answered.
func exchangeUDP(t *testing.T, addr, datagram string, expectNone bool) string {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, datagram)
	require.NoError(t, err)
	if expectNone {
		_, err = io.WriteString(conn, "\x40\x00\x00\x63")
		require.NoError(t, err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	require.NoError(t, err)
	if expectNone && string(buf[:n]) == "\x70\x00\x00\x63" {
		return ""
	}
	return string(buf[:n])
}

func TestMalformedHTTP(t *testing.T) {
	g := startGateway(t, "")
	calm := g.bystander()
	for _, c := range []struct {
		name, bytes string
		status      int
	}{
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\r\n\r\n", http.StatusBadRequest},
		{"no host", "POST /v1/topics/a HTTP/1.1\r\n\r\n", http.StatusBadRequest},
		{"two lengths", "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", http.StatusBadRequest},
		{"too large", "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", http.StatusRequestEntityTooLarge},
		{"wildcard in a topic", "POST /v1/topics/%23 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", http.StatusBadRequest},
		{"bad JSON", "POST /api/v5/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", http.StatusBadRequest},
		{"bad parameter", "POST /v1/topics/a?qos=3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", http.StatusBadRequest},
		{"no such path", "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", http.StatusNotFound},
		{"method not allowed", "DELETE /v1/topics/a HTTP/1.1\r\nHost: localhost\r\n\r\n", http.StatusMethodNotAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.http)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, c.bytes)
			require.NoError(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, c.status, resp.StatusCode)
		})
		calm.requireUndisturbed()
	}
	status, err := post(context.Background(), operatorClient, "http://"+g.http+"/v1/topics/calm/not", "good", []byte("x"))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
}
