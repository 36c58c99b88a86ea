package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func ask(t testing.TB, s string) *exitgate.Question {
	t.Helper()
	a := testAsk{Ask: s}
	return a.question(t)
}

// mustFail wants a refusal by exitgate.RulePolicy, with an error.
func mustFail(t *testing.T, v exitgate.Verdict, err error, want string) {
	t.Helper()
	if err == nil || v.Action != exitgate.Refuse || v.Rule != exitgate.RulePolicy || v.Revision == "" || !strings.Contains(err.Error(), want) || !strings.Contains(v.Reason, "did not answer") {
		t.Errorf("%+v %v, want a refusal because of %q", v, err, want)
	}
}

// TestFailsClosed: an error, a deadline, a cancelled caller, an answer that makes no sense and a panic refuse, each
// time anew, and nothing of it is kept.
func TestFailsClosed(t *testing.T) {
	slow := `package exitgate
big := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
deny contains "never" if {
	input.http.path == "/slow"
	some a in big; some b in big; some c in big; some d in big; some e in big; some f in big; some g in big
	a + b + c + d + e + f + g == 1000
}
deny contains "never" if {
	input.http.path == "/error"
	to_number("x") == 1
}
grants contains {"not": "text"} if input.http.path == "/object"
exemptions contains 3 if input.dest.port == 333
`
	dir := t.TempDir()
	write(t, dir, "slow.rego", slow)
	e, err := New(t.Context(), Options{Dir: dir, Timeout: 20 * time.Millisecond}, Data{
		Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}}, AuditClasses: []exitgate.Class{"app"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		v, err := e.Decide(t.Context(), ask(t, "GET https://a.example.com/slow"))
		mustFail(t, v, err, "took longer than 20ms")
		v, err = e.Decide(t.Context(), ask(t, "GET https://a.example.com/error"))
		mustFail(t, v, err, "to_number")
		v, err = e.Decide(t.Context(), ask(t, "GET https://a.example.com/object"))
		mustFail(t, v, err, "no text")
		v, err = e.Decide(t.Context(), ask(t, "connect a.example.com:333"))
		mustFail(t, v, err, "no text")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("the host went away"))
		v, err = e.Decide(ctx, ask(t, "GET https://a.example.com/slow"))
		mustFail(t, v, err, "the host went away")
	}
	if n := e.current.Load().kept.size(); n != 0 {
		t.Errorf("%d failures are kept", n)
	}
	e.current.Load().table = nil // whatever makes it panic
	v, err := e.Decide(t.Context(), ask(t, "GET https://b.example.com/"))
	mustFail(t, v, err, "panic")
	var bug *exitgate.Bug
	if !errors.As(err, &bug) || len(bug.Stack) == 0 {
		t.Errorf("%T %v", err, err)
	}
	if x, err := e.Explain(t.Context(), ask(t, "GET https://b.example.com/")); err == nil || x.Verdict.Rule != exitgate.RulePolicy {
		t.Errorf("explain: %+v %v", x, err)
	}
}

