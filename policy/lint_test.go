package policy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
)

const described = "# METADATA\n# title: t\n# description: d\n"

// TestLint: each lint finds what it is about through names, functions and rules, in its place, and leaves alone what is
// right.
func TestLint(t *testing.T) {
	for _, c := range []struct {
		rego string // after four lines: the package, an empty line, and metadata of the first rule
		want string // "LINE:COL LINT" of each, in order
	}{
		{`deny contains "x" if input.dest.host == "example.com"`, ""},
		{`deny contains "x" if "*.example.com" in input.dest.keys`, ""},
		{`deny contains "x" if endswith(input.dest.host, "example.com")`, "6:22 host-text"},
		{"deny contains \"x\" if {\n\th := lower(input.dest.host)\n\tregex.match(`example`, h)\n}", "8:2 host-text"},
		{"deny contains \"x\" if ours(input.dest.host)\n\nours(name) if startswith(name, \"intern\")", "8:15 host-text"},
		{"deny contains \"x\" if endswith(who, \"example.com\")\n\nwho := input.tls.sni", "6:22 host-text"},
		{"deny contains \"x\" if {\n\tsome k in input.dest.keys\n\tcontains(k, \"example\")\n}", "8:2 host-text"},
		{`deny contains "x" if count([k | some k in input.dest.keys; glob.match("*.com", [], k)]) > 0`, "6:60 host-text"},
		{`deny contains "x" if startswith(input.http.headers["user-agent"][0], "curl")`, ""},
		{`deny contains "x" if startswith(input.http.path, "/company")`, "6:22 path-text"},
		{`deny contains "x" if endswith(input.http.path, ".exe")`, ""},
		{`deny contains "x" if contains(input.http.url, "example.com")`, "6:22 path-text"},
		{`deny contains "x" if input.http.length > 1000`, "6:22 length"},
		{"deny contains \"x\" if input.http.length > 1000\n\n" + described + `deny contains "y" if input.http.length < 0`, ""},
		{"deny contains \"x\" if input.response.length > 1000\n\n" + described + `deny contains "y" if input.http.length < 0`, "6:22 length"},
		{`grants contains "x" if input.http.length < 1000`, "6:24 length"},
		{"grants contains \"x\" if input.http.length < 1000\n\n" + described + `deny contains "y" if input.http.length == -1`, "6:24 length"},
		{"grants contains \"x\" if {\n\tinput.http.length >= 0\n\tinput.http.length < 1000\n}", ""},
		{"deny contains \"x\" if {\n\tn := input.http.length\n\tn > limit\n}\n\nlimit := 1000", "8:2 length"},
		{`deny contains "x" if to_number(input.http.headers["content-length"][0]) > 10`, "6:32 length"},
		{`deny contains "x" if data.exitgate.table.grants.class[input.host.class]["a.example.com"].g1`, ""},
		{`deny contains "x" if data.exitgate.table.grants.class[_]["a.example.com"]`, "6:22 iteration"},
		{"deny contains \"x\" if {\n\tsome class, _ in data.exitgate.table.grants.class\n\tclass == \"a\"\n}", "7:2 iteration"},
		{"deny contains \"x\" if {\n\tmine := data.exitgate.table.grants.class[input.host.class]\n\tsome key, _ in mine\n\tkey == \"a\"\n}", "8:2 iteration"},
		{"deny contains \"x\" if {\n\tmine := data.exitgate.table.grants.class[input.host.class]\n\tsome key in input.dest.keys\n\tsome id, _ in mine[key]\n\tid == \"a\"\n}", ""},
		{`deny contains "x" if count(data.exitgate.table.grants.class) > 3`, "6:22 iteration"},
		{"deny contains \"x\" if {\n\tevery class, _ in data.exitgate.table.grants.class { class != \"a\" }\n}", "7:20 iteration"},
		{"deny contains \"x\" if many(data.exitgate.table.grants)\n\nmany(g) if g.class[_].a", "8:12 iteration"},
		{`deny contains "x" if some id in data.exitgate.grants`, ""},
		{`deny contains "x" if input.http.method == "PUT"` + "\n\ngrants contains \"x\" if input.http.method == \"PUT\"", "8:1 metadata"},
		{"helper if input.http.method == \"PUT\"", ""},
		{"deny contains \"x\" if endswith(input.dest.host, \"example.com\") # lint:ignore host-text the names are ours", ""},
		{"deny contains \"x\" if {\n\t# lint:ignore host-text the names are ours\n\tendswith(input.dest.host, \"example.com\")\n}", ""},
		{"deny contains \"x\" if endswith(input.dest.host, \"example.com\") # lint:ignore path-text another", "6:22 host-text"},
		{"deny contains \"x\" if endswith(input.dest.host, \"example.com\") # lint:ignore host-text\n", "6:22 host-text, 6:63 lint"},
	} {
		dir := t.TempDir()
		write(t, dir, "rule.rego", "package exitgate\n\n"+described+c.rego+"\n")
		found, err := Lint(t.Context(), dir)
		if err != nil {
			t.Errorf("%s: %v", c.rego, err)
			continue
		}
		var got []string
		for _, f := range found {
			if f.File != "rule.rego" || f.What == "" || f.Fix == "" || !strings.HasPrefix(f.Error(), fmt.Sprintf("rule.rego:%d:%d: %s: ", f.Line, f.Col, f.Lint)) {
				t.Errorf("%+v", f)
			}
			got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Col, f.Lint))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.rego, s, c.want)
		}
	}
}

