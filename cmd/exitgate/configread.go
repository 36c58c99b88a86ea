package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A configFile is one exitgate.yaml that was read, with the place of each of its values.
type configFile struct {
	name  string            // as it was given; "" none
	where map[string][2]int // path of a value ("hosts[0].class") to line and column
	wrong []configError
}

// A configError says where and why the configuration cannot be used.
type configError struct {
	line, column int
	what         string
}

// configErrors is every error of one file, in the order of its lines.
type configErrors struct {
	name string
	list []configError
}

func (e *configErrors) Error() string {
	var b strings.Builder
	for i, c := range e.list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d:%d: %s", e.name, c.line, c.column, c.what)
	}
	return b.String()
}

// readConfig reads the file, or the starter configuration when name is "". Every error says file, line and column.
func readConfig(name string) (*Config, error) {
	if name == "" {
		return starterConfig(), nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return parseConfig(name, b)
}

func parseConfig(name string, b []byte) (*Config, error) {
	f := &configFile{name: name, where: map[string][2]int{}}
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return (&Config{}).complete(filepath.Dir(name)), nil // nothing but comments: all defaults
	}
	if err != nil {
		return nil, yamlError(name, err)
	}
	f.walk(configSchema(), doc.Content[0], "Config", "", 0)
	var second yaml.Node
	if err := d.Decode(&second); err == nil {
		f.addAt(second.Line, second.Column, "a second YAML document begins here; the configuration is one")
	}
	c := &Config{}
	if len(f.wrong) == 0 {
		if err := doc.Content[0].Decode(c); err != nil {
			return nil, yamlError(name, err)
		}
		f.check(c)
	}
	if len(f.wrong) > 0 {
		slices.SortStableFunc(f.wrong, func(a, b configError) int {
			if a.line != b.line {
				return a.line - b.line
			}
			return a.column - b.column
		})
		return nil, &configErrors{name, f.wrong}
	}
	return c.complete(filepath.Dir(name)), nil
}

// yamlError gives the parser's words ("yaml: line 3: ...") the form of all others. The parser tells no column.
func yamlError(name string, err error) error {
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if n, serr := fmt.Sscanf(s, "line %d: ", &line); n == 1 && serr == nil {
		_, s, _ = strings.Cut(s, ": ")
	}
	return &configErrors{name, []configError{{line, 1, s}}}
}

func (f *configFile) addAt(line, column int, format string, args ...any) {
	f.wrong = append(f.wrong, configError{line, column, fmt.Sprintf(format, args...)})
}

// add says what is wrong with the value at path; where the file does not have it, with what holds it.
func (f *configFile) add(path, format string, args ...any) {
	at, ok := f.where[path]
	for p := path; !ok && p != ""; {
		p = p[:max(strings.LastIndexAny(p, ".["), 0)]
		at, ok = f.where[p]
	}
	f.addAt(at[0], at[1], format, args...)
}

// maxDepth bounds the nesting of values and aliases; the schema's own depth is 4.
const maxDepth = 16

// walk checks the value n at path against the type that it should have.
func (f *configFile) walk(s schema, n *yaml.Node, typ, path string, depth int) {
	f.where[path] = [2]int{n.Line, n.Column}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if depth > maxDepth {
		f.add(path, "%s: nested too deeply", path)
		return
	}
	if n.Tag == "!!null" {
		return // a key without a value is a key left out
	}
	elem, isList := element(typ, "[]")
	value, isMap := element(typ, "map[string]")
	switch {
	case s[typ] != nil || isMap:
		if n.Kind != yaml.MappingNode {
			f.add(path, "%s: it holds keys of its own, one a line below it; found %s", orTop(path), describe(n))
			return
		}
		f.walkMap(s, n, typ, value, path, depth)
	case isList:
		if n.Kind != yaml.SequenceNode {
			f.add(path, "%s: it is a list, one \"- value\" a line or [a, b]; found %s", path, describe(n))
			return
		}
		for i, e := range n.Content {
			f.walk(s, e, elem, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	default:
		f.walkScalar(n, typ, path)
	}
}

func (f *configFile) walkMap(s schema, n *yaml.Node, typ, value, path string, depth int) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		full := strings.TrimPrefix(path+"."+k.Value, ".")
		if seen[k.Value] {
			f.addAt(k.Line, k.Column, "%s: the key is here a second time", full)
			continue
		}
		seen[k.Value] = true
		if value != "" {
			f.walk(s, v, value, full, depth+1)
			continue
		}
		known, ok := s.key(typ, k.Value)
		if !ok {
			f.addAt(k.Line, k.Column, "%s: there is no such key%s", full, didYouMean(k.Value, s.names(typ)))
			continue
		}
		f.walk(s, v, known.typ, full, depth+1)
	}
}

func (f *configFile) walkScalar(n *yaml.Node, typ, path string) {
	switch {
	case n.Kind != yaml.ScalarNode:
		f.add(path, "%s: it is one value; found %s", path, describe(n))
	case typ == "bool" && n.Tag != "!!bool":
		f.add(path, "%s: it is true or false; found %s", path, describe(n))
	case typ == "string" || typ == "bool" || n.Value == "":
	default:
		if err := checkValue(typ, n.Value); err != nil {
			f.add(path, "%s: %.80q: %v", path, shown(typ, n.Value), err)
		}
	}
}

// shown returns a value as an error may show it: a URL may hold a password, and a place of a secret the secret itself.
func shown(typ, value string) string {
	switch typ {
	case "StoreURL", "ProxyURL", "KeyURI", "Secret":
	default:
		return value
	}
	if scheme, _, ok := strings.Cut(value, ":"); ok {
		return scheme + ":..."
	}
	return "..."
}

func orTop(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%.40q", n.Value)
}
