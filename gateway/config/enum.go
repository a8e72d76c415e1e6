package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gantry/broker"
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

// SharedStrategy says which member of a shared subscription gets a message.
type SharedStrategy string

// SharedRoundRobin is the default of [SharedStrategy]; broker.ShareStrategies lists all.
const SharedRoundRobin = SharedStrategy(broker.ShareRoundRobin)

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

// The values of [MQTTTransport]. TCP stands for Unix sockets too.
const (
	MQTTOverTCP       MQTTTransport = "tcp"
	MQTTOverWebSocket MQTTTransport = "websocket"
	MQTTOverQUIC      MQTTTransport = "quic"
)

// MQTT3Denied says what happens when a client before version 5 publishes what it may not: there is no way to tell it.
type MQTT3Denied string

// The values of [MQTT3Denied].
const (
	MQTT3Ignore     MQTT3Denied = "ignore"     // acknowledge and drop
	MQTT3Disconnect MQTT3Denied = "disconnect" // close the connection
)

// RewriteAction says to which names a rule applies.
type RewriteAction string

// RewriteAll is the default of [RewriteAction]; broker.RewriteActions lists all.
const RewriteAll = RewriteAction(broker.RewriteAll)

// ClientAuth says whether a client must have a certificate.
type ClientAuth string

// The values of [ClientAuth].
const (
	ClientAuthNone    ClientAuth = "none"
	ClientAuthRequest ClientAuth = "request" // it may have none; one that it has must be good
	ClientAuthRequire ClientAuth = "require"
)

// Identity says what of a client's certificate is its user name.
type Identity string

// The values of [Identity].
const (
	IdentityNone Identity = "none"
	IdentityCN   Identity = "cn" // the common name; such a client needs no other credentials
)

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

// choice is what a setting with a few values may be.
type choice struct {
	values  []string
	planned []string // values of the file format that this version does not have
}

// choices has the settings with a few values, by their type.
var choices = map[reflect.Type]choice{
	reflect.TypeFor[LogLevel]():        {values: []string{"debug", "info", "warn", "error"}},
	reflect.TypeFor[LogFormat]():       {values: []string{"text", "json"}},
	reflect.TypeFor[Anonymous]():       {values: texts(AnonymousNever, AnonymousLoopback, AnonymousAlways)},
	reflect.TypeFor[Durability]():      {values: texts(DurabilitySync, DurabilityInterval, DurabilityMemory)},
	reflect.TypeFor[SessionWhenFull](): {values: texts(SessionRefuse, SessionDropOldest)},
	reflect.TypeFor[SharedStrategy]():  {values: texts(broker.ShareStrategies()...), planned: []string{"local"}},
	reflect.TypeFor[QueueWhenFull]():   {values: texts(QueueDropOldest, QueueRefuse, QueueBlock)},
	reflect.TypeFor[MQTTTransport]():   {values: texts(MQTTOverTCP, MQTTOverWebSocket, MQTTOverQUIC)},
	reflect.TypeFor[MQTT3Denied]():     {values: texts(MQTT3Ignore, MQTT3Disconnect)},
	reflect.TypeFor[RewriteAction]():   {values: texts(broker.RewriteActions()...)},
	reflect.TypeFor[ClientAuth]():      {values: texts(ClientAuthNone, ClientAuthRequest, ClientAuthRequire)},
	reflect.TypeFor[Identity]():        {values: texts(IdentityNone, IdentityCN)},
	reflect.TypeFor[CoAPTransport]():   {values: texts(CoAPOverUDP), planned: []string{"tcp"}},
	reflect.TypeFor[Echo]():            {values: texts(EchoRequired, EchoOff)},
	reflect.TypeFor[StoreType]():       {values: texts(StoreEmbedded), planned: []string{"redis"}},
	reflect.TypeFor[BridgeType]():      {values: texts(BridgeKafka), planned: []string{"mqtt"}},
	reflect.TypeFor[Compression]():     {values: texts(CompressionNone, CompressionGzip, CompressionSnappy, CompressionLZ4, CompressionZstd)},
	reflect.TypeFor[Mechanism]():       {values: texts(MechanismPlain, MechanismScram256, MechanismScram512)},
	reflect.TypeFor[Format]():          {values: texts(FormatRaw, FormatEnvelope), planned: []string{"cloudevents"}},
}

func texts[T ~string](values ...T) []string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = string(v)
	}
	return s
}

// check reports why s is none of the values.
func (c choice) check(s string) error {
	switch {
	case slices.Contains(c.values, s):
		return nil
	case slices.Contains(c.planned, s):
		return fmt.Errorf("%s: %w", s, errUnavailable)
	}
	return fmt.Errorf("%q is not %s%s", s, orList(c.values), didYouMean(s, c.values))
}

// orList writes names as a sentence does: a, b or c.
func orList(names []string) string {
	last := len(names) - 1
	if last <= 0 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
