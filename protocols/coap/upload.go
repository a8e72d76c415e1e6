package coap

import (
	"encoding/binary"
	"slices"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// upload is a request body that arrives in blocks (RFC 7959 section 2.5). The
// blocks belong together by endpoint, resource and Request-Tag; each may have
// a token of its own (RFC 7959 section 3.3, RFC 9175 section 3).
type upload struct {
	peer *peer
	key  string
	body []byte
	idle timer
}

// receiveBlock takes one block. When it was the last one it returns the whole
// body; else it has answered the request.
func (l *loop) receiveBlock(ex *exchange, req *request) (body []byte, whole bool) {
	b, payload := req.block1, req.packet.payload
	switch {
	case b.szx > maxBlockExponent:
		l.refuseBlock(ex, nil, refusal(codes.BadRequest, "reserved block size"))
		return nil, false
	case b.more && len(payload) != b.size(), len(payload) > b.size():
		l.refuseBlock(ex, nil, refusal(codes.BadRequest, "block size and payload differ"))
		return nil, false
	}
	ex.echoed = b
	u := findUpload(ex.peer, cacheKey(req))
	if b.num == 0 && u != nil { // the client starts again
		l.dropUpload(u)
		u = nil
	}
	if b.num == 0 && !b.more {
		return slices.Clone(payload), true
	}
	if b.num == 0 {
		u = l.startUpload(ex, req)
		if u == nil {
			return nil, false
		}
	}
	return l.appendBlock(ex, u, b, payload)
}

func (l *loop) appendBlock(ex *exchange, u *upload, b block, payload []byte) (body []byte, whole bool) {
	if u != nil && b.more && b.offset()+len(payload) <= len(u.body) { // under a new message id, because the 2.31 was lost
		l.respond(ex, &response{code: codes.Continue})
		return nil, false
	}
	if u == nil || b.offset() != len(u.body) {
		l.refuseBlock(ex, u, refusal(codes.RequestEntityIncomplete, "block missing"))
		return nil, false
	}
	if len(u.body)+len(payload) > l.cfg.MaxBody {
		l.refuseBlock(ex, u, l.tooLarge())
		return nil, false
	}
	before := cap(u.body)
	u.body = append(u.body, payload...)
	l.uploaded += cap(u.body) - before
	if l.uploaded > l.cfg.UploadMemory {
		l.refuseBlock(ex, u, refusal(codes.ServiceUnavailable, "no memory for uploads"))
		return nil, false
	}
	if b.more {
		l.timers.set(&u.idle, l.now+l.cfg.UploadIdle)
		l.respond(ex, &response{code: codes.Continue})
		return nil, false
	}
	body = u.body
	l.dropUpload(u)
	return body, true
}

// startUpload makes room for a body. A peer at its cap loses its oldest one.
func (l *loop) startUpload(ex *exchange, req *request) *upload {
	if int64(req.size1) > int64(l.cfg.MaxBody) {
		l.refuseBlock(ex, nil, l.tooLarge())
		return nil
	}
	p := ex.peer
	if len(p.uploads) >= l.cfg.UploadsPerPeer {
		l.metrics.uploadsFailed.Inc()
		l.dropUpload(p.uploads[0])
	}
	u := &upload{peer: p, key: cacheKey(req)}
	u.idle.fire = func() {
		l.metrics.uploadsFailed.Inc()
		l.dropUpload(u)
	}
	p.uploads = append(p.uploads, u)
	l.metrics.uploads.Inc()
	return u
}

// refuseBlock answers with an error and forgets the upload, if there is one.
func (l *loop) refuseBlock(ex *exchange, u *upload, r *response) {
	l.metrics.uploadsFailed.Inc()
	if u != nil {
		l.dropUpload(u)
	}
	l.respond(ex, r)
}

// tooLarge tells the size that would be accepted (RFC 7959 section 2.9.3).
func (l *loop) tooLarge() *response {
	r := refusal(codes.RequestEntityTooLarge, "body too large")
	r.size1 = uint32(l.cfg.MaxBody)
	return r
}

func (l *loop) dropUpload(u *upload) {
	p := u.peer
	i := slices.Index(p.uploads, u)
	if i < 0 {
		return
	}
	p.uploads = slices.Delete(p.uploads, i, i+1)
	l.timers.stop(&u.idle)
	l.uploaded -= cap(u.body)
	l.metrics.uploads.Dec()
}

func findUpload(p *peer, key string) *upload {
	for _, u := range p.uploads {
		if u.key == key {
			return u
		}
	}
	return nil
}

// cacheKey identifies what a request is about, apart from the block it asks
// for: method, path, query and Request-Tag, each with its length so that no
// two requests share a key.
func cacheKey(req *request) string {
	if req.key != "" {
		return req.key
	}
	b := []byte{byte(req.packet.code)}
	for _, part := range []struct {
		id     message.OptionID
		values [][]byte
	}{{message.URIPath, req.path}, {message.URIQuery, req.query}, {optionRequestTag, req.tags}} {
		for _, v := range part.values {
			b = binary.AppendUvarint(b, uint64(part.id))
			b = binary.AppendUvarint(b, uint64(len(v)))
			b = append(b, v...)
		}
	}
	return string(b)
}
