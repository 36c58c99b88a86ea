package inspect

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/google/martian/v3"
)

var testRedactor = NewRedactor([]byte("0123456789abcdef0123456789abcdef"), Secrets{Headers: []string{"X-Internal"}, Query: []string{"Ticket"}})

// A visit is a request as the engine hands it to the pipeline.
type visit struct {
	way     exitgate.Way // default WayProxy
	scheme  string       // default https
	connect string       // default dest
	dest    string       // default a.example:443; "-" none
	sni     string       // default the host of dest; "-" none
	h2      bool
	method  string // default GET
	target  string // default /
	host    string // default a.example
	fields  http.Header
	body    string
	length  int64
}

func or(s, def string) string {
	switch s {
	case "":
		return def
	case "-":
		return ""
	}
	return s
}

// request builds what net/http's server would give for v.
func (v visit) request(t testing.TB) (*http.Request, *exitgate.Exchange) {
	t.Helper()
	target := or(v.target, "/")
	var b strings.Builder
	b.WriteString(or(v.method, "GET") + " " + target + " HTTP/1.1\r\nHost: " + or(v.host, "a.example") + "\r\n")
	for k, vv := range v.fields {
		for _, f := range vv {
			b.WriteString(k + ": " + f + "\r\n")
		}
	}
	if v.body != "" {
		b.WriteString("Transfer-Encoding: chunked\r\n")
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String() + "\r\n")))
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	if req.ContentLength = v.length; v.length != 0 || v.body != "" {
		req.Body = &closer{Reader: strings.NewReader(v.body)}
	}
	if v.h2 {
		req.ProtoMajor, req.ProtoMinor, req.Proto = 2, 0, "HTTP/2.0"
	}
	f := &exitgate.Flow{Kind: exitgate.KindRequest}
	q := &f.Question
	q.Stage, q.Way = exitgate.StageRequest, or2(v.way, exitgate.WayProxy)
	q.HTTP = &exitgate.Request{Scheme: or(v.scheme, "https"), Proto: req.Proto}
	if d := or(v.dest, "a.example:443"); d != "" {
		host, port, err := splitAuthority(d)
		if err != nil {
			t.Fatal(err)
		}
		q.Dest = exitgate.Destination{Host: host, Port: port}
		f.Authority.Connect = or(v.connect, d)
		if q.HTTP.Scheme == "https" {
			f.Authority.SNI = or(v.sni, host)
			q.TLS = &exitgate.TLS{SNI: strings.ToLower(f.Authority.SNI)}
		}
	}
	x := &exitgate.Exchange{Flow: f}
	return req.WithContext(exitgate.WithExchange(context.Background(), x)), x
}

func or2[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

type closer struct {
	*strings.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// run runs steps as martian's fifo group does: the first error stops.
func run(req *http.Request, steps ...martian.RequestModifier) error {
	for _, s := range steps {
		if err := s.ModifyRequest(req); err != nil {
			return err
		}
	}
	return nil
}

func wantRefusal(t *testing.T, name string, err error, status int, rule, says string) {
	t.Helper()
	var r *exitgate.Refusal
	if !errors.As(err, &r) || r.Status != status || r.Verdict.Rule != rule || !strings.Contains(r.Verdict.Reason, says) {
		t.Errorf("%s: %v, want %d %s that says %q", name, err, status, rule, says)
	}
}

func front() []martian.RequestModifier {
	return []martian.RequestModifier{&Canonical{testRedactor}, Authority{}, &Loop{"gate1"}, &Headers{testRedactor}}
}

func back() []martian.RequestModifier {
	return []martian.RequestModifier{NewHopByHop(), &Via{"gate1"}, &RequestMeter{Default: 1 << 20}}
}

// TestStepsWithoutExchange shows that no step lets a request pass that nothing could record.
func TestStepsWithoutExchange(t *testing.T) {
	req, _ := http.NewRequest("GET", "https://a.example/", nil)
	res := &http.Response{StatusCode: 200, Header: http.Header{}, Request: req, Body: http.NoBody}
	var bug *exitgate.Bug
	for _, s := range append(front(), NewHopByHop(), &RequestMeter{}) {
		if err := s.ModifyRequest(req); !errors.As(err, &bug) {
			t.Errorf("%T: %v", s, err)
		}
	}
	for _, s := range []martian.ResponseModifier{&ResponseFacts{testRedactor}, NewResponseHopByHop(), &ResponseMeter{}} {
		if err := s.ModifyResponse(res); !errors.As(err, &bug) {
			t.Errorf("%T: %v", s, err)
		}
		if err := s.ModifyResponse(&http.Response{StatusCode: 200}); !errors.As(err, &bug) {
			t.Errorf("%T without a request: %v", s, err)
		}
	}
}

func BenchmarkRequestSteps(b *testing.B) {
	steps := append(front(), back()...)
	raw := get9
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
	if err != nil {
		b.Fatal(err)
	}
	f := &exitgate.Flow{}
	x := &exitgate.Exchange{Flow: f}
	req = req.WithContext(exitgate.WithExchange(context.Background(), x))
	header, u := req.Header, *req.URL
	b.ReportAllocs()
	for b.Loop() {
		*f = exitgate.Flow{}
		f.Question.Way, f.Question.Dest = exitgate.WayProxy, exitgate.Destination{Host: "api.example.com", Port: 443}
		f.Question.HTTP = &exitgate.Request{Scheme: "https", Proto: "HTTP/1.1"}
		f.Authority.Connect, f.Authority.SNI = "api.example.com:443", "api.example.com"
		*req.URL, req.Header, req.Host, req.Body = u, header.Clone(), "api.example.com", http.NoBody
		if err := run(req, steps...); err != nil {
			b.Fatal(err)
		}
		x.Settle()
	}
}

// BenchmarkRequestStepsBase is what the other benchmark pays for its own preparation.
func BenchmarkRequestStepsBase(b *testing.B) {
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(get9)))
	if err != nil {
		b.Fatal(err)
	}
	f := &exitgate.Flow{}
	header := req.Header
	b.ReportAllocs()
	for b.Loop() {
		*f = exitgate.Flow{}
		f.Question.HTTP = &exitgate.Request{Scheme: "https", Proto: "HTTP/1.1"}
		req.Header = header.Clone()
	}
}

// TestRequestStepsAllocate holds the request steps to a budget of 25 allocations for a GET with nine fields, two
// cookies and a token.
func TestRequestStepsAllocate(t *testing.T) {
	steps := append(front(), back()...)
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(get9)))
	if err != nil {
		t.Fatal(err)
	}
	f := &exitgate.Flow{}
	x := &exitgate.Exchange{Flow: f}
	req = req.WithContext(exitgate.WithExchange(context.Background(), x))
	header, u := req.Header, *req.URL
	var q exitgate.Request
	prepare := func() {
		*f = exitgate.Flow{}
		f.Question.Way, f.Question.Dest = exitgate.WayProxy, exitgate.Destination{Host: "api.example.com", Port: 443}
		q = exitgate.Request{Scheme: "https", Proto: "HTTP/1.1"}
		f.Question.HTTP = &q
		*req.URL, req.Header, req.Host, req.Body = u, header.Clone(), "api.example.com", http.NoBody
	}
	base := testing.AllocsPerRun(200, prepare)
	all := testing.AllocsPerRun(200, func() {
		prepare()
		if err := run(req, steps...); err != nil {
			t.Fatal(err)
		}
		x.Settle()
	})
	if all-base > allocBudget {
		t.Errorf("%v allocations", all-base)
	}
}
