package broker

import (
	"math"
	"time"
)

// RetainedConfig holds the limits of what the broker retains for clients. Its
// own values below $SYS do not count.
//
// A message that would exceed one is refused before anybody gets it when its
// publisher can be told, with QoS 1 and 2: an acknowledgement says that the
// retained value is stored. With QoS 0 it is delivered, but not retained, and
// that is counted. A value that is there already is replaced by one that is not
// larger, and cleared, whatever the limits.
type RetainedConfig struct {
	// MaxCount caps the values. Default 100,000: small ones take about 64 MiB
	// of memory.
	MaxCount int
	// MaxBytes caps their size: payload, topic and 160 bytes each. Default
	// 64 MiB.
	MaxBytes int64
	// MaxPayload caps the payload of one. 0 = whatever an adapter takes.
	MaxPayload int
	// DefaultExpiry is how long a value is kept that its publisher gave no
	// expiry. It does not shorten the life of the message that is delivered at
	// once. 0 = for ever.
	DefaultExpiry time.Duration
	// MaxExpiry caps how long a value is kept, one without expiry included.
	// 0 = no cap.
	MaxExpiry time.Duration
}

func (c *RetainedConfig) setDefaults() {
	if c.MaxCount == 0 {
		c.MaxCount = 100_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
}

// retainedLimits are the limits that depend on what is retained already.
type retainedLimits struct{ count, bytes int64 }

var noLimits = retainedLimits{math.MaxInt64, math.MaxInt64}

func (c *RetainedConfig) limits() retainedLimits {
	return retainedLimits{int64(c.MaxCount), c.MaxBytes}
}

// retainedLimit is the limit that a value would have exceeded.
type retainedLimit uint8

const (
	limitNone retainedLimit = iota
	limitCount
	limitBytes
	limitPayload
	retainedLimitCount
)

// retainedLimitNames are label values.
var retainedLimitNames = [retainedLimitCount]string{limitCount: "count", limitBytes: "bytes", limitPayload: "payload"}

// reason is the answer to the publisher. A payload that is too large is so at
// the next attempt, too.
func (l retainedLimit) reason() Reason {
	switch l {
	case limitNone:
		return Success
	case limitPayload:
		return PacketTooLarge
	}
	return QuotaExceeded
}

// mayRetain looks whether the retained value of a message has room, as long as
// nobody has got the message. It is the common case that costs little: whether
// it fits is decided when it is stored.
func (b *Broker) mayRetain(m *Message) Reason {
	if !m.Retain || len(m.Payload) == 0 || m.QoS == 0 {
		return Success
	}
	c := &b.cfg.Retained
	l := limitNone
	switch more := int64(m.size()); {
	case c.tooLarge(m):
		l = limitPayload
	case b.retained.count.Load() < int64(c.MaxCount) && b.retained.bytes.Load()+more <= c.MaxBytes:
	default:
		l = b.retained.room(m, c.limits())
	}
	b.noteLimit(l)
	return l.reason()
}

func (b *Broker) noteLimit(l retainedLimit) {
	if l != limitNone {
		b.stats.unretained[l].Add(1)
	}
}

// room reports which limit keeps m from being retained now.
func (r *retained) room(m *Message, limits retainedLimits) retainedLimit {
	r.mu.RLock()
	defer r.mu.RUnlock()
	more := m.size()
	var old *Message
	if n := r.find(m.Topic); n != nil {
		old = n.message.Load()
	}
	if old != nil {
		more -= old.size()
	}
	switch {
	case old == nil && r.count.Load() >= limits.count:
		return limitCount
	case more > 0 && r.bytes.Load()+int64(more) > limits.bytes:
		return limitBytes
	}
	return limitNone
}

// tooLarge reports whether the payload of a message is one that is never
// retained.
func (c *RetainedConfig) tooLarge(m *Message) bool {
	return m.Retain && c.MaxPayload > 0 && len(m.Payload) > c.MaxPayload
}

// keepable is the message as it is retained: with the expiry that the limits
// leave it.
func (c *RetainedConfig) keepable(m *Message) *Message {
	expires := m.Expires
	if expires == 0 && c.DefaultExpiry > 0 {
		expires = m.Time + c.DefaultExpiry.Milliseconds()
	}
	if last := m.Time + c.MaxExpiry.Milliseconds(); c.MaxExpiry > 0 && (expires == 0 || expires > last) {
		expires = last
	}
	if expires == m.Expires {
		return m
	}
	kept := *m
	kept.Expires = expires
	return &kept
}
