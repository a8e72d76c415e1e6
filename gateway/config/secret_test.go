package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSecretIsHidden(t *testing.T) {
	b := Bridge{SASL: &SASL{User: "u", Password: "hunter2"}}
	asJSON, err := json.Marshal(b)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "password", b.SASL.Password, "sasl", b.SASL)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", b.SASL.Password, "sasl", b.SASL)
	all := string(asJSON) + log.String() + fmt.Sprintf("%v %+v %#v %s %q", *b.SASL, *b.SASL, *b.SASL, b.SASL.Password, b.SASL.Password)
	require.NotContains(t, all, "hunter2")
	require.Contains(t, all, "***")

	_, err = parse("f", []byte("bridges: [{name: x, sasl: {password: [hunter2]}}]"), nil)
	require.Error(t, err)
}

func TestSecretRead(t *testing.T) {
	plain, err := Secret("pw").Read()
	require.NoError(t, err)
	require.Equal(t, "pw", plain)

	file := filepath.Join(t.TempDir(), "pw")
	require.NoError(t, os.WriteFile(file, []byte(" pass word \r\n"), 0o600))
	got, err := Secret("file:" + file).Read()
	require.NoError(t, err)
	require.Equal(t, " pass word ", got)

	_, err = Secret("file:" + file + ".none").Read()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Error(t, new(Secret).UnmarshalText([]byte("file:")))
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	c, err := Load(samples+"example-kafka.yaml", nil)
	require.NoError(t, err)
	b := c.Bridges[0]
	require.Equal(t, filepath.Join(samples, "kafka-ca.pem"), b.TLS.CA)
	require.Equal(t, filepath.Join(samples, "gateway.pem"), b.TLS.Cert)
	require.Equal(t, filepath.Join(samples, "gateway.key"), b.TLS.Key)
	require.Equal(t, Secret("file:"+filepath.Join(samples, "kafka-password.txt")), b.SASL.Password)
	require.Equal(t, "/etc/x", below("/a", "/etc/x"))
}
