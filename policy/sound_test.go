package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/exitgate/exitgate"
)

// A universe is a small world in which random questions and grants often meet.
type universe struct{ *rand.Rand }

func pick[T any](u universe, list ...T) T { return list[u.IntN(len(list))] }

var day0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (u universe) time() time.Time { return day0.Add(time.Duration(u.IntN(4)) * day) }

func (u universe) path() string {
	n := u.IntN(4)
	p := ""
	for range n {
		p += "/" + pick(u, "a", "b", "a%2Fb", "A", "$x", "*", "", "~", "%7e", "c$")
	}
	return p + pick(u, "", "/", "$", "/a", "/b")
}

func (u universe) grants(n int) (out []exitgate.Grant) {
	for i := range n {
		g := exitgate.Grant{
			ID: fmt.Sprintf("g%d", i), Class: exitgate.Class(pick(u, "app", "build")), Reason: "r", MaxRequest: int64(u.IntN(3)),
			To:     pick(u, "a.example.com", "b.example.com", "*.example.com", "192.0.2.7", "192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32"),
			Scheme: pick(u, "", "", "http", "any"), Audit: u.IntN(6) == 0, EncodedSlash: u.IntN(2) == 0,
		}
		if u.IntN(4) == 0 {
			g.Class, g.Host = "", pick(u, "web01", "web02")
		}
		if u.IntN(2) == 0 {
			g.Ports = []uint16{pick[uint16](u, 443, 8443)}
		}
		if u.IntN(2) == 0 {
			g.Methods = pick(u, []string{"POST"}, []string{"*"}, []string{"GET", "PUT"})
		}
		for range u.IntN(3) {
			if p := u.path(); p != "" {
				g.Paths = append(g.Paths, p)
			}
		}
		if u.IntN(4) == 0 {
			g.Headers = map[string]string{pick(u, "x-a", "x-b"): pick(u, "1*", "*", "*1", "1")}
		}
		if u.IntN(3) == 0 {
			g.Until = u.time()
		}
		if CheckGrant(&g) == nil {
			out = append(out, g)
		}
	}
	return out
}

func (u universe) exemptions(n int) (out []exitgate.Exemption) {
	for i := range n {
		out = append(out, exitgate.Exemption{
			ID: fmt.Sprintf("e%d", i), Class: exitgate.Class(pick(u, "app", "build")), To: pick(u, "a.example.com", "*.example.com", "192.0.2.7"),
			Raw: u.IntN(2) == 0, Reason: "r", Until: u.time(),
		})
	}
	return out
}

func (u universe) headers() map[string][]string {
	h := map[string][]string{}
	for _, n := range []string{"x-a", "x-b", "x-c", "cookie"} {
		if u.IntN(3) == 0 {
			h[n] = []string{}
			for range u.IntN(3) {
				h[n] = append(h[n], pick(u, "1", "11", "2", "", "\xff\xfe1", "1\x00"))
			}
		}
	}
	return h
}

func (u universe) question() *exitgate.Question {
	q := &exitgate.Question{
		Stage: pick(u, exitgate.StageConnect, exitgate.StageRequest, exitgate.StageRequest, exitgate.StageResponse, exitgate.StageResolve, "other"),
		At:    u.time().Add(time.Duration(u.IntN(3)-1) * time.Nanosecond), Way: pick(u, exitgate.WayProxy, exitgate.WayTransparent),
		Host: exitgate.Host{
			Name: pick(u, "", "web01", "web02", "web03"), Class: exitgate.Class(pick(u, "app", "app", "build", "unknown", "")),
			Addr: pick(u, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.Addr{}), By: pick(u, "address", "token"),
		},
		Dest: exitgate.Destination{
			Host: pick(u, "a.example.com", "b.example.com", "x.a.example.com", "example.com", "192.0.2.7", "192.0.2.8", "192.0.3.1", "::ffff:192.0.2.7", "2001:db8::1", "", "\xff"),
			Port: pick[uint16](u, 443, 443, 80, 8443), Addr: pick(u, netip.AddrPort{}, netip.MustParseAddrPort("192.0.2.7:443")),
		},
	}
	if u.IntN(2) == 0 {
		q.TLS = &exitgate.TLS{SNI: pick(u, "", "a.example.com"), ALPN: pick(u, nil, []string{"h2"}, []string{"h2", "x"}), ECH: u.IntN(2) == 0}
	}
	if q.Stage == exitgate.StageRequest || q.Stage == exitgate.StageResponse || u.IntN(8) == 0 {
		path := u.path()
		q.HTTP = &exitgate.Request{
			Method: pick(u, "GET", "POST", "PUT", "get"), Scheme: pick(u, "https", "https", "http"), Path: path, URL: "https://h" + path,
			Query: pick(u, "", "a=1", "a=1&a=2", "b=%zz", "a=%31"), Headers: u.headers(), Length: int64(u.IntN(3) - 1),
			EncodedSlash: strings.Contains(path, "%2F"), Upgrade: pick(u, "", "websocket"),
		}
	}
	if q.Stage == exitgate.StageResponse {
		q.Response = &exitgate.Response{Status: pick(u, 200, 404), Headers: u.headers(), Length: int64(u.IntN(2))}
	}
	return q
}

