package policy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// recipes returns the folders of the cookbook: each is a policy directory with a recipe.md.
func recipes(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("cookbook/[0-9][0-9]-*")
	if err != nil || len(dirs) < 25 {
		t.Fatalf("only %d recipes: %v", len(dirs), err)
	}
	return dirs
}

// TestCookbook runs the tests of each recipe, lints it, and wants each test of it to be able to fail: without any of its
// grants, exemptions or conditions, some test of the recipe notices.
func TestCookbook(t *testing.T) {
	for _, dir := range recipes(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			if failed, err := ownTests(t, dir); err != nil || len(failed) > 0 {
				t.Errorf("%v %v", failed, err)
			}
			if found, err := Lint(t.Context(), dir); err != nil || len(found) > 0 {
				t.Errorf("%v %v", found, err)
			}
			for _, m := range recipeMutants(t, dir) {
				if failed, err := ownTests(t, m.dir); err == nil && len(failed) == 0 {
					t.Errorf("without %s no test of the recipe fails", m.what)
				}
			}
		})
	}
}

// ownTests returns which tests of dir fail; of those of the shipped policy it takes no notice.
func ownTests(t *testing.T, dir string) (failed []string, err error) {
	results, err := Test(t.Context(), dir)
	n := 0
	for _, r := range results {
		if strings.HasPrefix(r.Place, baseDir) {
			continue
		}
		if n++; !r.Passed {
			failed = append(failed, r.Place+" "+r.Name+": "+r.Why)
		}
	}
	if err == nil && n == 0 {
		t.Errorf("%s has no tests", dir)
	}
	return failed, err
}

type recipeMutant struct{ dir, what string }

// recipeMutants copies dir, each time without something.
func recipeMutants(t *testing.T, dir string) (out []recipeMutant) {
	add := func(name string, text []byte, what string) {
		to := t.TempDir()
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		write(t, to, name, string(text))
		out = append(out, recipeMutant{to, what})
	}
	files, err := readDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch {
		case f.name == "grants.yaml", f.name == "exemptions.yaml":
			entries := strings.SplitAfter("\n"+string(f.text), "\n- id: ")
			for i := 1; i < len(entries); i++ {
				id, _, _ := strings.Cut(entries[i], "\n")
				rest := strings.TrimSuffix(strings.Join(slices.Concat(entries[:i], entries[i+1:]), ""), "\n- id: ")
				add(f.name, []byte(rest), f.name+": "+id)
			}
		case strings.HasSuffix(f.name, ".rego") && !strings.HasSuffix(f.name, "_test.rego"):
			for n := 0; ; n++ {
				text, what := without(t, f, n)
				if what == "" {
					break
				}
				add(f.name, text, what)
			}
		}
	}
	return out
}

