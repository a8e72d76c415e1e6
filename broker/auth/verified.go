package auth

import (
	"context"

	"gantry/broker"
)

var _ broker.Exchanger = Verified{}

// Verified admits the clients that their transport or an exchange has
// authenticated, such as by a certificate that stands for a user, and asks Else
// about everybody else.
type Verified struct {
	Else broker.Authenticator
}

// Authenticate blocks as long as Else does, for clients that are not verified.
func (v Verified) Authenticate(ctx context.Context, r *broker.ConnectRequest) error {
	if r.Verified {
		return nil
	}
	return v.Else.Authenticate(ctx, r)
}

// BeginMethod starts an exchange by a method of Else, if that has any.
func (v Verified) BeginMethod(ctx context.Context, method string, r *broker.ConnectRequest) (broker.Method, error) {
	if x, ok := v.Else.(broker.Exchanger); ok {
		return x.BeginMethod(ctx, method, r)
	}
	return nil, broker.ErrMethod
}