// TestUndefinedRefuses takes the sets away under the query.
func TestUndefinedRefuses(t *testing.T) {
	base, err := baseFiles()
	if err != nil {
		t.Fatal(err)
	}
	var without []file
	for _, f := range base {
		if f.name != "base/exemptions.rego" && !strings.HasSuffix(f.name, "_test.rego") {
			without = append(without, f)
		}
	}
	e, err := New(t.Context(), Options{base: without}, Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.Decide(t.Context(), ask(t, "GET https://a.example.com/"))
	mustFail(t, v, err, "nothing")
}

func TestNothingReachesOut(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1/"})`, `time.now_ns()`, `rand.intn("x", 3)`, `opa.runtime()`, `uuid.rfc4122("x")`,
		`net.lookup_ip_addr("localhost")`, `walk(input, [["a"], 1])`, `numbers.range(1, 1000000000)`, `net.cidr_expand("10.0.0.0/8")`,
		`rego.parse_module("a", "package a")`, `io.jwt.decode_verify("x", {})`,
	} {
		dir := t.TempDir()
		write(t, dir, "a.rego", "package a\n\nx if "+call+"\n")
		if _, err := New(t.Context(), Options{Dir: dir}, Data{}); err == nil || !strings.Contains(err.Error(), "a.rego:3:6: undefined function") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// TestLoadErrors: each is one line, which says which file, line and column.
func TestLoadErrors(t *testing.T) {
	grant := "- id: g\n  class: app\n  to: a.example.com\n  reason: r\n"
	for _, c := range []struct{ name, text, want string }{
		{"a.rego", "package a\n\nx if {\n", "a.rego:4:0: unexpected eof"},
		{"a.rego", "package a\n\nx if input.hots.name\n", "a.rego:3:6: undefined ref: input.hots.name (hots is not one of at, dest, host"},
		{"a.rego", "package a\n\nx if input.http.pathh == \"/\"\n", "a.rego:3:6: undefined ref: input.http.pathh"},
		{"sub/a.rego", "package a\n\nx if { y := 1 }\n", "sub/a.rego:3:8: assigned var y unused"},
		{"a.rego", "package a\n\nimport rego.v1\nimport data.foo\n", "a.rego:4:1: import data.foo unused"},
		{"a.rego", "package exitgate\n\ndeny := true\n", "a.rego:3:1"},
		{"a.rego", "package exitgate\n\ndeny if true\n", "a.rego:3:1"},
		{"a.rego", "package exitgate\n\ndenials contains 1\n", "a.rego:3:1: the name denials is taken"},
		{"a.rego", "package exitgate\n\ntable := {}\n", "a.rego:3:1: the name table is taken"},
		{"a.rego", "package exitgate.match\n\nreaches(_)\n", "a.rego:1:1: data.exitgate.match belongs to the shipped policy"},
		{"a.rego", "package exitgate.table\n\ngrants := {}\n", "a.rego:1:1: data.exitgate.table belongs"},
		{"a.rego", "# only a comment\n", "a.rego:"},
		{"base/a.rego", "package a\n", "shipped policy's"},
		{"grants.yaml", "{", "grants.yaml:1: did not find"},
		{"grants.yaml", "a: b\n", "grants.yaml:1:1: it holds a list"},
		{"grants.yaml", "- 7\n", "grants.yaml:1:3: an entry is a mapping"},
		{"grants.yaml", grant + "- id: h\n  clas: app\n", "grants.yaml:6:3: there is no field \"clas\"; there are at, audit, by, class"},
		{"grants.yaml", "- id: g\n  id: h\n", "grants.yaml:2:3: the field id is there twice"},
		{"grants.yaml", "- id: g\n  ports: [x]\n", "grants.yaml:2:10: ports: cannot"},
		{"grants.yaml", "- id: g\n  ports: [70000]\n", "grants.yaml:2:10: ports: cannot"},
		{"grants.yaml", "- id: g\n  until: tomorrow\n", "grants.yaml:2:10: until:"},
		{"grants.yaml", "- id: g\n  source: store\n", "there is no field \"source\""},
		{"grants.yaml", "- id: g\n  class: app\n  to: \"*.com\"\n  reason: r\n", "grants.yaml:3:7: grant g: to: *.com covers a public suffix"},
		{"grants.yaml", "- id: g\n  class: app\n  to: \"*\"\n  reason: r\n", "grants.yaml:3:7: grant g: to: \"*\" would grant every destination"},
		{"grants.yaml", "- id: g\n  class: app\n  to: a.example.com\n", "grants.yaml:1:3: grant g: reason: say why"},
		{"grants.yaml", grant + grant, "grants.yaml:5: grant g: the id is taken by the grant of grants.yaml:1"},
		{"grants.yaml", grant + "---\n" + grant, "grants.yaml:5:1: a second document"},
		{"grants.yaml", "- &a [*a]\n", "grants.yaml:1"},
		{"grants.yaml", "- id: \xff\n", "grants.yaml"},
		{"exemptions.yaml", "- id: e\n  class: app\n  to: a.example.com\n  reason: r\n", "exemptions.yaml:1:3: exemption e: until: an exemption says when"},
		{"data.yaml", "exitgate: 1\n", "data.yaml: the name \"exitgate\" is taken"},
		{"data.yaml", "- 1\n", "data.yaml:1:1"},
		{"data.json", "{", "data.json: "},
	} {
		dir := t.TempDir()
		write(t, dir, c.name, c.text)
		_, err := New(t.Context(), Options{Dir: dir}, Data{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %q:\n got %v\nwant %s", c.name, c.text, err, c.want)
		}
	}
	if _, err := New(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "none")}, Data{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	dir := t.TempDir()
	write(t, dir, "data.yaml", "a: {b: 1}\n")
	write(t, dir, "a.rego", "package a\n\nb := 2\n")
	if _, err := New(t.Context(), Options{Dir: dir}, Data{}); err == nil || !strings.Contains(err.Error(), "a.rego:3:1: data.a.b is a rule here and a value in the data file") {
		t.Error(err)
	}
	write(t, dir, "data.json", "{}")
	if _, err := New(t.Context(), Options{Dir: dir}, Data{}); err == nil || !strings.Contains(err.Error(), "both there") {
		t.Error(err)
	}
}

// TestDirectory loads all kinds of files at once, through links as a mounted volume has them.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "..data/grants.yaml", "- id: g\n  class: app\n  to: a.example.com\n  until: 2027-01-02\n  reason: r\n")
	write(t, dir, "exemptions.yaml", "# nothing\n")
	write(t, dir, "rules/deep/a.rego", "package exitgate\n\nimport data.lists\n\ndeny contains \"listed\" if input.dest.host in lists.bad\n")
	write(t, dir, "data.yaml", "lists: {bad: [b.example.com]}\n")
	write(t, dir, ".git/x.rego", "not rego")
	write(t, dir, "notes.txt", "not rego")
	write(t, dir, "empty.rego", "\n")
	if err := os.Symlink(filepath.Join("..data", "grants.yaml"), filepath.Join(dir, "grants.yaml")); err != nil {
		t.Fatal(err)
	}
	e, err := New(t.Context(), Options{Dir: dir}, Data{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := e.Decide(t.Context(), ask(t, "GET https://a.example.com/")); err != nil || v.Rule != "grant:g" {
		t.Error(v, err)
	}
	if v, err := e.Decide(t.Context(), ask(t, "GET https://b.example.com/")); err != nil || v.Rule != "deny:rules/deep/a.rego:5" {
		t.Error(v, err)
	}
	if g := e.Grants(); len(g) != 1 || g[0].Source != "grants.yaml:1" || g[0].Until.Year() != 2027 {
		t.Errorf("%+v", g)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	var logged bytes.Buffer
	d := Data{Grants: []exitgate.Grant{{ID: "s", Class: "app", To: "s.example.com", Reason: "r"}, {ID: "bad", Class: "app", To: "*.com", Reason: "r"}}}
	e, err := New(t.Context(), Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))}, d)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), "grant bad: to: *.com covers a public suffix") || len(e.Grants()) != 1 {
		t.Errorf("a grant of the store that is not valid: %s %+v", logged.String(), e.Grants())
	}
	first := e.Revision()
	rule := func() string {
		v, err := e.Decide(t.Context(), ask(t, "GET https://a.example.com/"))
		if err != nil {
			t.Fatal(err)
		}
		return v.Rule + " " + v.Revision
	}
	if got := rule(); got != "no-grant "+first {
		t.Error(got)
	}
	if changed, err := e.Reload(t.Context(), d); changed || err != nil || e.Revision() != first {
		t.Error("nothing differs, but it changed", err)
	}
	write(t, dir, "grants.yaml", "- {id: g, class: app, to: a.example.com, reason: r}\n")
	if changed, err := e.Reload(t.Context(), d); !changed || err != nil {
		t.Fatal(changed, err)
	}
	second := e.Revision()
	if got := rule(); second == first || got != "grant:g "+second {
		t.Error(got, first)
	}
	write(t, dir, "grants.yaml", "- {id: g, class: app, to: a.example.com, raeson: r}\n")
	if changed, err := e.Reload(t.Context(), d); changed || err == nil || !strings.Contains(err.Error(), "grants.yaml:1:42") {
		t.Error(changed, err)
	}
	if got := rule(); got != "grant:g "+second {
		t.Errorf("a broken reload did not keep the last good: %s", got)
	}
	write(t, dir, "grants.yaml", "- {id: s, class: app, to: a.example.com, reason: r}\n")
	if _, err := e.Reload(t.Context(), d); err == nil || !strings.Contains(err.Error(), "the id is taken by the grant of") {
		t.Error(err)
	}
	os.Remove(filepath.Join(dir, "grants.yaml"))
	if changed, err := e.Reload(t.Context(), d); !changed || err != nil || e.Revision() != first {
		t.Error("the same inputs make another revision", err)
	}
	if changed, err := e.Reload(t.Context(), Data{Grants: d.Grants, AuditClasses: []exitgate.Class{"app"}}); !changed || err != nil || e.Revision() == first {
		t.Error("audit classes make no revision", err)
	}
}

