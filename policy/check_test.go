package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

func okGrant() exitgate.Grant {
	return exitgate.Grant{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}
}

func TestCheckGrant(t *testing.T) {
	for _, c := range []struct {
		change     func(*exitgate.Grant)
		field, err string
	}{
		{func(g *exitgate.Grant) {}, "", ""},
		{func(g *exitgate.Grant) { g.ID = "" }, "id", "letters"},
		{func(g *exitgate.Grant) { g.ID = strings.Repeat("a", 65) }, "id", "1 to 64"},
		{func(g *exitgate.Grant) { g.ID = "a b" }, "id", "letters"},
		{func(g *exitgate.Grant) { g.ID = "a\x1b[2J" }, "id", "letters"},
		{func(g *exitgate.Grant) { g.Class = "" }, "class", "name a class"},
		{func(g *exitgate.Grant) { g.Host = "web01" }, "class", "both set"},
		{func(g *exitgate.Grant) { g.Class = "unknown" }, "class", "register them"},
		{func(g *exitgate.Grant) { g.Class = "a/b" }, "class", "letters"},
		{func(g *exitgate.Grant) { g.Class, g.Host = "", "web 01" }, "class", "letters"},
		{func(g *exitgate.Grant) { g.Class, g.Host = "", "web01.lan" }, "", ""},
		{func(g *exitgate.Grant) { g.To = "*.com" }, "to", "public suffix"},
		{func(g *exitgate.Grant) { g.Scheme = "ftp" }, "scheme", "one of"},
		{func(g *exitgate.Grant) { g.Ports = []uint16{0} }, "ports", "1 to 65535"},
		{func(g *exitgate.Grant) { g.Ports = make([]uint16, 101) }, "ports", "at most"},
		{func(g *exitgate.Grant) { g.Methods = []string{"GET", "*"} }, "methods", "alone"},
		{func(g *exitgate.Grant) { g.Methods = []string{"G T"} }, "methods", "no HTTP method"},
		{func(g *exitgate.Grant) { g.Methods = []string{""} }, "methods", "no HTTP method"},
		{func(g *exitgate.Grant) { g.Methods = []string{"connect"} }, "methods", "CONNECT"},
		{func(g *exitgate.Grant) { g.Paths = []string{"a"} }, "paths", "starts with"},
		{func(g *exitgate.Grant) { g.Paths = []string{""} }, "paths", "starts with"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a b"} }, "paths", "percent-encoded"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/é"} }, "paths", "percent-encoded"},
		{func(g *exitgate.Grant) { g.Paths = []string{`/a\b`} }, "paths", "percent-encoded"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a?b"} }, "paths", "no query"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a#b"} }, "paths", "no query"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a%2"} }, "paths", "two hexadecimal"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a%zz"} }, "paths", "two hexadecimal"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a/../b"} }, "paths", "dot segment"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a/%2e%2E/b"} }, "paths", "dot segment"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a/.$"} }, "paths", "dot segment"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a//b"} }, "paths", "two slashes"},
		{func(g *exitgate.Grant) { g.Paths = []string{"//"} }, "paths", "two slashes"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a*"} }, "paths", "one whole segment"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/a/**"} }, "paths", "one whole segment"},
		{func(g *exitgate.Grant) { g.Paths = []string{strings.Repeat("/a", 201)} }, "paths", "segments"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/" + strings.Repeat("a", 2000)} }, "paths", "at most"},
		{func(g *exitgate.Grant) { g.Paths = make([]string, 1001) }, "paths", "at most"},
		{func(g *exitgate.Grant) { g.Paths = []string{"/", "/$", "/a/$", "/a$", "/a/*/b", "/a$$"} }, "", ""},
		{func(g *exitgate.Grant) { g.Headers = map[string]string{"a b": "x"} }, "headers", "no header"},
		{func(g *exitgate.Grant) { g.Headers = map[string]string{"host": "x"} }, "headers", "destination"},
		{func(g *exitgate.Grant) { g.Headers = map[string]string{"a": ""} }, "headers", "not empty"},
		{func(g *exitgate.Grant) { g.Headers = map[string]string{"a": "x\ny"} }, "headers", "control"},
		{func(g *exitgate.Grant) { g.Headers = map[string]string{"a": "x", "A": "y"} }, "headers", "twice"},
		{func(g *exitgate.Grant) { g.MaxRequest = -1 }, "max_request", "number of bytes"},
		{func(g *exitgate.Grant) { g.MaxResponse = 1 << 60 }, "max_response", "number of bytes"},
		{func(g *exitgate.Grant) { g.Reason = " " }, "reason", "say why"},
		{func(g *exitgate.Grant) { g.Reason = "a\nb" }, "reason", "one line"},
		{func(g *exitgate.Grant) { g.Reason = "a\u202eb" }, "reason", "one line"},
		{func(g *exitgate.Grant) { g.By = "\x1b[2J" }, "by", "one line"},
		{func(g *exitgate.Grant) { g.Until = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) }, "until", "four digits"},
	} {
		g := okGrant()
		c.change(&g)
		err := CheckGrant(&g)
		var f *FieldError
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%+v: %v", g, err)
		case c.err != "" && (!errors.As(err, &f) || f.Field != c.field || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: %v, want one about %s with %q", g, err, c.field, c.err)
		}
	}
}