// TestCookbookDocument renders docs/cookbook.md from the recipes; -update writes it.
func TestCookbookDocument(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# Cookbook

Each recipe is a policy directory of its own: [policy/cookbook](../policy/cookbook) has them with their tests, which run with the gateway's. Copy the
parts that you need into your policy directory, and their tests beside them; ` + "`exitgate policy check`, `exitgate policy test` and `exitgate policy diff`" + `
say what becomes of it. This page is made from those files.

What is common to all: a grant is for a class (or a host) and one destination, and without one everything is refused. A rule that denies holds over
every grant. Rules see the question as ` + "`input`" + ` (` + "`exitgate policy schema`" + ` lists its fields), and write questions for tests with ` + "`data.exitgate.testing`" + `.

`)
	var text bytes.Buffer
	for _, dir := range recipes(t) {
		title := renderRecipe(t, &text, dir)
		fmt.Fprintf(&b, "- [%s](#%s)\n", title, anchor(title))
	}
	b.Write(text.Bytes())
	const name = "../docs/cookbook.md"
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(name); err != nil || !bytes.Equal(have, b.Bytes()) {
		t.Errorf("%s is not what the recipes say (%v): go test ./policy -run CookbookDocument -update", name, err)
	}
}

func renderRecipe(t *testing.T, b *bytes.Buffer, dir string) (title string) {
	recipe, err := os.ReadFile(filepath.Join(dir, "recipe.md"))
	if err != nil {
		t.Fatal(err)
	}
	title, prose, ok := strings.Cut(strings.TrimPrefix(string(recipe), "# "), "\n\n")
	if !ok || title == "" || strings.TrimSpace(prose) == "" {
		t.Fatalf("%s: recipe.md has a title, an empty line, and a text", dir)
	}
	fmt.Fprintf(b, "\n## %s\n%s", title, prose)
	for _, name := range []string{"grants.yaml", "exemptions.yaml", "policy.rego", "data.yaml"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		language := strings.TrimPrefix(filepath.Ext(name), ".")
		fmt.Fprintf(b, "\n`%s`\n\n```%s\n%s```\n", name, language, text)
	}
	fmt.Fprintf(b, "\nIts [tests](../policy/%s/policy_test.rego).\n", filepath.ToSlash(dir))
	return title
}

// anchor is how a title is linked to: in lower case, with dashes for spaces and without punctuation.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}, strings.ToLower(title))
}

// TestTestingQuestions: what tests of a policy write is what the gateway would ask.
func TestTestingQuestions(t *testing.T) {
	e, err := New(t.Context(), Options{}, Data{Grants: []exitgateGrant{{ID: "g", Class: "app", To: "192.0.2.0/24", Reason: "r"}, {ID: "h", Class: "app", To: "192.0.0.0/16", Reason: "r"}, {ID: "v6", Host: "x", To: "2001:db8::/32", Reason: "r"}}})
	if err != nil {
		t.Fatal(err)
	}
	s := e.current.Load()
	for _, c := range [][2]string{
		{`testing.request("app", "GET", "https://a.example.com/")`, "GET https://a.example.com/"},
		{`testing.request("app", "GET", "https://a.example.com")`, "GET https://a.example.com"},
		{`testing.request("app", "POST", "http://a.example.com:8080/a/b/c?x=1&y=%20&x=2")`, "POST http://a.example.com:8080/a/b/c?x=1&y=%20&x=2"},
		{`testing.request("app", "GET", "https://localhost/a/b/")`, "GET https://localhost/a/b/"},
		{`testing.request("app", "GET", "https://a.example.com/@x%2Fy")`, "GET https://a.example.com/@x%2Fy"},
		{`testing.request("app", "GET", "https://192.0.2.7/a")`, "GET https://192.0.2.7/a"},
		{`testing.connect("app", "2001:db8::7", 443)`, "connect 2001:db8::7:443"},
		{`testing.resolve("app", "a.example.com")`, "resolve a.example.com:53"},
		{`testing.response(testing.request("app", "GET", "https://a.example.com/x"), 404, {"a": ["b"]})`, "response"},
		{`testing.with_headers(testing.request("app", "GET", "https://a.example.com/x"), {"a": "b", "c": ["d", "e"]})`, "headers"},
	} {
		a := testAsk{Ask: c[1], Host: "host-1", At: day0.AddDate(0, 5, 0).Add(12 * 3600e9)}
		switch c[1] {
		case "response":
			a.Ask, a.Stage, a.Status = "GET https://a.example.com/x", "response", 404
		case "headers":
			a.Ask, a.Headers = "GET https://a.example.com/x", map[string][]string{"a": {"b"}, "c": {"d", "e"}}
		}
		q := a.question(t)
		q.Host.Addr = mustAddr("192.0.2.10")
		if q.Stage == "resolve" {
			q.Way = "dns"
		}
		if q.Response != nil {
			q.Response.Headers = map[string][]string{"a": {"b"}}
		}
		if q.HTTP != nil {
			q.HTTP.Path = max(q.HTTP.Path, "/")
		}
		var w asked
		s.ask(&w, q)
		want := s.input(&w, nil)
		if got := evalWithTests(t, c[0]); got.Compare(want) != 0 {
			t.Errorf("%s\n got %v\nwant %v", c[0], got, want)
		}
	}
}

// evalWithTests evaluates a term with the shipped policy and its tests, over the table of a policy with two ranges.
func evalWithTests(t *testing.T, term string) ast.Value {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "grants.yaml", "- {id: g, class: app, to: 192.0.2.0/24, reason: r}\n- {id: h, class: app, to: 192.0.0.0/16, reason: r}\n- {id: v6, host: x, to: '2001:db8::/32', reason: r}\n")
	write(t, dir, "x_test.rego", "package x_test\n\nimport data.exitgate.testing\n\nv := "+term+"\n")
	v, err := evalTerm(t.Context(), dir, "data.x_test.v")
	if err != nil {
		t.Fatal(err)
	}
	return v
}