// TestConcurrentReloads asks from many goroutines while the policy changes: each answer belongs to the revision that
// it names, and a revision's answer never changes.
func TestConcurrentReloads(t *testing.T) {
	data := func(i int) Data {
		g := exitgate.Grant{ID: fmt.Sprintf("g%d", i%3), Class: "app", To: "a.example.com", Paths: []string{"/v1"}, Reason: "r"}
		return Data{Grants: []exitgate.Grant{g}}
	}
	e, err := New(t.Context(), Options{Timeout: time.Minute}, data(0))
	if err != nil {
		t.Fatal(err)
	}
	var seen sync.Map // revision to rule
	var wg sync.WaitGroup
	done := make(chan struct{})
	for n := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				v, err := e.Decide(context.Background(), ask(t, fmt.Sprintf("GET https://a.example.com/v1/%d/%d", n, i%50)))
				if was, _ := seen.LoadOrStore(v.Revision, v.Rule); err != nil || was != v.Rule || !strings.HasPrefix(v.Rule, "grant:g") {
					t.Errorf("revision %s: %v, then %s (%v)", v.Revision, was, v.Rule, err)
					return
				}
				if i%20 == 0 {
					if _, err := e.Explain(context.Background(), ask(t, "GET https://a.example.com/")); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range 30 {
		if _, err := e.Reload(t.Context(), data(i)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

// TestHostileQuestions asks what no well-behaved engine would: nothing may panic, allow, or grow without bound.
func TestHostileQuestions(t *testing.T) {
	e, err := New(t.Context(), Options{Kept: 320, Timeout: time.Minute}, Data{Grants: []exitgate.Grant{
		{ID: "g", Class: "app", To: "a.example.com", Paths: []string{"/v1/", "/x/*"}, Headers: map[string]string{"x-a": "*"}, Reason: "r"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("x", 1<<20)
	many := map[string][]string{}
	for i := range 5000 {
		many[fmt.Sprintf("x-%d\xff", i)] = []string{huge[:100], "\xff\x00\r\n"}
	}
	for i := range 2000 {
		q := ask(t, "GET https://a.example.com/")
		q.HTTP.Path = []string{huge, "/" + huge, strings.Repeat("/", 200), strings.Repeat("/", 201), "", "\xff", "/v1", "/%", "/%2", "*", "/x/\xff$"}[i%11]
		q.HTTP.URL = "https://a.example.com" + q.HTTP.Path
		q.HTTP.Headers = []map[string][]string{nil, {"": nil}, many, {"x-b": {huge}}}[i%4]
		q.HTTP.Query = []string{"", "%zz=%", strings.Repeat("&=", 1000), "\xff"}[i%4]
		q.HTTP.Method = fmt.Sprintf("M%d\n", i)
		q.Dest.Host = []string{"a.example.com", huge[:253], strings.Repeat("a.", 126), "", ".", "::", "1.2.3.4.5", "\xff"}[i%8]
		q.Host.Name = fmt.Sprintf("h%d", i)
		v, err := e.Decide(t.Context(), q)
		if err != nil || v.Action != exitgate.Refuse || len(v.Reason) > 1000 || !isText(v.Reason) {
			t.Fatalf("%d: %+v %v", i, v, err)
		}
	}
	s := e.current.Load()
	if n := s.kept.size(); n > 320 {
		t.Errorf("%d answers are kept, more than 320", n)
	}
	for i := range 40_000 {
		q := ask(t, "connect a.example.com:443")
		q.Dest.Host = fmt.Sprintf("h%d.example.com", i)
		s.siteOf(q)
	}
	if n := s.sites.size(); n > keptSites {
		t.Errorf("%d sites are kept, more than %d", n, keptSites)
	}
	if _, err := e.Decide(t.Context(), &exitgate.Question{}); err != nil {
		t.Error(err)
	}
}

// TestManyGrants loads a hundred thousand, and finds the right one.
func TestManyGrants(t *testing.T) {
	e, err := New(t.Context(), Options{Timeout: time.Minute}, Data{Grants: manyGrants(100_000)})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.Grants()); n != 100_000 {
		t.Fatal(n)
	}
	for i := 1; i < 100_000; i += 9_999 {
		if i%10 == 0 {
			continue
		}
		a := testAsk{Ask: fmt.Sprintf("GET https://s%d.example.com/v%d/x", i/20, i%3), Class: fmt.Sprintf("class%d", i%20)}
		if v, err := e.Decide(t.Context(), a.question(t)); err != nil || v.Grant != fmt.Sprintf("g%d", i) {
			t.Error(i, v, err)
		}
	}
}
