//go:build unix

package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func TestKafkaKeepsItsRecordsThroughAKill(t *testing.T) {
	java(t)
	kafkaClasspath(t) // fetched before the clock starts
	began := time.Now()
	k := Kafka(t, "message.max.bytes=2000")
	t.Logf("Kafka %s answers after %s, resident %s", KafkaVersion, time.Since(began), resident(t, k.PID()))
	k.CreateTopic("readings", 2)
	cl := producer(t, k.Addr)
	produce(t, cl, "readings", 1, "a", "b")

	k.Kill()
	requireDown(t, k)
	began = time.Now()
	k.Restart()
	t.Logf("again after SIGKILL: %s, resident %s", time.Since(began), resident(t, k.PID()))
	produce(t, cl, "readings", 0, "c")
	produce(t, cl, "readings", 1, "d")
	requireRecords(t, k.Consume("readings"), []string{"c"}, []string{"a", "b", "d"})

	began = time.Now()
	k.Restart()
	t.Logf("again after SIGTERM: %s", time.Since(began))
	requireRecords(t, k.ConsumeAtLeast("readings", 4), []string{"c"}, []string{"a", "b", "d"})

	cl = producer(t, k.Addr, kgo.ProducerBatchCompression(kgo.NoCompression()))
	big := &kgo.Record{Topic: "readings", Value: make([]byte, 4000)}
	require.ErrorIs(t, cl.ProduceSync(t.Context(), big).FirstErr(), kerr.MessageTooLarge)
}

func TestKafkaPaused(t *testing.T) {
	k := Kafka(t)
	k.CreateTopic("readings", 1)
	k.Pause()
	requireDown(t, k)
	k.Resume()
	cl := producer(t, k.Addr)
	produce(t, cl, "readings", 0, "a")
	requireRecords(t, k.ConsumeAtLeast("readings", 1), []string{"a"})
}

func TestKafkaSecureListener(t *testing.T) {
	k := Kafka(t)
	k.CreateTopic("readings", 1)
	pem, err := os.ReadFile(k.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	secure := func(m sasl.Mechanism) []kgo.Opt {
		return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: roots}), kgo.SASL(m)}
	}
	auth := scram.Auth{User: KafkaUser, Pass: KafkaPassword}
	produce(t, producer(t, k.SecureAddr, secure(auth.AsSha256Mechanism())...), "readings", 0, "a")
	produce(t, producer(t, k.SecureAddr, secure(auth.AsSha512Mechanism())...), "readings", 0, "b")
	simple := plain.Auth{User: KafkaUser, Pass: KafkaPassword}
	produce(t, producer(t, k.SecureAddr, secure(simple.AsMechanism())...), "readings", 0, "c")
	requireRecords(t, k.Consume("readings"), []string{"a", "b", "c"})

	stranger := scram.Auth{User: KafkaUser, Pass: "guess"}
	cl := producer(t, k.SecureAddr, secure(stranger.AsSha256Mechanism())...)
	require.ErrorIs(t, cl.Ping(t.Context()), kerr.SaslAuthenticationFailed)
}

func requireDown(t *testing.T, k *KafkaBroker) {
	t.Helper()
	cl := producer(t, k.Addr, kgo.RequestTimeoutOverhead(300*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Error(t, cl.Ping(ctx))
}

var vmRSS = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// resident tells the memory of a process where the system shows it in /proc.
func resident(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return "unknown"
	}
	found := vmRSS.FindSubmatch(status)
	require.NotNil(t, found)
	kb, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return strconv.Itoa(kb/1024) + " MB"
}
