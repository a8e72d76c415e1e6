package kafka

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigValidate(t *testing.T) {
	good := Config{Bridge: "b", Brokers: []string{"k:9092"}}
	require.NoError(t, good.Validate())
	bad := Config{
		Compression: "rar", SASL: &SASL{Mechanism: "MAGIC"}, RequestTimeout: time.Second, AckTimeout: time.Second,
	}
	err := bad.Validate()
	for _, problem := range []string{"no name", "brokers are missing", `compression "rar"`, `"MAGIC"`, "user is missing", "password is missing", "does not exceed"} {
		require.ErrorContains(t, err, problem)
	}
	bad.Dir = t.TempDir()
	_, err = New(bad, nil, nil)
	require.Error(t, err)
}

func TestClientConfigIsAccepted(t *testing.T) {
	c := Config{Bridge: "cloud 1", Node: "größe", Brokers: []string{"k:9092"}, SASL: &SASL{Mechanism: "SCRAM-SHA-512", User: "u", Password: "p"}}
	c.setDefaults()
	require.NoError(t, c.client(&dialer{}).Validate())
}
