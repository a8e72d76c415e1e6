// Package pki makes certificates for tests of TLS: an authority, and what it
// issues, as PEM files.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Authority issues certificates.
type Authority struct {
	CA   string // PEM file of its own certificate
	Pool *x509.CertPool

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Files are the PEM files of a certificate and its key.
type Files struct{ Cert, Key string }

// New makes an authority whose files are gone when the test ends.
func New(t testing.TB) *Authority {
	t.Helper()
	a, err := Create(t.TempDir())
	require.NoError(t, err)
	a.t = t
	return a
}

// Create makes an authority with its files in a folder, for programs. Of its
// methods only Sign may be called.
func Create(dir string) (*Authority, error) {
	a := &Authority{dir: dir, Pool: x509.NewCertPool(), CA: filepath.Join(dir, "ca.pem")}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	n, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	a.Pool.AddCert(a.cert)
	return a, write(a.CA, "CERTIFICATE", der)
}

// Issue makes a certificate for clients and for servers on 127.0.0.1 and
// localhost. change, if it is not nil, may alter it before it is signed.
func (a *Authority) Issue(name string, change func(*x509.Certificate)) Files {
	a.t.Helper()
	f := Files{filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")}
	a.IssueTo(f, name, change)
	return f
}

// IssueTo is Issue into given files.
func (a *Authority) IssueTo(f Files, name string, change func(*x509.Certificate)) {
	a.t.Helper()
	require.NoError(a.t, a.Sign(f, name, change))
}

// Sign is IssueTo for programs.
func (a *Authority) Sign(f Files, name string, change func(*x509.Certificate)) error {
	n, err := serial()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(write(f.Cert, "CERTIFICATE", der), write(f.Key, "PRIVATE KEY", secret))
}

// Expired is a change for Issue.
func Expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func serial() (*big.Int, error) { return rand.Int(rand.Reader, big.NewInt(1<<62)) }

// write replaces a file as tools that renew certificates do.
func write(path, kind string, der []byte) error {
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
