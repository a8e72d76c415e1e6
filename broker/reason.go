package broker

import (
	"errors"
	"fmt"
)

// Reason is the outcome of an operation as the domain sees it. Each adapter
// translates it into its own code by one table (MQTT reason code, CoAP
// response code, HTTP status).
type Reason uint8

// The reasons. Comments name the MQTT 5 reason code of the same meaning.
const (
	Success                Reason = iota // 0x00
	NoSubscribers                        // 0x10: accepted, nobody takes it
	NoSubscriptionExisted                // 0x11
	Unspecified                          // 0x80: a fault of this server, see its log
	Malformed                            // 0x81
	ProtocolError                        // 0x82
	ImplementationError                  // 0x83: valid, but not accepted by this server
	UnsupportedVersion                   // 0x84
	InvalidClientID                      // 0x85
	BadCredentials                       // 0x86
	NotAuthorized                        // 0x87
	ServerUnavailable                    // 0x88
	ServerBusy                           // 0x89
	Banned                               // 0x8A
	ShuttingDown                         // 0x8B
	BadAuthMethod                        // 0x8C
	KeepAliveTimeout                     // 0x8D
	TakenOver                            // 0x8E
	InvalidFilter                        // 0x8F
	InvalidTopic                         // 0x90
	PacketIDInUse                        // 0x91
	PacketIDNotFound                     // 0x92
	ReceiveMaximumExceeded               // 0x93
	InvalidAlias                         // 0x94
	PacketTooLarge                       // 0x95
	RateTooHigh                          // 0x96
	QuotaExceeded                        // 0x97
	Administrative                       // 0x98
	InvalidPayload                       // 0x99
	RetainNotSupported                   // 0x9A
	QoSNotSupported                      // 0x9B
	Closed                               // this handle no longer owns its session
	reasonCount
)

var reasonNames = [reasonCount]string{
	Success: "success", NoSubscribers: "no matching subscribers", NoSubscriptionExisted: "no subscription existed",
	Unspecified: "unspecified error", Malformed: "malformed packet", ProtocolError: "protocol error",
	ImplementationError: "not accepted by this server", UnsupportedVersion: "unsupported protocol version",
	InvalidClientID: "client identifier not valid", BadCredentials: "bad user name or password",
	NotAuthorized: "not authorized", ServerUnavailable: "server unavailable", ServerBusy: "server busy",
	Banned: "banned", ShuttingDown: "server shutting down", BadAuthMethod: "bad authentication method",
	KeepAliveTimeout: "keep alive timeout", TakenOver: "session taken over", InvalidFilter: "topic filter invalid",
	InvalidTopic: "topic name invalid", PacketIDInUse: "packet identifier in use",
	PacketIDNotFound: "packet identifier not found", ReceiveMaximumExceeded: "receive maximum exceeded",
	InvalidAlias: "topic alias invalid", PacketTooLarge: "packet too large", RateTooHigh: "message rate too high",
	QuotaExceeded: "quota exceeded", Administrative: "administrative action", InvalidPayload: "payload format invalid",
	RetainNotSupported: "retain not supported", QoSNotSupported: "qos not supported",
	Closed: "session closed",
}

// String returns a short lower-case text that may be shown to a peer.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// OK reports whether the operation was done.
func (r Reason) OK() bool { return r <= NoSubscriptionExisted }

// Reasons lists every Reason, so that an adapter's test can check its table.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Error is the one error type at the protocol boundary: Reason is for the
// peer, Err for the log.
type Error struct {
	Reason Reason
	Err    error // may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the Reason that err carries, Success for nil, and
// Unspecified for an error without one.
func ReasonOf(err error) Reason {
	if err == nil {
		return Success
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return Unspecified
}
