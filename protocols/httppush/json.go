package httppush

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// reader reads JSON (RFC 8259) more strictly than encoding/json: a member may
// not repeat, text must be valid UTF-8 with paired surrogates (a replacement
// character would change a payload silently), and nothing may follow the value.
// The caller reads what its schema has, so there is no nesting beyond that.
// The first error ends the reading.
type reader struct {
	data []byte
	pos  int
}

func newReader(data []byte) (*reader, error) {
	if !utf8.Valid(data) {
		return nil, badRequest("body is not valid UTF-8")
	}
	return &reader{data: data}, nil
}

func (r *reader) errorf(format string, args ...any) error {
	return badRequest("%s at byte %d", fmt.Sprintf(format, args...), r.pos)
}

// peek skips white space and returns the next byte, 0 at the end. A NUL byte
// in the text is as unexpected as the end.
func (r *reader) peek() byte {
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.pos++
	return true
}

// end checks that only white space is left.
func (r *reader) end() error {
	r.peek()
	if r.pos < len(r.data) {
		return r.errorf("something follows the JSON value")
	}
	return nil
}

// literal takes a word such as null or true.
func (r *reader) literal(word string) bool {
	r.peek()
	if !bytes.HasPrefix(r.data[r.pos:], []byte(word)) {
		return false
	}
	r.pos += len(word)
	return true
}

// object calls member for each member name, in order; member reads the value.
func (r *reader) object(what string, member func(name string) error) error {
	if !r.take('{') {
		return r.errorf("%s must be an object", what)
	}
	if r.take('}') {
		return nil
	}
	seen := make(map[string]struct{}, 8)
	for {
		name, err := r.str("member name")
		if err != nil {
			return err
		}
		if _, twice := seen[name]; twice {
			return r.errorf("member %q is given more than once", name)
		}
		seen[name] = struct{}{}
		if !r.take(':') {
			return r.errorf("expected ':' behind %q", name)
		}
		if err := member(name); err != nil {
			return err
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return r.errorf("expected ',' or '}' in %s", what)
		}
	}
}

// array calls element for each element, which reads it.
func (r *reader) array(what string, element func() error) error {
	if !r.take('[') {
		return r.errorf("%s must be an array", what)
	}
	if r.take(']') {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if r.take(']') {
			return nil
		}
		if !r.take(',') {
			return r.errorf("expected ',' or ']' in %s", what)
		}
	}
}

func (r *reader) boolean(what string) (bool, error) {
	switch {
	case r.literal("true"):
		return true, nil
	case r.literal("false"):
		return false, nil
	}
	return false, r.errorf("%s must be true or false", what)
}

// integer reads a whole number from least to most, written without fraction
// and exponent.
func (r *reader) integer(what string, least, most int64) (int64, error) {
	r.peek()
	start := r.pos
	for r.pos < len(r.data) && bytes.IndexByte([]byte("0123456789-+.eE"), r.data[r.pos]) >= 0 {
		r.pos++
	}
	text := string(r.data[start:r.pos])
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text || n < least || n > most {
		r.pos = start
		return 0, r.errorf("%s must be a whole number from %d to %d", what, least, most)
	}
	return n, nil
}

func (r *reader) str(what string) (string, error) {
	if !r.take('"') {
		return "", r.errorf("%s must be a string", what)
	}
	start := r.pos
	for r.pos < len(r.data) { // most strings have no escape
		switch c := r.data[r.pos]; {
		case c == '"':
			s := string(r.data[start:r.pos])
			r.pos++
			return s, nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.errorf("control character in a string")
		}
		r.pos++
	}
	return "", r.errorf("string does not end")
}

// escaped goes on with a string at its first escape.
func (r *reader) escaped(start int) (string, error) {
	text := append(make([]byte, 0, 2*(r.pos-start)+16), r.data[start:r.pos]...)
	for r.pos < len(r.data) {
		c := r.data[r.pos]
		switch {
		case c == '"':
			r.pos++
			return string(text), nil
		case c < ' ':
			return "", r.errorf("control character in a string")
		case c != '\\':
			text = append(text, c)
			r.pos++
			continue
		}
		char, err := r.escape()
		if err != nil {
			return "", err
		}
		text = utf8.AppendRune(text, char)
	}
	return "", r.errorf("string does not end")
}

var shortEscapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads one escape, or two that are the halves of one character.
func (r *reader) escape() (rune, error) {
	if r.pos+1 < len(r.data) {
		if c, ok := shortEscapes[r.data[r.pos+1]]; ok {
			r.pos += 2
			return c, nil
		}
	}
	c, ok := r.hexEscape()
	if !ok {
		return 0, r.errorf("escape that JSON does not have")
	}
	if !utf16.IsSurrogate(c) {
		return c, nil
	}
	low, _ := r.hexEscape()
	if c = utf16.DecodeRune(c, low); c == utf8.RuneError {
		return 0, r.errorf("half of a surrogate pair")
	}
	return c, nil
}

// hexEscape takes \u and four hexadecimal digits.
func (r *reader) hexEscape() (rune, bool) {
	if r.pos+6 > len(r.data) || r.data[r.pos] != '\\' || r.data[r.pos+1] != 'u' {
		return 0, false
	}
	var v rune
	for _, c := range r.data[r.pos+2 : r.pos+6] {
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		if digit < 0 {
			return 0, false
		}
		v = v<<4 | rune(digit)
	}
	r.pos += 6
	return v, true
}
