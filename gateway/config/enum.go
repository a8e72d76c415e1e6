package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// errUnavailable marks what the file format knows and this version does not have.
var errUnavailable = errors.New("not available in this version")

// LogLevel is the least level that is logged.
type LogLevel string

// LogFormat is the form of a log line: text or JSON.
type LogFormat string

// Anonymous says from where a client may connect without credentials.
type Anonymous string

// The values of [Anonymous].
const (
	AnonymousNever    Anonymous = "never"
	AnonymousLoopback Anonymous = "loopback"
	AnonymousAlways   Anonymous = "always"
)

// Durability says what an acknowledgement waits for.
type Durability string

// The values of [Durability].
const (
	DurabilitySync     Durability = "sync"     // fsync before the acknowledgement
	DurabilityInterval Durability = "interval" // acknowledged once written, fsync every sync_interval
	DurabilityMemory   Durability = "memory"   // acknowledged once written, the operating system decides when it reaches the disk
)

// SessionWhenFull says what happens to a message for a session whose queue is full.
type SessionWhenFull string

// The values of [SessionWhenFull].
const (
	SessionRefuse     SessionWhenFull = "refuse"
	SessionDropOldest SessionWhenFull = "drop_oldest"
)

// QueueWhenFull says what happens to a message for a bridge whose queue is full.
type QueueWhenFull string

// The values of [QueueWhenFull].
const (
	QueueRefuse     QueueWhenFull = "refuse"
	QueueDropOldest QueueWhenFull = "drop_oldest"
	QueueBlock      QueueWhenFull = "block"
)

// MQTTTransport is what MQTT runs over.
type MQTTTransport string

// MQTTOverTCP is the transport that this version has.
const MQTTOverTCP MQTTTransport = "tcp"

// CoAPTransport is what CoAP runs over.
type CoAPTransport string

// CoAPOverUDP is the transport that this version has.
const CoAPOverUDP CoAPTransport = "udp"

// Echo says whether a CoAP peer must prove that its address is its own (RFC 9175).
type Echo string

// The values of [Echo].
const (
	EchoRequired Echo = "required"
	EchoOff      Echo = "off"
)

// StoreType is the kind of store.
type StoreType string

// StoreEmbedded keeps everything in files below data_dir.
const StoreEmbedded StoreType = "embedded"

// BridgeType is the kind of sink.
type BridgeType string

// BridgeKafka is a Kafka cluster.
const BridgeKafka BridgeType = "kafka"

// Compression is the codec of Kafka record batches.
type Compression string

// The values of [Compression].
const (
	CompressionNone   Compression = "none"
	CompressionGzip   Compression = "gzip"
	CompressionSnappy Compression = "snappy"
	CompressionLZ4    Compression = "lz4"
	CompressionZstd   Compression = "zstd"
)

// Mechanism is a way to log in to Kafka.
type Mechanism string

// The values of [Mechanism].
const (
	MechanismPlain    Mechanism = "PLAIN"
	MechanismScram256 Mechanism = "SCRAM-SHA-256"
	MechanismScram512 Mechanism = "SCRAM-SHA-512"
)

// Format is the form in which a route passes a message on.
type Format string

// The values of [Format].
const (
	FormatRaw      Format = "raw"      // the payload as it is
	FormatEnvelope Format = "envelope" // JSON with topic, client, time and payload
)

// UnmarshalText implements [encoding.TextUnmarshaler], as do the others below.
func (v *LogLevel) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, "debug", "info", "warn", "error")
}

func (v *LogFormat) UnmarshalText(b []byte) error { return oneOf(v, b, nil, "text", "json") }

func (v *Anonymous) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, AnonymousNever, AnonymousLoopback, AnonymousAlways)
}

func (v *Durability) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, DurabilitySync, DurabilityInterval, DurabilityMemory)
}

func (v *SessionWhenFull) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, SessionRefuse, SessionDropOldest)
}

func (v *QueueWhenFull) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, QueueDropOldest, QueueRefuse, QueueBlock)
}

func (v *MQTTTransport) UnmarshalText(b []byte) error {
	return oneOf(v, b, []string{"websocket", "quic"}, MQTTOverTCP)
}

func (v *CoAPTransport) UnmarshalText(b []byte) error {
	return oneOf(v, b, []string{"tcp"}, CoAPOverUDP)
}

func (v *Echo) UnmarshalText(b []byte) error { return oneOf(v, b, nil, EchoRequired, EchoOff) }

func (v *StoreType) UnmarshalText(b []byte) error {
	return oneOf(v, b, []string{"redis"}, StoreEmbedded)
}

func (v *BridgeType) UnmarshalText(b []byte) error {
	return oneOf(v, b, []string{"mqtt"}, BridgeKafka)
}

func (v *Compression) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, CompressionNone, CompressionGzip, CompressionSnappy, CompressionLZ4, CompressionZstd)
}

func (v *Mechanism) UnmarshalText(b []byte) error {
	return oneOf(v, b, nil, MechanismPlain, MechanismScram256, MechanismScram512)
}

func (v *Format) UnmarshalText(b []byte) error {
	return oneOf(v, b, []string{"cloudevents"}, FormatRaw, FormatEnvelope)
}

// oneOf sets dst to the allowed value that text is. Values in planned get an error of their own.
func oneOf[T ~string](dst *T, text []byte, planned []string, allowed ...T) error {
	s := string(text)
	if slices.Contains(allowed, T(s)) {
		*dst = T(s)
		return nil
	}
	if slices.Contains(planned, s) {
		return fmt.Errorf("%s: %w", s, errUnavailable)
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return fmt.Errorf("%q is not %s%s", s, orList(names), didYouMean(s, names))
}

// orList writes names as a sentence does: a, b or c.
func orList(names []string) string {
	last := len(names) - 1
	if last <= 0 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
