package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gantry/broker"
)

// Format says what the value of a record is.
type Format string

const (
	// Raw is the payload as it was published.
	Raw Format = "raw"
	// Envelope is a JSON object with payload, topic, client and time, in the
	// form of the Kafka plugin of EMQ.
	Envelope Format = "envelope"
)

// maxHeaders of a route; the count takes one byte in a record.
const maxHeaders = 127

// Header is one header of the records of a route. A header that renders to
// nothing is left out.
type Header struct {
	Name  string
	Value *Template
}

// Route says which messages a bridge takes and what they become.
type Route struct {
	// Filter is an MQTT topic filter. Topics that begin with $ are taken only
	// by a filter that begins with the same level.
	Filter string
	// Topic renders to the topic at the other side. Required.
	Topic *Template
	// Key renders to the record key, for sinks that have one. Records of the
	// same key keep their order. Nil, or a key that renders to nothing, is no
	// key.
	Key *Template
	// Headers of the record, for sinks that have them.
	Headers []Header
	// Format of the value, Raw by default.
	Format Format
	// QoS is the highest quality of service towards the other side, for sinks
	// that have one. A message is never sent with more than it came with.
	QoS broker.QoS
}

// Validate reports what is wrong with the route, all problems joined.
func (r *Route) Validate() error {
	var problems []error
	switch err := broker.ValidFilter(r.Filter); {
	case err != nil:
		problems = append(problems, fmt.Errorf("filter %q: %w", r.Filter, err))
	case strings.HasPrefix(r.Filter, "$share/"):
		problems = append(problems, fmt.Errorf("filter %q: a bridge takes every message, it cannot share a subscription", r.Filter))
	}
	if text, static := r.Topic.Static(); static && text == "" {
		problems = append(problems, errors.New("topic is missing"))
	}
	if len(r.Headers) > maxHeaders {
		problems = append(problems, fmt.Errorf("%d headers: there may be %d", len(r.Headers), maxHeaders))
	}
	for _, h := range r.Headers {
		if h.Name == "" {
			problems = append(problems, errors.New("a header has no name"))
		}
	}
	if r.Format != "" && r.Format != Raw && r.Format != Envelope {
		problems = append(problems, fmt.Errorf("format %q: there are %s and %s", r.Format, Raw, Envelope))
	}
	if r.QoS > 2 {
		problems = append(problems, fmt.Errorf("qos %d: there are 0, 1 and 2", r.QoS))
	}
	return errors.Join(problems...)
}

// matcher finds the routes of a topic in one walk over its levels, without
// locks and without memory that grows with the number of topics.
type matcher struct{ root *node }

type node struct {
	exact  map[string]*node
	plus   *node
	here   []int // routes whose filter ends at this node
	deeper []int // routes whose filter goes on with # and ends
}

func newMatcher(filters []string) *matcher {
	m := &matcher{root: &node{}}
	for i, filter := range filters {
		m.add(filter, i)
	}
	return m
}

func (m *matcher) add(filter string, route int) {
	n := m.root
	for level := range strings.SplitSeq(filter, "/") {
		if level == "#" {
			n.deeper = append(n.deeper, route)
			return
		}
		n = n.child(level)
	}
	n.here = append(n.here, route)
}

func (n *node) child(level string) *node {
	if level == "+" {
		if n.plus == nil {
			n.plus = &node{}
		}
		return n.plus
	}
	if n.exact == nil {
		n.exact = map[string]*node{}
	}
	if n.exact[level] == nil {
		n.exact[level] = &node{}
	}
	return n.exact[level]
}

// match appends the routes of topic to dst, in the order of the routes.
func (m *matcher) match(dst []int, topic string) []int {
	start := len(dst)
	dst = m.root.walk(dst, topic, true, strings.HasPrefix(topic, "$"))
	if len(dst)-start > 1 {
		slices.Sort(dst[start:])
	}
	return dst
}

// walk is at a node with rest of the topic to go; more is false at its end.
// Below the root of a $ topic wildcards do not count [MQTT-4.7.2-1].
func (n *node) walk(dst []int, rest string, more, literal bool) []int {
	if !literal {
		dst = append(dst, n.deeper...) // a/# takes a as well [MQTT-4.7.1-2]
	}
	if !more {
		return append(dst, n.here...)
	}
	level, rest, more := strings.Cut(rest, "/")
	if next := n.exact[level]; next != nil {
		dst = next.walk(dst, rest, more, false)
	}
	if n.plus != nil && !literal {
		dst = n.plus.walk(dst, rest, more, false)
	}
	return dst
}
