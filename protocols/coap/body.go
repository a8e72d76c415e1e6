package coap

import (
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

const (
	// bodyLifetime is how long a body is kept for the client to fetch its
	// further blocks, so that all of them are of the same message.
	bodyLifetime = 60 * time.Second
	// fetchPatience is how long the next delivery waits for a client to fetch
	// the next block of a notification. It is longer than a client takes that
	// lost two datagrams. A non-confirmable notification may have been lost,
	// and then nobody will fetch: briefPatience.
	fetchPatience = 10 * time.Second
	briefPatience = 3 * time.Second
	bodiesPerPeer = 8
)

// body is a payload larger than one block, kept for its peer.
type body struct {
	key         string
	message     *broker.Message
	observation *observation // nil: of a plain GET
	flight      *flight      // the delivery that ends when the last block is fetched
	timer       timer
}

// slice puts one block of a payload into a response; false means that there is
// no such block.
func (r *response) slice(payload []byte, b block) bool {
	start := b.offset()
	if start >= len(payload) && start > 0 {
		return false
	}
	end := min(start+b.size(), len(payload))
	r.payload = payload[start:end]
	r.block2 = block{present: true, num: b.num, more: end < len(payload), szx: b.szx}
	if b.num == 0 && r.block2.more {
		r.size2 = uint32(len(payload))
	}
	return true
}

// firstBlock answers a GET with the first block and keeps the body if there is
// more of it.
func (l *loop) firstBlock(req *request, p *peer, m *broker.Message, r *response) *response {
	b := block{szx: maxBlockExponent}
	if req.block2.present {
		b.szx = req.block2.szx
	}
	r.slice(m.Payload, b)
	if r.block2.more {
		l.keepBody(p, &body{key: cacheKey(req), message: m}, bodyLifetime)
	}
	return r
}

// pinBody makes a notification carry the first block of its message and keeps
// the body. The delivery is not complete before the client has fetched it, so
// that the next body does not take its place meanwhile.
func (l *loop) pinBody(p *peer, o *observation, m *broker.Message, f *flight, r *response) {
	r.slice(m.Payload, block{szx: maxBlockExponent})
	b := &body{key: o.key, message: m, observation: o, flight: f}
	f.left++
	patience := briefPatience
	if f.delivery.QoS > 0 {
		patience = fetchPatience
	}
	l.keepBody(p, b, patience)
}

func (l *loop) keepBody(p *peer, b *body, patience time.Duration) {
	if i := slices.IndexFunc(p.bodies, func(other *body) bool { return other.key == b.key }); i >= 0 {
		l.dropBody(p, p.bodies[i])
	}
	if len(p.bodies) >= bodiesPerPeer {
		l.dropBody(p, p.bodies[0])
	}
	b.timer.fire = func() { l.bodyUnwanted(p, b) }
	p.bodies = append(p.bodies, b)
	l.timers.set(&b.timer, l.now+patience)
}

// bodyUnwanted runs when no block was fetched for a while.
func (l *loop) bodyUnwanted(p *peer, b *body) {
	if b.flight == nil {
		l.dropBody(p, b)
		return
	}
	l.timers.set(&b.timer, l.now+bodyLifetime)
	l.bodyFetched(b)
}

// bodyFetched lets the session go on behind a large notification.
func (l *loop) bodyFetched(b *body) {
	f := b.flight
	if f == nil {
		return
	}
	b.flight = nil
	l.landed(f)
	l.events.post(event{kind: eventWake, session: f.session})
}

func (l *loop) dropBody(p *peer, b *body) {
	i := slices.Index(p.bodies, b)
	if i < 0 {
		return
	}
	p.bodies = slices.Delete(p.bodies, i, i+1)
	l.timers.stop(&b.timer)
	l.bodyFetched(b)
}

// getBlock answers a GET for a further block, from the body that the first one
// came from while it is kept, else from the retained value.
func (l *loop) getBlock(ex *exchange, req *request, s *session, topic string) {
	key := cacheKey(req)
	var kept *body
	if i := slices.IndexFunc(ex.peer.bodies, func(b *body) bool { return b.key == key }); i >= 0 {
		kept = ex.peer.bodies[i]
	}
	m, reason := keptOrRetained(kept, s, topic)
	if !reason.OK() {
		l.fail(ex, reason)
		return
	}
	if m == nil {
		l.respond(ex, refusal(codes.NotFound, "nothing to continue"))
		return
	}
	r := describe(m)
	if !r.slice(m.Payload, req.block2) {
		l.respond(ex, refusal(codes.BadOption, "no such block"))
		return
	}
	if kept == nil {
		l.respond(ex, r)
		return
	}
	l.timers.set(&kept.timer, l.now+kept.patience())
	ex.keep = !r.block2.more // the body may be gone when this reply has to be repeated
	l.respond(ex, r)
	if !r.block2.more {
		l.bodyFetched(kept)
	}
}

func (b *body) patience() time.Duration {
	if b.flight != nil {
		return fetchPatience
	}
	return bodyLifetime
}

func keptOrRetained(kept *body, s *session, topic string) (*broker.Message, broker.Reason) {
	if kept != nil {
		return kept.message, broker.Success
	}
	if hasWildcard(topic) {
		return nil, broker.Success
	}
	return s.handle.Retained(topic)
}
