package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/bridge"
	"gantry/conformance/servers"
)

// The tests here need Apache Kafka and are skipped without it. What they showed
// is in docs/adr/0004-kafka-producer-core.md.

func realConfig(g *rig) {
	g.cfg.RequestTimeout, g.cfg.AckTimeout = 10*time.Second, 5*time.Second
}

// TestRealBrokerKilled takes the broker away with SIGKILL while records flow,
// so that it has to find the producer's state in its log again.
func TestRealBrokerKilled(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, realConfig)
	g.start()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				g.publish("t/a", 200)
				time.Sleep(2 * time.Millisecond) // the load
			}
		}
	}()
	for range 2 {
		time.Sleep(time.Second) // under load
		k.Kill()
		k.Restart()
	}
	close(stop)
	<-done
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	t.Logf("%d records, 2 broker kills, %v batches sent again", g.published, g.counter("gantry_kafka_resent_batches_total"))
}

// TestRealBrokerForgetsBatches kills the broker twice while batches are in
// doubt: it then knows only the last of them again.
func TestRealBrokerForgetsBatches(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("t", 1)
	g := newRig(t, k.Addr, realConfig, smallRounds)
	g.forward.StopTimeout = time.Nanosecond
	unseen := 0
	for unseen <= g.cfg.RoundRecords { // more than one batch
		g.publish("t/a", 4000)
		g.start()
		time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond) // a random moment
		g.stop()
		unseen = len(k.Consume("t")) - (g.published - int(g.queue.Stats().Records))
	}
	for range 2 {
		k.Kill()
		k.Restart()
	}
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	t.Logf("%d records were in the log, unconfirmed", unseen)
}

// TestRealDuplicates ends sinks before they see their answers; the next one
// sends the same batches again, and the broker must drop what it has. Apache
// Kafka answers such a batch without an error.
func TestRealDuplicates(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("t", 4)
	g := newRig(t, k.Addr, realConfig, smallRounds)
	g.forward.StopTimeout = time.Nanosecond
	unseen := 0 // records in the log of which the sink had not seen the confirmation
	for range 30 {
		g.publish("t/a", 4000)
		g.start()
		time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond) // a random moment
		g.stop()
		confirmed := g.published - int(g.queue.Stats().Records)
		unseen += len(k.Consume("t")) - confirmed
	}
	g.start()
	g.awaitEmpty()
	requireExact(t, k.Consume("t"), g.published)
	require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	require.NotZero(t, unseen)
	t.Logf("%d records, 30 ends: %v batches sent again, among them %d records that were in the log", g.published,
		g.counter("gantry_kafka_resent_batches_total"), unseen)
}

// TestRealProducerForgotten lets the broker forget the producer id.
func TestRealProducerForgotten(t *testing.T) {
	const expiry = 3 * time.Second
	k := servers.Kafka(t, "producer.id.expiration.ms=3000", "producer.id.expiration.check.interval.ms=500")
	k.CreateTopic("t", 4)

	t.Run("while idle", func(t *testing.T) {
		g := newRig(t, k.Addr, realConfig)
		g.start()
		g.publish("t/a", 1000)
		g.awaitEmpty()
		time.Sleep(2 * expiry)
		g.publish("t/a", 1000)
		g.awaitEmpty()
		requireExact(t, k.Consume("t"), 2000)
		require.Zero(t, g.counter("gantry_kafka_dedup_resets_total"))
	})

	t.Run("with rounds in doubt", func(t *testing.T) {
		k.CreateTopic("u", 4)
		g := newRig(t, k.Addr, realConfig, smallRounds)
		g.forward.StopTimeout = time.Nanosecond
		for len(k.Consume("u")) == 0 || len(g.sink.live) == 0 {
			g.publish("u/a", 4000)
			g.start()
			time.Sleep(60 * time.Millisecond)
			g.stop()
		}
		inDoubt := len(g.sink.live)
		time.Sleep(2 * expiry)
		g.start()
		g.awaitEmpty()
		lost, dup, _ := compare(t, k.Consume("u"), g.published)
		t.Logf("%d rounds of %d records in doubt, then forgotten: %d lost, %d twice, %v resets", inDoubt, g.cfg.RoundRecords,
			lost, dup, g.counter("gantry_kafka_dedup_resets_total"))
		require.Zero(t, lost)
		require.LessOrEqual(t, dup, inDoubt*g.cfg.RoundRecords)
	})
}

// TestRealRejections sends what a broker refuses for reasons that only it knows.
func TestRealRejections(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("compacted", 2, "cleanup.policy=compact") // takes no record without a key
	k.CreateTopic("punctual", 1, "message.timestamp.after.max.ms=60000")
	k.CreateTopic("small", 1, "max.message.bytes=5000")
	g := newRig(t, k.Addr, realConfig, func(g *rig) { g.cfg.Compression = "lz4" })
	for i := range 300 {
		client := "c1"
		if i%100 == 50 {
			client = "" // no key
		}
		g.put("compacted/a", client, "x")
		at := time.Now()
		if i == 150 {
			at = at.Add(time.Hour)
		}
		g.putAt(at, "punctual/a", "c", "y")
	}
	random := make([]byte, 20_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	g.put("small/a", "c1", "before")
	g.put("small/a", "c1", string(random))
	g.put("small/a", "c1", "after")
	g.start()
	g.awaitEmpty()
	require.Len(t, k.Consume("compacted"), 297)
	require.Len(t, k.Consume("punctual"), 299)
	require.Len(t, k.Consume("small"), 2)
	require.EqualValues(t, 5, g.queue.Stats().DeadLetters)
}

func TestRealLogin(t *testing.T) {
	k := servers.Kafka(t)
	k.CreateTopic("t", 2)
	pem, err := os.ReadFile(k.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	sent := 0
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		login := func(password string) func(*rig) {
			return func(g *rig) {
				g.cfg.TLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
				g.cfg.SASL = &SASL{Mechanism: mechanism, User: servers.KafkaUser, Password: password}
			}
		}
		t.Run(mechanism, func(t *testing.T) {
			g := newRig(t, k.SecureAddr, realConfig, login(servers.KafkaPassword))
			g.start()
			g.publish("t/a", 500)
			g.awaitEmpty()
			sent += 500
			require.Len(t, k.Consume("t"), sent)
		})
		t.Run(mechanism+" wrong password", func(t *testing.T) {
			g := newRig(t, k.SecureAddr, realConfig, login("wrong"))
			g.start()
			g.publish("t/a", 1)
			g.await(func() bool { return g.forwarder.Status().State == bridge.Failed })
			require.Contains(t, g.forwarder.Status().LastError, "uthentication")
		})
	}
}
