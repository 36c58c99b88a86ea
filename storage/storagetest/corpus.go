package storagetest

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// Full returns a flow in which every field is set.
func Full() *exitgate.Flow {
	_, full := Typical()
	full.ID = exitgate.NewID(Start())
	full.Question.Host.Addr = netip.MustParseAddr("fe80::1%eth0")
	full.Question.Dest.Aim = netip.MustParseAddrPort("[2001:db8::7]:443")
	full.Question.Dest.Addr = netip.MustParseAddrPort("198.51.100.7:443")
	full.Question.TLS.ECH = true
	full.Question.HTTP.Upgrade, full.Question.HTTP.EncodedSlash, full.Question.HTTP.Length = "websocket", true, -1
	full.Received.Body, full.Sent.Body, full.Question.Response.Length = 7, 8, 9
	full.Question.HTTP.Headers["empty"], full.Question.HTTP.Headers["none"] = []string{}, nil
	full.Verdict.Exemption, full.Verdict.Raw, full.Verdict.Reason = "e", true, "carried, and would be refused"
	full.Verdict.Audit, full.Verdict.Rewrite = true, json.RawMessage(`{"header.Modifier":{"name":"x","value":"é"}}`)
	forwarded := *full.Question.HTTP
	forwarded.Query, forwarded.Headers = "a=b", map[string][]string{"x-team": {"é"}}
	full.Forwarded = &forwarded
	full.Verdict.Limits.Duration, full.Verdict.Limits.Bytes = time.Minute, 99
	full.RequestBody, full.RequestSHA256 = exitgate.BodyCut, strings.Repeat("0f", 32)
	full.Findings = []exitgate.Finding{{Inspector: "secrets", Where: "header:x-key", What: "a private key"}, {What: "another"}}
	full.Interrupted = true
	full.Fault = &exitgate.Fault{Step: "wait", Type: "http_response_timeout", Reason: "no answer within 30s"}
	return full
}

// Every returns flows of every kind and outcome, of which one has every field set and one has none.
func Every() []*exitgate.Flow {
	_, allowed := Typical()
	refused, tunnel := *allowed, *allowed
	refused.ID = exitgate.NewID(Start().Add(time.Hour))
	refused.Verdict = exitgate.Verdict{Rule: "no-grant", Reason: "no grant of class app reaches api.example.com"}
	refused.Status = 403
	tunnel.ID = exitgate.NewID(Start().Add(24 * time.Hour))
	tunnel.Begin, tunnel.End, tunnel.Kind = Start().Add(24*time.Hour), time.Time{}, exitgate.KindTunnel
	tunnel.Question.HTTP, tunnel.Question.Response = nil, nil
	tunnel.Verdict = exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:pinned", Exemption: "pinned"}
	died := tunnel
	died.ID, died.Interrupted, died.End = exitgate.NewID(Start().Add(25*time.Hour)), true, died.Begin.Add(time.Second)
	empty := &exitgate.Flow{ID: exitgate.NewID(Start())}
	return append(Random(20), allowed, Full(), &refused, &tunnel, &died, empty)
}

// Random returns n flows of varied values, the same each time but for their ids.
func Random(n int) []*exitgate.Flow {
	r := rand.New(rand.NewPCG(7, 4))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var flows []*exitgate.Flow
	for i := range n {
		_, f := Typical()
		f.Begin = Start().Add(time.Duration(r.IntN(72*3600)) * time.Second).Add(time.Duration(i))
		f.ID, f.End = exitgate.NewID(f.Begin), f.Begin.Add(time.Duration(r.IntN(5000))*time.Millisecond)
		q := &f.Question
		q.Host.Name, q.Host.Class = pick("web-01", "web-02", "ci-7", ""), exitgate.Class(pick("app", "build", "unknown"))
		q.Dest.Host = pick("example.com", "api.example.com", "notexample.com", "a.b.example.com", "192.0.2.1", "ex%mple.com", "ex_mple.com")
		q.Way = exitgate.Way(pick("proxy", "tls-proxy", "transparent"))
		q.HTTP.Method, q.HTTP.URL = pick("GET", "POST"), "https://"+q.Dest.Host+pick("/", "/A/b", "/100%25", "/x_y", `/back\slash`, "/ÄÖ", "/'quoted'")
		f.Status = []int{0, 200, 204, 403, 404, 502}[r.IntN(6)]
		f.Verdict.Rule, f.Verdict.Revision = pick("no-grant", "grant:a", "deny:x.rego:7"), pick("r1", "r2")
		switch r.IntN(6) {
		case 0:
			f.Verdict.Action = exitgate.Refuse
		case 1:
			f.Fault = &exitgate.Fault{Step: "connect", Type: "connection_refused"}
		case 2:
			f.End = time.Time{}
		case 3:
			f.Kind, q.HTTP, q.Response = exitgate.KindTunnel, nil, nil
		}
		flows = append(flows, f)
	}
	return flows
}

