package coap

import (
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// codeTable translates the outcome of a broker operation into the response
// code of the request that caused it.
var codeTable = map[broker.Reason]codes.Code{
	broker.Success:                codes.Changed,
	broker.NoSubscribers:          codes.Changed,
	broker.NoSubscriptionExisted:  codes.Changed,
	broker.Unspecified:            codes.InternalServerError,
	broker.Malformed:              codes.BadRequest,
	broker.ProtocolError:          codes.BadRequest,
	broker.ImplementationError:    codes.NotImplemented,
	broker.UnsupportedVersion:     codes.BadRequest,
	broker.InvalidClientID:        codes.BadRequest,
	broker.BadCredentials:         codes.Unauthorized,
	broker.NotAuthorized:          codes.Forbidden,
	broker.ServerUnavailable:      codes.ServiceUnavailable,
	broker.ServerBusy:             codes.ServiceUnavailable,
	broker.Banned:                 codes.Forbidden,
	broker.ShuttingDown:           codes.ServiceUnavailable,
	broker.BadAuthMethod:          codes.Unauthorized,
	broker.KeepAliveTimeout:       codes.ServiceUnavailable,
	broker.TakenOver:              codes.Forbidden,
	broker.InvalidFilter:          codes.BadRequest,
	broker.InvalidTopic:           codes.BadRequest,
	broker.PacketIDInUse:          codes.ServiceUnavailable,
	broker.PacketIDNotFound:       codes.InternalServerError,
	broker.ReceiveMaximumExceeded: codes.TooManyRequests,
	broker.InvalidAlias:           codes.BadRequest,
	broker.PacketTooLarge:         codes.RequestEntityTooLarge,
	broker.RateTooHigh:            codes.TooManyRequests,
	broker.QuotaExceeded:          codes.TooManyRequests,
	broker.Administrative:         codes.Forbidden,
	broker.InvalidPayload:         codes.BadRequest,
	broker.RetainNotSupported:     codes.NotImplemented,
	broker.QoSNotSupported:        codes.NotImplemented,
	broker.Closed:                 codes.ServiceUnavailable,
}

func codeOf(r broker.Reason) codes.Code {
	if c, ok := codeTable[r]; ok {
		return c
	}
	return codes.InternalServerError
}

// connectCode is codeOf for a session that was not opened: there a client that
// is not authorised lacks the right credentials, and 4.01 tells it so
// (RFC 7252 section 5.9.2.2).
func connectCode(r broker.Reason) codes.Code {
	if r == broker.NotAuthorized {
		return codes.Unauthorized
	}
	return codeOf(r)
}

// How long a client should wait before it tries again, in seconds of Max-Age.
const (
	retryRate     = 1
	retryBusy     = 5
	retryDraining = 30
)

// refusal is the response for a Reason that is not OK.
func refusal(code codes.Code, text string) *response {
	r := &response{code: code, text: text}
	switch code {
	case codes.TooManyRequests:
		r.maxAge, r.hasMaxAge = retryRate, true
	case codes.ServiceUnavailable:
		r.maxAge, r.hasMaxAge = retryBusy, true
	}
	return r
}
