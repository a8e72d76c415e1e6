package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"

	"gantry/conformance/quicdial"
)

// The schemes of addresses. What has none is host:port of a TCP listener.
const (
	schemeTCP  = "tcp"
	schemeTLS  = "tls"
	schemeWS   = "ws"
	schemeWSS  = "wss"
	schemeUnix = "unix"
	schemeQUIC = "quic"
)

// CheckAddress returns an error for an address that the suite cannot dial.
func CheckAddress(addr string) error {
	scheme, place := splitAddress(addr)
	switch scheme {
	case schemeTCP, schemeTLS, schemeQUIC:
		_, _, err := net.SplitHostPort(place)
		return err
	case schemeWS, schemeWSS:
		_, err := webSocketURL(addr)
		return err
	case schemeUnix:
		return nil
	}
	return fmt.Errorf("no transport has the scheme %s", scheme)
}

// splitAddress cuts an address into its scheme and the rest of it.
func splitAddress(addr string) (scheme, place string) {
	if scheme, place, ok := strings.Cut(addr, "://"); ok {
		return scheme, place
	}
	if path, ok := strings.CutPrefix(addr, schemeUnix+":"); ok {
		return schemeUnix, path
	}
	return schemeTCP, addr
}

// webSocketURL reads the address of a WebSocket listener: host:port stands for
// one without TLS and the path /mqtt.
func webSocketURL(addr string) (*url.URL, error) {
	if !strings.Contains(addr, "://") {
		addr = schemeWS + "://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil {
		return nil, err
	}
	if u.Scheme != schemeWS && u.Scheme != schemeWSS {
		return nil, fmt.Errorf("%s is not the address of a WebSocket", addr)
	}
	if u.Path == "" {
		u.Path = "/mqtt"
	}
	if u.Port() == "" {
		return nil, fmt.Errorf("%s has no port", addr)
	}
	return u, nil
}

// open opens the byte stream below MQTT.
func (c *C) open(addr string) (net.Conn, error) {
	scheme, place := splitAddress(addr)
	switch scheme {
	case schemeTCP, schemeUnix:
		return net.DialTimeout(scheme, place, patience)
	case schemeTLS:
		return c.openTLS(place, "mqtt")
	case schemeWS, schemeWSS:
		return c.openWebSocket(addr, "mqtt")
	case schemeQUIC:
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return quicdial.Dial(ctx, place, c.target.TLS)
	}
	return nil, CheckAddress(addr)
}

// openTLS makes a TLS connection with application as what is spoken in it
// (RFC 7301).
func (c *C) openTLS(place, application string) (net.Conn, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.target.TLS != nil {
		cfg = c.target.TLS.Clone()
	}
	cfg.NextProtos = []string{application}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", place)
}

// openWebSocket makes a WebSocket that carries one of the subprotocols.
func (c *C) openWebSocket(addr, subprotocols string) (*wsConn, error) {
	r, err := c.requestWebSocket(addr, func(h *handshake) { h.header.Set("Sec-WebSocket-Protocol", subprotocols) })
	if err != nil {
		return nil, err
	}
	if err := r.accepted(); err != nil {
		_ = r.nc.Close()
		return nil, err
	}
	return &wsConn{Conn: r.nc, c: c, in: r.in, subprotocol: r.answer.Header.Get("Sec-WebSocket-Protocol")}, nil
}

// openBelow opens what a WebSocket is on.
func (c *C) openBelow(u *url.URL) (net.Conn, *bufio.Reader, error) {
	var nc net.Conn
	var err error
	if u.Scheme == schemeWSS {
		nc, err = c.openTLS(u.Host, "http/1.1")
	} else {
		nc, err = net.DialTimeout("tcp", u.Host, patience)
	}
	if err != nil {
		return nil, nil, err
	}
	return nc, bufio.NewReader(nc), nil
}
