package inspect

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

// TestCheckRewrite is the schema: what martian offers and is safe, and nothing else, misspelt or not.
func TestCheckRewrite(t *testing.T) {
	for raw, want := range map[string]string{ // "": valid
		`{"header.Modifier":{"name":"X-Team","value":"build"}}`:                                                     "",
		`{"header.Modifier":{"scope":["request"],"name":"x-team","value":""}}`:                                      "",
		`{"header.Append":{"name":"X-Team","value":"build"}}`:                                                       "",
		`{"header.Blacklist":{"names":["X-Debug","Referer"]}}`:                                                      "",
		`{"querystring.Modifier":{"name":"safe","value":"a&b=ü"}}`:                                                  "",
		`{"cookie.Modifier":{"name":"PREF","value":"f2=8000000"}}`:                                                  "",
		`{"fifo.Group":{"scope":["request"],"modifiers":[{"header.Blacklist":{"names":["A"]}},{"fifo.Group":{}}]}}`: "",
		`{"header.Modifier":{"name":"Authorization","value":"Bearer x"}}`:                                           "",
		`{"header.Append":{"name":"Authorization","value":"Bearer x"}}`:                                             "only once",
		`{"header.Append":{"name":"Cookie","value":"a=b"}}`:                                                         "only once",
		``:     "EOF",
		`null`: "exactly one",
		`{}`:   "exactly one",
		`[]`:   "array",
		`{"header.Modifier":{"name":"X","value":"1"}} {}`:                                                  "behind it",
		`{"header.Modifier":{"name":"X","value":"1"},"header.Append":{"name":"X","value":"1"}}`:            "exactly one",
		`{"header.Modifier":{"nam":"X","value":"1"}}`:                                                      "unknown field",
		`{"header.Modifer":{"name":"X","value":"1"}}`:                                                      "unknown field",
		`{"header.Modifier":{"name":"X","value":1}}`:                                                       "number",
		`{"header.Modifier":{"name":"X","value":"1","scope":["request","response"]}}`:                      "only requests",
		`{"header.Modifier":{"name":"X","value":"1","scope":["response"]}}`:                                "only requests",
		`{"header.Modifier":{"name":"X","value":"1","scope":"request"}}`:                                   "string",
		`{"status.Modifier":{"statusCode":200}}`:                                                           "unknown field",
		`{"body.Modifier":{"contentType":"text/plain","body":"eA=="}}`:                                     "unknown field",
		`{"url.Modifier":{"host":"other.example.com"}}`:                                                    "unknown field",
		`{"skip.RoundTrip":{}}`:                                                                            "unknown field",
		`{"header.Copy":{"from":"Host","to":"X"}}`:                                                         "unknown field",
		`{"fifo.Group":{"aggregateErrors":true,"modifiers":[]}}`:                                           "unknown field",
		`{"fifo.Group":{"modifiers":[{"header.Modifier":{"name":"Host","value":"x"}}]}}`:                   "may not be rewritten",
		`{"header.Blacklist":{"names":[]}}`:                                                                "no field",
		`{"header.Blacklist":{"names":["X","Via"]}}`:                                                       "may not be rewritten",
		`{"header.Modifier":{"name":"","value":"1"}}`:                                                      "no name",
		`{"header.Modifier":{"name":"X:","value":"1"}}`:                                                    "no name",
		`{"header.Modifier":{"name":"X\r\nHost","value":"1"}}`:                                             "no name",
		`{"header.Modifier":{"name":":authority","value":"1"}}`:                                            "no name",
		`{"header.Modifier":{"name":"X","value":"1\r\nHost: x"}}`:                                          "control",
		`{"header.Modifier":{"name":"X","value":"1\u0000"}}`:                                               "control",
		`{"header.Modifier":{"name":"X","value":" 1"}}`:                                                    "blank",
		`{"querystring.Modifier":{"name":"","value":"1"}}`:                                                 "1 to 256",
		`{"querystring.Modifier":{"name":"a","value":"1\r\n"}}`:                                            "control",
		`{"cookie.Modifier":{"name":"a b","value":"1"}}`:                                                   "no name",
		`{"cookie.Modifier":{"name":"a","value":"1; b=2"}}`:                                                "cannot have",
		`{"cookie.Modifier":{"name":"a","value":"1","domain":"x"}}`:                                        "unknown field",
		`{"header.Modifier":{"name":"X","value":"` + strings.Repeat("a", 5000) + `"}}`:                     "the most",
		`{"header.Modifier":{"name":"X","value":"` + strings.Repeat("a", 17000) + `"}}`:                    "the most",
		strings.Repeat(`{"fifo.Group":{"modifiers":[`, 5) + strings.Repeat(`]}}`, 5):                       "nested",
		`{"fifo.Group":{"modifiers":[` + strings.Repeat(`{"fifo.Group":{}},`, 70) + `{"fifo.Group":{}}]}}`: "more than 64",
	} {
		if err := CheckRewrite([]byte(raw)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.120s: %v, want %q", raw, err, want)
		}
	}
	for _, name := range []string{"Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "HTTP2-Settings",
		"Proxy-Authorization", "Proxy-Status", "proxy-x", "Via", "Expect", "Max-Forwards", "Content-Encoding", "Content-Type", "Content-Range", "Sec-WebSocket-Key"} {
		for _, raw := range []string{`{"header.Modifier":{"name":%q,"value":"1"}}`, `{"header.Append":{"name":%q,"value":"1"}}`, `{"header.Blacklist":{"names":[%q]}}`} {
			if err := CheckRewrite(fmt.Appendf(nil, raw, name)); err == nil {
				t.Errorf(raw+" is taken", name)
			}
		}
	}
}

