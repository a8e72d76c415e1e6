package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Config says where the interface listens and who may use it.
type Config struct {
	// Bind is host:port. Default 127.0.0.1:18083: an operator who wants more
	// says so. An address that other hosts reach is refused while the token
	// file does not exist, so that nobody exposes the interface without having
	// seen a token.
	Bind string
	// TokenFile holds the bearer token, one line. On a loopback address it is
	// created with a random token when it is missing. Required.
	TokenFile string
	// Hosts are further names under which the interface may be asked for,
	// beside addresses, localhost and the host's own name. A request for
	// another name is refused: it comes from DNS rebinding or is misdirected.
	Hosts []string
}

const defaultBind = "127.0.0.1:18083"

// Deps are the parts of the gateway that the interface shows, as functions. All
// are required. They are called from many goroutines, and must return soon: a
// request waits for them.
type Deps struct {
	// Status fills everything but Alarms and Process.
	Status func(ctx context.Context) Status
	// Ready returns what keeps the gateway from taking messages: a listener
	// that is down, a store or queue that cannot be written. The state of an
	// uplink does not belong there. Empty means ready.
	Ready func(ctx context.Context) []string
	// Bridges returns the bridges in configuration order.
	Bridges func() []Bridge
	// Peek returns the first n records of a bridge's queue, or of its dead
	// letters, without taking them out; ErrUnknownBridge when there is none
	// of that name.
	Peek func(ctx context.Context, bridge string, n int, dead bool) ([]QueuedRecord, error)
	// PauseBridge makes a bridge stop sending, or go on; what arrives meanwhile
	// is queued. ErrUnknownBridge when there is none of that name.
	PauseBridge func(bridge string, pause bool) error
	// Sessions returns all sessions, in any order. The slice belongs to this
	// package afterwards.
	Sessions func() []Session
	// Kick ends the connection of a client; false when it has none.
	Kick func(clientID string) bool
	// Delayed returns up to limit messages that wait to be published later, by
	// id and only those above after.
	Delayed func(after uint64, limit int) []Delayed
	// DeleteDelayed deletes one of them for good; false when there is none.
	DeleteDelayed func(ctx context.Context, id uint64) (bool, error)
	// Alarms is the registry that the gateway raises alarms in; nil shows none.
	Alarms *Alarms
}

// ErrUnknownBridge is what Deps.Peek and Deps.PauseBridge return for a name that
// they do not know.
var ErrUnknownBridge = errors.New("no bridge of that name")

func (d *Deps) validate() error {
	if d.Status == nil || d.Ready == nil || d.Bridges == nil || d.Peek == nil || d.PauseBridge == nil || d.Sessions == nil || d.Kick == nil ||
		d.Delayed == nil || d.DeleteDelayed == nil {
		return errors.New("admin interface needs every function of Deps")
	}
	return nil
}

// loopbackOnly reports whether only this machine reaches the address.
func loopbackOnly(bind string) (bool, error) {
	host, _, err := net.SplitHostPort(bind)
	if err != nil {
		return false, fmt.Errorf("admin bind: %w", err)
	}
	if strings.EqualFold(host, "localhost") {
		return true, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false, nil //nolint:nilerr // an empty host or a name: it may be reached from anywhere
	}
	return addr.Unmap().IsLoopback(), nil
}
