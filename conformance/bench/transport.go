package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"gantry/conformance/quicdial"
)

// transport is how a client reaches a server.
type transport string

const (
	overTCP       transport = "TCP"
	overTLS       transport = "TLS"
	overWebSocket transport = "WebSocket"
	overQUIC      transport = "QUIC"
)

const dialTimeout = 10 * time.Second

// perSource is how many connections share one source address: an address has
// some 28,000 ports for outgoing connections, and finding a free one takes
// long when most are taken.
const perSource = 15_000

// source is the n-th loopback address that connections come from.
func source(n int) net.IP { return net.IPv4(127, 0, byte(1+n/200), byte(1+n%200)) }

// open connects to the server's listener for a transport and does what comes
// before MQTT. from may be nil; QUIC takes no notice of it.
func (s *server) open(over transport, from net.IP) (net.Conn, error) {
	addr, ok := s.addrs[over]
	if !ok {
		return nil, fmt.Errorf("no listener for %s", over)
	}
	if over == overQUIC {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		return quicdial.Dial(ctx, addr, s.clientTLS(tls.VersionTLS13))
	}
	d := net.Dialer{Timeout: dialTimeout}
	if from != nil {
		d.LocalAddr, d.Control = &net.TCPAddr{IP: from}, portLater
	}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c, err := s.upgrade(over, nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%s to %s: %w", over, addr, err)
	}
	return c, nil
}

func (s *server) clientTLS(oldest uint16) *tls.Config {
	return &tls.Config{RootCAs: s.trusted, ServerName: "localhost", MinVersion: oldest}
}

// closeAll closes connections at the same time: the end of one over QUIC takes a while.
func closeAll[C io.Closer](conns []C) {
	var wg sync.WaitGroup
	for some := range slices.Chunk(conns, max(1, len(conns)/closers)) {
		wg.Go(func() {
			for _, c := range some {
				_ = c.Close()
			}
		})
	}
	wg.Wait()
}

const closers = 100

// bindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of Linux.
const bindAddressNoPort = 24

// portLater lets the kernel choose the source port when it connects, when it
// knows which ports are free towards that server.
func portLater(_, _ string, raw syscall.RawConn) error {
	var err error
	if failed := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
	}); failed != nil {
		return failed
	}
	return err
}

func (s *server) upgrade(over transport, nc net.Conn) (net.Conn, error) {
	if err := nc.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, err
	}
	switch over {
	case overTLS:
		c := tls.Client(nc, s.clientTLS(tls.VersionTLS12))
		if err := c.Handshake(); err != nil {
			return nil, err
		}
		nc = c
	case overWebSocket:
		c, err := openWebSocket(nc)
		if err != nil {
			return nil, err
		}
		nc = c
	}
	return nc, nc.SetDeadline(time.Time{})
}

// webSocket is the stream in the binary frames of a server; each Write is one
// frame. The mask is zero, which costs this side nothing and a server all of
// its unmasking.
type webSocket struct {
	net.Conn
	r    *bufio.Reader
	left int // bytes of the frame that is being read
	out  []byte
}

func openWebSocket(nc net.Conn) (*webSocket, error) {
	_, err := io.WriteString(nc, "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")
	if err != nil {
		return nil, err
	}
	w := &webSocket{Conn: nc, r: bufio.NewReader(nc)}
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return nil, fmt.Errorf("the upgrade is answered %s", resp.Status)
	}
	return w, nil
}

func (w *webSocket) Write(b []byte) (int, error) {
	w.out = append(w.out[:0], 0x82)
	switch n := len(b); {
	case n < 126:
		w.out = append(w.out, 0x80|byte(n))
	case n < 1<<16:
		w.out = binary.BigEndian.AppendUint16(append(w.out, 0x80|126), uint16(n))
	default:
		w.out = binary.BigEndian.AppendUint64(append(w.out, 0x80|127), uint64(n))
	}
	w.out = append(w.out, 0, 0, 0, 0)
	w.out = append(w.out, b...)
	if _, err := w.Conn.Write(w.out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (w *webSocket) Read(b []byte) (int, error) {
	for w.left == 0 {
		if err := w.nextFrame(); err != nil {
			return 0, err
		}
	}
	n, err := w.r.Read(b[:min(len(b), w.left)])
	w.left -= n
	return n, err
}

var errFrame = errors.New("a WebSocket frame that is not a binary message")

func (w *webSocket) nextFrame() error {
	var head [8]byte
	if _, err := io.ReadFull(w.r, head[:2]); err != nil {
		return err
	}
	if opcode := head[0] & 15; opcode == 8 {
		return io.EOF
	} else if opcode != 2 && opcode != 0 {
		return errFrame
	}
	switch w.left = int(head[1]); w.left {
	case 126:
		if _, err := io.ReadFull(w.r, head[:2]); err != nil {
			return err
		}
		w.left = int(binary.BigEndian.Uint16(head[:]))
	case 127:
		if _, err := io.ReadFull(w.r, head[:]); err != nil {
			return err
		}
		w.left = int(binary.BigEndian.Uint64(head[:]))
	}
	return nil
}