// rewritten sends a request through the step.
func rewritten(t *testing.T, m *Rewrite, raw, target string, fields http.Header) (*http.Request, *exitgate.Exchange, error) {
	t.Helper()
	req, x := visit{target: target, fields: fields}.request(t)
	x.Flow.Verdict.Rewrite = []byte(raw)
	if err := (&Canonical{Redact: m.Redact}).ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	return req, x, m.ModifyRequest(req)
}

func TestRewrite(t *testing.T) {
	m := &Rewrite{Redact: NewRedactor(make([]byte, 32), Secrets{})}
	for _, c := range []struct {
		raw, target string
		fields      http.Header
		query       string
		want        http.Header // nil value: absent
	}{
		{`{"header.Modifier":{"name":"x-team","value":"build"}}`, "/", http.Header{"X-Team": {"a", "b"}}, "", http.Header{"X-Team": {"build"}}},
		{`{"header.Append":{"name":"x-team","value":"build"}}`, "/", http.Header{"X-Team": {"a"}}, "", http.Header{"X-Team": {"a", "build"}}},
		{`{"header.Blacklist":{"names":["x-debug","user-agent"]}}`, "/", http.Header{"X-Debug": {"1"}, "User-Agent": {"curl"}}, "", http.Header{"X-Debug": nil, "User-Agent": nil}},
		{`{"cookie.Modifier":{"name":"a","value":"1"}}`, "/", http.Header{"Cookie": {"a=2; b=3", " a = 4;c"}}, "", http.Header{"Cookie": {"b=3; c; a=1"}}},
		{`{"cookie.Modifier":{"name":"a","value":"1"}}`, "/", nil, "", http.Header{"Cookie": {"a=1"}}},
		{`{"querystring.Modifier":{"name":"safe","value":"on & off"}}`, "/p", nil, "safe=on+%26+off", nil},
		{`{"querystring.Modifier":{"name":"safe","value":"on"}}`, "/p?z=%7e&b=1;2&safe=off&%73afe=x&q=a+b", nil, "z=%7e&b=1;2&safe=on&q=a+b", nil},
		{`{"querystring.Modifier":{"name":"safe","value":"on"}}`, "/p?a=1;safe=off&b", nil, "safe=on&b", nil},
		{`{"querystring.Modifier":{"name":"safe","value":"on"}}`, "/p?safe", nil, "safe=on", nil},
		{`{"querystring.Modifier":{"name":"safe","value":"on"}}`, "/p?&a&&", nil, "&a&&&safe=on", nil},
	} {
		req, x, err := rewritten(t, m, c.raw, c.target, c.fields)
		if err != nil {
			t.Errorf("%s: %v", c.raw, err)
			continue
		}
		for name, want := range c.want {
			if got := req.Header[name]; !slices.Equal(got, want) {
				t.Errorf("%s: %s is %q, want %q", c.raw, name, got, want)
			}
		}
		if req.URL.RawQuery != c.query {
			t.Errorf("%s on %s: query %q, want %q", c.raw, c.target, req.URL.RawQuery, c.query)
		}
		f := x.Flow.Forwarded
		if f == nil || f.Query != c.query || f.Method != "GET" || f.Path == "" {
			t.Errorf("%s: forwarded %+v", c.raw, f)
		}
		if q := x.Flow.Question.HTTP; c.query != "" && q.Query == c.query || q == f {
			t.Errorf("%s: the question changed: %+v", c.raw, q)
		}
	}
}

