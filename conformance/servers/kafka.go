//go:build unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"gantry/conformance/standin"
)

// Who may use KafkaBroker.SecureAddr.
const (
	KafkaUser     = "gantry"
	KafkaPassword = "gantry-secret"
)

// KafkaBroker is an Apache Kafka of one test: one node that is broker and
// controller, with its log in Dir.
type KafkaBroker struct {
	*Process
	Cluster
	// SecureAddr is host:port of a second listener, with TLS and SASL. It takes
	// SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN from KafkaUser.
	SecureAddr string
	// CAFile is the PEM file to verify the certificate of SecureAddr with. The
	// certificate is for 127.0.0.1 and localhost.
	CAFile string
}

// Kafka starts Apache Kafka with a heap of 384 MB. Properties are lines of its
// server.properties, such as "num.partitions=1" or "message.max.bytes=100000",
// and win over what this package sets.
//
// Each restart takes some two seconds longer than the first start, because the
// controller waits until the broker session of the life before has run out.
func Kafka(t testing.TB, properties ...string) *KafkaBroker {
	t.Helper()
	program, classpath := java(t), kafkaClasspath(t)
	dir := t.TempDir()
	k, err := configureKafka(dir, properties)
	if err != nil {
		t.Fatalf("configure Kafka: %v", err)
	}
	if err := formatKafka(dir, program, classpath); err != nil {
		t.Fatalf("format the log of Kafka: %v", err)
	}
	argv := []string{
		program, "-Xms64M", "-Xmx384M", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
		"-cp", classpath, "kafka.Kafka", "server.properties",
	}
	k.Cluster.t = t
	k.Process = launch(t, "Kafka", dir, argv, k.answers)
	return k
}

// answers reports whether the broker is in service: it has been let into its
// cluster, every partition it holds has a leader again, and it can give a
// producer an identity.
func (k *KafkaBroker) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	cl, err := newClient(k.Addr, kgo.RequestRetries(0), kgo.RequestTimeoutOverhead(probeWithin))
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrMetadataRequest() // no topics named: all of them
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	if len(resp.Brokers) == 0 {
		return errors.New("no broker in its metadata")
	}
	for _, topic := range resp.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	id, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(id.ErrorCode)
}

// configureKafka chooses the ports and writes the files that Kafka reads.
func configureKafka(dir string, properties []string) (*KafkaBroker, error) {
	var ports [3]int
	for i := range ports {
		port, err := standin.FreePort()
		if err != nil {
			return nil, err
		}
		ports[i] = port
	}
	k := &KafkaBroker{
		Cluster:    Cluster{Addr: standin.Loopback(ports[0])},
		SecureAddr: standin.Loopback(ports[1]),
		CAFile:     filepath.Join(dir, "ca.pem"),
	}
	keystore := filepath.Join(dir, "broker.pem")
	if err := writeCertificate(k.CAFile, keystore); err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	lines := kafkaProperties(dir, keystore, k.Addr, k.SecureAddr, standin.Loopback(ports[2]))
	lines = append(lines, properties...)
	return k, errors.Join(
		writeLines(filepath.Join(dir, "server.properties"), lines),
		writeLines(filepath.Join(dir, "log4j2.properties"), kafkaLogging),
	)
}

func kafkaProperties(dir, keystore, plain, secure, controller string) []string {
	brokerListeners := "PLAIN://" + plain + ",SECURE://" + secure
	return []string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + controller,
		"listeners=" + brokerListeners + ",CONTROLLER://" + controller,
		"advertised.listeners=" + brokerListeners,
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAIN",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAIN:PLAINTEXT,SECURE:SASL_SSL",
		"listener.name.secure.ssl.keystore.type=PEM",
		"listener.name.secure.ssl.keystore.location=" + keystore,
		"listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
		"listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required" +
			` user_` + KafkaUser + `="` + KafkaPassword + `";`,
		"log.dirs=" + filepath.Join(dir, "log"),
		"log.segment.bytes=16777216",
		// One node holds every internal topic alone.
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"share.coordinator.state.topic.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		// A killed broker is let in again when its old session has run out,
		// which takes 9 s unless told otherwise.
		"broker.session.timeout.ms=2000",
		"broker.heartbeat.interval.ms=250",
		// 128 MB of the heap unless told otherwise.
		"log.cleaner.dedupe.buffer.size=4194304",
		"num.network.threads=2",
		"num.io.threads=4",
	}
}

var kafkaLogging = []string{
	"rootLogger.level=WARN",
	"rootLogger.appenderRef.out.ref=OUT",
	"appender.out.type=Console",
	"appender.out.name=OUT",
	"appender.out.layout.type=PatternLayout",
	"appender.out.layout.pattern=[%d] %p %m (%c)%n",
}

// formatKafka writes the identity of a new cluster, and its SCRAM users, into
// the log folder.
func formatKafka(dir, java, classpath string) error {
	user := "[name=" + KafkaUser + ",password=" + KafkaPassword + "]"
	return runIn(dir, java, "-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.configurationFile="+filepath.Join(dir, "log4j2.properties"),
		"-cp", classpath, "kafka.tools.StorageTool", "format",
		"--cluster-id", "Z2FudHJ5LXRlc3QtMDAwMQ", "--config", "server.properties",
		"--add-scram", "SCRAM-SHA-256="+user, "--add-scram", "SCRAM-SHA-512="+user)
}
