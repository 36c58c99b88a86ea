package gatetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// TestThreeTypes is law 7: a refusal, a fault and a bug differ in status, title, type and error token, in each form in
// which a client may ask for them, and HEAD is answered without a body.
func TestThreeTypes(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) {
		p.Request = append(p.Request, stepFunc(func(r *http.Request) error {
			if r.URL.Path == "/bug" {
				panic("exploded")
			}
			return nil
		}))
	})
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		if q.HTTP != nil && q.HTTP.Path == "/refused" {
			return refused(q)
		}
		return allowed(q)
	})
	g.Resolver.Add(www, 443, "127.0.0.1:1") // nobody listens there
	kinds := []struct {
		path, status, title, typ, token string
	}{
		{"/refused", "403", "exitgate refused this request", "urn:exitgate:refused", "http_request_denied"},
		{"/fault", "502", "exitgate could not reach the destination", "urn:exitgate:fault", "connection_refused"},
		{"/bug", "500", "exitgate failed", "urn:exitgate:bug", "proxy_internal_error"},
	}
	forms := []struct{ accept, contentType string }{
		{"", "text/plain; charset=utf-8"}, {"*/*", "text/plain; charset=utf-8"}, {"application/json", "application/problem+json"},
		{"application/vnd.x+json, */*;q=0.1", "application/problem+json"},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"}, {"text/plain", "text/plain; charset=utf-8"},
	}
	n := 0
	for _, h2 := range []bool{false, true} {
		c := g.Client(h2)
		for _, k := range kinds {
			for _, f := range forms {
				for _, method := range []string{"GET", "HEAD", "POST"} {
					n++
					req, _ := http.NewRequest(method, "https://"+www+k.path, nil)
					if f.accept != "" {
						req.Header.Set("Accept", f.accept)
					}
					res, err := c.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					what := fmt.Sprintf("h2=%v %s %s for %q", h2, method, k.path, f.accept)
					if fmt.Sprint(res.StatusCode) != k.status || res.Header.Get("Content-Type") != f.contentType {
						t.Errorf("%s: %d %s", what, res.StatusCode, res.Header.Get("Content-Type"))
					}
					flow := g.Recorder.Last(n)
					if ps := res.Header.Get("Proxy-Status"); !strings.HasPrefix(ps, "exitgate; error="+k.token+"; details=\"") || !strings.Contains(ps, flow.ID.String()) {
						t.Errorf("%s: Proxy-Status %s", what, ps)
					}
					if res.Header.Get("Connection") != "" || res.Close {
						t.Errorf("%s: the connection is closed", what)
					}
					if method == "HEAD" {
						if len(b) != 0 || res.ContentLength <= 0 {
							t.Errorf("%s: body %q, length %d", what, b, res.ContentLength)
						}
						continue
					}
					for _, other := range kinds {
						if strings.Contains(string(b), other.title) != (other.path == k.path) {
							t.Errorf("%s: body %s", what, b)
						}
					}
					if strings.Contains(string(b), "exploded") {
						t.Errorf("%s: it tells a stranger what exploded: %s", what, b)
					}
					if strings.Contains(f.contentType, "json") {
						var notice struct {
							Type, Flow string
							Error      string `json:"error_type"`
						}
						if err := json.Unmarshal(b, &notice); err != nil || notice.Type != k.typ || notice.Flow != flow.ID.String() || notice.Error != k.token {
							t.Errorf("%s: %v %s", what, err, b)
						}
					}
				}
			}
		}
	}
}

type stepFunc func(*http.Request) error

func (f stepFunc) ModifyRequest(r *http.Request) error { return f(r) }

// TestFreshVerdicts is law 7 and the promise of grants: on one connection, each request is judged again, as policy is then.
func TestFreshVerdicts(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			g := New(t)
			hits := 0
			g.Origin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }), www)
			c := g.Client(h2)
			for i, verdict := range []func(*exitgate.Question) exitgate.Verdict{refused, refused, allowed, refused, allowed} {
				g.Decide(verdict)
				res, err := c.Post("https://"+www+"/", "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				want := 403
				if verdict(nil).Action == exitgate.Allow {
					want = 200
				}
				if res.StatusCode != want {
					t.Errorf("request %d: %d, want %d", i, res.StatusCode, want)
				}
			}
			if hits != 2 {
				t.Errorf("the origin got %d requests, 2 were allowed", hits)
			}
			conns := map[exitgate.ID]bool{}
			for _, f := range g.Recorder.Wait(5) {
				conns[f.Conn] = true
			}
			if len(conns) != 1 {
				t.Errorf("%d connections: a refusal closed one", len(conns))
			}
		})
	}
}

