package quic

import (
	"crypto/tls"
	"errors"
	"time"

	"gantry/protocols/mqtt/secure"
)

// Config describes one listener. The zero value of a field means its default.
type Config struct {
	// Name of the listener, in logs and metrics.
	Name string
	// Bind is host:port of the UDP socket; EMQX clients expect port 14567.
	Bind string
	// TLS has the certificates. Required; TLS 1.3 is used, whatever it allows
	// besides, and its NextProtos must have "mqtt".
	TLS *tls.Config
	// Identity says what of the certificate of a client is its user name.
	Identity secure.Identity
	// KeyFile has the secret from which a restarted gateway proves to the
	// clients of the old one that it has forgotten them. It is made, readable
	// for the owner alone, when it is not there. Empty = such clients wait for
	// their own timeout.
	KeyFile string
	// MultiStream lets clients open up to 15 data streams beside the control
	// stream. The server on the listener must not use topic aliases then.
	MultiStream bool
	// MaxPacketSize is the largest MQTT packet in bytes, as the server on the
	// listener has it; used with MultiStream, where each stream may have one such
	// packet in memory. Default 1 MiB.
	MaxPacketSize int
	// MaxConnections caps the connections; further ones are refused before
	// anything is computed. Default 10,000.
	MaxConnections int
	// MaxHandshakes caps the handshakes that run at the same time. Default
	// 1024: a second of work for a small machine.
	MaxHandshakes int
	// MaxHandshakesPerAddress caps those of one address that is proved to be
	// the client's own. Default 100, as for connections without CONNECT.
	MaxHandshakesPerAddress int
	// RetryAbove is how many handshakes may run before further clients must
	// prove their address, which costs them one round trip. Default 64; a
	// negative number asks everybody.
	RetryAbove int
	// HandshakeTimeout is how long a client may be silent within its handshake,
	// which may take twice as long. Default 5 s.
	HandshakeTimeout time.Duration
}

// IdleTimeout is the longest silence of a client, acknowledgements of the
// transport included, before its connection is given up. It is agreed on before
// the keep alive of MQTT is known, so it is long; a client may ask for less.
const IdleTimeout = 30 * time.Minute

// MaxKeepAlive is the longest keep alive of MQTT that IdleTimeout leaves its
// grace of a half [MQTT-3.1.2-22].
const MaxKeepAlive = IdleTimeout * 2 / 3

// What a connection may have on its way to us. A packet of MQTT that is larger
// flows through these windows.
const (
	firstStreamWindow     = 64 << 10
	maxStreamWindow       = 1 << 20
	firstConnectionWindow = 128 << 10
	maxConnectionWindow   = 2 << 20
)

// connectionIDLength makes it hopeless to guess the identifier of somebody
// else's connection, and a clash with one of an earlier process unlikely.
const connectionIDLength = 8

func (c *Config) setDefaults() {
	or(&c.MaxPacketSize, 1<<20)
	or(&c.MaxConnections, 10_000)
	or(&c.MaxHandshakes, 1024)
	or(&c.MaxHandshakesPerAddress, 100)
	or(&c.RetryAbove, 64)
	or(&c.HandshakeTimeout, 5*time.Second)
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate() error {
	if c.TLS == nil {
		return errors.New("QUIC needs certificates")
	}
	if c.MaxConnections < 0 || c.MaxHandshakes < 0 || c.MaxHandshakesPerAddress < 0 || c.MaxPacketSize < 0 || c.HandshakeTimeout < 0 {
		return errors.New("limits must be positive")
	}
	return nil
}
