package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

func TestReach(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "rule.rego", "package exitgate\n\n# METADATA\n# title: By night\n# description: d\ngrants contains \"n\" if input.dest.port == 1\n")
	e := mustEngine(t, Options{Dir: dir}, Data{
		Grants: []exitgate.Grant{
			{ID: "name", Class: "app", To: "a.example.com", MaxRequest: 5, Reason: "r"},
			{ID: "wide", Class: "app", To: "*.example.com", Scheme: "any", Reason: "r"},
			{ID: "part", Class: "app", To: "*.x.example.com", Reason: "r"},
			{ID: "range", Class: "app", To: "192.0.2.0/24", Reason: "r"},
			{ID: "host", Host: "web01", To: "b.example.com", Reason: "r"},
			{ID: "ended", Class: "app", To: "c.example.com", Until: day0, Reason: "r"},
			{ID: "other", Class: "build", To: "d.example.com", Reason: "r"},
		},
		Exemptions:   []exitgate.Exemption{{ID: "x", Class: "app", To: "bank.example.com", Until: day0.AddDate(1, 0, 0), Reason: "r"}},
		AuditClasses: []exitgate.Class{"app"},
	})
	r := e.Reach(t.Context(), "app", "web01", day0)
	var got []string
	for _, a := range r.Access {
		got = append(got, a.ID+" "+a.Width.Kind)
	}
	if s := strings.Join(got, ", "); s != "wide domain, part subdomain, range range, name name, host name, x name" {
		t.Error(s)
	}
	if a := r.Access[2]; a.Width.Addresses != "256" || a.Ports[0] != 443 || a.Methods[0] != "GET" {
		t.Errorf("%+v", a)
	}
	if len(r.Rules) != 1 || r.Rules[0].Place != "rule.rego:6" || r.Rules[0].Title != "By night" || !r.Audit {
		t.Errorf("%+v", r.Rules)
	}
}

func TestReachCompare(t *testing.T) {
	g := func(change func(*exitgate.Grant)) exitgate.Grant {
		g := exitgate.Grant{ID: "g", Class: "app", To: "a.example.com", Paths: []string{"/a"}, Reason: "r"}
		change(&g)
		return g
	}
	same := g(func(*exitgate.Grant) {})
	for _, c := range []struct {
		was, is  exitgate.Grant
		more     string // of what is
		lessThan string // of what was
	}{
		{same, same, "", ""},
		{same, g(func(g *exitgate.Grant) { g.ID, g.Reason = "h", "other" }), "", ""},
		{same, g(func(g *exitgate.Grant) { g.Methods = []string{"GET", "HEAD", "POST"} }), "POST https://a.example.com:443 /a or below it", ""},
		{same, g(func(g *exitgate.Grant) { g.Methods = []string{"*"} }), "any method https://a.example.com:443 /a or below it", ""},
		{same, g(func(g *exitgate.Grant) { g.Paths = nil }), "GET https://a.example.com:443 any path | HEAD https://a.example.com:443 any path", ""},
		{same, g(func(g *exitgate.Grant) { g.Paths, g.Methods = []string{"/a/b"}, []string{"GET"} }), "", "GET https://a.example.com:443 /a or below it | HEAD https://a.example.com:443 /a or below it"},
		{same, g(func(g *exitgate.Grant) { g.To = "*.example.com" }), "GET https://*.example.com:443 /a or below it | HEAD https://*.example.com:443 /a or below it", ""},
		{same, g(func(g *exitgate.Grant) { g.Until = day0.AddDate(1, 0, 0) }), "", "until without end, was 2027-01-01 00:00"},
		{same, g(func(g *exitgate.Grant) { g.MaxRequest = 5 }), "", "max_request the default, was 5"},
		{g(func(g *exitgate.Grant) { g.MaxRequest = 7 }), g(func(g *exitgate.Grant) { g.MaxRequest = 5 }), "", "max_request 7, was 5"},
		{g(func(g *exitgate.Grant) { g.Methods = []string{"GET"} }), g(func(g *exitgate.Grant) { g.Methods = []string{"GET"}; g.Headers = map[string]string{"x": "1*"} }), "", "GET https://a.example.com:443 /a or below it"},
		{g(func(g *exitgate.Grant) { g.Methods = []string{"GET"} }), g(func(g *exitgate.Grant) { g.Methods = []string{"GET"}; g.EncodedSlash = true }), "GET https://a.example.com:443 /a or below it, %2F included", ""},
		{g(func(g *exitgate.Grant) { g.Methods = []string{"GET"} }), g(func(g *exitgate.Grant) { g.Methods = []string{"GET"}; g.Scheme = "any" }), "GET http://a.example.com:443 /a or below it | GET http://a.example.com:80 /a or below it | GET https://a.example.com:80 /a or below it", ""},
		{g(func(g *exitgate.Grant) { g.Audit = true }), same, "enforced, was in audit mode", ""},
	} {
		was, is := mustEngine(t, Options{}, Data{Grants: []exitgate.Grant{c.was}}), mustEngine(t, Options{}, Data{Grants: []exitgate.Grant{c.is}})
		d := was.Reach(t.Context(), "app", "", day0).Compare(is.Reach(t.Context(), "app", "", day0))
		text := func(list []ReachChange) string {
			var out []string
			for _, c := range list {
				out = append(out, c.What...)
			}
			slices.Sort(out)
			return strings.Join(out, " | ")
		}
		if more, less := text(d.Widened), text(d.Narrowed); more != c.more || less != c.lessThan {
			t.Errorf("%+v to %+v\nwidened  %s\nwant     %s\nnarrowed %s\nwant     %s", c.was, c.is, more, c.more, less, c.lessThan)
		}
	}
}

