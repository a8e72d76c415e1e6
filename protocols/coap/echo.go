package coap

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"
)

const (
	// echoFresh is how long a challenge may be answered, echoLifetime how long
	// a peer that did so is known to own its address.
	echoFresh    = 60 * time.Second
	echoLifetime = 24 * time.Hour
	echoTimeSize = 4
	echoMACSize  = 8
	echoSize     = echoTimeSize + echoMACSize

	// A peer that has not proven its address gets at most amplification times
	// what it sent, or safeReply bytes (RFC 9175 section 2.6).
	amplification = 3
	safeReply     = 136
)

// echoGate makes and checks Echo options. It keeps no state per peer: the
// option carries its time and a MAC over time and address.
type echoGate struct {
	key     [sha256.Size]byte
	policy  EchoPolicy
	trusted []netip.Prefix
	// loopback addresses are trusted; tests that have no others turn it off.
	loopback bool
	now      func() time.Time
}

func newEchoGate(policy EchoPolicy, trusted []netip.Prefix) *echoGate {
	g := &echoGate{policy: policy, trusted: trusted, loopback: true, now: time.Now}
	_, _ = rand.Read(g.key[:]) // never fails
	return g
}

// trusts reports whether an address need not be proven.
func (g *echoGate) trusts(a netip.Addr) bool {
	if g.policy == EchoOff || g.loopback && a.IsLoopback() {
		return true
	}
	for _, p := range g.trusted {
		if p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}

func (g *echoGate) value(to netip.AddrPort) []byte {
	v := make([]byte, echoTimeSize, echoSize)
	binary.BigEndian.PutUint32(v, uint32(g.now().Unix()))
	return append(v, g.mac(v, to)...)
}

func (g *echoGate) valid(v []byte, from netip.AddrPort) bool {
	if len(v) != echoSize {
		return false
	}
	age := g.now().Sub(time.Unix(int64(binary.BigEndian.Uint32(v)), 0))
	if age < -time.Second || age > echoFresh {
		return false
	}
	return hmac.Equal(v[echoTimeSize:], g.mac(v[:echoTimeSize], from))
}

func (g *echoGate) mac(stamp []byte, a netip.AddrPort) []byte {
	h := hmac.New(sha256.New, g.key[:])
	h.Write(stamp)
	addr := a.Addr().As16()
	h.Write(addr[:])
	h.Write(binary.BigEndian.AppendUint16(nil, a.Port()))
	return h.Sum(nil)[:echoMACSize]
}

// challenge asks the sender of a request to repeat it with the Echo option.
func (l *loop) challenge(ex *exchange) *response {
	l.metrics.challenges.Inc()
	return &response{code: codes.Unauthorized, echo: l.echo.value(ex.peer.addr), block1: ex.echoed}
}
