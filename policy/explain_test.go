package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func explainEngine(t *testing.T) *Engine {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "grants.yaml", `# a comment
- {id: api, class: app, to: api.example.com, paths: [/a], headers: {x-team: blue*}, reason: r}
- {id: old, class: app, to: "*.example.com", until: 2025-06-01, reason: r}
- {id: other, class: app, to: www.example.org, reason: r}
- {id: mine, host: web01, to: api.example.com, ports: [8443], methods: ["*"], reason: r}
- {id: build, class: build, to: api.example.com, reason: r}
`)
	write(t, dir, "exemptions.yaml", "- {id: bank, class: app, to: bank.example, reason: r, until: 2026-06-01}\n")
	write(t, dir, "rules/deny.rego", "package exitgate\n\ndeny contains \"no deletes\" if input.http.method == \"DELETE\"\n")
	e, err := New(t.Context(), Options{Dir: dir, Timeout: time.Minute}, Data{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExplainText(t *testing.T) {
	e := explainEngine(t)
	for _, c := range []struct {
		ask  testAsk
		want []string
	}{
		{testAsk{Ask: "POST https://api.example.com/b", Host: "web01"}, []string{
			"host web01 of class app: POST https://api.example.com/b is refused",
			"rule      no-grant",
			"reason    class app has no grant for POST https://api.example.com/b; nearest: grant mine is for port 8443",
			"grant api (api.example.com, grants.yaml:2): method POST is not among GET, HEAD; path /b is not /a or below it; header x-team is absent, and has to be like \"blue*\"",
			"grant old (*.example.com, grants.yaml:3): it ended 2025-06-01 00:00:00 UTC; method POST",
			"grant mine (api.example.com, grants.yaml:5): port 443 is not 8443",
			"grant other (www.example.org, grants.yaml:4): api.example.com is not www.example.org",
			"exemption bank (bank.example, exemptions.yaml:1): what is read is not carried unread; api.example.com is not bank.example",
			"to grant it:\n  exitgate grant add --class app --method POST --reason WHY 'https://api.example.com/b'",
		}},
		{testAsk{Ask: "GET https://api.example.com/a/1", Headers: map[string][]string{"x-team": {"blue-1"}}}, []string{
			"a host of class app: GET https://api.example.com/a/1 is allowed", "rule      grant:api", "at        grants.yaml:2", "grant api (api.example.com, grants.yaml:2): applies",
		}},
		{testAsk{Ask: "GET https://api.example.com/a", Headers: map[string][]string{"x-team": {"red\x1b[2J"}}}, []string{`header x-team is "red?[2J" and not like "blue*"`}},
		{testAsk{Ask: "DELETE https://api.example.com/a"}, []string{
			"is refused", "rule      deny:rules/deny.rego:3", "at        rules/deny.rego:3", "denied at rules/deny.rego:3: no deletes",
			"no grant allows this: the rule at rules/deny.rego:3 denies it",
		}},
		{testAsk{Ask: "connect bank.example:443"}, []string{"bank.example:443 is carried unread", "rule      exemption:bank", "at        exemptions.yaml:1", "exemption bank (bank.example, exemptions.yaml:1): applies"}},
		{testAsk{Ask: "connect bank.example:8443"}, []string{"port 8443 is not 443", "exitgate grant add --class app --reason WHY 'https://bank.example:8443'"}},
		{testAsk{Ask: "connect 192.0.2.1:80"}, []string{"exitgate grant add --class app --reason WHY 'http://192.0.2.1'"}},
		{testAsk{Ask: "GET https://x.example/a'b$?q=1"}, []string{`--method GET --reason WHY 'https://x.example/a'\''b$$'`}},
		{testAsk{Ask: "GET https://x.example/a%2fb"}, []string{"--method GET --encoded-slash --reason WHY 'https://x.example/a%2Fb'"}},
		{testAsk{Ask: "GET https://x.example/", Class: "lone"}, []string{"no grant and no exemption names the host or its class"}},
		{testAsk{Ask: "GET https://x.example/", Class: "unknown"}, []string{"rule      deny:base/deny.rego:", "register its address"}},
	} {
		x, err := e.Explain(t.Context(), c.ask.question(t))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := x.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: without %q:\n%s", c.ask.Ask, w, b.String())
			}
		}
		v, err := e.Decide(t.Context(), c.ask.question(t))
		if err != nil || v.Rule != x.Verdict.Rule || v.Reason != x.Verdict.Reason {
			t.Errorf("%s: explained as %+v, decided as %+v", c.ask.Ask, x.Verdict, v)
		}
	}
}

