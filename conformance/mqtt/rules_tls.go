package mqtt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"time"
)

// shake makes a TLS connection to a listener with changed settings, and reads a
// CONNACK on it unless the listener speaks WebSocket. It returns why that was
// not possible.
func (c *C) shake(addr string, change func(*tls.Config)) error {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.target.TLS != nil {
		cfg = c.target.TLS.Clone()
	}
	change(cfg)
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", place(addr), cfg)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	if scheme, _ := splitAddress(addr); scheme == schemeWSS {
		return nil
	}
	// With TLS 1.3 a client learns by its first read that its certificate was refused.
	p := newPeer(c, nc)
	p.send(connect{id: c.client("tls")}.encode(c.v))
	ack, err := p.next(patience)
	if err != nil {
		return err
	}
	c.require(ack.kind == connackType, "instead of CONNACK comes %s", ack)
	return nil
}

// place is host:port of an address.
func place(addr string) string {
	if u, err := webSocketURL(addr); err == nil {
		return u.Host
	}
	_, at := splitAddress(addr)
	return at
}

func tlsVersions(c *C) {
	only := func(version uint16) func(*tls.Config) {
		return func(cfg *tls.Config) { cfg.MinVersion, cfg.MaxVersion = version, version }
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if err := c.shake(c.target.Addr, only(version)); err != nil {
			c.failf("%s: %v", tls.VersionName(version), err)
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		c.require(c.shake(c.target.Addr, only(version)) != nil, "%s is spoken", tls.VersionName(version))
	}
}

func tlsApplications(c *C) {
	for _, names := range [][]string{nil, {"mqtt"}, {"h2", "mqtt"}} {
		if err := c.shake(c.target.Addr, func(cfg *tls.Config) { cfg.NextProtos = names }); err != nil {
			c.failf("the applications %q: %v", names, err)
		}
	}
	err := c.shake(c.target.Addr, func(cfg *tls.Config) { cfg.NextProtos = []string{"h2"} })
	c.require(err != nil, "a client that speaks h2 is served")
}

// belowTLS is a TCP connection to a listener that wants TLS.
func (c *C) belowTLS() *peer { return c.dialTo(schemeTCP + "://" + place(c.target.Addr)) }

// plainOnTLS: what comes may be a TLS alert, which is no packet.
func plainOnTLS(c *C) {
	p := c.belowTLS()
	p.send(connect{id: c.client("plain")}.encode(c.v))
	if err := p.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.failf("deadline: %v", err)
	}
	first, err := p.in.ReadByte()
	c.require(err != nil || first != connackType, "CONNECT without TLS is answered with CONNACK")
	for err == nil {
		_, err = p.in.ReadByte()
	}
	p.closed(err)
}

// silentTLS: the default deadline is 10 s.
func silentTLS(c *C) {
	p := c.belowTLS()
	_, err := p.next(20 * time.Second)
	p.closed(err)
}

func cutTLS(c *C) {
	watch := c.willWatch()
	p := c.connect(connect{will: &will{topic: c.topic("w"), payload: "gone", qos: 1}})
	nc, ok := p.nc.(*tls.Conn)
	if !ok {
		c.notJudged("the target is not dialed with TLS")
	}
	_ = nc.NetConn().Close()
	watch.gets("gone")
}

func clientCertificates(c *C) {
	if c.target.Certified == "" {
		c.notJudged("no listener that requires client certificates is known")
	}
	good := func(cfg *tls.Config) { cfg.Certificates = []tls.Certificate{*c.target.Certificate} }
	if err := c.shake(c.target.Certified, good); err != nil {
		c.failf("a client with a good certificate: %v", err)
	}
	c.require(c.shake(c.target.Certified, func(*tls.Config) {}) != nil, "a client without a certificate is served")
	stranger, err := selfSigned()
	if err != nil {
		c.failf("make a certificate: %v", err)
	}
	// A client sends only what the server asks for, unless told otherwise.
	foreign := func(cfg *tls.Config) {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return stranger, nil }
	}
	c.require(c.shake(c.target.Certified, foreign) != nil, "a client with a certificate of its own making is served")
}

func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stranger"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
