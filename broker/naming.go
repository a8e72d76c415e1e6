package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// Naming is what a listener makes of the names that its clients use. The zero
// value leaves all as it is.
type Naming struct {
	// Mountpoint is put before every topic and filter of a client and cut from
	// what is delivered to it, see [ParseMountpoint]. nil = none.
	Mountpoint *Template
	// ClientID and Username replace what the client calls itself, see
	// [ParseName]. nil = what it sent.
	ClientID, Username *Template
}

// ParseMountpoint reads a mountpoint such as "site7/${clientid}/"; "" gives
// nil. Variables are clientid, username and listener. It must end with a
// slash, and a level may have one of clientid and username only: otherwise the
// names of two clients could be chosen so that both have the same topics. The
// listener's name is the operator's: it does not count.
func ParseMountpoint(s string) (*Template, error) {
	if s == "" {
		return nil, nil
	}
	t, err := ParseTemplate(s, "clientid", "username", "listener")
	if err != nil {
		return nil, err
	}
	if err := ValidTopic(t.sample() + "x"); err != nil {
		return nil, err
	}
	switch {
	case !strings.HasSuffix(s, "/"):
		return nil, fmt.Errorf("%q does not end with a slash", s)
	case strings.HasPrefix(t.sample(), "$"):
		return nil, fmt.Errorf("%q begins with $", s)
	}
	for level := range strings.SplitSeq(s, "/") {
		if strings.Count(level, "${")-strings.Count(level, "${listener}") > 1 {
			return nil, fmt.Errorf("%q has two variables in one level", s)
		}
	}
	return t, nil
}

// ParseName reads the template of a client identifier or user name; "" gives
// nil. Variables are clientid and username, as the client sent them, listener,
// and cn, the name in the certificate that the listener has verified.
func ParseName(s string) (*Template, error) {
	if s == "" {
		return nil, nil
	}
	return ParseTemplate(s, "clientid", "username", "listener", "cn")
}

// Identify gives a request the names that the listener has for its client. An
// adapter calls it before it looks for the client's session, and before
// Connect. A user name that is not the one of the certificate is not verified
// any more. The error is an *Error with the Reason for the peer.
func (n *Naming) Identify(r *ConnectRequest) error {
	r.Mountpoint = n.Mountpoint
	v := clientVars{clientID: r.ClientID, username: r.Credentials.Username, listener: r.Listener}
	if r.Verified {
		v.identity = r.Credentials.Username
	}
	if n.ClientID != nil {
		id, _ := n.ClientID.expand(&v, anyName)
		if id == "" || len(id) > maxClientIDBytes || validText(id) != nil {
			return &Error{Reason: InvalidClientID, Err: errors.New("the listener has no client identifier for this client")}
		}
		r.ClientID = id
	}
	if n.Username != nil {
		user, _ := n.Username.expand(&v, anyName)
		if user == "" || validText(user) != nil {
			return &Error{Reason: BadCredentials, Err: errors.New("the listener has no user name for this client")}
		}
		r.Verified = r.Verified && user == v.identity
		r.Credentials.Username, r.Credentials.HasUsername = user, true
	}
	return nil
}

// names turns the topics and filters of one connection's client into those of
// the broker. A nil *names leaves them as they are.
type names struct {
	mount string
	rules *rewriter // nil = none
	vars  clientVars
	last  atomic.Pointer[renamed] // a device often publishes to one topic
}

type renamed struct{ from, to string }

// newNames returns the names of a client; nil when there is nothing to change.
func (b *Broker) newNames(r *ConnectRequest) (*names, error) {
	if r.Mountpoint == nil && b.rewriter == nil {
		return nil, nil
	}
	n := &names{rules: b.rewriter, vars: clientVars{clientID: r.ClientID, username: r.Credentials.Username, listener: r.Listener}}
	if r.Mountpoint == nil {
		return n, nil
	}
	mount, err := r.Mountpoint.expand(&n.vars, oneLevel)
	switch {
	case err != nil:
		return nil, &Error{Reason: InvalidClientID, Err: fmt.Errorf("mountpoint: %w", err)}
	case strings.HasPrefix(mount, "$"):
		return nil, &Error{Reason: InvalidClientID, Err: errors.New("mountpoint would begin with $")}
	case validText(mount) != nil:
		return nil, &Error{Reason: InvalidClientID, Err: errors.New("mountpoint would be too long")}
	}
	n.mount = mount
	return n, nil
}

// mountpoint is what lies before the topics of the client.
func (n *names) mountpoint() string {
	if n == nil {
		return ""
	}
	return n.mount
}

// topic is where a message goes that the client publishes to a valid topic.
func (n *names) topic(t string) (string, Reason) {
	if n == nil {
		return t, Success
	}
	if l := n.last.Load(); l != nil && l.from == t {
		return l.to, Success
	}
	to, ok := n.mount+t, true
	if n.rules != nil {
		to, ok = rewrite(n.rules.publish, to, &n.vars)
	}
	switch {
	case !ok:
		return "", InvalidTopic
	case to == t:
		return t, Success
	case ValidTopic(to) != nil:
		return "", InvalidTopic
	}
	n.last.Store(&renamed{t, to})
	return to, Success
}

// named is the filter under which the broker knows what the client calls
// filter. The Reason is InvalidFilter when it is none.
func (s *Session) named(filter string) (string, Reason) {
	if ValidFilter(filter) != nil {
		return "", InvalidFilter
	}
	return s.names.filter(canonicalFilter(filter))
}

// filter is what the client subscribes to with a valid and canonical filter.
func (n *names) filter(f string) (string, Reason) {
	if n == nil {
		return f, Success
	}
	inner := MatchedFilter(f)
	to, ok := n.sought(inner)
	switch {
	case !ok:
		return "", InvalidFilter
	case to == inner:
		return f, Success
	}
	if to = f[:len(f)-len(inner)] + to; ValidFilter(to) != nil {
		return "", InvalidFilter
	}
	return to, Success
}

// retained is the topic whose value the client reads.
func (n *names) retained(t string) (string, Reason) {
	if n == nil {
		return t, Success
	}
	to, ok := n.sought(t)
	if !ok || to != t && ValidTopic(to) != nil {
		return "", InvalidTopic
	}
	return to, Success
}

// sought is the name of what the client wants to receive.
func (n *names) sought(name string) (to string, ok bool) {
	to = n.mount + name
	if n.rules == nil {
		return to, true
	}
	return rewrite(n.rules.subscribe, to, &n.vars)
}

// LocalTopic is the topic of a message as this client knows it: without its
// mountpoint, if it lies below that. It does not allocate.
func (s *Session) LocalTopic(m *Message) string {
	if s.names == nil {
		return m.Topic
	}
	if local, ok := strings.CutPrefix(m.Topic, s.names.mount); ok && local != "" {
		return local
	}
	return m.Topic
}
