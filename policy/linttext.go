package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The lints that look at how values are compared.

// textual are builtins that look into a text, and those of them that look at its beginning.
var (
	textual = []string{
		"startswith", "endswith", "contains", "indexof", "indexof_n", "glob.match", "regex.match", "regex.find_n", "regex.find_all_string_submatch_n",
		"regex.template_match", "strings.any_prefix_match", "strings.any_suffix_match", "strings.count", "trim_prefix", "trim_suffix",
	}
	beginnings = []string{"startswith", "strings.any_prefix_match", "regex.match", "glob.match", "trim_prefix"}
)

func (w *walk) compares(e *ast.Expr, name string, args []*ast.Term) {
	var f facts
	for _, a := range args {
		f = f.with(w.of(a))
	}
	if w.report && slices.Contains(textual, name) && f.has("input.dest.host", "input.dest.keys", "input.tls.sni") {
		w.add(e.Location, LintHostText, "a destination's name is compared as text ("+name+"), and example.com.evil.example, or notexample.com, may pass for example.com",
			`compare whole labels: "*.example.com" in input.dest.keys, or input.dest.host == "example.com"`)
	}
	if w.report && slices.Contains(textual, name) && f.has("input.http.url") {
		w.add(e.Location, LintPathText, "a URL is compared as text ("+name+"), in which a name may stand in the path or the query",
			"compare input.dest.host, input.http.prefixes and input.http.query, each for itself")
	}
	if w.report && slices.Contains(beginnings, name) && f.has("input.http.path") {
		w.add(e.Location, LintPathText, "a path is compared by its beginning as text ("+name+"), and /companyevil may pass for /company",
			`compare whole segments: "/company/" in input.http.prefixes, or input.http.segments[0] == "company"`)
	}
	w.lengths(e, name, args)
}

var comparing = []string{"gt", "gte", "lt", "lte", "equal", "eq", "neq", "internal.member_2"}

// lengths are fields that are -1 where the length of a body is not declared.
var lengths = []string{"input.http.length", "input.response.length"}

// lengths notes which lengths are compared with what stands for "not declared", and reports those that are not. A rule
// that allows has to do so itself.
func (w *walk) lengths(e *ast.Expr, name string, args []*ast.Term) {
	if !slices.Contains(comparing, name) || len(args) < 2 {
		return
	}
	for _, field := range lengths {
		if !w.of(args[0]).with(w.of(args[1])).has(field) {
			continue
		}
		switch number := slices.ContainsFunc(args, isNumber); {
		case slices.ContainsFunc(args, standsForUnknown):
			w.guarded[field], w.guarded[field+w.ruleName()] = true, true
		case name == ast.Equality.Name && !number: // it is only given a name
		case w.report && !w.guarded[field+w.ruleName()] && (w.allows() || !w.guarded[field]):
			w.add(e.Location, LintLength, field+" is compared, and it is -1 where the sender does not declare a length: the rule says the same of such a body, however large, as of an empty one",
				"deny or leave out "+field+" < 0 as well, or let the gateway count: max_request and max_response of a grant hold for every body")
		}
	}
}

func (w *walk) ruleName() string {
	return "@" + w.rule.Location.String()
}

func (w *walk) allows() bool {
	switch w.rule.Head.Ref()[0].Value.String() {
	case `grants`, `exemptions`:
		return true
	}
	return strings.HasSuffix(w.rule.Ref().String(), ".grants") || strings.HasSuffix(w.rule.Ref().String(), ".exemptions")
}

func isNumber(t *ast.Term) bool {
	_, ok := t.Value.(ast.Number)
	return ok
}

// standsForUnknown reports whether t is -1, or 0 as a bound that leaves -1 out.
func standsForUnknown(t *ast.Term) bool {
	if s, ok := t.Value.(ast.Set); ok {
		return s.Contains(ast.NumberTerm("-1"))
	}
	n, ok := t.Value.(ast.Number)
	if !ok {
		return false
	}
	i, ok := n.Int()
	return ok && (i == -1 || i == 0)
}

// contentLength reports a rule that reads the length where it is absent from half of all bodies.
func (w *walk) contentLength(r ast.Ref, at *ast.Location) {
	c := constants(r[1:])
	if !w.report || !r[0].Equal(ast.InputRootDocument) || len(c) < 3 || c[1] != "headers" || c[2] != "content-length" {
		return
	}
	w.add(at, LintLength, "content-length is absent where the sender does not declare a length, and then the rule says nothing",
		"compare input."+c[0]+".length, and deny or leave out what is < 0")
}
