package gatetest

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// patient makes c wait for 100 for as long as the test runs.
func patient(c *http.Client) *http.Client {
	c.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
	return c
}

// A watched body says when it was read first.
type watched struct {
	io.Reader
	read atomic.Bool
}

func (w *watched) Read(b []byte) (int, error) {
	w.read.Store(true)
	return w.Reader.Read(b)
}

func expecting(t testing.TB, c *http.Client, body *watched) (res *http.Response, text string, continued bool) {
	t.Helper()
	r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/up", body))
	r.Header.Set("Expect", "100-continue")
	r.ContentLength = 4
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }}))
	res = must[*http.Response](t)(c.Do(r))
	defer res.Body.Close()
	return res, string(must[[]byte](t)(io.ReadAll(res.Body))), continued
}

func TestExpectAllowed(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%q %s", r.Header.Get("Expect"), b)
		}), "www.example.com")
		res, text, continued := expecting(t, patient(c), &watched{Reader: strings.NewReader("body")})
		want := `"100-continue" body`
		if res.ProtoMajor == 2 {
			want = `"" body` // net/http's HTTP/2 keeps Expect to itself: the gateway says 100, once policy has allowed
		}
		if res.StatusCode != 200 || text != want || !continued {
			t.Errorf("got %d %q, 100: %v", res.StatusCode, text, continued)
		}
	})
}

// A refusal stands on the header alone: the final answer comes, no 100, and not a byte of the body is sent.
func TestExpectRefused(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.NotFoundHandler(), "www.example.com")
		g.Decide(func(*exitgate.Question) exitgate.Verdict { return exitgate.Verdict{Rule: "no-grant"} })
		body := &watched{Reader: strings.NewReader("body")}
		res, _, continued := expecting(t, patient(c), body)
		if res.StatusCode != 403 || continued || body.read.Load() {
			t.Errorf("got %d, 100: %v, body read: %v", res.StatusCode, continued, body.read.Load())
		}
	})
}

// An upstream that answers at once is heard at once.
func TestExpectUpstreamDeclines(t *testing.T) {
	for _, status := range []int{417, 401, 200} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }), "www.example.com")
				body := &watched{Reader: strings.NewReader("body")}
				res, _, continued := expecting(t, patient(c), body)
				if res.StatusCode != status {
					t.Errorf("got %d", res.StatusCode)
				}
				f := g.Recorder.Last(1)
				if res.ProtoMajor == 1 && (continued || body.read.Load() || f.Sent.Body != 0) {
					t.Errorf("100: %v, body read: %v, %d bytes sent", continued, body.read.Load(), f.Sent.Body)
				}
				if f.Outcome() != exitgate.OutcomeAllowed {
					t.Errorf("flow: %s, sent %d", f.Outcome(), f.Sent.Body)
				}
			})
		})
	}
}

// An upstream that does not know Expect and waits for the body gets it (RFC 9110, section 10.1.1).
func TestExpectUpstreamSilent(t *testing.T) {
	g := New(t)
	g.rawHTTP("www.example.com", func(n, i int, r *http.Request, body string) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body
	})
	res, text, continued := expecting(t, patient(g.Client(false)), &watched{Reader: strings.NewReader("body")})
	if res.StatusCode != 200 || text != "body" || !continued {
		t.Errorf("got %d %q, 100: %v", res.StatusCode, text, continued)
	}
}

// caFile writes the interception root for a client that is another program.
func (g *Gate) caFile() string {
	g.T.Helper()
	name := filepath.Join(g.T.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.CA.Cert().Raw}), 0o600); err != nil {
		g.T.Fatal(err)
	}
	return name
}

// curl runs curl through the gate and returns what it printed on both outputs, and its error.
func (g *Gate) curl(args ...string) (string, error) {
	g.T.Helper()
	all := append([]string{"-sS", "--max-time", "20", "--proxy", "http://" + g.Addr, "--cacert", g.caFile()}, args...)
	b, err := exec.CommandContext(bounded(g.T), "curl", all...).CombinedOutput()
	return string(b), err
}

