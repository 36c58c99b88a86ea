package gatetest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
)

func get(t *testing.T, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

func TestCarry(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s %s%s %s", r.Method, r.Host, r.RequestURI, r.Proto)
			}), "www.example.com")
			status, body, _ := get(t, g.Client(h2), "https://www.example.com/a/b?c=d")
			proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
			if want := "GET www.example.com/a/b?c=d " + proto; status != 200 || body != want {
				t.Fatalf("got %d %q, want 200 %q", status, body, want)
			}
			f := g.Recorder.Last(1)
			if f.Outcome() != exitgate.OutcomeAllowed || f.Status != 200 || f.Question.HTTP.URL != "https://www.example.com/a/b?c=d" ||
				f.Authority.SNI != "www.example.com" || f.Authority.Connect != "www.example.com:443" || f.Authority.Host != "www.example.com" ||
				!f.Authority.Dialled.IsValid() || f.UpstreamCert == "" || f.Upstream.TLS != "1.3" || f.Client.TLS != "1.3" ||
				f.Received.Body != int64(len(body)) || f.ResponseBody != exitgate.BodyComplete || f.Question.Host.Class != "app" {
				t.Errorf("flow: %+v", f)
			}
		})
	}
}

func TestCarryAbsoluteForm(t *testing.T) {
	g := New(t)
	g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain") }), "www.example.com")
	if status, body, _ := get(t, g.Client(false), "http://www.example.com/x"); status != 200 || body != "plain" {
		t.Fatalf("got %d %q", status, body)
	}
	if f := g.Recorder.Last(1); f.Question.HTTP.Scheme != "http" || f.Question.Dest.Port != 80 {
		t.Errorf("flow: %+v", f.Question)
	}
}

func TestRefuseInside(t *testing.T) {
	g := New(t)
	hits := 0
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hits++ }), "www.example.com")
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Rule: "no-grant", Reason: "class app has no grant for it"}
	})
	status, body, header := get(t, g.Client(true), "https://www.example.com/it's")
	if status != 403 || !strings.Contains(body, "exitgate grant add --class app --method GET --reason WHY 'https://www.example.com/it'\\''s'") {
		t.Errorf("got %d:\n%s", status, body)
	}
	if ps := header.Get("Proxy-Status"); !strings.HasPrefix(ps, "exitgate; error=http_request_denied; details=") {
		t.Errorf("Proxy-Status: %s", ps)
	}
	if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Status != 403 || f.Question.HTTP == nil {
		t.Errorf("flow: %+v", f)
	}
	if hits > 0 || len(g.Resolver.Asked()) > 0 {
		t.Errorf("a refused request reached the origin %d times, the resolver %v", hits, g.Resolver.Asked())
	}
}

// TestNothingSentIsCounted holds the account to what left: a request that had no connection to leave on, or was too
// long to begin with, sent nothing.
func TestNothingSentIsCounted(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		g := New(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		g.Resolver.Add("down.example.com", 443, l.Addr().String())
		l.Close()
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), "www.example.com")
		if status, body, _ := get(t, g.Client(h2), "https://down.example.com/"); status != 502 || !strings.Contains(body, "refused the connection") {
			t.Fatalf("got %d %s", status, body)
		}
		g.Decide(func(*exitgate.Question) exitgate.Verdict {
			return exitgate.Verdict{Action: exitgate.Allow, Limits: exitgate.Limits{RequestBody: 3}}
		})
		res, err := g.Client(h2).Post("https://www.example.com/", "text/plain", strings.NewReader("four"))
		if err != nil || res.StatusCode != 413 {
			t.Fatalf("got %v, %v, want 413", res, err)
		}
		res.Body.Close()
		for _, f := range g.Recorder.Wait(2) {
			if f.Sent != (exitgate.Bytes{}) {
				t.Errorf("%s: %+v sent, and nothing left", f.Question.HTTP.URL, f.Sent)
			}
		}
	}
}
