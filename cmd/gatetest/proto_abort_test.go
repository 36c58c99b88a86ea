package gatetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// A client that leaves is missed upstream at once, whatever it was doing.
func TestClientAbort(t *testing.T) {
	for _, doing := range []string{"waiting", "uploading", "downloading"} {
		t.Run(doing, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				at, gone := make(chan bool, 1), make(chan bool, 1)
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch doing {
					case "uploading":
						io.ReadFull(r.Body, make([]byte, 10))
						at <- true
						io.Copy(io.Discard, r.Body)
					case "downloading":
						w.Write(make([]byte, 10))
						http.NewResponseController(w).Flush()
						fallthrough
					case "waiting":
						if doing == "waiting" {
							at <- true
						}
						<-r.Context().Done()
					}
					gone <- true
				}), "www.example.com")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var body io.Reader
				if doing == "uploading" {
					pr, pw := io.Pipe()
					go func() { pw.Write(make([]byte, 10)); <-ctx.Done(); pw.CloseWithError(ctx.Err()) }()
					body = pr
				}
				ended := make(chan error, 1)
				go func() {
					res, err := c.Do(must[*http.Request](t)(http.NewRequestWithContext(ctx, "POST", "https://www.example.com/", body)))
					if err == nil {
						if doing == "downloading" {
							io.ReadFull(res.Body, make([]byte, 10))
							at <- true
						}
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					ended <- err
				}()
				within(t, at, "the request to come")
				cancel()
				within(t, ended, "the client to end")
				within(t, gone, "the origin to learn of it")
				f := g.Recorder.Last(1)
				fault(t, f, "client", "client_gone")
				if doing == "uploading" && (f.RequestBody != exitgate.BodyCut || f.Sent.Body != 10) || doing == "downloading" && (f.ResponseBody != exitgate.BodyCut || f.Status != 200) ||
					doing != "downloading" && f.Status != 0 {
					t.Errorf("flow: status %d, request %q %d, response %q", f.Status, f.RequestBody, f.Sent.Body, f.ResponseBody)
				}
			})
		})
	}
}

// short makes everything that may be idle end soon.
func short(p *mitm.Proxy) {
	p.Timeouts.BodyIdle = 300 * time.Millisecond
	p.Timeouts.ResponseHeader = 300 * time.Millisecond
	p.Timeouts.Connect = 300 * time.Millisecond
	p.Timeouts.UpstreamTLS = 300 * time.Millisecond
}

func TestSlowHeadOfAnswer(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		gone := make(chan bool, 1)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); gone <- true }), "www.example.com")
		if res, _ := do(t, c, "GET", "https://www.example.com/", nil); res.StatusCode != 504 {
			t.Errorf("got %d", res.StatusCode)
		}
		fault(t, g.Recorder.Last(1), "wait", "http_response_timeout")
		within(t, gone, "the origin to be left")
	}, short)
}

// A head that comes byte by byte is not a head that came in time.
func TestDribbledHeadOfAnswer(t *testing.T) {
	g := New(t, short)
	left := make(chan bool, 1)
	g.rawTLS("www.example.com", func(n int, c net.Conn) {
		c.Read(make([]byte, 4096))
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: ")
		for range tick.C {
			if _, err := c.Write([]byte("a")); err != nil {
				left <- true
				return
			}
		}
	})
	if res, _ := do(t, g.Client(false), "GET", "https://www.example.com/", nil); res.StatusCode != 504 {
		t.Errorf("got %d", res.StatusCode)
	}
	fault(t, g.Recorder.Last(1), "wait", "http_response_timeout")
	within(t, left, "the origin to be left")
}

func TestAnswerStalls(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		gone := make(chan bool, 1)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begin")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			gone <- true
		}), "www.example.com")
		res := must[*http.Response](t)(c.Get("https://www.example.com/"))
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err == nil || string(b) != "begin" {
			t.Errorf("got %q, %v", b, err)
		}
		fault(t, g.Recorder.Last(1), "receive", "connection_read_timeout")
		within(t, gone, "the origin to be left")
	}, short)
}

// A host that stops in the middle of its upload holds neither the gateway nor the upstream.
func TestUploadStallsRegression(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		gone := make(chan bool, 1)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			gone <- true
		}), "www.example.com")
		pr, pw := io.Pipe()
		go pw.Write([]byte("begin"))
		ended := make(chan int, 1)
		go func() {
			res, err := c.Do(must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", pr)))
			if err != nil {
				ended <- 0
				return
			}
			res.Body.Close()
			ended <- res.StatusCode
		}()
		fault(t, g.Recorder.Last(1), "client", "connection_read_timeout")
		within(t, gone, "the origin to be left")
		pw.CloseWithError(io.ErrUnexpectedEOF) // net/http's client waits for its body
		if status := within(t, ended, "the client to end"); status != 408 && status != 0 {
			t.Errorf("got %d", status)
		}
	}, short)
}

// A host that stops reading its download is let go.
func TestDownloadNotReadRegression(t *testing.T) {
	for _, p := range pairings {
		t.Run(p.name, func(t *testing.T) {
			g := New(t, append(p.set, short)...)
			gone := make(chan bool, 1)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(w, &noise{left: 1 << 30})
				gone <- true
			}), "www.example.com")
			if p.h2 {
				newRawH2(t, g.speak("www.example.com", "h2")).headers(true, ":method", "GET", ":scheme", "https", ":authority", "www.example.com", ":path", "/")
			} else {
				fmt.Fprint(g.speak("www.example.com"), "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
			}
			within(t, gone, "the origin to be let go")
			if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeFault || f.Fault.Step != "client" || f.ResponseBody != exitgate.BodyCut {
				t.Errorf("flow: %s %+v %q", f.Outcome(), f.Fault, f.ResponseBody)
			}
		})
	}
}

// An upstream that stops reading an upload, and does not answer, is given up.
func TestUploadNotReadRegression(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		done := make(chan bool)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-done }), "www.example.com")
		defer close(done)
		r := must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", &noise{left: 1 << 30}))
		res, err := c.Do(r)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != 504 {
				t.Errorf("got %d", res.StatusCode)
			}
		}
		fault(t, g.Recorder.Last(1), "send", "connection_write_timeout")
	}, short)
}

func TestDurationLimit(t *testing.T) {
	for _, when := range []string{"before the head", "in the body", "in the upload"} {
		t.Run(when, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				g.Decide(allow(exitgate.Limits{Duration: 300 * time.Millisecond}))
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch when {
					case "in the upload":
						io.Copy(io.Discard, r.Body)
						return
					case "in the body":
						io.WriteString(w, "begin")
						http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				}), "www.example.com")
				if when == "in the upload" {
					pr, pw := io.Pipe()
					defer pw.Close()
					go c.Do(must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/", pr)))
					if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit {
						t.Errorf("flow: %s, rule %s, fault %v", f.Outcome(), f.Verdict.Rule, f.Fault)
					}
					return
				}
				res := must[*http.Response](t)(c.Get("https://www.example.com/"))
				defer res.Body.Close()
				_, err := io.ReadAll(res.Body)
				if when == "in the body" && err == nil || when == "before the head" && res.StatusCode != 504 {
					t.Errorf("got %d, %v", res.StatusCode, err)
				}
				if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit {
					t.Errorf("flow: %s, rule %s, fault %v", f.Outcome(), f.Verdict.Rule, f.Fault)
				}
			})
		})
	}
}