// next returns q with one thing about it changed, so that most questions differ in little from others before them.
func (u universe) next(q *exitgate.Question) *exitgate.Question {
	fresh, c := u.question(), *q
	if c.HTTP != nil {
		h := *c.HTTP
		c.HTTP = &h
	}
	if c.Response != nil {
		r := *c.Response
		c.Response = &r
	}
	switch n := u.IntN(16); {
	case n == 0:
		return fresh
	case n == 1:
		c.At = fresh.At
	case n == 2:
		c.Host = fresh.Host
	case n == 3:
		c.Host.Name = fresh.Host.Name
	case n == 4:
		c.Dest = fresh.Dest
	case n == 5:
		c.TLS = fresh.TLS
	case n == 6 && c.Response != nil:
		c.Response.Headers = u.headers()
	case n == 7 && c.HTTP != nil:
		c.HTTP.Method, c.HTTP.Scheme, c.HTTP.Query, c.HTTP.Length = pick(u, "GET", "POST"), "https", pick(u, "", "a=1", "a=1&a=2"), int64(u.IntN(3)-1)
	case n < 10 && c.HTTP != nil:
		c.HTTP.Headers = u.headers()
	case c.HTTP != nil:
		path := u.path()
		c.HTTP.Path, c.HTTP.URL, c.HTTP.EncodedSlash = path, "https://h"+path, strings.Contains(path, "%2F")
	default:
		c.Dest.Port = fresh.Dest.Port
	}
	return &c
}

// readers are rules that read input in different ways: outright, through variables, functions, comprehensions,
// imports, with computed names, or as a whole.
var readers = []string{
	"",
	`deny contains "x" if input.http.headers["x-c"][_] == "2"`,
	`deny contains "x" if { some name; input.http.headers[name][0] == "1"; startswith(name, "x-") }`,
	`deny contains "x" if input.http.query.a == ["1", "2"]`,
	`deny contains r if { some k, v in input.http.query; r := concat("", [k, "!", v[0]]) }`,
	`f(x) := x.port
deny contains "x" if f(input.dest) == 8443`,
	`deny contains "x" if { h := input.host; h.addr == "10.0.0.1" }`,
	`deny contains "x" if { some key in ["by", "name"]; input.host[key] in {"token", "web03"} }`,
	`deny contains json.marshal(input) if input.http.method == "PUT"`,
	`deny contains "x" if { x := [y | y := input.http.prefixes[_]; y != "/"]; count(x) > 2 }`,
	`deny contains input.http.segments[0]`,
	`deny contains "x" if input.response.headers["x-a"]`,
	`deny contains "x" if { input.response; count(input.response.headers) == 2 }`,
	`deny contains "x" if input.response.status == 404
deny contains "y" if not input.tls
deny contains "z" if input.tls.alpn[0] == "h2"`,
	`grants contains "late" if input.at > "2026-01-02T00:00:00.000000000Z"`,
	`exemptions contains "ech" if input.tls.ech
grants contains "addr" if input.dest.addr == "192.0.2.7:443"`,
	`deny contains "x" if { every v in input.http.headers["x-a"] { v == "1" } }`,
	`deny contains "x" if input.http.headers[concat("", ["x-", input.http.query.a[0]])]`,
	`deny contains "x" if input.http.headers[input.http.query.a[0]]
deny contains "y" if input.http.headers["x-c"]`,
	`grants contains id if some id in ["g1", "g2", "g3", "g4", "g5", "g6", "g7"]`,
	`who := {"n": input.host.name}
deny contains "x" if who.n == "web03"
deny contains "w" if input.way == "transparent"
deny contains "l" if input.http.length == 1
deny contains "u" if input.http.upgrade == "websocket"`,
	`deny contains sprintf("%v", [o]) if { o := object.filter(input, ["stage", "tls"]); input.http.path == "/a" }`,
	`deny contains "x" if exitgate_helper.path with input as {"http": {"path": input.http.url}}`,
}

const helper = "package exitgate_helper\n\npath if input.http.path == \"https://h/b\"\n"

