package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// TestEachConditionMatters takes each condition out of the base policy, one at a time, and wants some case or some
// Rego test to notice. What nobody notices is either untested or not needed.
func TestEachConditionMatters(t *testing.T) {
	files, err := baseFiles()
	if err != nil {
		t.Fatal(err)
	}
	cases := loadCases(t)
	mutants := 0
	for i, f := range files {
		if strings.HasSuffix(f.name, "_test.rego") {
			continue
		}
		for n := 0; ; n++ {
			text, what := without(t, f, n)
			if what == "" {
				break
			}
			mutants++
			base := append([]file(nil), files...)
			base[i] = file{f.name, text}
			if !noticed(t, cases, base) {
				t.Errorf("%s: without %q nothing fails", f.name, what)
			}
		}
	}
	if mutants < 30 {
		t.Errorf("only %d conditions were tried", mutants)
	}
}

// without returns f without its n-th condition; "" when there are not so many. A rule's only condition is replaced by
// true.
func without(t *testing.T, f file, n int) (text []byte, what string) {
	m, err := ast.ParseModuleWithOpts(f.name, string(f.text), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Rules {
		if r.Body.String() == "true" {
			continue // it has no condition
		}
		if n >= len(r.Body) {
			n -= len(r.Body)
			continue
		}
		what = fmt.Sprintf("%s in %s", r.Body[n], r.Head)
		if len(r.Body) == 1 {
			r.Body = ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))
		} else {
			r.Body = append(append(ast.Body{}, r.Body[:n]...), r.Body[n+1:]...)
		}
		text, err = format.AstWithOpts(m, format.Opts{RegoVersion: ast.RegoV1, IgnoreLocations: true})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return text, what
	}
	return nil, ""
}

// noticed reports whether the policy no longer compiles, or a test of its own or a case fails.
func noticed(t *testing.T, cases []testCase, base []file) bool {
	results, err := runTests(t.Context(), Options{base: base})
	if err != nil {
		return true
	}
	for _, r := range results {
		if !r.Passed {
			return true
		}
	}
	for _, c := range cases {
		if c.Rego != "" {
			continue
		}
		e, err := New(t.Context(), Options{base: base, Timeout: time.Minute}, Data{c.Grants, c.Exemptions, c.Audit})
		if err != nil {
			return true
		}
		for _, a := range c.Asks {
			if a.check(e.Decide(t.Context(), a.question(t))) != nil {
				return true
			}
		}
	}
	return false
}