// hostile are strings that mean something to a shell, a terminal, a browser or a log.
var hostile = []string{`<img src=x onerror=alert(1)>`, `"><svg/onload=alert(1)>`, `$(touch /tmp/owned)`, "`touch /tmp/owned`", `';touch x;'`, `'"'"'`, `a;b&c|d`, `\x1b[2J`, "!x!", "~root",
	"*", "?", "[a-z]", "{a,b}", "#x", "%24%28id%29", "%60id%60", "%0d%0aSet-Cookie:x", "%1b%5b2J", "%e2%80%ae", "$IFS$9", "a'b", "''", "-rf", "--help", "a=b", "<!--", "]]>", "{{7*7}}", "%3Cscript%3E", "&lt;"}

// TestHostileStrings is law 7 for what hosts send: no rendering of a refusal carries it as markup, as an escape or as a
// new field, and the command that it prints is one command with just the words that it should have.
func TestHostileStrings(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Refusals.Command = []string{"exitgate", "--config", "/etc/exit gate's.yaml"} })
	g.Decide(refused)
	dir := stubs(t)
	granted := 0
	for _, s := range hostile {
		for _, target := range []string{"/" + s, "/x/" + s + "/y", "/x?" + s} {
			for _, accept := range []string{"*/*", "application/json", "text/html"} {
				c := g.insideAs(www+":443", www, "h2")
				h := newRawH2(t, c)
				a := h.answer(h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", target, "accept", accept))
				c.Close()
				if a.status != "403" && a.status != "400" {
					t.Errorf("%s: %v", target, a)
					continue
				}
				safely(t, target, accept, a)
				if accept == "*/*" && pasted(t, dir, target, a.body) {
					granted++
				}
			}
		}
	}
	if granted < 20 {
		t.Errorf("only %d grant commands were printed: the test tests nothing", granted)
	}
}

func safely(t *testing.T, target, accept string, a h2Answer) {
	t.Helper()
	for name, values := range a.header {
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%s: field %s: %q", target, name, v)
			}
		}
	}
	if strings.ContainsFunc(a.body, func(r rune) bool {
		return r < ' ' && r != '\n' || r == 0x7f || r == 0x202e || r == 0xfffd
	}) {
		t.Errorf("%s as %s: %q", target, accept, a.body)
	}
	if accept == "text/html" {
		body := a.body[strings.Index(a.body, "<main"):]
		for _, bad := range []string{"<img", "<svg", "<script", "<!--"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s: %s in %s", target, bad, body)
			}
		}
		if !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no policy for the page", target)
		}
	}
}

// stubs makes an exitgate that prints its words, and nothing else that could be run.
func stubs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "exitgate"), []byte("#!/bin/sh\nfor a; do printf '%s\\n' \"$a\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// pasted gives the command that body prints to a real shell, and holds it to the words that it should have.
func pasted(t *testing.T, dir, target, body string) bool {
	t.Helper()
	ran := false
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "exitgate --config") {
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", line)
		cmd.Env, cmd.Dir = []string{"PATH=" + dir}, dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: sh: %v\n%s\n%s", target, err, line, out)
			continue
		}
		words := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if !slices.Equal(words[:2], []string{"--config", "/etc/exit gate's.yaml"}) {
			t.Errorf("%s: words %q", target, words)
		}
		if words[2] != "grant" {
			continue
		}
		if !strings.Contains(body, "\nTo ask for exactly this:\n\n  exitgate request --reason WHY ") {
			t.Errorf("%s: a grant and no request in\n%s", target, body)
		}
		ran = true
		path, _, _ := strings.Cut(target, "?")
		want := []string{"grant", "add", "--class", "app", "--method", "GET", "--reason", "WHY"}
		if strings.Contains(path, "%2f") {
			want = append(want, "--encoded-slash")
		}
		if want = append(want, "https://"+www+path); !slices.Equal(words[2:], want) {
			t.Errorf("%s: words %q, want %q", target, words[2:], want)
		}
	}
	return ran
}

