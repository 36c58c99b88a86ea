package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/exitgate/exitgate"
)

// The lists are decoded by hand, field by field, so that each error has a line and a column, and a field that does
// not exist is one.

func readGrants(f file) ([]exitgate.Grant, error) {
	return readList(f, func(n *yaml.Node) (exitgate.Grant, error) {
		var g exitgate.Grant
		at, err := decodeFields(f.name, n, map[string]any{
			"id": &g.ID, "class": &g.Class, "host": &g.Host, "to": &g.To, "scheme": &g.Scheme, "ports": &g.Ports,
			"methods": &g.Methods, "paths": &g.Paths, "headers": &g.Headers, "max_request": &g.MaxRequest,
			"max_response": &g.MaxResponse, "encoded_slash": &g.EncodedSlash, "audit": &g.Audit, "reason": &g.Reason,
			"by": &g.By, "at": &g.At, "until": &g.Until,
		})
		g.Source = fmt.Sprintf("%s:%d", f.name, n.Line)
		return g, placeError(err, CheckGrant(&g), at)
	})
}

func readExemptions(f file) ([]exitgate.Exemption, error) {
	return readList(f, func(n *yaml.Node) (exitgate.Exemption, error) {
		var x exitgate.Exemption
		at, err := decodeFields(f.name, n, map[string]any{
			"id": &x.ID, "class": &x.Class, "host": &x.Host, "to": &x.To, "ports": &x.Ports, "raw": &x.Raw,
			"max_bytes": &x.MaxBytes, "reason": &x.Reason, "by": &x.By, "at": &x.At, "until": &x.Until,
		})
		x.Source = fmt.Sprintf("%s:%d", f.name, n.Line)
		return x, placeError(err, CheckExemption(&x), at)
	})
}

// placeError returns the error of decoding, or that of checking with the place of the field that it names.
func placeError(decode, check error, at map[string]string) error {
	if decode != nil || check == nil {
		return decode
	}
	var e *FieldError
	if errors.As(check, &e) && at[e.Field] != "" {
		return fmt.Errorf("%s: %w", at[e.Field], check)
	}
	return fmt.Errorf("%s: %w", at[""], check)
}

// readList decodes a file that holds a list, or nothing.
func readList[T any](f file, one func(*yaml.Node) (T, error)) ([]T, error) {
	doc, err := parseYAML(f)
	if doc == nil || err != nil {
		return nil, err
	}
	if doc.Kind == yaml.ScalarNode && doc.Tag == "!!null" {
		return nil, nil
	}
	if doc.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf(`%s: it holds a list: each entry starts with "- id: ..."`, placeOf(f.name, doc))
	}
	out := make([]T, 0, len(doc.Content))
	for _, n := range doc.Content {
		v, err := one(n)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// parseYAML returns the root of the only document of f, nil when f is empty.
func parseYAML(f file) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(f.text))
	var doc, more yaml.Node
	err := d.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, yamlError(f.name, err)
	}
	switch err := d.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("%s: a second document starts here; the file holds one", placeOf(f.name, &more))
	case !errors.Is(err, io.EOF):
		return nil, yamlError(f.name, err)
	}
	return doc.Content[0], nil
}

func placeOf(name string, n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", name, n.Line, n.Column)
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?(?:line (\d+): )?`)

// yamlError puts the file's name in front of what the parser says, and its line where it has one.
func yamlError(name string, err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	rest := err.Error()[len(m[0]):]
	if m[1] == "" {
		return fmt.Errorf("%s: %s", name, rest)
	}
	return fmt.Errorf("%s:%s: %s", name, m[1], rest)
}

// decodeFields decodes a mapping into the variables that fields point to. It returns the place of each field that is there; of
// the mapping itself under "".
func decodeFields(name string, n *yaml.Node, fields map[string]any) (map[string]string, error) {
	at := map[string]string{"": placeOf(name, n)}
	if n.Kind != yaml.MappingNode {
		return at, fmt.Errorf("%s: an entry is a mapping with the fields %s", at[""], fieldNames(fields))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		into, known := fields[k.Value]
		switch {
		case !known || k.Kind != yaml.ScalarNode:
			return at, fmt.Errorf("%s: there is no field %.40q; there are %s", placeOf(name, k), k.Value, fieldNames(fields))
		case at[k.Value] != "":
			return at, fmt.Errorf("%s: the field %s is there twice", placeOf(name, k), k.Value)
		}
		at[k.Value] = placeOf(name, v)
		if err := v.Decode(into); err != nil {
			return at, fmt.Errorf("%s: %s: %s", at[k.Value], k.Value, oneLine(yamlError("", err).Error()))
		}
	}
	return at, nil
}

func fieldNames(fields map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.TrimLeft(s, ":0123456789")), " ")
}

// readData reads data.yaml or data.json, whose top-level names are found below data in Rego.
func (s *sources) readData(f file) error {
	if s.data != nil {
		return fmt.Errorf("%s: data.yaml and data.json are both there; keep one", f.name)
	}
	var v map[string]any
	if strings.HasSuffix(f.name, ".json") {
		d := json.NewDecoder(bytes.NewReader(f.text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	} else {
		doc, err := parseYAML(f)
		if doc == nil || err != nil {
			return err
		}
		if err := doc.Decode(&v); err != nil {
			return fmt.Errorf("%s: %s", placeOf(f.name, doc), oneLine(err.Error()))
		}
	}
	if _, taken := v["exitgate"]; taken {
		return fmt.Errorf(`%s: the name "exitgate" is taken by the gateway's own data`, f.name)
	}
	s.data = v
	return nil
}
