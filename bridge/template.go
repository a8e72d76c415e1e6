package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gantry/broker"
)

// Template is a text with variables of a message, for target topics, keys and
// header values. The zero value renders to nothing. A Template is immutable and
// safe for concurrent use.
//
//	${topic}             the topic of the message
//	${topic[n]}          its level n, counted from 0; negative n counts from the end
//	${clientid}          client id of the publisher
//	${username}          user name of the publisher
//	${protocol}          mqtt, coap or http
//	${qos}               0, 1 or 2
//	${timestamp}         time of acceptance, Unix milliseconds
//	${payload}           the whole payload
//	${payload.a.b.0}     a value inside a JSON payload
//	${user.NAME}         the first user property of that name
//
// A variable that the message does not have renders to nothing.
type Template struct {
	source string
	parts  []part
}

type variable uint8

const (
	varText variable = iota // the literal text of the part
	varTopic
	varLevel
	varClientID
	varUsername
	varProtocol
	varQoS
	varTimestamp
	varPayload
	varJSON
	varUser
)

var plainVariables = map[string]variable{
	"topic": varTopic, "clientid": varClientID, "username": varUsername, "protocol": varProtocol,
	"qos": varQoS, "timestamp": varTimestamp, "payload": varPayload,
}

// part is a piece of literal text or one variable.
type part struct {
	kind  variable
	text  string   // literal, or the name of a user property
	level int      // of the topic
	path  []string // into the JSON payload
}

// ParseTemplate reads a template. Its errors quote the faulty variable.
func ParseTemplate(s string) (*Template, error) {
	t := &Template{source: s}
	rest := s
	for rest != "" {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			t.parts = append(t.parts, part{kind: varText, text: before})
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("template %q: ${%s has no closing brace", s, after)
		}
		p, err := parseVariable(name)
		if err != nil {
			return nil, fmt.Errorf("template %q: ${%s}: %w", s, name, err)
		}
		t.parts = append(t.parts, p)
		rest = tail
	}
	return t, nil
}

func parseVariable(name string) (part, error) {
	if kind, ok := plainVariables[name]; ok {
		return part{kind: kind}, nil
	}
	if index, ok := strings.CutPrefix(name, "topic["); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || !strings.HasSuffix(index, "]") {
			return part{}, errors.New("a topic level is written topic[n] with a whole number n")
		}
		return part{kind: varLevel, level: n}, nil
	}
	if path, ok := strings.CutPrefix(name, "payload."); ok {
		steps := strings.Split(path, ".")
		if slices.Contains(steps, "") {
			return part{}, errors.New("the path into the payload has an empty step")
		}
		return part{kind: varJSON, path: steps}, nil
	}
	if user, ok := strings.CutPrefix(name, "user."); ok {
		if user == "" {
			return part{}, errors.New("the name of the user property is missing")
		}
		return part{kind: varUser, text: user}, nil
	}
	return part{}, errors.New("no such variable; there are topic, topic[n], clientid, username, protocol, qos, timestamp, " +
		"payload, payload.PATH and user.NAME")
}

// String returns the source of the template.
func (t *Template) String() string {
	if t == nil {
		return ""
	}
	return t.source
}

// Static returns the text that the template always renders to, if it has no
// variables.
func (t *Template) Static() (text string, ok bool) {
	switch {
	case t == nil || len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && t.parts[0].kind == varText:
		return t.parts[0].text, true
	}
	return "", false
}

// Append appends the text rendered for m to dst. It does not allocate beyond
// dst, except for values inside a JSON payload.
func (t *Template) Append(dst []byte, m *broker.Message) []byte {
	if t == nil {
		return dst
	}
	for i := range t.parts {
		dst = t.parts[i].append(dst, m)
	}
	return dst
}

func (p *part) append(dst []byte, m *broker.Message) []byte {
	switch p.kind {
	case varText:
		return append(dst, p.text...)
	case varTopic:
		return append(dst, m.Topic...)
	case varLevel:
		return append(dst, topicLevel(m.Topic, p.level)...)
	case varClientID:
		return append(dst, m.ClientID...)
	case varUsername:
		return append(dst, m.Username...)
	case varProtocol:
		return append(dst, m.Protocol...)
	case varQoS:
		return append(dst, '0'+byte(m.QoS))
	case varTimestamp:
		return strconv.AppendInt(dst, m.Time, 10)
	case varPayload:
		return append(dst, m.Payload...)
	case varJSON:
		return appendJSONValue(dst, m.Payload, p.path)
	case varUser:
		return append(dst, userProperty(m, p.text)...)
	}
	return dst
}

// topicLevel returns level n of the topic, or nothing when there is none.
func topicLevel(topic string, n int) string {
	if n < 0 {
		n += strings.Count(topic, "/") + 1
	}
	for ; n > 0; n-- {
		_, rest, more := strings.Cut(topic, "/")
		if !more {
			return ""
		}
		topic = rest
	}
	if n < 0 {
		return ""
	}
	level, _, _ := strings.Cut(topic, "/")
	return level
}

func userProperty(m *broker.Message, name string) string {
	if m.Properties == nil {
		return ""
	}
	for i := range m.Properties.User {
		if m.Properties.User[i].Key == name {
			return m.Properties.User[i].Value
		}
	}
	return ""
}
