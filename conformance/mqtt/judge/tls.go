package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
)

// tlsFlags say how to speak TLS with the target.
type tlsFlags struct {
	ca, cert, key string
	insecure      bool
}

func (f *tlsFlags) define() {
	flag.StringVar(&f.ca, "ca", "", "PEM file of the authorities to trust, in place of the system's")
	flag.StringVar(&f.cert, "cert", "", "PEM file of a client certificate")
	flag.StringVar(&f.key, "key", "", "PEM file of its key")
	flag.BoolVar(&f.insecure, "insecure", false, "take any certificate of the server")
}

func (f *tlsFlags) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.insecure}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", f.ca)
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