func TestCheckGrantMakesOneForm(t *testing.T) {
	g := exitgate.Grant{
		ID: "g", Class: "app", To: "A.Example.com.", Scheme: "HTTPS", Ports: []uint16{8443, 443, 443}, Methods: []string{"post", "GET", "Post"},
		Paths: []string{"/%7eb", "/a%2fb", "/a%2Fb"}, Headers: map[string]string{"X-A": "B"}, Reason: "r",
	}
	given := append([]uint16(nil), g.Ports...)
	ports := g.Ports
	if err := CheckGrant(&g); err != nil {
		t.Fatal(err)
	}
	want := exitgate.Grant{
		ID: "g", Class: "app", To: "a.example.com", Scheme: "https", Ports: []uint16{443, 8443}, Methods: []string{"GET", "POST"},
		Paths: []string{"/a%2Fb", "/~b"}, Headers: map[string]string{"x-a": "B"}, Reason: "r",
	}
	if !reflect.DeepEqual(g, want) {
		t.Errorf("got  %+v\nwant %+v", g, want)
	}
	if !reflect.DeepEqual(ports, given) {
		t.Error("the caller's list was changed")
	}
	again := g
	if err := CheckGrant(&again); err != nil || !reflect.DeepEqual(again, g) {
		t.Errorf("checking twice: %+v %v", again, err)
	}
}

func TestCheckNew(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	grant := func(until time.Time) error {
		g := okGrant()
		g.Until = until
		return CheckNewGrant(&g, now)
	}
	exempt := func(until time.Time) error {
		return CheckNewExemption(&exitgate.Exemption{ID: "e", Class: "app", To: "a.example.com", Reason: "r", Until: until}, now)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{grant(time.Time{}), ""},
		{grant(now.Add(time.Second)), ""},
		{grant(now.AddDate(50, 0, 0)), ""},
		{grant(now), "has passed"},
		{exempt(time.Time{}), "says when it ends"},
		{exempt(now), "has passed"},
		{exempt(now.AddDate(2, 0, 0)), ""},
		{exempt(now.AddDate(2, 1, 0)), "more than two years"},
		{CheckNewExemption(&exitgate.Exemption{}, now), "id"},
	} {
		if (c.want == "") != (c.err == nil) || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v, want %q", c.err, c.want)
		}
	}
}

// FuzzCheckPath holds what checkPath accepts to what it promises.
func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"/", "/a", "/a/", "/a$", "/a/*/b", "/%7e%2f", "/a//b", "/..", "/%2E", "*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		c, err := checkPath(p)
		if err != nil {
			return
		}
		if again, err := checkPath(c); err != nil || again != c {
			t.Errorf("%q: %q, then %q %v", p, c, again, err)
		}
		segments, end := splitPattern(c)
		whole := "/" + strings.Join(segments, "/")
		if end == endBelow {
			whole = strings.TrimSuffix(whole, "/") + "/x"
		}
		e := grantEntry(&exitgate.Grant{Paths: []string{c}})
		if whole = strings.ReplaceAll(whole, "*", "x"); !e.patterns[0].meets(segmentsOf(canonicalPath(whole))) {
			t.Errorf("%q does not meet %q", whole, c)
		}
	})
}

// FuzzPrefixes holds prefixes to what the rules rely on: each ends at a segment's boundary, and the last is the whole.
func FuzzPrefixes(f *testing.F) {
	for _, s := range []string{"/", "/a", "/a/b", "/a//b", "//", "*", "", "/a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		list := prefixesOf(p)
		if p == "" || p[0] != '/' {
			if len(list) != 0 {
				t.Errorf("%q: %q", p, list)
			}
			return
		}
		if list[len(list)-1] != p || list[0] != "/" {
			t.Errorf("%q: %q", p, list)
		}
		for i, s := range list {
			if !strings.HasPrefix(p, s) || i > 0 && len(list[i-1]) >= len(s) {
				t.Errorf("%q: %q", p, list)
			}
			if rest := p[len(s):]; rest != "" && s[len(s)-1] != '/' && rest[0] != '/' {
				t.Errorf("%q: %q ends inside a segment", p, s)
			}
		}
	})
}

// FuzzParseGrantTarget wants of each target that is read a grant that can be.
func FuzzParseGrantTarget(f *testing.F) {
	for _, s := range []string{"https://a.example.com/v1", "*.example.com", "192.0.2.0/24", "[::1]:8", "a:1:2", "http://[", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := ParseGrantTarget(s)
		if err != nil {
			return
		}
		g := exitgate.Grant{ID: "g", Class: "app", To: target.To, Scheme: target.Scheme, Reason: "r"}
		if target.Path != "" {
			g.Paths = []string{target.Path}
		}
		if err := CheckGrant(&g); err != nil || g.To != target.To {
			t.Errorf("%q: %+v: %v", s, target, err)
		}
	})
}
