package broker

import (
	"context"
	"sync"
	"sync/atomic"
)

// Hook is a named step of the hook stage. The broker runs its hooks in the
// order of Config.Hooks; a hook implements [Rewriter], [Recorder] or both.
type Hook interface{ Name() string }

// Rewriter may replace p.Message, or refuse the publication with a Reason that
// is not OK. It must not modify the message it was given. All rewriters run
// before the message is retained, stored, recorded or routed, so that
// everybody behind them sees the same message. Of a message that is to be
// published later they see the real topic, once, when it comes.
type Rewriter interface {
	Rewrite(p *Publication) Reason
}

// Recorder keeps the message somewhere else: a bridge queue, a history. To
// delay the acknowledgement until that is durable it calls p.Hold before it
// starts and p.Done once it knows. It may block for back-pressure until ctx
// ends; with a nil ctx it must not block and returns ServerBusy instead. A
// Reason that is not OK becomes the publisher's answer.
type Recorder interface {
	Record(ctx context.Context, p *Publication) Reason
}

// Publication is one Publish on its way. It is valid for a hook until its
// method returned and, if it called Hold, until the matching Done.
type Publication struct {
	Message *Message
	Session *Session // nil for a will, a delayed message or an internal publisher

	matched bool
	stored  bool  // the store and the sessions have it already
	due     int64 // when it is to be published, Unix milliseconds; 0 = now
	will    bool  // nobody can send it again: who has no room for it goes without
	lent    bool  // from publications, and goes back there
	done    func(Reason)
	inbound *inbound // of a QoS 2 message that has an identifier
	id      uint16   // the identifier
	pending atomic.Int32
	worst   atomic.Uint32
}

// Matched records that somebody takes the message, so that the publisher is
// not told NoSubscribers. Only for use inside Record.
func (p *Publication) Matched() { p.matched = true }

// Hold delays the acknowledgement until one matching Done.
func (p *Publication) Hold() { p.pending.Add(1) }

// Done ends one Hold. A Reason that is not OK becomes the publisher's answer;
// the first such wins. It may be called from any goroutine.
func (p *Publication) Done(r Reason) {
	p.fail(r)
	if p.pending.Add(-1) == 0 {
		p.finish()
	}
}

func (p *Publication) fail(r Reason) {
	if !r.OK() {
		p.worst.CompareAndSwap(0, uint32(r))
	}
}

// finish answers. Nobody may use p any more.
func (p *Publication) finish() {
	r := Reason(p.worst.Load())
	if r == Success && !p.matched {
		r = NoSubscribers
	}
	session, in, id, done := p.Session, p.inbound, p.id, p.done
	if p.lent {
		*p = Publication{}
		publications.Put(p)
	}
	if in != nil {
		session.state.settleInbound(id, in, r, done)
		return
	}
	answer(done, r)
}

// publications keeps those of clients, so that a message does not allocate one.
var publications = sync.Pool{New: func() any { return &Publication{} }}
