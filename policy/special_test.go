package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestSpecials says what is specialised and what is not, and that it takes some evaluations, and once.
func TestSpecials(t *testing.T) {
	for _, c := range []struct {
		rule string
		want bool
	}{
		{"", true},
		{`deny contains "x" if input.http.path == "/a"`, true},
		{`deny contains input.http.path if input.host.class == "app"`, true},
		{`deny contains "x" if not input.tls`, true},
		{`deny contains "x" if input.host.name == "web01"`, false},                                    // a name is no part of a site
		{`deny contains json.marshal(input) if input.http.method == "PUT"`, false},                    // all of input
		{`deny contains "x" if { d := input.dest; d.port == 1 }`, false},                              // a part that is known in part
		{`deny contains "x" if other with input.http.path as "/"` + "\n\nother if input.http", false}, // other input
		{"default verdict := \"no\"\n\nverdict := \"yes\" if input.http.path == \"/a\" else := \"maybe\" if input.http.path == \"/b\"\n\ndeny contains \"x\" if verdict == \"yes\"", false},
		{`deny contains "x" if { input.http.path == "/a"; to_number("x") == 1 }`, false}, // an error
	} {
		dir := t.TempDir()
		write(t, dir, "rule.rego", "package exitgate\n\n"+c.rule+"\n")
		e := mustEngine(t, Options{Dir: dir, Kept: -1, Specialise: 3}, Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}}})
		s := e.current.Load()
		q := ask(t, "GET https://a.example.com/x")
		for i := range 6 {
			if v, err := e.Decide(t.Context(), q); err == nil && v.Action != exitgate.Allow && !strings.Contains(c.rule, "/a") && !strings.Contains(c.rule, "deny contains") {
				t.Fatal(v)
			}
			var a asked
			s.ask(&a, q)
			has := a.site.special[1].special.Load() != nil
			if want := c.want && i >= 2; has != want {
				t.Errorf("%s: after %d evaluations it is specialised: %v, want %v", c.rule, i+1, has, want)
			}
		}
	}
}

// TestSpecialsAreBounded: a rule that goes through all grants leaves nothing worth keeping, and a revision makes no more
// specials than it may.
func TestSpecialsAreBounded(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "rule.rego", "package exitgate\n\ndeny contains \"x\" if { some key, _ in data.exitgate.table.grants.class.class7; key == input.http.path }\n")
	e := mustEngine(t, Options{Dir: dir, Kept: -1, Specialise: 1}, Data{Grants: manyGrants(20_000)})
	if v, err := e.Decide(t.Context(), benchQuestion("/v0/x")); err != nil || v.Action != exitgate.Allow {
		t.Fatal(v, err)
	}
	var a asked
	s := e.current.Load()
	s.ask(&a, benchQuestion("/v0/x"))
	if at := &a.site.special[1]; at.special.Load() != nil || !at.tried.Load() {
		t.Error("it was specialised")
	}
	s.specialist.left = 1
	e = mustEngine(t, Options{Kept: -1, Specialise: 1}, Data{Grants: manyGrants(100)})
	s = e.current.Load()
	s.specialist.left = 1
	for i := range 5 {
		q := benchQuestion("/v0/x")
		q.Dest.Host = fmt.Sprintf("s%d.example.com", i)
		if _, err := e.Decide(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if s.specialist.left != 0 {
		t.Error(s.specialist.left)
	}
}

func BenchmarkSpecialise(b *testing.B) {
	e := mustEngine(b, Options{}, Data{Grants: manyGrants(100_000)})
	s := e.current.Load()
	var a asked
	s.ask(&a, benchQuestion("/v0/users"))
	var held []*special
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		made, err := s.specialist.specialise(b.Context(), s, &a)
		if err != nil {
			b.Fatal(err)
		}
		held = append(held, made)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(held)), "B-held/op")
	runtime.KeepAlive(held)
}
