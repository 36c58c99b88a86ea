package policy

import (
	"encoding/json"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// TestSchemaHasEveryField holds the published schema to the table of fields, in both directions.
func TestSchemaHasEveryField(t *testing.T) {
	type node struct {
		Properties map[string]node `json:"properties"`
	}
	var schema node
	if err := json.Unmarshal(inputSchema, &schema); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, f := range fields {
		n := schema
		if f.group != "" {
			n = schema.Properties[f.group]
		}
		if _, ok := n.Properties[f.name]; !ok {
			t.Errorf("the schema has no %s.%s", f.group, f.name)
		}
	}
	for _, n := range schema.Properties {
		count += max(1, len(n.Properties))
	}
	if count != numFields {
		t.Errorf("the schema has %d fields, input %d", count, numFields)
	}
}

// TestInputIsWhole wants the input of a full question to have every field, but for addresses that are not known.
func TestInputIsWhole(t *testing.T) {
	e, err := New(t.Context(), Options{}, Data{})
	if err != nil {
		t.Fatal(err)
	}
	a := testAsk{Ask: "GET https://a.example.com/x?y=1&y=%32&z", Stage: exitgate.StageResponse}
	q := a.question(t)
	q.TLS = &exitgate.TLS{}
	s := e.current.Load()
	var w asked
	s.ask(&w, q)
	in := s.input(&w, nil).(ast.Object)
	missing := 0
	for _, f := range fields {
		ref := ast.Ref{ast.StringTerm(f.name)}
		if f.group != "" {
			ref = ast.Ref{ast.StringTerm(f.group), ast.StringTerm(f.name)}
		}
		if _, err := in.Find(ref); err != nil {
			missing++
		}
	}
	if missing != 2 { // dest.aim and dest.addr
		t.Errorf("%d fields are missing of %s", missing, in)
	}
	query, err := in.Find(ast.Ref{ast.StringTerm("http"), ast.StringTerm("query")})
	if want := ast.MustParseTerm(`{"y": ["1", "2"], "z": [""]}`).Value; err != nil || query.Compare(want) != 0 {
		t.Errorf("query %v, want %v", query, want)
	}
}
