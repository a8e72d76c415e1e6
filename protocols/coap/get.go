package coap

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"
	"unicode/utf8"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// maxAgeUnlimited is the Max-Age of a value that does not expire, in seconds.
// Without the option a client would take it for stale after 60 s.
const maxAgeUnlimited = 86400

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// get serves GET /ps/{topic}: the retained value, or an observation.
func (l *loop) get(ex *exchange, req *request) {
	filter, err := topicFilter(req.path[1:])
	if err != nil {
		l.respond(ex, refusal(codes.BadRequest, err.Error()))
		return
	}
	q, err := parseParams(req.query)
	if err != nil {
		l.respond(ex, refusal(codes.BadRequest, err.Error()))
		return
	}
	if req.block2.present && req.block2.szx > maxBlockExponent {
		l.respond(ex, refusal(codes.BadRequest, "reserved block size"))
		return
	}
	if req.observe == 0 && req.block2.num == 0 && !ex.peer.proven(l.now) {
		l.respond(ex, l.challenge(ex))
		return
	}
	s, reason := l.sessionFor(ex.peer, &q)
	if s == nil {
		l.respond(ex, refusal(connectCode(reason), reason.String()))
		return
	}
	switch {
	case req.block2.num > 0: // the rest of an answer, never a registration (RFC 7959 section 2.6)
		l.getBlock(ex, req, s, filter)
	case req.observe == 0:
		l.observe(ex, req, s, filter, &q)
	default:
		cancelled := req.observe == 1 && l.cancel(s, ex.token, filter)
		l.readRetained(ex, req, s, filter, cancelled)
	}
}

// readRetained answers with the retained value. After a deregistration its absence is
// no error.
func (l *loop) readRetained(ex *exchange, req *request, s *session, topic string, cancelled bool) {
	if hasWildcard(topic) {
		if cancelled {
			l.respond(ex, &response{code: codes.Content})
			return
		}
		l.respond(ex, refusal(codes.BadRequest, "a wildcard needs Observe"))
		return
	}
	m, reason := s.handle.Retained(topic)
	switch {
	case !reason.OK():
		l.fail(ex, reason)
	case m == nil && cancelled:
		l.respond(ex, &response{code: codes.Content})
	case m == nil:
		l.respond(ex, refusal(codes.NotFound, "no retained value"))
	default:
		l.respond(ex, l.represent(req, ex.peer, m))
	}
}

// represent builds the response that carries a message to the request:
// 2.05, 2.03 if the client has it already, 4.06 if it wants another format.
func (l *loop) represent(req *request, p *peer, m *broker.Message) *response {
	r := describe(m)
	if req.accept != noFormat && !acceptable(m, r, req.accept) {
		return refusal(codes.NotAcceptable, "")
	}
	for _, etag := range req.etags {
		if bytes.Equal(etag, r.etag) {
			r.code, r.hasFormat = codes.Valid, false
			return r
		}
	}
	if req.block2.present || len(m.Payload) > maxBlockSize {
		return l.firstBlock(req, p, m, r)
	}
	r.payload = m.Payload
	return r
}

// describe makes the response for a message without its payload.
func describe(m *broker.Message) *response {
	r := &response{code: codes.Content, etag: entityTag(m), hasMaxAge: true, maxAge: maxAgeUnlimited}
	if m.Properties != nil {
		if f := contentFormat(m.Properties.ContentType); f != noFormat {
			r.format, r.hasFormat = f, true
		}
	}
	if m.Expires != 0 {
		left := time.Until(time.UnixMilli(m.Expires))
		r.maxAge = uint32(max(0, min(left/time.Second, maxAgeUnlimited)))
	}
	return r
}

// acceptable reports whether a message can be given in the wanted format. One
// whose format is not known may be taken for bytes, or for text if it is.
func acceptable(m *broker.Message, r *response, accept int) bool {
	if r.hasFormat {
		return r.format == accept
	}
	if m.Properties != nil && m.Properties.ContentType != "" {
		return false
	}
	switch {
	case accept == int(message.AppOctets), accept == int(message.TextPlain) && utf8.Valid(m.Payload):
		r.format, r.hasFormat = accept, true
		return true
	}
	return false
}

// entityTag identifies a message's payload: the time of its acceptance and a
// checksum. It stays the same over a restart.
func entityTag(m *broker.Message) []byte {
	tag := make([]byte, 8)
	binary.BigEndian.PutUint32(tag, uint32(m.Time))
	binary.BigEndian.PutUint32(tag[4:], crc32.Checksum(m.Payload, castagnoli))
	return tag
}
