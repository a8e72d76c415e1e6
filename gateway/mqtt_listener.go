package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"gantry/gateway/certs"
	"gantry/gateway/config"
	"gantry/protocols/mqtt"
	"gantry/protocols/mqtt/proxyproto"
	"gantry/protocols/mqtt/secure"
	"gantry/protocols/mqtt/ws"
	"gantry/protocols/quic"
)

// packetsPerMessage: a WebSocket message of this many packets of the largest
// size is refused. Its length costs nothing here, so the limit is generous; it
// is there because a message without end is a fault.
const packetsPerMessage = 16

// openMQTT opens one MQTT listener with everything that lies under it.
func (g *Gateway) openMQTT(c *config.MQTT) (*mqtt.Server, error) {
	naming, err := namingOf(c.Mountpoint, c.ClientID, c.Username)
	if err != nil {
		return nil, err
	}
	top, err := g.listenMQTT(c)
	if err != nil {
		return nil, err
	}
	cfg := mqtt.Config{
		Naming: naming, CheckPayloadFormat: c.CheckFormat, DisconnectDenied: c.MQTT3Denied == config.MQTT3Disconnect,
		Name: c.Name, Bind: string(c.Bind), MaxPacketSize: int(g.cfg.Broker.MaxPacketSize), MaxConnections: c.MaxConnections,
		ReceiveMaximum: uint16(c.ReceiveMaximum), ConnectTimeout: time.Duration(c.ConnectTimeout), WriteTimeout: time.Duration(c.WriteTimeout),
	}
	if c.Transport == config.MQTTOverQUIC {
		cfg.MaxKeepAlive, cfg.NoTopicAliases = quic.MaxKeepAlive, c.MultiStream
	}
	s, err := mqtt.NewOn(top, cfg, g.broker, g.log, g.reg)
	if err != nil {
		return nil, errors.Join(err, top.Close())
	}
	return s, nil
}

// listenMQTT opens the socket of a listener and what lies on it.
func (g *Gateway) listenMQTT(c *config.MQTT) (net.Listener, error) {
	if c.Transport == config.MQTTOverQUIC {
		return g.listenQUIC(c)
	}
	ln, err := mqtt.Listen(string(c.Bind))
	if err != nil {
		return nil, err
	}
	top, err := g.wrapMQTT(ln, c)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return top, nil
}

// quicKeyFile is the name of the file in the data folder that lets a gateway
// tell the QUIC clients of its predecessor that they must connect again.
const quicKeyFile = "quic.key"

func (g *Gateway) listenQUIC(c *config.MQTT) (net.Listener, error) {
	source, err := g.openCerts(c)
	if err != nil {
		return nil, err
	}
	return quic.New(quic.Config{
		Name: c.Name, Bind: string(c.Bind), TLS: source.TLS(), Identity: secure.Identity(c.TLS.Identity),
		KeyFile: filepath.Join(g.cfg.DataDir, quicKeyFile), MaxConnections: c.MaxConnections,
		MultiStream: c.MultiStream, MaxPacketSize: int(g.cfg.Broker.MaxPacketSize),
	}, g.log, g.reg)
}

// openCerts reads the certificates of a listener that has TLS.
func (g *Gateway) openCerts(c *config.MQTT) (*certs.Source, error) {
	source, err := certs.Open(mqttCerts(c), g.log, g.reg)
	if err != nil {
		return nil, fmt.Errorf("TLS of listener %s: %w", c.Name, err)
	}
	g.certs = append(g.certs, certificate{c.Name, source})
	return source, nil
}

// wrapMQTT puts on a socket what its clients speak before MQTT, in the order in
// which they speak it: the header of a proxy, TLS, HTTP.
func (g *Gateway) wrapMQTT(ln net.Listener, c *config.MQTT) (net.Listener, error) {
	log := g.log.With("listener", c.Name)
	if p := c.ProxyProtocol; p != nil {
		trusted := make([]netip.Prefix, len(p.Trusted))
		for i, n := range p.Trusted {
			trusted[i] = n.Prefix
		}
		l, err := proxyproto.New(ln, proxyproto.Config{Name: c.Name, Trusted: trusted}, log, g.reg)
		if err != nil {
			return nil, err
		}
		ln = l
	}
	if c.TLS != nil {
		source, err := g.openCerts(c)
		if err != nil {
			return nil, err
		}
		l, err := secure.New(ln, source.TLS(), secure.Identity(c.TLS.Identity), c.Name, log, g.reg)
		if err != nil {
			return nil, err
		}
		ln = l
	}
	if c.Transport == config.MQTTOverWebSocket {
		return ws.New(ln, ws.Config{
			Name: c.Name, Path: c.WebSocketPath(), Origins: c.Origins, MaxMessageSize: packetsPerMessage * int64(g.cfg.Broker.MaxPacketSize),
		}, log, g.reg)
	}
	return ln, nil
}

// certificate is the certificate of one listener.
type certificate struct {
	listener string
	source   *certs.Source
}

// mqttCerts says what the TLS part of a listener needs.
func mqttCerts(c *config.MQTT) certs.Config {
	alpn := "mqtt"
	if c.Transport == config.MQTTOverWebSocket {
		alpn = "http/1.1"
	}
	return certs.Config{
		Name: c.Name, Cert: c.TLS.Cert, Key: c.TLS.Key, ClientCA: c.TLS.ClientCA, ClientAuth: clientAuth(c.TLS.ClientAuth),
		NextProtos: []string{alpn}, VerifyConnection: secure.Identity(c.TLS.Identity).Verify,
	}
}

func clientAuth(a config.ClientAuth) tls.ClientAuthType {
	switch a {
	case config.ClientAuthRequest:
		return tls.VerifyClientCertIfGiven
	case config.ClientAuthRequire:
		return tls.RequireAndVerifyClientCert
	}
	return tls.NoClientCert
}

// CheckFiles reads the files that the listeners of a configuration need and
// reports everything that is wrong with them at its key. Nothing is opened but
// files.
func CheckFiles(cfg *config.Config, report func(key, format string, args ...any)) {
	for i := range cfg.Listeners.MQTT {
		c := &cfg.Listeners.MQTT[i]
		if c.TLS == nil {
			continue
		}
		certs.Check(mqttCerts(c), func(field string, err error) {
			report(fmt.Sprintf("listeners.mqtt[%d].tls.%s", i, field), "%v", err)
		})
	}
}
