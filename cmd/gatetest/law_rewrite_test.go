package gatetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/exitgate/exitgate"
)

// rewrites allows with a rewrite.
func rewrites(raw string) func(*exitgate.Question) exitgate.Verdict {
	return func(q *exitgate.Question) exitgate.Verdict {
		v := allowed(q)
		if q.Stage == exitgate.StageRequest {
			v.Rewrite = json.RawMessage(raw)
		}
		return v
	}
}

// arrived is what an origin got.
type arrived struct {
	mu  sync.Mutex
	got []*http.Request
}

func (a *arrived) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.got = append(a.got, r)
	a.mu.Unlock()
	io.WriteString(w, "ok")
}

// TestRewriteIsRecorded is law 5 for requests that the policy changes: what goes upstream is what the record says went
// upstream, the question stays as it was judged, and both are recorded before a byte leaves.
func TestRewriteIsRecorded(t *testing.T) {
	raw := `{"fifo.Group":{"scope":["request"],"modifiers":[
		{"header.Modifier":{"name":"Restrict-Access","value":"example.com"}},{"header.Append":{"name":"X-Trail","value":"gate"}},
		{"header.Blacklist":{"names":["X-Debug","User-Agent"]}},{"querystring.Modifier":{"name":"safe","value":"on"}},
		{"cookie.Modifier":{"name":"mode","value":"CANARY"}},{"header.Modifier":{"name":"Authorization","value":"Bearer CANARY"}}]}}`
	for _, h2 := range []bool{false, true} {
		for _, scheme := range []string{"https", "http"} {
			t.Run(fmt.Sprintf("h2=%v %s", h2, scheme), func(t *testing.T) {
				g := New(t)
				g.Decide(rewrites(raw))
				o := &arrived{}
				g.Origin(o, www)
				g.PlainOrigin(o, www)
				begun := make(chan exitgate.Flow, 1)
				g.Recorder.BeginErr = func(f *exitgate.Flow) error { begun <- *f; return nil }
				res, _ := do(t, g.Client(h2), "GET", scheme+"://"+www+"/a%20b?z=%7e&safe=off&b", nil, "X-Trail", "host", "X-Debug", "1", "User-Agent", "curl/8",
					"Restrict-Access", "evil.example.com", "Cookie", "mode=mine; a=b", "Authorization", "Bearer theirs", "Accept", "*/*")
				if res.StatusCode != 200 {
					t.Fatal(res.Status)
				}
				r, f := o.got[0], g.Recorder.Last(1)
				if r.RequestURI != "/a%20b?z=%7e&safe=on&b" || r.Host != www {
					t.Errorf("the origin got %s %s", r.Host, r.RequestURI)
				}
				for name, want := range map[string][]string{"Restrict-Access": {"example.com"}, "X-Trail": {"host", "gate"}, "X-Debug": nil, "User-Agent": nil,
					"Cookie": {"a=b; mode=CANARY"}, "Authorization": {"Bearer CANARY"}, "Accept": {"*/*"}} {
					if got := r.Header[name]; fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("the origin got %s %q, want %q", name, got, want)
					}
				}
				for what, f := range map[string]exitgate.Flow{"begun": within(t, begun, "the begin"), "ended": f} {
					w := f.Forwarded
					if w == nil {
						t.Fatalf("%s: nothing was forwarded", what)
					}
					if w.URL != scheme+"://"+www+r.RequestURI || w.Path != "/a%20b" || w.Query != r.URL.RawQuery || w.Method != "GET" {
						t.Errorf("%s: forwarded %s %s", what, w.URL, w.Query)
					}
					for name, got := range r.Header { // nothing went that is not recorded
						low := strings.ToLower(name)
						if low == "via" || low == "accept-encoding" && len(w.Headers[low]) == 0 {
							continue
						}
						if len(w.Headers[low]) != len(got) || low != "cookie" && low != "authorization" && fmt.Sprint(w.Headers[low]) != fmt.Sprint(got) {
							t.Errorf("%s: %s went as %q and is recorded as %q", what, name, got, w.Headers[low])
						}
					}
					for name := range w.Headers { // and nothing is recorded that did not go
						if len(r.Header[http.CanonicalHeaderKey(name)]) == 0 {
							t.Errorf("%s: %s is recorded and did not go", what, name)
						}
					}
					if q := f.Question.HTTP; q.URL != scheme+"://"+www+"/a%20b?z=%7e&safe=off&b" || fmt.Sprint(q.Headers["restrict-access"]) != "[evil.example.com]" || q.Headers["x-debug"] == nil {
						t.Errorf("%s: the question is not what was judged: %+v", what, q)
					}
					if b := must[[]byte](t)(json.Marshal(f)); strings.Contains(string(b), "CANARY") || !strings.Contains(string(b), `"Restrict-Access"`) {
						t.Errorf("%s: the record has a secret, or not the rewrite: %s", what, b)
					}
				}
			})
		}
	}
}