// TestSuggestionsHold makes each grant that is suggested and wants it to allow what was refused, and to say nothing
// where a command could do harm.
func TestSuggestionsHold(t *testing.T) {
	e := explainEngine(t)
	for _, s := range []string{
		"GET https://new.example/", "PUT https://new.example/a/b?c=d", "POST http://new.example:8080/x/", "GET https://new.example/a$",
		"GET https://new.example/%7Ea%2fb", "GET https://[2001:db8::1]/x", "connect new.example:443", "connect new.example:80", "connect new.example:22",
	} {
		x, err := e.Explain(t.Context(), ask(t, s))
		if err != nil || !strings.HasPrefix(x.Suggest, "exitgate grant add ") {
			t.Errorf("%s: %q %v", s, x.Suggest, err)
			continue
		}
		url := x.Suggest[strings.IndexByte(x.Suggest, '\'')+1 : len(x.Suggest)-1]
		target, err := ParseGrantTarget(url)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		g := exitgate.Grant{ID: "new", Class: "app", To: target.To, Scheme: target.Scheme, Reason: "r", EncodedSlash: strings.Contains(x.Suggest, "--encoded-slash")}
		if target.Port != 0 {
			g.Ports = []uint16{target.Port}
		}
		if target.Path != "" {
			g.Paths = []string{target.Path}
		}
		if _, after, ok := strings.Cut(x.Suggest, "--method "); ok {
			g.Methods = strings.Fields(after)[:1]
		}
		with, err := New(t.Context(), Options{Timeout: time.Minute}, Data{Grants: []exitgate.Grant{g}})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := with.Decide(t.Context(), ask(t, s)); err != nil || v.Action != exitgate.Allow {
			t.Errorf("%s: %s: %+v %v", s, x.Suggest, v, err)
		}
	}
	for _, change := range []func(*exitgate.Question){
		func(q *exitgate.Question) { q.HTTP.Method = "$(reboot)" },
		func(q *exitgate.Question) { q.Host.Class = "a;reboot" },
		func(q *exitgate.Question) { q.Dest.Host = "`reboot`.example" },
		func(q *exitgate.Question) { q.HTTP.Path = "/\n reboot" },
		func(q *exitgate.Question) { q.HTTP.Path = "/a//b" },
	} {
		q := ask(t, "GET https://new.example/x")
		change(q)
		if x, err := e.Explain(t.Context(), q); err != nil || x.Suggest != "" {
			t.Errorf("%+v: %q %v", q, x.Suggest, err)
		}
	}
}

func TestExplainJSON(t *testing.T) {
	a := testAsk{Ask: "GET https://api.example.com/b?x=1"}
	x, err := explainEngine(t).Explain(t.Context(), a.question(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Candidates []Candidate `json:"candidates"`
		Denials    []Denial    `json:"denials"`
		Input      struct {
			Dest struct{ Keys []string }
			HTTP struct {
				Prefixes []string
				Query    map[string][]string
			}
		} `json:"input"`
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Candidates) != 4 || back.Denials == nil || len(back.Input.Dest.Keys) != 3 || len(back.Input.HTTP.Prefixes) != 2 || back.Input.HTTP.Query["x"][0] != "1" {
		t.Errorf("%s", b)
	}
	for _, c := range back.Candidates {
		if c.Applies != (len(c.Misses) == 0) || c.Source == "" {
			t.Errorf("%+v", c)
		}
	}
}

func TestWriteExample(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "policy")
	if err := WriteExample(dir); err != nil {
		t.Fatal(err)
	}
	e, err := New(t.Context(), Options{Dir: dir}, Data{})
	if err != nil || len(e.Grants())+len(e.Exemptions()) != 0 {
		t.Fatal("the example grants something, or is broken", err)
	}
	write(t, dir, "grants.yaml", "- {id: mine, class: app, to: a.example.com, reason: r}\n")
	os.Remove(filepath.Join(dir, "policy.rego"))
	if err := WriteExample(dir); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "grants.yaml")); !strings.HasPrefix(string(b), "- {id: mine") {
		t.Error("a file was written over")
	}
	if _, err := os.Stat(filepath.Join(dir, "policy.rego")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) != 0 {
		t.Error("left behind:", left)
	}
	if err := WriteExample(filepath.Join(dir, "grants.yaml", "x")); err == nil {
		t.Error("no error for a directory that cannot be made")
	}
}

// TestExampleIsValid takes the marks off the examples: what a newcomer uncomments has to load.
func TestExampleIsValid(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"grants.yaml", "exemptions.yaml"} {
		b, err := example.ReadFile("example/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_, list, _ := strings.Cut(string(b), "#\n# - id")
		list = "# - id" + list
		var out strings.Builder
		for line := range strings.Lines(list) {
			out.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "# "), "#"))
		}
		write(t, dir, name, out.String())
	}
	b, err := example.ReadFile("example/policy.rego")
	if err != nil {
		t.Fatal(err)
	}
	head, rules, _ := strings.Cut(string(b), "package exitgate\n")
	rules = strings.NewReplacer("# deny", "deny", "# grants", "grants", "# \t", "\t", "# }", "}").Replace(rules)
	write(t, dir, "policy.rego", head+"package exitgate\n"+rules)
	e, err := New(t.Context(), Options{Dir: dir, Timeout: time.Minute}, Data{})
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Grants()) != 3 || len(e.Exemptions()) != 2 {
		t.Errorf("%d grants, %d exemptions", len(e.Grants()), len(e.Exemptions()))
	}
	q := ask(t, "GET https://news.example.com/")
	q.Host.Class, q.At = "desk", time.Date(2026, 7, 1, 15, 59, 0, 0, time.UTC)
	if v, err := e.Decide(t.Context(), q); err != nil || v.Rule != "grant:office-hours" {
		t.Error(v, err)
	}
	q.At = q.At.Add(2 * time.Minute)
	if v, err := e.Decide(t.Context(), q); err != nil || v.Rule != "no-grant" {
		t.Error(v, err)
	}
	if v, err := e.Decide(t.Context(), ask(t, "POST https://x.paste.example/")); err != nil || !strings.HasPrefix(v.Rule, "deny:policy.rego:") {
		t.Error(v, err)
	}
}
