package coap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gantry/broker"
)

// EchoPolicy says whether a peer must prove that it owns its address.
type EchoPolicy string

// The Echo policies (RFC 9175).
const (
	// EchoRequired answers an unproven peer 4.01 with an Echo option when it
	// registers an observation or asks for a response that could be abused to
	// flood somebody else.
	EchoRequired EchoPolicy = "required"
	// EchoOff trusts every source address.
	EchoOff EchoPolicy = "off"
)

// Config describes one UDP listener. The zero value of each field means its
// default.
type Config struct {
	// Name is shown in listings and labels the metrics. Default "udp".
	Name string
	// Bind is host:port; an empty host means all addresses. Default ":5683".
	Bind string
	// Loops is how many sockets share the port (SO_REUSEPORT), each with its
	// own peers. Default 1: one loop serves more than the rest of a two-core
	// box can take.
	Loops int
	// ReceiveBuffer is the wanted size of the socket's receive buffer in
	// bytes; the system may grant less. Default 8 MiB: it rides out the bursts
	// of many devices that wake at the same moment.
	ReceiveBuffer int

	// MaxPeers caps the peers that are remembered. At the cap the one that was
	// silent for longest is forgotten, but never an observer; when only
	// observers are left, new peers get 5.03. Default 50,000.
	MaxPeers int
	// MaxSessionsPerPeer caps the client ids that one address may use at a
	// time (a proxy fronts several devices). Default 64.
	MaxSessionsPerPeer int
	// MaxObservationsPerPeer caps its observations; more get 4.29. Default 32.
	MaxObservationsPerPeer int
	// MaxPendingPerPeer caps the requests of one peer that wait for the
	// broker, MaxPending those of a loop; more get 5.03. Defaults 32 (a
	// conforming client has one) and 16,384.
	MaxPendingPerPeer int
	MaxPending        int
	// Rate is how many requests a peer may send per second, Burst how many at
	// once; more get 4.29. Defaults 1,000 and 2,000: a conforming client stays
	// below 265 per second, because it must not reuse a message id within
	// EXCHANGE_LIFETIME. A negative Rate means no limit.
	Rate, Burst float64

	// SessionIdle ends a session without traffic and observations. Default 5 min.
	SessionIdle time.Duration
	// ObserverCheck is after how much silence an observer is asked for a sign
	// of life with a CoAP ping. Default 24 h (RFC 7641 section 4.5).
	ObserverCheck time.Duration

	// AckTimeout, RandomFactor and MaxRetransmit are the transmission
	// parameters of RFC 7252 section 4.8. Defaults 2 s, 1.5 and 4.
	AckTimeout    time.Duration
	RandomFactor  float64
	MaxRetransmit int
	// EmptyAckAfter is how long a confirmable request may wait for its
	// response before it gets an empty acknowledgement. Default 100 ms, well
	// below the 2 s after which a client sends again.
	EmptyAckAfter time.Duration

	// MaxBody caps a body, whether it comes in blocks or not; larger ones get
	// 4.13. Default 1 MiB.
	MaxBody int
	// UploadsPerPeer caps the uploads that a peer has open, UploadMemory the
	// bytes that all open uploads of a loop hold. Defaults 2 and 64 MiB.
	UploadsPerPeer int
	UploadMemory   int
	// UploadIdle ends an upload whose next block does not come. Default 30 s.
	UploadIdle time.Duration

	// Echo is the policy for peers that are neither loopback nor Trusted.
	// Default EchoRequired.
	Echo    EchoPolicy
	Trusted []netip.Prefix

	// Naming is what the listener makes of the names that clients use. Default:
	// nothing.
	Naming broker.Naming

	// DrainTimeout bounds how long Run waits at its end for requests that the
	// broker has not answered yet. Default 2 s.
	DrainTimeout time.Duration
}

func (c *Config) setDefaults() {
	orString(&c.Name, "udp")
	orString(&c.Bind, ":5683")
	orInt(&c.Loops, 1)
	orInt(&c.ReceiveBuffer, 8<<20)
	orInt(&c.MaxPeers, 50_000)
	orInt(&c.MaxSessionsPerPeer, 64)
	orInt(&c.MaxObservationsPerPeer, 32)
	orInt(&c.MaxPendingPerPeer, 32)
	orInt(&c.MaxPending, 16_384)
	orFloat(&c.Rate, 1000)
	orFloat(&c.Burst, 2000)
	orDuration(&c.SessionIdle, 5*time.Minute)
	orDuration(&c.ObserverCheck, 24*time.Hour)
	orDuration(&c.AckTimeout, 2*time.Second)
	orFloat(&c.RandomFactor, 1.5)
	orInt(&c.MaxRetransmit, 4)
	orDuration(&c.EmptyAckAfter, 100*time.Millisecond)
	orInt(&c.MaxBody, 1<<20)
	orInt(&c.UploadsPerPeer, 2)
	orInt(&c.UploadMemory, 64<<20)
	orDuration(&c.UploadIdle, 30*time.Second)
	orString((*string)(&c.Echo), string(EchoRequired))
	orDuration(&c.DrainTimeout, 2*time.Second)
}

// Validate reports every problem of the configuration, defaults applied.
func (c Config) Validate() error {
	c.setDefaults()
	var problems []error
	if _, _, err := net.SplitHostPort(c.Bind); err != nil {
		problems = append(problems, fmt.Errorf("bind: %w", err))
	}
	if c.Loops < 1 || c.Loops > maxLoops {
		problems = append(problems, fmt.Errorf("loops: %d is not in 1..%d", c.Loops, maxLoops))
	}
	if c.Echo != EchoRequired && c.Echo != EchoOff {
		problems = append(problems, fmt.Errorf("echo: %q is neither %q nor %q", c.Echo, EchoRequired, EchoOff))
	}
	if c.RandomFactor < 1 {
		problems = append(problems, fmt.Errorf("random_factor: %v is below 1", c.RandomFactor))
	}
	if c.Burst < 1 {
		problems = append(problems, fmt.Errorf("burst: %v is below 1, nothing would get through", c.Burst))
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"receive_buffer", c.ReceiveBuffer},
		{"max_peers", c.MaxPeers},
		{"max_sessions_per_peer", c.MaxSessionsPerPeer},
		{"max_observations_per_peer", c.MaxObservationsPerPeer},
		{"max_pending_per_peer", c.MaxPendingPerPeer},
		{"max_pending", c.MaxPending},
		{"max_retransmit", c.MaxRetransmit},
		{"max_body", c.MaxBody},
		{"uploads_per_peer", c.UploadsPerPeer},
		{"upload_memory", c.UploadMemory},
	} {
		if n.value < 1 {
			problems = append(problems, fmt.Errorf("%s: %d is below 1", n.name, n.value))
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"session_idle", c.SessionIdle},
		{"observer_check", c.ObserverCheck},
		{"ack_timeout", c.AckTimeout},
		{"empty_ack_after", c.EmptyAckAfter},
		{"upload_idle", c.UploadIdle},
		{"drain_timeout", c.DrainTimeout},
	} {
		if d.value <= 0 {
			problems = append(problems, fmt.Errorf("%s: %v is not positive", d.name, d.value))
		}
	}
	return errors.Join(problems...)
}

func orString(p *string, v string) {
	if *p == "" {
		*p = v
	}
}

func orInt(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func orFloat(p *float64, v float64) {
	if *p == 0 {
		*p = v
	}
}

func orDuration(p *time.Duration, v time.Duration) {
	if *p == 0 {
		*p = v
	}
}
