package coap

import (
	"github.com/plgd-dev/go-coap/v3/message"
)

// Options that go-coap does not name.
const (
	optionHopLimit   message.OptionID = 16  // RFC 8768
	optionEcho       message.OptionID = 252 // RFC 9175
	optionRequestTag message.OptionID = 292 // RFC 9175
)

// optionRule is the definition of an option that requests may carry.
type optionRule struct {
	min, max   int
	repeatable bool
}

// ruleOf returns the definition of an option. If-Match and If-None-Match are
// not among them: a publish is not conditional, and a critical option that is
// not acted upon must be refused (RFC 7252 section 5.4.1).
func ruleOf(id message.OptionID) (r optionRule, known bool) {
	switch id {
	case message.URIHost, message.ProxyScheme:
		return optionRule{min: 1, max: 255}, true
	case message.ETag:
		return optionRule{min: 1, max: 8, repeatable: true}, true
	case message.Observe, message.Block1, message.Block2:
		return optionRule{max: 3}, true
	case message.URIPort, message.ContentFormat, message.Accept:
		return optionRule{max: 2}, true
	case message.URIPath, message.URIQuery:
		return optionRule{max: 255, repeatable: true}, true
	case message.MaxAge, message.Size1, message.Size2:
		return optionRule{max: 4}, true
	case message.ProxyURI:
		return optionRule{min: 1, max: 1034}, true
	case message.NoResponse:
		return optionRule{max: 1}, true
	case optionHopLimit:
		return optionRule{min: 1, max: 1}, true
	case optionEcho:
		return optionRule{min: 1, max: 40}, true
	case optionRequestTag:
		return optionRule{max: 8, repeatable: true}, true
	}
	return optionRule{}, false
}

// critical options must not be ignored (RFC 7252 section 5.4.6).
func critical(id message.OptionID) bool { return id&1 == 1 }

// uintOption decodes a uint value; the option rule has checked its length.
func uintOption(b []byte) (v uint32) {
	for _, c := range b {
		v = v<<8 | uint32(c)
	}
	return v
}

// request is what the options of one request mean. Its slices alias the
// datagram; a loop reuses one value for all.
type request struct {
	packet *packet

	path   [][]byte
	query  [][]byte
	etags  [][]byte
	accept int // Content-Format wanted, -1 = any
	format int // Content-Format of the payload, -1 = not stated

	observe    int // 0 register, 1 deregister, -1 = absent or to be ignored
	noResponse uint8
	proxied    bool
	echo       []byte
	tags       [][]byte // Request-Tag
	size1      uint32

	block1, block2 block

	key string // cacheKey of another request that this one stands for
}

// parse screens the options of a packet: elective ones that are unknown, of a
// wrong length or repeated without right are ignored, critical ones make it
// return their number and false (RFC 7252 sections 5.4.1 to 5.4.5).
func (r *request) parse(p *packet) (bad message.OptionID, ok bool) {
	*r = request{
		packet: p, path: r.path[:0], query: r.query[:0], etags: r.etags[:0], tags: r.tags[:0],
		accept: -1, format: -1, observe: -1,
	}
	previous := message.OptionID(0)
	for i, o := range p.options {
		rule, known := ruleOf(o.ID)
		repeated := i > 0 && o.ID == previous && !rule.repeatable
		previous = o.ID
		if !known || repeated || len(o.Value) < rule.min || len(o.Value) > rule.max {
			if critical(o.ID) {
				return o.ID, false
			}
			continue
		}
		r.take(o)
	}
	return 0, true
}

func (r *request) take(o message.Option) {
	switch o.ID {
	case message.URIPath:
		r.path = append(r.path, o.Value)
	case message.URIQuery:
		r.query = append(r.query, o.Value)
	case message.ETag:
		r.etags = append(r.etags, o.Value)
	case message.Accept:
		r.accept = int(uintOption(o.Value))
	case message.ContentFormat:
		r.format = int(uintOption(o.Value))
	case message.Observe:
		if v := uintOption(o.Value); v <= 1 {
			r.observe = int(v)
		}
	case message.Block1:
		r.block1 = parseBlock(o.Value)
	case message.Block2:
		r.block2 = parseBlock(o.Value)
	case message.Size1:
		r.size1 = uintOption(o.Value)
	case message.NoResponse:
		r.noResponse = uint8(uintOption(o.Value))
	case message.ProxyURI, message.ProxyScheme:
		r.proxied = true
	case optionEcho:
		r.echo = o.Value
	case optionRequestTag:
		r.tags = append(r.tags, o.Value)
	}
}
