package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLS says how to secure a connection to a server. The zero value trusts the authorities of the system. Paths in a file are relative to its folder.
type TLS struct {
	CA         string `yaml:"ca"`          // PEM file with the authorities to trust, instead of the system's
	Cert       string `yaml:"cert"`        // PEM file with the certificate to show to the server, and those between it and its authority
	Key        string `yaml:"key"`         // PEM file with its private key
	ServerName string `yaml:"server_name"` // name that the server's certificate must have; empty = the host connected to
}

// ClientConfig reads the files and returns the configuration of a client, TLS 1.2 or newer. A nil t gives nil: no TLS.
func (t *TLS) ClientConfig() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read certificate authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (t *TLS) validate(add check, path string) {
	if (t.Cert == "") != (t.Key == "") {
		add(path, "cert and key go together")
	}
}
