package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Template is a text with variables of a client: ${clientid}, ${username},
// ${listener} (the name of the listener that it came to) and ${cn} (the name
// that its certificate proved). It is immutable and safe for concurrent use.
type Template struct {
	source string
	parts  []templatePart
}

// templatePart is literal text, a variable, or what a regular expression caught.
type templatePart struct {
	text  string
	name  string // of a variable
	group int    // with isGroup: number of a group
	kind  partKind
}

type partKind uint8

const (
	isText partKind = iota
	isVariable
	isGroup
)

// ParseTemplate reads a template that may have the given variables.
func ParseTemplate(s string, variables ...string) (*Template, error) {
	t := &Template{source: s}
	for rest := s; rest != ""; {
		text, after, found := strings.Cut(rest, "${")
		if text != "" {
			t.parts = append(t.parts, templatePart{text: text})
		}
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("template %q: ${%s has no closing brace", s, after)
		}
		if !slices.Contains(variables, name) {
			return nil, fmt.Errorf("template %q: no such variable ${%s}; there are %s", s, name, strings.Join(variables, ", "))
		}
		t.parts = append(t.parts, templatePart{kind: isVariable, name: name})
		rest = tail
	}
	return t, nil
}

// sample is the template with a harmless word in the place of each variable,
// to check what surrounds them.
func (t *Template) sample() string {
	var b strings.Builder
	for i := range t.parts {
		if p := &t.parts[i]; p.kind == isText {
			b.WriteString(p.text)
		} else {
			b.WriteByte('x')
		}
	}
	return b.String()
}

// clientVars are the values of the variables for one connection.
type clientVars struct{ clientID, username, listener, identity string }

func (v *clientVars) value(name string) string {
	switch name {
	case "clientid":
		return v.clientID
	case "username":
		return v.username
	case "listener":
		return v.listener
	}
	return v.identity
}

// expand puts the values in. check may refuse one.
func (t *Template) expand(v *clientVars, check func(string) error) (string, error) {
	var b strings.Builder
	for i := range t.parts {
		p := &t.parts[i]
		if p.kind == isText {
			b.WriteString(p.text)
			continue
		}
		value := v.value(p.name)
		if err := check(value); err != nil {
			return "", fmt.Errorf("${%s}: %w", p.name, err)
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

var (
	errValueEmpty = errors.New("has no value")
	errValueLevel = errors.New("has a character that would change the levels of a topic: / + # or U+0000")
	errValueUTF8  = errors.New("is not valid UTF-8")
)

// oneLevel refuses what would not stay within one level of a topic. What a
// client calls itself must not choose which topics are its own.
func oneLevel(value string) error {
	switch {
	case value == "":
		return errValueEmpty
	case strings.ContainsAny(value, "/+#\x00"):
		return errValueLevel
	case !utf8.ValidString(value):
		return errValueUTF8
	}
	return nil
}

// anyName takes every name; whether it may be used is decided later.
func anyName(string) error { return nil }

// reserved reports whether a topic or filter is not what it says: it belongs
// to the broker, or asks for something.
func reserved(name string) bool { return isSys(name) || extended(name) }
