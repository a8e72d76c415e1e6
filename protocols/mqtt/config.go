package mqtt

import (
	"errors"
	"fmt"
	"time"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// Config describes one listener. The zero value of each field means its default.
type Config struct {
	// Name of the listener, in logs, listings and metrics. Default "mqtt".
	Name string
	// Bind is an address for Listen; NewOn does not look at it. Default
	// "127.0.0.1:1883": nothing is open beyond loopback that nobody asked for.
	Bind string

	// MaxPacketSize is the largest packet in bytes that a client may send,
	// fixed header included. Default 1 MiB: far above telemetry, and small
	// enough that a few hundred such packets fit into memory.
	MaxPacketSize int
	// ReceiveMaximum is how many QoS 1 and 2 publishes of one client may wait
	// for their acknowledgement. Default 1000: an acknowledgement waits for one
	// disk flush of some milliseconds, and a publisher with a window of a few
	// hundred must not be what stalls. A version 5 client that exceeds it is
	// disconnected [MQTT-3.3.4-9], an older one is not read from meanwhile.
	ReceiveMaximum uint16
	// TopicAliasMax is how many topic aliases a client may define, and how many
	// are used towards it if it allows them. Default 16: enough for the topics
	// of one device, at 16 strings per connection that uses them.
	TopicAliasMax uint16
	// NoTopicAliases is TopicAliasMax 0: for transports that do not keep the order
	// of packets.
	NoTopicAliases bool
	// MaxKeepAlive, if set, is told to version 5 clients that ask for a longer
	// or for no keep alive. Default 0: the client decides [MQTT-3.1.2-21].
	MaxKeepAlive time.Duration
	// CheckPayloadFormat refuses payloads that are declared as UTF-8 and are
	// not [MQTT-3.3.2-4]. Default off: it costs a pass over each such payload,
	// and receivers must check anyway.
	CheckPayloadFormat bool
	// Naming is what the listener makes of the names that clients use. Default:
	// nothing.
	Naming broker.Naming
	// DisconnectDenied closes the connection of a client before version 5 whose
	// publish is refused for good, because its topic is not allowed. Default
	// off: the message is acknowledged and dropped, for such a client cannot be
	// told, and would send it again after each reconnect [MQTT-3.3.5-2].
	DisconnectDenied bool

	// MaxConnections caps the open connections of this listener; more are
	// closed at once. Default 10,000: 100 MiB of idle connections.
	MaxConnections int
	// MaxHalfOpenPerAddress caps the connections of one address that have not
	// sent CONNECT yet. Default 100: a site behind one NAT address may
	// reconnect at the same moment, a flood from one host does not get further.
	// Connections without an address, such as those of a Unix socket, do not count.
	MaxHalfOpenPerAddress int
	// ConnectTimeout is how long a client may take for its CONNECT, an
	// authentication by several AUTH packets may take from then on, and the core
	// to decide. Default 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout is how long one write may be stuck before the connection is
	// given up. Default 5 s.
	WriteTimeout time.Duration
}

func (c *Config) setDefaults() {
	or(&c.Name, "mqtt")
	or(&c.Bind, "127.0.0.1:1883")
	or(&c.MaxPacketSize, 1<<20)
	or(&c.ReceiveMaximum, 1000)
	or(&c.TopicAliasMax, 16)
	if c.NoTopicAliases {
		c.TopicAliasMax = 0
	}
	or(&c.MaxConnections, 10_000)
	or(&c.MaxHalfOpenPerAddress, 100)
	or(&c.ConnectTimeout, 10*time.Second)
	or(&c.WriteTimeout, 5*time.Second)
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// minPacketSize lets a CONNECT with a long client identifier and password pass.
const minPacketSize = 1024

// validate reports everything that is wrong at once.
func (c *Config) validate() error {
	var problems []error
	if c.MaxPacketSize < minPacketSize || c.MaxPacketSize > wire.MaxRemaining {
		problems = append(problems, fmt.Errorf("max packet size %d is not between %d and %d", c.MaxPacketSize, minPacketSize, wire.MaxRemaining))
	}
	if c.MaxConnections < 0 || c.MaxHalfOpenPerAddress < 0 {
		problems = append(problems, errors.New("connection limits must be positive"))
	}
	if c.ConnectTimeout < 0 || c.WriteTimeout < 0 {
		problems = append(problems, errors.New("timeouts must be positive"))
	}
	if c.MaxKeepAlive < 0 || c.MaxKeepAlive > 65535*time.Second || c.MaxKeepAlive%time.Second != 0 {
		problems = append(problems, fmt.Errorf("max keep alive %s is not whole seconds up to 65535", c.MaxKeepAlive))
	}
	return errors.Join(problems...)
}
