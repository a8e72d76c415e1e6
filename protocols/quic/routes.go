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
}

type route struct {
	filter string
	match  string // the filter without a prefix such as $share/group/
	st     *stream
}

// set makes a stream the one for a filter; nil is the control stream.
func (r *routes) set(filter string, st *stream) {
	to := route{filter, broker.MatchedFilter(filter), st}
	if strings.ContainsAny(to.match, "+#") {
		r.wild = to.into(r.wild)
		return
	}
	all := to.into(r.exact[to.match])
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
func (to route) into(all []route) []route {
	all = slices.DeleteFunc(all, func(o route) bool { return o.filter == to.filter })
	if to.st == nil {
		return all
	}
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
	return filters
}
