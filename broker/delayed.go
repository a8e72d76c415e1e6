package broker

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// DelayedConfig holds the limits of what waits to be published later. A
// publisher whose message would exceed one gets QuotaExceeded.
type DelayedConfig struct {
	// MaxMessages caps the messages. Default 100,000; negative = nothing can be
	// published later, and who tries gets ImplementationError.
	MaxMessages int
	// MaxBytes caps their size: payload, topic and 160 bytes each. They are in
	// memory, those with QoS 1 and 2 also on disk. Default 64 MiB.
	MaxBytes int64
}

func (c *DelayedConfig) setDefaults() {
	if c.MaxMessages == 0 {
		c.MaxMessages = 100_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 20
	}
}

// A message to $delayed/{seconds}/{topic} is published to {topic} after that
// time, as in EMQX. Unlike there, a message that cannot be is refused, and a
// number above MaxDelay is no date. 0 seconds means at once.
const (
	delayedPrefix = "$delayed/"
	// MaxDelay is the largest number of seconds, as in EMQX: 49 days.
	MaxDelay = 4_294_967
)

var (
	errDelayedForm = errors.New("delayed publishing needs $delayed/{seconds}/{topic}, 0 to 4294967 seconds")
	errDelayedRest = errors.New("the topic behind $delayed/{seconds}/ must be a plain one")
)

// splitDelayed returns the topic that a message is for, and after how many
// seconds. Whether the topic is valid is left to the caller.
func splitDelayed(topic string) (rest string, seconds int64, err error) {
	behind, delayed := strings.CutPrefix(topic, delayedPrefix)
	if !delayed {
		if topic == delayedPrefix[:len(delayedPrefix)-1] {
			return "", 0, errDelayedForm
		}
		return topic, 0, nil
	}
	number, rest, more := strings.Cut(behind, "/")
	n, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil || n > MaxDelay || !more:
		return "", 0, errDelayedForm
	case extended(rest):
		return "", 0, errDelayedRest
	}
	return rest, int64(n), nil
}

// delayedWords cuts a valid topic behind $delayed/{seconds}/, if it begins so.
func delayedWords(topic string) (words, rest string) {
	rest, _, _ = splitDelayed(topic)
	return topic[:len(topic)-len(rest)], rest
}

// cutDelayed takes the words of a delay out of the topic, and returns when the
// message is to be published in Unix milliseconds, 0 for now.
func (b *Broker) cutDelayed(m *Message) (due int64, r Reason) {
	rest, seconds, err := splitDelayed(m.Topic)
	switch {
	case err != nil:
		return 0, InvalidTopic
	case rest == m.Topic:
		return 0, Success
	case b.cfg.Delayed.MaxMessages < 0:
		return 0, ImplementationError
	}
	m.Topic = rest
	if seconds == 0 {
		return 0, Success
	}
	return nowMillis() + seconds*1000, Success
}

// delay keeps a message until its time, behind everything that may change or
// refuse it. With QoS 1 and 2 its publisher is answered when it is on disk;
// with QoS 0 it is only in memory, as everything of QoS 0. ops are stored with
// it.
func (b *Broker) delay(ctx context.Context, p *Publication, ops []Op) Reason {
	m := p.Message
	p.matched = true
	if p.stored { // with its packet identifier
		return Success
	}
	if r := b.mayRetain(m); !r.OK() {
		return r
	}
	d := b.delayed.reserve(m, p.due, &b.cfg.Delayed)
	if d == nil {
		b.stats.delayed.refused.Add(1)
		return QuotaExceeded
	}
	if m.QoS == 0 {
		b.delayed.wait(d, b.delayedDue)
		return Success
	}
	d.stored = true
	p.Hold()
	batch := Batch{Ops: append(ops, Op{Kind: OpDelay, Seq: d.id, Due: d.due, Message: m})}
	err := b.commit(ctx, &batch, func(err error) {
		if err != nil {
			b.delayed.forget(d)
		} else {
			b.delayed.wait(d, b.delayedDue)
		}
		p.Done(storeReason(err))
	})
	if err != nil {
		b.delayed.forget(d)
		p.pending.Add(-1)
		return storeReason(err)
	}
	return Success
}

// restoreDelayed takes over what the store kept.
func (b *Broker) restoreDelayed(stored []Delayed) {
	for i := range stored {
		b.delayed.restore(&stored[i])
	}
	b.delayed.open(b.delayedDue)
}

// delayedDue runs when the time of a delayed message has come.
func (b *Broker) delayedDue() { b.spawn(b.fireDelayed) }

// fireDelayed publishes what is due, until nothing is.
func (b *Broker) fireDelayed() {
	if !b.delayed.begin() {
		return
	}
	for b.ctx.Err() == nil {
		batch := b.delayed.take(nowMillis(), b.delayedDue)
		if len(batch) == 0 {
			return
		}
		b.fire(batch)
	}
	b.delayed.end()
}
