package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClientConfig(t *testing.T) {
	cert, key := selfSigned(t)
	c, err := (&TLS{CA: cert, Cert: cert, Key: key, ServerName: "kafka"}).ClientConfig()
	require.NoError(t, err)
	require.NotNil(t, c.RootCAs)
	require.Len(t, c.Certificates, 1)
	require.Equal(t, "kafka", c.ServerName)
	require.Equal(t, uint16(tls.VersionTLS12), c.MinVersion)

	c, err = (&TLS{}).ClientConfig()
	require.NoError(t, err)
	require.Nil(t, c.RootCAs)

	c, err = (*TLS)(nil).ClientConfig()
	require.NoError(t, err)
	require.Nil(t, c)
}

func TestClientConfigErrors(t *testing.T) {
	cert, key := selfSigned(t)
	_, err := (&TLS{CA: cert + ".none"}).ClientConfig()
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = (&TLS{CA: key}).ClientConfig()
	require.ErrorContains(t, err, "has no certificate in PEM form")
	_, err = (&TLS{Cert: cert, Key: cert}).ClientConfig()
	require.ErrorContains(t, err, "read client certificate")
}

func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}