func TestExpectCurl(t *testing.T) {
	for _, version := range []string{"--http1.1", "--http2"} {
		t.Run(version, func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n)
			}), "www.example.com")
			name := filepath.Join(t.TempDir(), "body")
			os.WriteFile(name, make([]byte, 2<<20), 0o600)
			out, err := g.curl(version, "--expect100-timeout", "20", "-H", "Expect: 100-continue", "--data-binary", "@"+name, "https://www.example.com/up")
			if err != nil || out != fmt.Sprint(2<<20) {
				t.Errorf("curl says %q, %v", out, err)
			}
		})
	}
}

func TestEarlyHints(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := range 3 {
				w.Header().Set("Link", fmt.Sprintf("</%d.css>; rel=preload", i))
				w.Header().Set("Proxy-Status", "imitated")
				w.WriteHeader(103)
			}
			w.Header().Del("Link")
			io.WriteString(w, "page")
		}), "www.example.com")
		var hints []string
		r := must[*http.Request](t)(http.NewRequest("GET", "https://www.example.com/", nil))
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link"), h.Get("Proxy-Status")))
			return nil
		}}))
		res := must[*http.Response](t)(c.Do(r))
		defer res.Body.Close()
		if b, _ := io.ReadAll(res.Body); string(b) != "page" || res.Header.Get("Link") != "" || res.Header.Get("Proxy-Status") != "" {
			t.Errorf("the final answer: %q %v", b, res.Header)
		}
		want := []string{"103 </0.css>; rel=preload", "103 </1.css>; rel=preload", "103 </2.css>; rel=preload"}
		if !reflect.DeepEqual(hints, want) {
			t.Errorf("hints: %q", hints)
		}
	})
}

// An upstream that hints without end is broken off.
func TestEarlyHintsWithoutEndRegression(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		left := make(chan bool, 1)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			for r.Context().Err() == nil {
				w.WriteHeader(103)
			}
			left <- true
		}), "www.example.com")
		if res, _ := do(t, c, "GET", "https://www.example.com/", nil); res.StatusCode != 502 {
			t.Errorf("got %d", res.StatusCode)
		}
		within(t, left, "the upstream to be left")
		fault(t, g.Recorder.Last(1), "receive", "http_protocol_error")
	})
}

// A client of HTTP/1.0 knows no 1xx and no chunks.
func TestHTTP10(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "5")
		}
		w.WriteHeader(103)
		io.WriteString(w, "known")
		http.NewResponseController(w).Flush()
		w.Header().Set(http.TrailerPrefix+"X-T", "v")
	}), "www.example.com")
	talk := func(c *tls.Conn, path, extra string) string {
		fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: www.example.com\r\n%s\r\n", path, extra)
		var all strings.Builder
		io.Copy(&all, c)
		return all.String()
	}
	for _, tc := range []struct{ path, extra string }{{"/known", ""}, {"/unknown", ""}, {"/unknown", "Connection: keep-alive\r\n"}} {
		s := talk(g.speak("www.example.com"), tc.path, tc.extra)
		if !strings.HasPrefix(s, "HTTP/1.0 200 OK\r\n") && !strings.HasPrefix(s, "HTTP/1.1 200 OK\r\n") ||
			!strings.HasSuffix(s, "\r\n\r\nknown") || strings.Contains(s, "hunked") || strings.Contains(s, "103") {
			t.Errorf("%s %q: got %q", tc.path, tc.extra, s)
		}
	}
	c := g.speak("www.example.com")
	br := bufio.NewReader(c)
	for range 3 { // kept alive, where the client asks for it and the length is known
		io.WriteString(c, "GET /known HTTP/1.0\r\nHost: www.example.com\r\nConnection: keep-alive\r\n\r\n")
		if res, body := answerOn(t, br, "GET"); res.StatusCode != 200 || body != "known" || !strings.EqualFold(res.Header.Get("Connection"), "keep-alive") {
			t.Fatalf("got %v %q", res, body)
		}
	}
}
