//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/conformance/pki"
)

// doors is a running gateway with an MQTT listener for each transport. Those
// with TLS require a client certificate, save the one for pages.
type doors struct {
	*gateway
	authority *pki.Authority
	device    pki.Files // a client certificate

	tls, ws, wss, unix string // addresses
}

// openDoors starts one. Pages of the origins may connect by WebSocket.
func openDoors(t testing.TB, more string, origins ...string) *doors {
	t.Helper()
	d := configureDoors(t, more, origins...)
	d.start()
	return d
}

func configureDoors(t testing.TB, more string, origins ...string) *doors {
	t.Helper()
	a := pki.New(t)
	d := &doors{
		authority: a, device: a.Issue("device-7", nil),
		tls: freeAddr(t), ws: freeAddr(t), wss: freeAddr(t), unix: filepath.Join(t.TempDir(), "mqtt.sock"),
	}
	server := a.Issue("server", nil)
	secure := fmt.Sprintf("cert: %q, key: %q", server.Cert, server.Key)
	pages := fmt.Sprintf("transport: websocket, origins: [%s]", strings.Join(origins, ", "))
	d.gateway = configureWith(t, fmt.Sprintf(`
    - {name: tls, bind: "%s", tls: {%s, client_ca: %q, client_auth: require}}
    - {name: ws, bind: "%s", %s}
    - {name: wss, bind: "%s", %s, tls: {%s}}
    - {name: unix, bind: "unix:%s"}
`, d.tls, secure, a.CA, d.ws, pages, d.wss, pages, secure, d.unix), more)
	return d
}

// deviceTLS is what a client with the certificate needs.
func (d *doors) deviceTLS() *tls.Config {
	d.t.Helper()
	pair, err := tls.LoadX509KeyPair(d.device.Cert, d.device.Key)
	require.NoError(d.t, err)
	return &tls.Config{RootCAs: d.authority.Pool, Certificates: []tls.Certificate{pair}}
}

// cable carries the connections of one client to a listener until it is cut,
// which to both sides is the loss of the connection.
type cable struct {
	addr string // where the client connects

	ln    net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex // covers the rest
	conns []net.Conn
	down  bool
}

// layCable lays one to a listener, "tcp" or "unix", until the test ends.
func layCable(t testing.TB, network, to string) *cable {
	t.Helper()
	at := "127.0.0.1:0"
	if network == "unix" {
		at = filepath.Join(t.TempDir(), "cable.sock")
	}
	ln, err := net.Listen(network, at)
	require.NoError(t, err)
	c := &cable{addr: ln.Addr().String(), ln: ln}
	c.wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			c.join(near, network, to)
		}
	})
	t.Cleanup(c.cut)
	return c
}

func (c *cable) join(near net.Conn, network, to string) {
	far, err := net.DialTimeout(network, to, patience)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.down {
		_ = near.Close()
		if far != nil {
			_ = far.Close()
		}
		return
	}
	c.conns = append(c.conns, near, far)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		c.wg.Go(func() {
			_, err := io.Copy(way[0], way[1])
			_ = errors.Join(err, way[0].Close(), way[1].Close()) // the other side learns of it
		})
	}
}

// cut ends all connections and takes no new ones.
func (c *cable) cut() {
	c.mu.Lock()
	c.down = true
	_ = c.ln.Close()
	for _, nc := range c.conns {
		_ = nc.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}