// TestGrantIsNoPattern: a path whose segment means "any segment" in a grant must not become a command that grants more
// than was asked for.
func TestGrantIsNoPatternRegression(t *testing.T) {
	g := New(t)
	g.Decide(refused)
	for _, path := range []string{"/*", "/a/*/b", "/*/", "/a/*"} {
		c := g.insideAs(www+":443", www)
		send(t, c, "GET "+path+" HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
		if a := receive(t, bufio.NewReader(c), "GET"); a.status != 403 || strings.Contains(a.body, "grant add") {
			t.Errorf("%s: %d\n%s", path, a.status, a.body)
		}
		c.Close()
	}
}

// TestTokens is law 7 for hosts that are not known: 407 only where a token would help.
func TestTokens(t *testing.T) {
	for _, tokens := range []bool{false, true} {
		t.Run(fmt.Sprintf("tokens=%v", tokens), func(t *testing.T) {
			hosts := &mitm.Hosts{}
			list := []mitm.RegisteredHost{{Name: "far", Class: "app"}}
			if tokens {
				list[0].Token = tokenSum("the-token")
			}
			if err := hosts.Set(list); err != nil {
				t.Fatal(err)
			}
			g := New(t, func(p *mitm.Proxy) { p.Identify = hosts })
			g.Decide(func(q *exitgate.Question) exitgate.Verdict {
				if q.Host.Class == exitgate.ClassUnknown {
					return exitgate.Verdict{Rule: "unknown-host", Reason: "enrol this host first"}
				}
				return allowed(q)
			})
			o := wire(g, www, false, nil)
			bad := 407
			if !tokens {
				bad = 403
			}
			for _, c := range []struct {
				fields string
				want   int
			}{
				{"", bad},
				{"Proxy-Authorization: Bearer wrong\r\n", 407},
				{"Proxy-Authorization: Basic !!!\r\n", 407},
				{"Proxy-Authorization: \r\n", 407},
				{"Proxy-Authorization: Bearer the-token\r\n", map[bool]int{true: 200, false: 407}[tokens]},
				{"Proxy-Authorization: Bearer the-token\r\nProxy-Authorization: Bearer the-token\r\n", 407},
				{"Proxy-Authorization: Bearer the-token\r\nProxy-Authorization: Bearer wrong\r\n", 407},
				{"Proxy-Authorization: Basic " + basic("far", "the-token") + "\r\n", map[bool]int{true: 200, false: 407}[tokens]},
				{"Proxy-Authorization: Basic " + basic("near", "the-token") + "\r\n", 407},
			} {
				conn := g.Dial()
				br := bufio.NewReader(conn)
				send(t, conn, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n"+c.fields+"\r\n")
				a := receive(t, br, "GET")
				if a.status != c.want || (a.status == 407) != (a.header.Get("Proxy-Authenticate") != "") {
					t.Errorf("%q: %d %v, want %d", c.fields, a.status, a.header, c.want)
				}
				if a.status == 403 && !strings.Contains(a.body, "enrol this host first") {
					t.Errorf("%q: %s", c.fields, a.body)
				}
				conn.Close()
				conn = g.Dial()
				send(t, conn, "CONNECT "+www+":443 HTTP/1.1\r\nHost: "+www+"\r\n"+c.fields+"\r\n")
				if a := receive(t, oneByOne(conn), "CONNECT"); a.status != c.want {
					t.Errorf("CONNECT %q: %d, want %d", c.fields, a.status, c.want)
				}
				conn.Close()
			}
			if _, got, _ := o.seen(); strings.Contains(strings.ToLower(got), "proxy-") || strings.Contains(got, "the-token") {
				t.Errorf("the upstream got %q", got)
			}
		})
	}
}

// TestRequestCommand: who was refused is told how to ask, before operators are told how to grant, in each form; and
// neither where no grant would help or nobody can ask.
func TestRequestCommand(t *testing.T) {
	for _, c := range []struct {
		name    string
		request []string
		verdict exitgate.Verdict
		class   exitgate.Class
		ask     string // without the flow; "" none
		grant   bool
	}{
		{"usual", nil, exitgate.Verdict{Rule: "no-grant", Reason: "no"}, "app", "exitgate request --reason WHY ", true},
		{"denied", nil, exitgate.Verdict{Rule: "deny:x.rego:3", Reason: "no"}, "app", "exitgate request --reason WHY ", true},
		{"by another name", []string{"/opt/exit gate/exitgate"}, exitgate.Verdict{Rule: "no-grant"}, "app", "'/opt/exit gate/exitgate' request --reason WHY ", true},
		{"nobody can ask", []string{}, exitgate.Verdict{Rule: "no-grant"}, "app", "", true},
		{"unknown host", nil, exitgate.Verdict{Rule: "no-grant"}, exitgate.ClassUnknown, "", false},
		{"a law of the gateway", nil, exitgate.Verdict{Rule: exitgate.RuleAddress, Reason: "no"}, "app", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := New(t, func(p *mitm.Proxy) { p.Refusals.Request = c.request })
			host := tester
			host.Class = c.class
			g.Register(host)
			g.Decide(func(*exitgate.Question) exitgate.Verdict { return c.verdict })
			g.Proxy.Refusals.Connect = mitm.RefuseInside
			for i, accept := range []string{"*/*", "text/html", "application/json"} {
				_, body := do(t, g.Client(true), "GET", "https://"+www+"/", nil, "Accept", accept)
				flow := g.Recorder.Last(i + 1).ID.String()
				asks, grants := strings.Index(body, "request --reason"), strings.Index(body, "grant add")
				if (asks >= 0) != (c.ask != "") || (grants >= 0) != c.grant || asks >= 0 && asks > grants {
					t.Errorf("as %s:\n%s", accept, body)
				}
				switch {
				case accept == "*/*" && c.ask != "" && !strings.Contains(body, "\n  "+c.ask+flow+"\n"):
					t.Errorf("no %q in\n%s", c.ask+flow, body)
				case accept == "application/json":
					var n struct{ Request, Grant string }
					if err := json.Unmarshal([]byte(body), &n); err != nil || c.ask != "" && n.Request != c.ask+flow || c.ask == "" && n.Request != "" {
						t.Errorf("%v: %q\n%s", err, n.Request, body)
					}
				}
			}
		})
	}
}
