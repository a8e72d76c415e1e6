// Package auth decides who a client is.
package auth

import (
	"context"
	"errors"

	"gantry/broker"
)

// Anonymous is the policy for clients that nobody has authenticated.
type Anonymous string

// The policies. Loopback is the default: closed to everybody who is not on this
// machine.
const (
	Never    Anonymous = "never"
	Loopback Anonymous = "loopback"
	Always   Anonymous = "always"
)

var (
	_ broker.Authenticator = Anonymous("")

	errNever    = errors.New("anonymous clients are not allowed")
	errLoopback = errors.New("anonymous clients are allowed from loopback addresses only")
)

// Authenticate admits or refuses by the policy. It does not block. A user name
// is taken as a claim, for listings and keys; it grants nothing.
func (a Anonymous) Authenticate(_ context.Context, r *broker.ConnectRequest) error {
	switch a {
	case Always:
		return nil
	case Loopback:
		if r.Local || r.RemoteAddr.Addr().Unmap().IsLoopback() {
			return nil
		}
		return &broker.Error{Reason: broker.NotAuthorized, Err: errLoopback}
	default:
		return &broker.Error{Reason: broker.NotAuthorized, Err: errNever}
	}
}