// TestKeptAnswersAreSound asks thousands of random questions of an engine that keeps answers and of one that does
// not, and wants the same from both, to the last word.
func TestKeptAnswersAreSound(t *testing.T) {
	rounds, questions := 1, 400
	if testing.Short() {
		rounds, questions = 1, 100
	}
	for i, rule := range readers {
		for round := range rounds {
			t.Run(fmt.Sprintf("rule=%d/round=%d", i, round), func(t *testing.T) {
				t.Parallel()
				soundRound(t, rule, uint64(i*100+round), questions)
			})
		}
	}
}

func soundRound(t *testing.T, rule string, seed uint64, questions int) {
	u := universe{rand.New(rand.NewPCG(seed, 7))}
	dir := t.TempDir()
	write(t, dir, "helper.rego", helper)
	if strings.Contains(rule, "exitgate_helper") {
		write(t, dir, "rule.rego", "package exitgate\n\nimport data.exitgate_helper\n\n"+rule)
	} else {
		write(t, dir, "rule.rego", "package exitgate\n\n"+rule)
	}
	d := Data{Grants: u.grants(25), Exemptions: u.exemptions(4)}
	if u.IntN(2) == 0 {
		d.AuditClasses = []exitgate.Class{"build"}
	}
	keeps := mustEngine(t, Options{Dir: dir, Specialise: 3}, d)
	special := mustEngine(t, Options{Dir: dir, Kept: -1, Specialise: 1}, d)
	never := mustEngine(t, Options{Dir: dir, Kept: -1, Specialise: -1}, d)
	q := u.question()
	for range questions {
		q = u.next(q)
		before := fmt.Sprintf("%+v", q)
		got, err1 := keeps.Decide(context.Background(), q)
		want, err2 := never.Decide(context.Background(), q)
		if alone, err3 := special.Decide(context.Background(), q); !reflect.DeepEqual(alone, want) || (err3 == nil) != (err2 == nil) {
			t.Fatalf("specialised %+v %v\nin full %+v %v\nfor %+v", alone, err3, want, err2, q)
		}
		if !reflect.DeepEqual(got, want) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("kept %+v %v\nanew %+v %v\nfor %+v", got, err1, want, err2, q)
		}
		if fmt.Sprintf("%+v", q) != before {
			t.Fatalf("the question was changed: %s", before)
		}
		if !strings.Contains(rule, "grants contains id") {
			sameInGo(t, never, q)
		}
	}
	if s := special.current.Load(); s.specialist != nil && s.specialist.left == maxSpecials {
		t.Error("nothing was specialised, so that nothing was shown")
	} else if s.specialist == nil && !s.reads.whole && !s.reads.keyed[hostName] {
		t.Error("the policy was not specialised")
	}
	if s := keeps.current.Load(); s.kept != nil && s.kept.size() == 0 {
		t.Error("nothing was kept, so that nothing was shown")
	}
}

// sameInGo compares what explain says of each grant, which is worked out in Go, with what Rego says.
func sameInGo(t *testing.T, e *Engine, q *exitgate.Question) {
	t.Helper()
	s := e.current.Load()
	var a asked
	s.ask(&a, q)
	out, err := s.eval(context.Background(), s.input(&a, nil))
	if err != nil {
		t.Fatal(err)
	}
	granted, err := texts(out.grants)
	if err != nil {
		t.Fatal(err)
	}
	if slow, err := s.eval(context.Background(), s.input(&a, nil), rego.EvalRuleIndexing(false)); err != nil || slow.grants.Compare(out.grants) != 0 || slow.denials.Compare(out.denials) != 0 || slow.exemptions.Compare(out.exemptions) != 0 {
		t.Fatalf("without the index of rules it says %v, with it %v (%v) for %+v", slow, out, err, q)
	}
	lazy, err := s.eval(context.Background(), s.input(&a, &s.reads.needed))
	if err != nil || lazy.grants.Compare(out.grants) != 0 || lazy.denials.Compare(out.denials) != 0 || lazy.exemptions.Compare(out.exemptions) != 0 {
		t.Fatalf("part of the input gives another answer than all of it: %v, want %v (%v) for %+v", lazy, out, err, q)
	}
	if q.Stage == "other" && q.HTTP == nil || q.HTTP != nil && q.Stage != exitgate.StageRequest && q.Stage != exitgate.StageResponse {
		return // explain is about stages as they are asked
	}
	for _, c := range a.site.candidates {
		if c.grant == nil {
			continue
		}
		m := c.misses(&a)
		if q.Stage == exitgate.StageResolve || q.Stage == exitgate.StageConnect || q.HTTP != nil {
			if has := slices.Contains(granted, c.id()); has != (len(m) == 0) {
				t.Fatalf("grant %+v: Rego grants: %v, Go misses %+v\nfor %+v %+v", *c.grant, has, m, q, q.HTTP)
			}
		}
	}
}
