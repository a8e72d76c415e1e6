package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// Config of a sink. The zero value of an optional field is its default.
type Config struct {
	// Bridge is the name of the bridge. Required.
	Bridge string
	// Node is the name of the gateway. It is part of the client id and of the
	// gw-msg-id header.
	Node string
	// Dir is the folder of the bridge's queue, where the journal is kept beside
	// it. Journal and queue belong together: neither is of use with another.
	Dir string
	// Brokers to ask first, host:port. Required.
	Brokers []string

	// Compression of batches: none (default), gzip, snappy, lz4 or zstd.
	Compression string
	// RoundRecords is the most records of a round, 4000 by default: enough for
	// more than a million records a second, and little to send again.
	RoundRecords int
	// RoundBytes is the most bytes of a round before compression, 4 MiB by
	// default. It bounds the memory of the sink.
	RoundBytes int
	// BatchBytes is the most bytes of a batch for one partition before
	// compression, 1,000,000 by default. The topic's max.message.bytes bounds it
	// too.
	BatchBytes int
	// Linger is the shortest time between two rounds that are not full, 5 ms by
	// default. The first record after a quiet time leaves at once; a steady
	// trickle costs at most one write to the journal in this time.
	Linger time.Duration

	// DialTimeout bounds a connection attempt, 5 s by default.
	DialTimeout time.Duration
	// RequestTimeout is how long an answer may take before the connection counts
	// as dead, 15 s by default. Must exceed AckTimeout.
	RequestTimeout time.Duration
	// AckTimeout is how long a broker may wait for its replicas, 10 s by default.
	AckTimeout time.Duration
	// MetadataRefresh is how often new partitions are looked for, 1 min by
	// default.
	MetadataRefresh time.Duration
	// ProbeInterval is how often the brokers are asked for a sign of life while
	// there is nothing to send, 30 s by default: it is how an operator learns of
	// a dead uplink before data piles up.
	ProbeInterval time.Duration
	// CreateTopics lets the brokers make a topic that does not exist, if their
	// auto.create.topics.enable allows it.
	CreateTopics bool

	// TLS of the connections, nil for none.
	TLS *tls.Config
	// SASL is the login, nil for none.
	SASL *SASL
}

// SASL is a login to Kafka.
type SASL struct {
	Mechanism string // PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512
	User      string
	Password  string
}

// maxRounds under way. A broker remembers the last five batches of a producer
// and partition, and only those it can tell as duplicates.
const maxRounds = 5

var codecs = map[string]sarama.CompressionCodec{
	"": sarama.CompressionNone, "none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

// Validate reports what is wrong with the configuration, all problems joined.
func (c *Config) Validate() error {
	var problems []error
	if c.Bridge == "" {
		problems = append(problems, errors.New("the bridge has no name"))
	}
	if len(c.Brokers) == 0 {
		problems = append(problems, errors.New("brokers are missing"))
	}
	if _, ok := codecs[c.Compression]; !ok {
		problems = append(problems, fmt.Errorf("compression %q: there are none, gzip, snappy, lz4 and zstd", c.Compression))
	}
	if c.SASL != nil {
		switch c.SASL.Mechanism {
		case sarama.SASLTypePlaintext, sarama.SASLTypeSCRAMSHA256, sarama.SASLTypeSCRAMSHA512:
		default:
			problems = append(problems, fmt.Errorf("sasl mechanism %q: there are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512", c.SASL.Mechanism))
		}
		if c.SASL.User == "" {
			problems = append(problems, errors.New("sasl user is missing"))
		}
		if c.SASL.Password == "" {
			problems = append(problems, errors.New("sasl password is missing"))
		}
	}
	d := *c
	d.setDefaults()
	if d.RequestTimeout <= d.AckTimeout {
		problems = append(problems, fmt.Errorf("request timeout %s does not exceed ack timeout %s", d.RequestTimeout, d.AckTimeout))
	}
	return errors.Join(problems...)
}

func (c *Config) setDefaults() {
	setDefault(&c.RoundRecords, 4000)
	setDefault(&c.RoundBytes, 4<<20)
	setDefault(&c.BatchBytes, 1_000_000)
	setDefault(&c.Linger, 5*time.Millisecond)
	setDefault(&c.DialTimeout, 5*time.Second)
	setDefault(&c.RequestTimeout, 15*time.Second)
	setDefault(&c.AckTimeout, 10*time.Second)
	setDefault(&c.MetadataRefresh, time.Minute)
	setDefault(&c.ProbeInterval, 30*time.Second)
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// client returns the configuration of sarama. Sarama's own retries are off
// where they can be: the Forwarder retries, for ever and visibly.
func (c *Config) client(d *dialer) *sarama.Config {
	s := sarama.NewConfig()
	s.ClientID = clientID(c.Node, c.Bridge)
	s.Version = sarama.V2_8_0_0 // the protocol versions used here; what the broker lacks is negotiated
	s.Net.DialTimeout, s.Net.WriteTimeout = c.DialTimeout, c.RequestTimeout
	s.Net.ReadTimeout = c.RequestTimeout
	s.Net.MaxOpenRequests = maxRounds
	s.Net.Proxy.Enable, s.Net.Proxy.Dialer = true, d
	s.Metadata.Full = false
	s.Metadata.AllowAutoTopicCreation = c.CreateTopics
	s.Metadata.Retry.Max, s.Metadata.Retry.Backoff = 1, 100*time.Millisecond
	s.Metadata.RefreshFrequency = c.MetadataRefresh
	if c.TLS != nil {
		s.Net.TLS.Enable, s.Net.TLS.Config = true, c.TLS
	}
	if c.SASL != nil {
		s.Net.SASL.Enable = true
		s.Net.SASL.Version = sarama.SASLHandshakeV1
		s.Net.SASL.Mechanism = sarama.SASLMechanism(c.SASL.Mechanism)
		s.Net.SASL.User, s.Net.SASL.Password = c.SASL.User, c.SASL.Password
		s.Net.SASL.SCRAMClientGeneratorFunc = scramGenerator(c.SASL.Mechanism)
	}
	return s
}

// clientID makes the name that brokers see in their logs and quotas. Sarama
// takes letters, digits, dot, underscore and hyphen only.
func clientID(node, bridge string) string {
	name, ok := topicName([]byte("gantry-" + node + "-" + bridge))
	if !ok {
		return "gantry"
	}
	return name
}
