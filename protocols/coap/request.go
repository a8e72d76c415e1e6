package coap

import (
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// request is the way of one request: duplicate, options, limits, route.
func (l *loop) request(d *datagram, pkt *packet) {
	p := l.peerFor(d)
	if p == nil {
		l.metrics.drop(dropPeerTable)
		stray := &peer{udp: d.addr, local: d.to, mid: pkt.mid}
		l.respond(l.newExchange(stray, pkt), refusal(codes.ServiceUnavailable, "too many peers"))
		return
	}
	if ex := p.dedup.find(pkt.mid, pkt.token, pkt.typ == message.Confirmable, l.now); ex != nil {
		l.duplicate(ex)
		return
	}
	ex := l.newExchange(p, pkt)
	req := &l.req
	if bad, ok := req.parse(pkt); !ok {
		l.badOption(ex, bad)
		return
	}
	ex.suppress = req.noResponse
	if !p.proven(l.now) && len(req.echo) > 0 && l.echo.valid(req.echo, p.addr) {
		p.provenUntil = l.now + echoLifetime
	}
	if r := l.admit(p); r != nil {
		l.respond(ex, r) // not remembered: nothing happened, and a repetition may be let in
		return
	}
	p.dedup.add(ex, max(dedupEntries, 2*l.cfg.MaxPendingPerPeer))
	l.current = ex
	l.route(ex, req)
}

func (l *loop) newExchange(p *peer, pkt *packet) *exchange {
	return &exchange{
		peer: p, at: l.now, size: pkt.size, token: pkt.token, mid: pkt.mid,
		con: pkt.typ == message.Confirmable,
	}
}

// duplicate answers a repeated request as the first one was answered. While
// that is still under way the answer is yet to come; the empty ACK is repeated
// if there was one, because the client evidently missed it.
func (l *loop) duplicate(ex *exchange) {
	l.metrics.duplicates.Inc()
	switch {
	case ex.con && ex.acked:
		l.acknowledge(ex)
	case ex.reply != nil:
		l.send(ex.peer, ex.reply)
	}
}

// badOption refuses an option that must not be ignored. A non-confirmable
// message with one is rejected silently (RFC 7252 section 5.4.1).
func (l *loop) badOption(ex *exchange, id message.OptionID) {
	if !ex.con {
		l.metrics.drop(dropOption)
		return
	}
	l.respond(ex, refusal(codes.BadOption, "option "+id.String()))
}

// admit applies the limits that protect the gateway.
func (l *loop) admit(p *peer) *response {
	switch {
	case l.draining:
		r := refusal(codes.ServiceUnavailable, "shutting down")
		r.maxAge = retryDraining
		return r
	case !p.bucket.take(l.now, l.cfg.Rate, l.cfg.Burst):
		return refusal(codes.TooManyRequests, "too many requests")
	case p.pending >= l.cfg.MaxPendingPerPeer || l.pending >= l.cfg.MaxPending:
		return refusal(codes.ServiceUnavailable, "too many requests under way")
	}
	return nil
}

func (l *loop) route(ex *exchange, req *request) {
	pkt := req.packet
	switch {
	case req.proxied:
		l.respond(ex, refusal(codes.ProxyingNotSupported, ""))
	case pkt.truncated:
		r := refusal(codes.RequestEntityTooLarge, "use block-wise transfer")
		r.size1 = uint32(l.cfg.MaxBody)
		l.respond(ex, r)
	case len(req.path) > 0 && string(req.path[0]) == "ps":
		l.pubsub(ex, req)
	case isPath(req.path, ".well-known", "core"):
		l.discover(ex, req)
	default:
		l.respond(ex, refusal(codes.NotFound, ""))
	}
}

// pubsub serves the topics below /ps.
func (l *loop) pubsub(ex *exchange, req *request) {
	switch req.packet.code {
	case codes.PUT, codes.POST:
		l.publish(ex, req)
	case codes.GET:
		if req.block1.present { // describes a payload, which a GET has not
			l.respond(ex, refusal(codes.BadOption, "Block1"))
			return
		}
		l.get(ex, req)
	default:
		l.respond(ex, refusal(codes.MethodNotAllowed, ""))
	}
}

// wait marks an exchange as waiting for the broker. After a while it gets an
// empty acknowledgement, so that the client does not send again.
func (l *loop) wait(ex *exchange) {
	ex.waiting = true
	ex.peer.pending++
	l.pending++
	if ex.con {
		l.acks.push(ex)
	}
}

func (l *loop) waited(ex *exchange) {
	if !ex.waiting {
		return
	}
	ex.waiting = false
	ex.peer.pending--
	l.pending--
	l.acks.remove(ex)
}

// respond ends an exchange: with a piggybacked response, with a separate
// confirmable one if the empty acknowledgement is out, or with a
// non-confirmable one (RFC 7252 section 5.2).
func (l *loop) respond(ex *exchange, r *response) {
	if ex.done {
		return
	}
	l.waited(ex)
	ex.done = true
	r.block1 = ex.echoed
	if ex.suppressed(r.code) {
		l.respondNothing(ex)
		return
	}
	p := ex.peer
	h := header{typ: message.Acknowledgement, mid: ex.mid, token: ex.token}
	switch {
	case !ex.con:
		h.typ, h.mid = message.NonConfirmable, p.nextMID()
	case ex.acked:
		h.typ, h.mid = message.Confirmable, p.nextMID()
	}
	data, err := l.encodeFor(ex, h, r)
	if err != nil {
		l.metrics.drop(dropEncode)
		l.log.Error("answer coap request, dropped", "err", err)
		p.dedup.remove(ex)
		return
	}
	if h.typ == message.Confirmable {
		l.transmit(p, h.mid, append([]byte(nil), data...), func(outcome) {})
		return
	}
	if ex.keep || len(data) <= maxRemembered {
		ex.reply = append([]byte(nil), data...)
	} else {
		p.dedup.remove(ex)
	}
	l.send(p, data)
}

// respondNothing honours No-Response; a confirmable request still needs its
// acknowledgement.
func (l *loop) respondNothing(ex *exchange) {
	if ex.con && !ex.acked {
		ex.acked = true
		l.acknowledge(ex)
	}
}

// encodeFor encodes a response, or the demand for an Echo in its place if it
// is large and its receiver may be the victim of a forged address.
func (l *loop) encodeFor(ex *exchange, h header, r *response) ([]byte, error) {
	proven := ex.peer.proven(l.now)
	if proven && r.text != "" && len(r.payload) == 0 {
		r.payload = []byte(truncateText(r.text))
	}
	data, err := l.enc.encode(h, r)
	if err == nil && !proven && len(data) > max(safeReply, amplification*ex.size) {
		r = l.challenge(ex)
		data, err = l.enc.encode(h, r)
	}
	if err == nil {
		l.metrics.reply(r.code)
	}
	return data, err
}

// fail answers with the code of a broker Reason.
func (l *loop) fail(ex *exchange, r broker.Reason) {
	l.respond(ex, refusal(codeOf(r), r.String()))
}
