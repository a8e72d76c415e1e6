// Package quicdial is a client of MQTT over QUIC for suites and tests: the
// first stream of a connection as a net.Conn.
package quicdial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// ALPN is the protocol name that clients of EMQX offer.
const ALPN = "mqtt"

const (
	// handshakeWithin is generous: a shared build machine may be busy.
	handshakeWithin = 10 * time.Second
	// idle is longer than any check is silent.
	idle = 5 * time.Minute
	// leaveWithin is how long Close waits for the server to see the end of the
	// stream.
	leaveWithin = 300 * time.Millisecond
)

// Conn is the first stream of a connection.
type Conn struct {
	*quic.Stream
	QUIC *quic.Conn
	once sync.Once
}

var _ net.Conn = (*Conn)(nil)

// Config is the configuration of the transport.
func Config() *quic.Config {
	return &quic.Config{HandshakeIdleTimeout: handshakeWithin, MaxIdleTimeout: idle}
}

// Dial opens a connection and its first stream. cfg may be nil, then any
// certificate is good; without NextProtos ALPN is offered.
func Dial(ctx context.Context, addr string, cfg *tls.Config) (*Conn, error) {
	qc, err := quic.DialAddr(ctx, addr, TLS(cfg), Config())
	if err != nil {
		return nil, fmt.Errorf("dial %s over QUIC: %w", addr, err)
	}
	return On(ctx, qc)
}

// TLS is cfg with ALPN, if it has no protocol name.
func TLS(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		cfg = &tls.Config{InsecureSkipVerify: true} // a suite judges the protocol, not the certificate
	}
	if len(cfg.NextProtos) == 0 {
		cfg = cfg.Clone()
		cfg.NextProtos = []string{ALPN}
	}
	return cfg
}

// On opens the first stream of a connection and owns the connection from then
// on, also when an error is returned.
func On(ctx context.Context, qc *quic.Conn) (*Conn, error) {
	s, err := qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, errors.Join(err, qc.CloseWithError(0, ""))
	}
	return &Conn{Stream: s, QUIC: qc}, nil
}

// LocalAddr is the address of the socket.
func (c *Conn) LocalAddr() net.Addr { return c.QUIC.LocalAddr() }

// RemoteAddr is the address of the server.
func (c *Conn) RemoteAddr() net.Addr { return c.QUIC.RemoteAddr() }

// Read reads; that the server has closed the connection in order is the end of
// the stream.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	var closed *quic.ApplicationError
	if errors.As(err, &closed) && closed.Remote && closed.ErrorCode == 0 {
		err = io.EOF
	}
	return n, err
}

// Close ends the stream behind what was written, as a close of TCP would, and
// then the connection.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		_ = c.Stream.Close()
		c.Stream.CancelRead(0)
		select {
		case <-c.QUIC.Context().Done():
		case <-time.After(leaveWithin):
		}
		err = c.QUIC.CloseWithError(0, "")
	})
	return err
}
