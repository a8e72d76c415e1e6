package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// decoder fills a Config from YAML nodes. It is ours, and not the library's, because every problem must have its line and key path, all problems
// must come at once, and entries of lists start from defaults.
type decoder struct {
	file     string
	origins  map[string]origin // where each key path got its value
	problems Problems
}

// origin is the place a value came from.
type origin struct {
	file string
	line int
	name string // of the variable, when it came from the environment
}

// defaulter is a list entry, or an optional part, that does not start from the zero value.
type defaulter interface{ setDefaults() }

func setDefaults(pointer reflect.Value) {
	if e, ok := reflect.TypeAssert[defaulter](pointer); ok {
		e.setDefaults()
	}
}

func (d *decoder) add(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Key: path, Text: fmt.Sprintf(format, args...)})
}

// value decodes n into v, which is settable.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.origins[path] = origin{file: d.file, line: n.Line}
	if isText(v) {
		d.scalar(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setDefaults(v)
		d.value(n, v.Elem(), path)
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.texts(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, "want keys and values, found %s", describe(n))
		return
	}
	fields := fieldsOf(v.Type())
	d.eachPair(n, path, func(key, value *yaml.Node, child string) {
		i, known := fields.index[key.Value]
		switch {
		case known:
			d.value(value, v.Field(i), child)
		case unavailable(child):
			d.add(key, child, "%v", errUnavailable)
		default:
			d.add(key, child, "unknown key%s", didYouMean(key.Value, fields.names))
		}
	})
}

// texts decodes a mapping from text to text with keys of the user's choice.
func (d *decoder) texts(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.add(n, path, "want keys and values, found %s", describe(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.eachPair(n, path, func(key, value *yaml.Node, child string) {
		text := reflect.New(v.Type().Elem()).Elem()
		d.value(value, text, child)
		v.SetMapIndex(reflect.ValueOf(key.Value), text)
	})
}

// eachPair calls f for every pair of a mapping and reports duplicate keys. The path of a pair is the path of the mapping and its key.
func (d *decoder) eachPair(n *yaml.Node, path string, f func(key, value *yaml.Node, child string)) {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.add(key, path, "a key must be a word, found %s", describe(key))
			continue
		}
		child := join(path, key.Value)
		if line, twice := first[key.Value]; twice {
			d.add(key, child, "duplicate key, the first is in line %d", line)
			continue
		}
		first[key.Value] = key.Line
		f(key, value, child)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.add(n, path, "want a list, found %s", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		entry := v.Index(i)
		setDefaults(entry.Addr())
		d.value(item, entry, fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		d.add(n, path, "want %s, found %s", kindName(v), describe(n))
		return
	}
	if err := setText(v, n.Value); err != nil {
		d.add(n, path, "%v", err)
	}
}

// setText sets a scalar from its text: the one place that knows the scalar kinds, for the file and for the environment.
func setText(v reflect.Value, s string) error {
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		if c, ok := choices[v.Type()]; ok {
			if err := c.check(s); err != nil {
				return err
			}
		}
		v.SetString(s)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is not true or false", s)
		}
		v.SetBool(s == "true")
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if errors.Is(err, strconv.ErrRange) {
			return fmt.Errorf("%s is too large", s)
		}
		if err != nil {
			return fmt.Errorf("%q is not a whole number", s)
		}
		v.SetInt(int64(n))
	default:
		panic("BUG: configuration field of kind " + v.Kind().String())
	}
	return nil
}

// isText reports whether a value reads itself from a text.
func isText(v reflect.Value) bool {
	return v.Addr().Type().Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// kindName says what a scalar field wants, for an error.
func kindName(v reflect.Value) string {
	switch v.Interface().(type) {
	case Bytes:
		return "a size such as 64MiB"
	case Duration:
		return "a duration such as 10s"
	case Addr:
		return "an address such as :1883"
	case Network:
		return "a network such as 10.0.0.0/8"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	default:
		return "a text"
	}
}

// describe names what stands at a node, for an error.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "nothing"
	default:
		return strconv.Quote(n.Value)
	}
}

// fields are the keys of a struct.
type fields struct {
	names []string // in the order of the struct
	index map[string]int
}

func fieldsOf(t reflect.Type) fields {
	f := fields{index: make(map[string]int, t.NumField())}
	for field := range t.Fields() {
		name := field.Tag.Get("yaml")
		f.index[name] = len(f.names)
		f.names = append(f.names, name)
	}
	return f
}

// join returns the path of a key in the mapping at path.
func join(path, key string) string {
	if key == "" {
		key = `""`
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