// TestRewriteHasTheLastWord: a host that names a field as one of its connection does not have it taken away.
func TestRewriteHasTheLastWord(t *testing.T) {
	g := New(t)
	g.Decide(rewrites(`{"header.Modifier":{"name":"Restrict-Access","value":"example.com"}}`))
	o := wire(g, www, true, nil)
	for i, fields := range []string{"Connection: restrict-access\r\n", "Connection: close, Restrict-Access\r\nRestrict-Access: evil\r\n", "restrict-access: evil\r\nRESTRICT-ACCESS: evil2\r\n"} {
		c := g.insideAs(www+":443", www)
		send(t, c, "GET / HTTP/1.1\r\nHost: "+www+"\r\n"+fields+"\r\n")
		c.Read(make([]byte, 1))
		c.Close()
		f := g.Recorder.Last(i + 1)
		if got := f.Forwarded.Headers["restrict-access"]; fmt.Sprint(got) != "[example.com]" {
			t.Errorf("%q: recorded %q", fields, got)
		}
	}
	if _, got, _ := o.seen(); strings.Count(got, "Restrict-Access: example.com\r\n") != 3 || strings.Contains(got, "evil") {
		t.Errorf("the origin got %q", got)
	}
}

// TestBadRewriteRefuses: a rewrite that is not valid, or reaches for what it may not touch, refuses as a policy does that
// fails; nothing leaves. One that is not for a request is not looked at.
func TestBadRewriteRefuses(t *testing.T) {
	for _, raw := range []string{
		`{"header.Modifier":{"name":"Host","value":"other.example.com"}}`, `{"header.Modifier":{"name":"Content-Length","value":"0"}}`,
		`{"header.Modifier":{"name":"Transfer-Encoding","value":"chunked"}}`, `{"header.Blacklist":{"names":["Via"]}}`,
		`{"header.Modifier":{"nmae":"X","value":"1"}}`, `{"url.Modifier":{"host":"other.example.com"}}`, `{"skip.RoundTrip":{}}`, `nonsense`,
	} {
		g := New(t)
		g.Decide(rewrites(raw))
		o, o2 := wire(g, www, true, nil), wire(g, other, true, nil)
		for _, h2 := range []bool{false, true} {
			res, body := do(t, g.Client(h2), "GET", "https://"+www+"/", nil)
			if res.StatusCode != 503 || !strings.Contains(body, "its rewrite cannot be used") {
				t.Errorf("%s: %d %s", raw, res.StatusCode, body)
			}
		}
		if f := g.Recorder.Last(2); f.Verdict.Rule != exitgate.RulePolicy || f.Forwarded != nil || f.Outcome() != exitgate.OutcomeRefused {
			t.Errorf("%s: %s", raw, describe(f))
		}
		o.untouched(t)
		o2.untouched(t)
	}
}

// TestRewriteConcurrently: requests that are rewritten differently at one time each go as their own verdict says.
func TestRewriteConcurrently(t *testing.T) {
	g := New(t)
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		v := allowed(q)
		if q.HTTP != nil && q.Stage == exitgate.StageRequest {
			v.Rewrite = json.RawMessage(`{"header.Modifier":{"name":"X-Path","value":"` + q.HTTP.Path + `"}}`)
		}
		return v
	})
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Path")) }), www)
	c := g.Client(true)
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			path := fmt.Sprintf("/%d", i%300)
			res, err := c.Get("https://" + www + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if b, _ := io.ReadAll(res.Body); string(b) != path {
				t.Errorf("%s went as %s", path, b)
			}
		})
	}
	all.Wait()
}