// TestLintSchema: metadata names the published schema, or another one, which is found.
func TestLintSchema(t *testing.T) {
	dir := t.TempDir()
	rule := "# METADATA\n# title: t\n# description: d\n# schemas:\n#   - input: %s\ndeny contains \"x\" if input.http.method == \"PUT\"\n"
	write(t, dir, "a.rego", "package exitgate\n\n"+fmt.Sprintf(rule, "schema.input"))
	if found, err := Lint(t.Context(), dir); err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	write(t, dir, "b.rego", "package exitgate\n\n"+fmt.Sprintf(rule, "{type: object}"))
	if found, err := Lint(t.Context(), dir); err != nil || len(found) != 1 || found[0].Lint != LintSchema {
		t.Errorf("%v %v", found, err)
	}
	write(t, dir, "b.rego", "package exitgate\n\n"+strings.Replace(fmt.Sprintf(rule, "schema.input"), "method", "metod", 1))
	if _, err := Lint(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "b.rego:8:22: undefined ref: input.http.metod") {
		t.Errorf("a misspelled field: %v", err)
	}
}

// TestShippedPolicyIsClean holds the shipped policy, and the example, to what is asked of others.
func TestShippedPolicyIsClean(t *testing.T) {
	files, err := baseFiles()
	if err != nil {
		t.Fatal(err)
	}
	rules := files[:0]
	for _, f := range files {
		if !strings.HasSuffix(f.name, "_test.rego") {
			rules = append(rules, f)
		}
	}
	found, err := lint(rules, "")
	if err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	dir := t.TempDir()
	if err := WriteExample(dir); err != nil {
		t.Fatal(err)
	}
	if found, err := Lint(t.Context(), dir); err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	// What is commented out of it is right as well.
	b, err := os.ReadFile(dir + "/policy.rego")
	if err != nil {
		t.Fatal(err)
	}
	head, rules2, _ := strings.Cut(string(b), "package exitgate\n")
	var out strings.Builder
	for line := range strings.Lines(rules2) {
		if code := strings.TrimPrefix(line, "# "); strings.HasPrefix(code, "#") || strings.ContainsAny(code, "{}=\t") {
			line = code
		}
		out.WriteString(line)
	}
	write(t, dir, "policy.rego", head+"package exitgate\n"+out.String())
	if found, err := Lint(t.Context(), dir); err != nil || len(found) > 0 || !strings.Contains(out.String(), "\ngrants contains") {
		t.Errorf("%v %v\n%s", found, err, out.String())
	}
}

// TestMissingBuiltins says of each builtin that is taken away what to do instead, at its place.
func TestMissingBuiltins(t *testing.T) {
	for call, want := range map[string]string{
		`http.send({"method": "get", "url": "x"})`: "rule.rego:3:29: undefined function http.send: rules cannot look outside of the question",
		`time.now_ns()`:   "rule.rego:3:29: undefined function time.now_ns: rules cannot read the clock, so that an answer can be given again; write time.parse_rfc3339_ns(input.at)",
		`walk(input)`:     "rule.rego:3:29: undefined function walk: it can run for long",
		`nonsense(input)`: "rule.rego:3:29: undefined function nonsense",
	} {
		dir := t.TempDir()
		write(t, dir, "rule.rego", "package exitgate\n\ndeny contains \"x\" if x := "+strings.Repeat(" ", 2)+call+"\n")
		_, err := Lint(t.Context(), dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestInputMeetsTheSchema holds what rules are shown of the questions of all cases against the published schema.
func TestInputMeetsTheSchema(t *testing.T) {
	ctx := context.Background()
	check, err := rego.New(rego.Query("json.match_schema(input, "+string(inputSchema)+", x)"), rego.Capabilities(ast.CapabilitiesForThisVersion())).PrepareForEval(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range loadCases(t) {
		s := c.engine(t, 0).current.Load()
		for _, a := range c.Asks {
			q := a.question(t)
			if _, deep := s.tooDeep(q); deep {
				continue
			}
			var w asked
			s.ask(&w, q)
			rs, err := check.Eval(ctx, rego.EvalParsedInput(s.input(&w, nil)))
			if err != nil || len(rs) != 1 {
				t.Fatal(rs, err)
			}
			if x, ok := rs[0].Bindings["x"].([]any); !ok || x[0] != true {
				t.Errorf("%s: %v", a.Ask, rs[0].Bindings["x"])
			}
			n++
		}
	}
	if n < 50 {
		t.Errorf("only %d questions", n)
	}
}
