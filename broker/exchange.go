package broker

import (
	"context"
	"errors"
	"fmt"
)

// Exchanger is an Authenticator that also offers named methods by which client
// and server say several things to each other before it is clear who the
// client is (MQTT 5.0 section 4.12).
type Exchanger interface {
	Authenticator
	// BeginMethod starts an exchange by a method. The error is an *Error with
	// the Reason for the peer: ErrMethod when the method is unknown. When
	// the exchange has succeeded, Authenticate is asked too, with the outcome
	// as a verified user name, and may still refuse the client. The exchange
	// may keep r, which it must not change.
	BeginMethod(ctx context.Context, method string, r *ConnectRequest) (Method, error)
}

// ErrMethod is the answer to a method that nobody serves [MQTT-4.12.0-1].
var ErrMethod = error(&Error{Reason: BadAuthMethod, Err: errors.New("authentication method is not served")})

// Method is the server's side of one exchange.
type Method interface {
	// Step takes what the client sent, nil when it sent nothing, and says how
	// to go on. data is valid until Step returns. It may block until ctx ends.
	// After an error or Done it is not called again. An error without a Reason
	// is taken for NotAuthorized.
	Step(ctx context.Context, data []byte) (Step, error)
}

// Step is the server's turn in an exchange.
type Step struct {
	Reply []byte // for the client; nil when there is nothing to say
	// Done means that the client has proved to be Username.
	Done     bool
	Username string
}

// Limits of an exchange: what a client may make the server do and keep that
// nobody knows yet.
const (
	// maxExchangeSteps leaves room above the known methods: SCRAM takes two
	// steps, Kerberos two or three.
	maxExchangeSteps = 16
	// maxExchangeBytes bounds the data of one step. The largest in use are
	// Kerberos tickets with many group memberships, of up to 12 KiB or so.
	maxExchangeBytes = 16 << 10
)

// Exchange is an authentication in several steps that goes on. Only one
// goroutine at a time may use it.
type Exchange struct {
	broker  *Broker
	method  Method
	request *ConnectRequest
	again   bool    // of a client that is connected
	user    *string // who it must turn out to be; nil = anybody
	steps   int
}

// BeginExchange starts the authentication of a client by a method. It blocks as
// the Exchanger does. The error is an *Error with the Reason for the peer, as
// that of Step is.
func (b *Broker) BeginExchange(ctx context.Context, method string, r *ConnectRequest) (*Exchange, error) {
	x := &Exchange{broker: b, request: r}
	if r.Verified {
		user := r.Credentials.Username // whatever the method finds, the transport has the same to say
		x.user = &user
	}
	return x.begin(ctx, method)
}

// BeginExchange starts the authentication of a client that is connected. It
// must turn out to be the user that it is. r describes the client as the
// request of its Connect did.
func (s *Session) BeginExchange(ctx context.Context, method string, r *ConnectRequest) (*Exchange, error) {
	if s.gone.Load() {
		return nil, &Error{Reason: Closed}
	}
	x := &Exchange{broker: s.broker, request: r, again: true, user: &s.username}
	return x.begin(ctx, method)
}

func (x *Exchange) begin(ctx context.Context, method string) (*Exchange, error) {
	b := x.broker
	if b.closing.Load() {
		return nil, &Error{Reason: ShuttingDown}
	}
	if err := b.checkRequest(x.request); err != nil {
		return nil, err
	}
	from, ok := b.cfg.Authenticate.(Exchanger)
	if !ok {
		return nil, x.refuse(ErrMethod)
	}
	m, err := from.BeginMethod(ctx, method, x.request)
	if err != nil {
		return nil, x.refuse(err)
	}
	x.method = m
	return x, nil
}

// Step takes what the client sent, nil when it sent nothing, and returns what
// to answer. When it is done, the request that the exchange was begun with is
// verified and carries the user name, and can be given to Connect. After an
// error the exchange is over.
func (x *Exchange) Step(ctx context.Context, data []byte) (reply []byte, done bool, err error) {
	x.steps++
	switch {
	case len(data) > maxExchangeBytes:
		err = &Error{Reason: QuotaExceeded, Err: fmt.Errorf("authentication data of %d bytes", len(data))}
	case x.steps > maxExchangeSteps:
		err = &Error{Reason: QuotaExceeded, Err: errors.New("authentication takes too many steps")}
	}
	if err != nil {
		return nil, false, x.refuse(err)
	}
	s, err := x.method.Step(ctx, data)
	if err == nil && s.Done {
		err = x.proved(ctx, s.Username)
	}
	if err != nil {
		return nil, false, x.refuse(err)
	}
	return s.Reply, s.Done, nil
}

// proved takes the outcome.
func (x *Exchange) proved(ctx context.Context, user string) error {
	if x.user != nil && user != *x.user {
		return &Error{Reason: NotAuthorized, Err: fmt.Errorf("user %q has authenticated as %q", *x.user, user)}
	}
	x.request.Credentials = Credentials{Username: user, HasUsername: true}
	x.request.Verified = true
	if !x.again {
		return nil // Connect asks the Authenticator
	}
	return x.broker.cfg.Authenticate.Authenticate(ctx, x.request)
}

// refuse gives an error its Reason, and counts a client that does not get in.
func (x *Exchange) refuse(err error) error {
	if !x.again {
		x.broker.stats.refusedConnects.Add(1)
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return &Error{Reason: NotAuthorized, Err: err}
}
