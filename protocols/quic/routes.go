package quic

import (
	"slices"
	"strings"

	"gantry/broker"
)

// routes say which data stream gets a message: the first that has subscribed to
// a filter that matches. What matches none goes to the control stream, also
// what a session has subscribed to on an earlier connection. The mux's mu
// covers them.
type routes struct {
	exact map[string][]route // filters without wildcards, by topic
	wild  []route
	n     int // all of them
}

// maxRoutes is how many filters data streams may have together. Messages of
// those beyond come on the control stream.
const maxRoutes = 4096

type route struct {
	filter string
	match  string // the filter without a prefix such as $share/group/
	st     *stream
}

// set makes a stream the one for a filter; nil is the control stream.
func (r *routes) set(filter string, st *stream) {
	to := route{filter, broker.MatchedFilter(filter), st}
	if strings.ContainsAny(to.match, "+#") {
		r.wild = r.into(r.wild, to)
		return
	}
	all := r.into(r.exact[to.match], to)
	if len(all) == 0 {
		delete(r.exact, to.match)
		return
	}
	if r.exact == nil {
		r.exact = make(map[string][]route)
	}
	r.exact[to.match] = all
}

// into puts a route in the place of one with the same filter.
func (r *routes) into(all []route, to route) []route {
	before := len(all)
	all = slices.DeleteFunc(all, func(o route) bool { return o.filter == to.filter })
	r.n -= before - len(all)
	if to.st == nil || r.n >= maxRoutes {
		return all
	}
	r.n++
	return append(all, to)
}

// of returns the stream of a topic; nil is the control stream.
func (r *routes) of(topic []byte) *stream {
	if all := r.exact[string(topic)]; len(all) > 0 {
		return all[0].st
	}
	if len(r.wild) == 0 {
		return nil
	}
	name := string(topic)
	for _, w := range r.wild {
		if broker.MatchFilter(w.match, name) {
			return w.st
		}
	}
	return nil
}

// drop forgets a stream and returns its filters.
func (r *routes) drop(st *stream) (filters []string) {
	of := func(o route) bool {
		if o.st == st {
			filters = append(filters, o.filter)
		}
		return o.st == st
	}
	for topic, all := range r.exact {
		if r.exact[topic] = slices.DeleteFunc(all, of); len(r.exact[topic]) == 0 {
			delete(r.exact, topic)
		}
	}
	r.wild = slices.DeleteFunc(r.wild, of)
	r.n -= len(filters)
	return filters
}
