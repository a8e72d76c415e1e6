package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the configuration file at path, or takes [Default] when path is empty, then applies the GANTRY_ variables in environ (in the form of
// [os.Environ]) and checks the result. When the configuration is wrong the error is [Problems] with everything that is wrong; when the file cannot be
// read it is the error of the operating system. Load opens no other file and no socket.
func Load(path string, environ []string) (*Config, error) {
	var text []byte
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return parse(path, text, environ)
}

// Check is Load that also asks files, with paths as Load resolves them, for what
// is wrong beyond the configuration itself: report takes the key that it
// belongs to. Files must cope with a configuration that has other problems.
func Check(path string, environ []string, files func(c *Config, report func(key, format string, args ...any))) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	_, err = parseWith(path, text, environ, files)
	return err
}

// parse is Load without the reading.
func parse(file string, text []byte, environ []string) (*Config, error) {
	return parseWith(file, text, environ, nil)
}

// parseWith is Check without the reading; files may be nil.
func parseWith(file string, text []byte, environ []string, files func(*Config, func(key, format string, args ...any))) (*Config, error) {
	d := &decoder{file: file, origins: make(map[string]origin)}
	c := d.document(text)
	if c == nil {
		return nil, d.problems.asError()
	}
	d.overlay(c, environ)
	c.validate(d.check)
	c.resolve(filepath.Dir(file))
	if files != nil {
		files(c, d.check)
	}
	if err := d.problems.asError(); err != nil {
		return nil, err
	}
	return c, nil
}

// document decodes the one document of a file. It returns nil when the text is not YAML, or not a mapping.
func (d *decoder) document(text []byte) *Config {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return Default()
	}
	if err != nil {
		d.syntax(text, err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		if err != nil {
			d.syntax(text, err)
			return nil
		}
		d.problems = append(d.problems, Problem{File: d.file, Line: second.Line, Text: "a second document begins, want one"})
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return Default()
	}
	c := Default()
	if lists(root, "listeners") {
		c = defaults()
	}
	d.value(root, reflect.ValueOf(c).Elem(), "")
	if root.Kind != yaml.MappingNode {
		return nil
	}
	return c
}

// lists reports whether a mapping has a key.
func lists(n *yaml.Node, key string) bool {
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

var syntaxLine = regexp.MustCompile(`^(?:line (\d+): )?(.*)`)

// syntax reports an error of the YAML library, which has a line in its text.
func (d *decoder) syntax(text []byte, err error) {
	m := syntaxLine.FindStringSubmatch(strings.TrimPrefix(err.Error(), "yaml: "))
	line, _ := strconv.Atoi(m[1])
	if n := brokenLine(text); n > 0 {
		line = n
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Text: "not valid YAML: " + m[2]})
}

// brokenLine returns the line after the longest beginning of a text that is YAML, or 0 for a text that is too long to try. The line in an error of the
// library is often the one where the block around the mistake begins, or one too small.
func brokenLine(text []byte) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if len(lines) > 1000 {
		return 0
	}
	end := len(text)
	for n := len(lines); n > 0; n-- {
		end -= len(lines[n-1])
		var node yaml.Node
		if yaml.Unmarshal(text[:end], &node) == nil {
			return n
		}
	}
	return 1
}

// check reports a problem of Validate at the place where the value of its key came from, or at the nearest key above it that the file has.
// It says nothing about a key that has a problem itself or above it: the value is not the one that was meant.
func (d *decoder) check(path, format string, args ...any) {
	at, found := origin{file: d.file}, false
	for p := path; p != "" && !found; p = parent(p) {
		at, found = d.origins[p]
	}
	p := Problem{File: at.file, Line: at.line, Key: path, Text: fmt.Sprintf(format, args...)}
	if !found {
		p.File = d.file
	}
	if at.name != "" {
		p.Key = at.name
	}
	for key := p.Key; key != ""; key = parent(key) {
		if slices.ContainsFunc(d.problems, func(earlier Problem) bool { return earlier.Key == key }) {
			return
		}
	}
	d.problems = append(d.problems, p)
}

// parent returns the path above a path: a for a.b and for a[0].
func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}