// TestReachIsSound: of two random sets of grants, where the second is said not to be wider, no question is allowed by it
// that the first refuses.
func TestReachIsSound(t *testing.T) {
	u := universe{rand.New(rand.NewPCG(5, 7))}
	narrower, tried := 0, 0
	for range 150 {
		first := u.grants(6)
		second := u.grants(3)
		if u.IntN(2) == 0 && len(first) > 0 { // something within what is there
			g := first[u.IntN(len(first))]
			g.ID, g.Paths = "inner", append([]string(nil), g.Paths...)
			for i := range g.Paths {
				g.Paths[i] = strings.TrimRight(g.Paths[i], "/$") + pick(u, "/", "$", "/a", "/*")
			}
			if CheckGrant(&g) == nil {
				second = []exitgate.Grant{g}
			}
		}
		was, is := mustEngine(t, Options{Kept: -1}, Data{Grants: first}), mustEngine(t, Options{Kept: -1}, Data{Grants: second})
		for _, class := range []exitgate.Class{"app", "build"} {
			d := was.Reach(t.Context(), class, "", day0.Add(-day)).Compare(is.Reach(t.Context(), class, "", day0.Add(-day)))
			if len(d.Widened) > 0 {
				continue
			}
			narrower++
			for range 200 {
				q := u.question()
				q.Host.Class, q.Host.Name = class, ""
				if q.Stage != exitgate.StageConnect && q.Stage != exitgate.StageRequest {
					continue
				}
				tried++
				a, _ := is.Decide(t.Context(), q)
				b, _ := was.Decide(t.Context(), q)
				if a.Action == exitgate.Allow && b.Action == exitgate.Refuse {
					t.Fatalf("not wider, and yet %s allows and %s refuses\n%+v\n%+v\nfor %+v %+v", a.Rule, b.Rule, first, second, q, q.HTTP)
				}
			}
		}
	}
	if narrower < 20 || tried < 1000 {
		t.Errorf("only %d pairs and %d questions", narrower, tried)
	}
}
