package coap

import (
	"strings"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// link is one resource of /.well-known/core (RFC 6690).
type link struct {
	target string
	types  []string // rt
	rest   string   // further attributes
}

var links = []link{
	{target: "/ps", types: []string{"core.ps", "core.ps.coll"}, rest: `;obs;title="publish/subscribe"`},
}

// discover lists the resources, those of one resource type if rt is given. The
// whole list stays below what an unproven peer may get.
func (l *loop) discover(ex *exchange, req *request) {
	if req.packet.code != codes.GET {
		l.respond(ex, refusal(codes.MethodNotAllowed, ""))
		return
	}
	if req.accept != noFormat && req.accept != int(message.AppLinkFormat) {
		l.respond(ex, refusal(codes.NotAcceptable, ""))
		return
	}
	want := ""
	for _, q := range req.query {
		if v, ok := strings.CutPrefix(string(q), "rt="); ok {
			want = v
		}
	}
	l.respond(ex, &response{
		code: codes.Content, format: int(message.AppLinkFormat), hasFormat: true,
		payload: []byte(linkFormat(want)),
	})
}

// linkFormat lists the links whose resource type matches; "" matches all and a
// final '*' any ending (RFC 6690 section 4.1).
func linkFormat(want string) string {
	var list []string
	for _, k := range links {
		if k.hasType(want) {
			list = append(list, "<"+k.target+`>;rt="`+strings.Join(k.types, " ")+`"`+k.rest)
		}
	}
	return strings.Join(list, ",")
}

func (k *link) hasType(want string) bool {
	prefix, open := strings.CutSuffix(want, "*")
	for _, t := range k.types {
		if want == "" || t == want || open && strings.HasPrefix(t, prefix) {
			return true
		}
	}
	return false
}
