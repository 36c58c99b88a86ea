package gatetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/exitgate/exitgate"
)

// A body that breaks off is an error at the client, and the next request starts clean.
func TestTruncatedAnswer(t *testing.T) {
	for _, tc := range []struct{ name, answer string }{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"},
		{"inside a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort"},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				var answered atomic.Int64
				g.rawTLS("www.example.com", func(n int, c net.Conn) {
					br := bufio.NewReader(c)
					for {
						r, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						if r.URL.Path != "/next" {
							io.WriteString(c, tc.answer)
							return
						}
						answered.Add(1)
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
					}
				})
				res := must[*http.Response](t)(c.Get("https://www.example.com/"))
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err == nil || string(b) != "short" {
					t.Errorf("got %q, %v", b, err)
				}
				if _, body := do(t, c, "GET", "https://www.example.com/next", nil); body != "next" {
					t.Errorf("the next answer is %q", body)
				}
				f := g.Recorder.Wait(1)[0]
				fault(t, f, "receive", "http_response_incomplete")
				if f.ResponseBody != exitgate.BodyCut || f.Received.Body != 5 || f.Status != 200 {
					t.Errorf("flow: %d %q %d", f.Status, f.ResponseBody, f.Received.Body)
				}
			})
		})
	}
}

// An upstream that closes what was idle costs the client nothing, as far as a request may be sent again.
func TestIdleConnectionClosedByUpstream(t *testing.T) {
	for _, p := range pairings {
		if p.name == "h2-h2" {
			continue
		}
		for _, method := range []string{"GET", "PUT"} {
			t.Run(p.name+method, func(t *testing.T) {
				g := New(t, p.set...)
				o := g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
					if i == 2 && n == 1 {
						return "" // closes after the second request came, as one does whose patience ended just then
					}
					return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%d-%d", n, i)
				})
				_ = o
				c := g.Client(p.h2)
				if _, body := do(t, c, "GET", "https://www.example.com/", nil); body != "1-1" {
					t.Fatalf("got %q", body)
				}
				if method == "PUT" && p.h2 {
					return // net/http sends only GET and its like again
				}
				if res, body := do(t, c, method, "https://www.example.com/", nil); body != "2-1" {
					t.Errorf("got %d %q", res.StatusCode, body)
				}
				if f := g.Recorder.Last(2); f.Outcome() != exitgate.OutcomeAllowed {
					t.Errorf("flow: %s %v", f.Outcome(), f.Fault)
				}
			})
		}
	}
}

// A request with a body is not sent twice: the client learns that it may have been done.
func TestNotSentAgain(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		var posts atomic.Int64
		g.rawHTTP("www.example.com", func(n, i int, r *http.Request, _ string) string {
			if r.Method == "POST" {
				posts.Add(1)
				return ""
			}
			return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		})
		do(t, c, "GET", "https://www.example.com/", nil)
		if res, _ := do(t, c, "POST", "https://www.example.com/", strings.NewReader("order")); res.StatusCode != 502 || posts.Load() != 1 {
			t.Errorf("got %d, posted %d times", res.StatusCode, posts.Load())
		}
		fault(t, g.Recorder.Last(2), "wait", "connection_terminated")
	})
}

func TestUpstreamEnds(t *testing.T) {
	for _, how := range []string{"close", "reset"} {
		t.Run(how, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				o := newRaw(t, func(n int, c net.Conn) {
					c.Read(make([]byte, 4096))
					if how == "reset" {
						c.(*net.TCPConn).SetLinger(0)
					}
				})
				g.Resolver.Add("www.example.com", 80, o.Addr)
				if res, _ := do(t, c, "GET", "http://www.example.com/", nil); res.StatusCode != 502 {
					t.Errorf("got %d", res.StatusCode)
				}
				fault(t, g.Recorder.Last(1), "wait", "connection_terminated")
			})
		})
	}
}

// dead returns an address on loopback where nothing listens.
func dead(t testing.TB) string {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().String()
}

func TestCannotReach(t *testing.T) {
	for _, tc := range []struct{ name, step, typ, details string }{
		{"refused.example.com", "connect", "connection_refused", "refused the connection"},
		{"missing.example.com", "resolve", "dns_error", "does not exist"},
	} {
		for _, scheme := range []string{"https", "http"} {
			t.Run(tc.name+scheme, func(t *testing.T) {
				pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
					g.Resolver.Add("refused.example.com", 443, dead(t))
					g.Resolver.Add("refused.example.com", 80, dead(t))
					res, body := do(t, c, "GET", scheme+"://"+tc.name+"/", nil)
					ps := res.Header.Get("Proxy-Status")
					if res.StatusCode != 502 || !strings.HasPrefix(ps, "exitgate; error="+tc.typ+"; ") || !strings.Contains(body, tc.details) ||
						!strings.Contains(body, "This is not a refusal") {
						t.Errorf("got %d, %s\n%s", res.StatusCode, ps, body)
					}
					fault(t, g.Recorder.Last(1), tc.step, tc.typ)
				})
			})
		}
	}
}

// A gateway that speaks HTTP/2 with a host reaches upstreams that do not, and says so of upstreams that speak nothing else to hosts
// that do not.
func TestUpstreamOfOneVersion(t *testing.T) {
	answer := func(n, i int, r *http.Request, _ string) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + r.Proto
	}
	g := New(t)
	g.rawHTTP("old.example.com", answer)
	for _, h2 := range []bool{false, true} {
		if res, body := do(t, g.Client(h2), "GET", "https://old.example.com/", nil); res.StatusCode != 200 || body != "HTTP/1.1" {
			t.Errorf("HTTP/1.1 only, h2=%v: got %d %q", h2, res.StatusCode, body)
		}
	}
	g.rawTLS("new.example.com", func(int, net.Conn) {}, "h3") // crypto/tls lets HTTP/1.1 pass where it is asked for h2 alone
	res, body := do(t, g.Client(false), "GET", "https://new.example.com/", nil)
	if res.StatusCode != 502 || !strings.Contains(body, "no application protocol") {
		t.Errorf("no common protocol: got %d %s", res.StatusCode, body)
	}
	fault(t, g.Recorder.Last(3), "tls", "tls_alert_received")
}

// The first request on HTTP/2 to an upstream that speaks HTTP/1.1 has its body sent, on the connection that found it out.
func TestFirstUploadToHTTP1(t *testing.T) {
	g := New(t)
	conns := make(chan int, 10)
	g.rawHTTP("old.example.com", func(n, i int, r *http.Request, body string) string {
		conns <- n
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	c := g.Client(true)
	for _, body := range []string{"first", "second"} {
		if res, got := do(t, c, "POST", "https://old.example.com/", struct{ io.Reader }{strings.NewReader(body)}); res.StatusCode != 200 || got != body || res.ProtoMajor != 2 {
			t.Errorf("got %d %q", res.StatusCode, got)
		}
		if n := within(t, conns, "the request"); n != 1 {
			t.Errorf("it came on connection %d", n)
		}
	}
	for i, f := range g.Recorder.Wait(2) {
		if f.Outcome() != exitgate.OutcomeAllowed || f.RequestBody != exitgate.BodyComplete || f.Upstream.Proto != "HTTP/1.1" || (f.Phases.TLS > 0) != (i == 0) {
			t.Errorf("flow %d: %s %v, %q, %+v, %+v", i, f.Outcome(), f.Fault, f.RequestBody, f.Upstream, f.Phases)
		}
	}
}
