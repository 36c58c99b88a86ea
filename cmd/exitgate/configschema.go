package main

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
)

// The structure of exitgate.yaml is read from its manual, config.go, so that the two cannot differ: the types' fields
// are the keys, and the fields' comments are the documentation.
//
//go:embed config.go
var configSource string

// A schema maps each struct type to its keys, in the order in which they are documented.
type schema map[string][]key

// A key is one key of a mapping.
type key struct {
	name string
	doc  string // the comment, lines as they were written
	typ  string // the type of the value: "[]T" a list, "map[string]T" a mapping of any names
}

// configSchema reads the schema from the manual.
func configSchema() schema {
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", configSource, parser.ParseComments)
	if err != nil {
		panic(err) // the source was compiled into this very program
	}
	s := schema{}
	ast.Inspect(f, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if st, ok := t.Type.(*ast.StructType); ok {
			s[t.Name.Name] = keysOf(st)
		}
		return false
	})
	return s
}

func keysOf(st *ast.StructType) []key {
	var keys []key
	for _, f := range st.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		name := strings.TrimSuffix(strings.TrimPrefix(tag, `yaml:"`), `"`)
		keys = append(keys, key{name, strings.TrimSpace(f.Doc.Text()), typeName(f.Type)})
	}
	return keys
}

func typeName(e ast.Expr) string {
	switch t := e.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.ArrayType:
		return "[]" + typeName(t.Elt)
	case *ast.MapType:
		return "map[" + typeName(t.Key) + "]" + typeName(t.Value)
	}
	panic(fmt.Sprintf("config.go: a field of type %T", e))
}

// element returns the type of the elements when typ begins with prefix ("[]", "map[string]"), and "" otherwise.
func element(typ, prefix string) (string, bool) {
	elem, ok := strings.CutPrefix(typ, prefix)
	if !ok {
		return "", false
	}
	return elem, true
}

func (s schema) key(typ, name string) (key, bool) {
	i := slices.IndexFunc(s[typ], func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return s[typ][i], true
}

func (s schema) names(typ string) []string {
	var names []string
	for _, k := range s[typ] {
		names = append(names, k.name)
	}
	return names
}