// TestRewriteKeepsNoSecret: what a rewrite sets that is a secret is in the flow as a fingerprint only.
func TestRewriteKeepsNoSecret(t *testing.T) {
	m := &Rewrite{Redact: NewRedactor(make([]byte, 32), Secrets{})}
	raw := `{"fifo.Group":{"modifiers":[{"header.Modifier":{"name":"Authorization","value":"Bearer CANARY"}},{"header.Modifier":{"name":"Cookie","value":"a=CANARY"}},` +
		`{"querystring.Modifier":{"name":"api_key","value":"CANARY"}},{"cookie.Modifier":{"name":"s","value":"CANARY"}},{"header.Modifier":{"name":"X-Team","value":"plain"}}]}}`
	for range 2 { // the second time it is not read anew
		req, x, err := rewritten(t, m, raw, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if req.Header.Get("Authorization") != "Bearer CANARY" || req.URL.RawQuery != "api_key=CANARY" || req.Header.Get("Cookie") != "a=CANARY; s=CANARY" {
			t.Errorf("sent: %v %s", req.Header, req.URL)
		}
		kept := fmt.Sprintf("%s %+v", x.Flow.Verdict.Rewrite, *x.Flow.Forwarded)
		if strings.Contains(kept, "CANARY") || strings.Count(kept, "fp:") < 6 || !strings.Contains(kept, "plain") {
			t.Errorf("kept: %s", kept)
		}
	}
}

// TestRewriteFailsClosed, and is read once for each text, and keeps no more than its bound.
func TestRewriteFailsClosed(t *testing.T) {
	m := &Rewrite{Redact: NewRedactor(make([]byte, 32), Secrets{})}
	big := `{"fifo.Group":{"modifiers":[` + strings.TrimSuffix(strings.Repeat(`{"header.Append":{"name":"X","value":"`+strings.Repeat("a", 3900)+`"}},`, 4), ",") + `]}}`
	for _, raw := range []string{`{"header.Modifier":{"name":"Host","value":"other"}}`, `{`, `"x"`} {
		for range 2 {
			_, x, err := rewritten(t, m, raw, "/", nil)
			if r := new(exitgate.Refusal); !errors.As(err, &r) || r.Status != 503 || r.Verdict.Rule != exitgate.RulePolicy || x.Flow.Forwarded != nil {
				t.Errorf("%s: %v", raw, err)
			}
		}
	}
	huge := http.Header{}
	for i := range 40 {
		huge.Set(fmt.Sprintf("X-%d", i), strings.Repeat("b", 3300))
	}
	if _, _, err := rewritten(t, m, big, "/", huge); err == nil || !strings.Contains(err.Error(), "grew") {
		t.Errorf("a head of 140 KB: %v", err)
	}
	for i := range 3 * maxRewrites {
		if _, _, err := rewritten(t, m, fmt.Sprintf(`{"header.Modifier":{"name":"X","value":"%d"}}`, i), "/", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.kept); n > maxRewrites {
		t.Errorf("%d are kept", n)
	}
}

// FuzzRewrite: whatever a policy says, the request keeps its authority, framing and connection, and what is taken can be
// sent.
func FuzzRewrite(f *testing.F) {
	f.Add(`{"header.Modifier":{"name":"X-Team","value":"build"}}`, "a=b")
	f.Add(`{"fifo.Group":{"modifiers":[{"querystring.Modifier":{"name":"a","value":"1;2"}},{"cookie.Modifier":{"name":"a","value":"b"}}]}}`, "a=b;c&%61")
	f.Add(`{"header.Blacklist":{"names":["cookie"]}}`, "")
	m := &Rewrite{Redact: NewRedactor(make([]byte, 32), Secrets{})}
	f.Fuzz(func(t *testing.T, raw, query string) {
		if checkQuery(query) != nil || strings.ContainsAny(query, "#") {
			return
		}
		req, x := visit{target: "/p?" + query, fields: http.Header{"Cookie": {"a=1"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}}}.request(t)
		if (&Canonical{Redact: m.Redact}).ModifyRequest(req) != nil {
			return
		}
		host, url, path, length := req.Host, req.URL.Host, req.URL.EscapedPath(), req.ContentLength
		x.Flow.Verdict.Rewrite = []byte(raw)
		if m.ModifyRequest(req) != nil {
			return
		}
		if req.Host != host || req.URL.Host != url || req.URL.EscapedPath() != path || req.ContentLength != length || req.TransferEncoding != nil || req.URL.Scheme != "https" ||
			!slices.Equal(req.Header["Connection"], []string{"Upgrade"}) || !slices.Equal(req.Header["Upgrade"], []string{"websocket"}) {
			t.Errorf("%s changed %+v", raw, req)
		}
		for name, values := range req.Header {
			for _, v := range values {
				if firstBad([]byte(name), isToken) >= 0 || firstBad([]byte(v), isValue) >= 0 {
					t.Errorf("%s made the field %q: %q", raw, name, v)
				}
			}
		}
		if err := checkQuery(req.URL.RawQuery); err != nil {
			t.Errorf("%s made the query %q: %v", raw, req.URL.RawQuery, err)
		}
	})
}