// Poison returns flows that hosts or upstreams made on purpose to break a record.
func Poison() []*exitgate.Flow {
	var flows []*exitgate.Flow
	for i, bad := range []string{
		"nul \x00 here", "not \xff\xfe utf-8", "lone surrogate \xed\xa0\x80", "cut rune \xe2\x82", "escape \x1b[31m", `backslash \u0000 \x00 \`, "quote \" ' ; DROP TABLE flows; --",
		"tab\tnewline\nreturn\r", "\\.\n", `\N`, "bidi \u202e and \u2028", "\ufffd", "\U0010ffff", strings.Repeat("x", 1<<20), strings.Repeat("\x00", 9000), strings.Repeat("é", 700), "%_%",
	} {
		_, f := Typical()
		f.ID = exitgate.NewID(Start().Add(time.Duration(i) * time.Second))
		q := &f.Question
		q.Host.Name, q.Host.Class, q.Dest.Host, q.TLS.SNI, q.TLS.ALPN = bad, exitgate.Class(bad), bad, bad, []string{bad}
		q.HTTP.Method, q.HTTP.URL, q.HTTP.Path, q.HTTP.Headers = bad, bad, bad, map[string][]string{bad: {bad}}
		q.Response.Headers = map[string][]string{"x": {bad}}
		f.Authority = exitgate.Authority{Connect: bad, SNI: bad, Host: bad}
		f.Verdict.Rule, f.Verdict.Reason, f.Verdict.Revision = bad, bad, bad
		f.Gateway, f.RequestSHA256, f.Kind = bad, bad, exitgate.Kind(bad)
		f.Findings = []exitgate.Finding{{Inspector: bad, Where: bad, What: bad}}
		f.Fault = &exitgate.Fault{Step: bad, Type: bad, Reason: bad}
		flows = append(flows, f)
	}
	_, odd := Typical()
	odd.ID = exitgate.NewID(Start())
	odd.Verdict.Rewrite = json.RawMessage(`{"a":"\ud800","b":"\u0000"}`)
	odd.Status, odd.Sent.Body, odd.Phases.Wait = -1, -1<<63, 1<<63-1
	odd.Question.Dest.Port = 0
	return append(flows, odd)
}

// AsStored returns f as a store gives it back: each byte that is not UTF-8 is U+FFFD.
func AsStored(f *exitgate.Flow) *exitgate.Flow {
	g := *f
	q := &g.Question
	for _, s := range []*string{&g.Gateway, (*string)(&g.Kind), &g.RequestSHA256, &g.Authority.Connect, &g.Authority.SNI, &g.Authority.Host,
		&g.Verdict.Rule, &g.Verdict.Reason, &g.Verdict.Revision, &q.Host.Name, (*string)(&q.Host.Class), &q.Dest.Host} {
		*s = valid(*s)
	}
	tls, http, response := *q.TLS, *q.HTTP, *q.Response
	tls.SNI, tls.ALPN = valid(tls.SNI), validAll(tls.ALPN)
	http.Method, http.URL, http.Path = valid(http.Method), valid(http.URL), valid(http.Path)
	http.Headers, response.Headers = validMap(http.Headers), validMap(response.Headers)
	q.TLS, q.HTTP, q.Response = &tls, &http, &response
	g.Findings = nil
	for _, x := range f.Findings {
		g.Findings = append(g.Findings, exitgate.Finding{Inspector: valid(x.Inspector), Where: valid(x.Where), What: valid(x.What)})
	}
	if f.Fault != nil {
		g.Fault = &exitgate.Fault{Step: valid(f.Fault.Step), Type: valid(f.Fault.Type), Reason: valid(f.Fault.Reason)}
	}
	return &g
}

func valid(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		b.WriteRune(r)
		i += n
	}
	return b.String()
}

func validAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, valid(s))
	}
	return out
}

func validMap(m map[string][]string) map[string][]string {
	out := map[string][]string{}
	for k, v := range m {
		out[valid(k)] = validAll(v)
	}
	return out
}
