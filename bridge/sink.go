package bridge

import (
	"context"
	"errors"
)

// Sink sends the records of a queue to one other system.
type Sink interface {
	// Run connects, calls feed.Connected, and sends what feed gives it until
	// feed.Stopping is closed: then it sends nothing new, waits for the
	// confirmations that are outstanding and returns nil. When ctx ends it
	// returns at once. It returns an error when it cannot go on; it will be
	// called again, after a pause, with a new Feed that begins at the first
	// record that is not confirmed. An error marked by Permanent means that only
	// an operator can help. Run is never called twice at the same time, and no
	// goroutine that it started may use feed after it returned.
	Run(ctx context.Context, feed *Feed) error
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks an error that trying again will not cure, such as a rejected
// password. The Forwarder shows the bridge as failed and tries only once a
// minute.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err or something it wraps was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
