//go:build unix

package mqtt

import (
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/conformance/pki"
)

// TestControlStream holds gantry to every statement on the control stream of a
// QUIC listener where clients may have several streams. What such a listener
// does not offer is allowed.
func TestControlStream(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: only over TCP")
	}
	a := pki.New(t)
	server := a.Issue("server", nil)
	alive, bind := freeAddr(t), freeAddr(t)
	runGantry(t, "loopback", fmt.Sprintf("    - {name: alive, bind: %q}\n    - {name: quic, bind: %q, transport: quic, multi_stream: true, tls: {cert: %q, key: %q}}",
		alive, bind, server.Cert, server.Key), alive)
	target := Target{Addr: schemeQUIC + "://" + bind, WebSocket: NoListener, TLS: &tls.Config{RootCAs: a.Pool}}
	for _, v := range []Version{MQTT5, MQTT311} {
		statements := Statements(v)
		for i := range statements {
			s := &statements[i]
			if !s.Checked() {
				continue
			}
			t.Run(string(v)+"/"+s.ID, func(t *testing.T) {
				t.Parallel()
				got := Run(target, s)
				require.NotEqual(t, Deviates, got.Result, "MQTT %s [MQTT-%s] %s: %s", s.Version, s.ID, s.Text, got.Detail)
			})
		}
	}
}
