package gatetest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// Each event is read by the client before the origin sends the next.
func TestEventsArriveAsSent(t *testing.T) {
	for _, kind := range []string{"events", "poll", "known length"} {
		t.Run(kind, func(t *testing.T) {
			pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
				seen := make(chan bool)
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch kind {
					case "events":
						w.Header().Set("Content-Type", "text/event-stream")
					case "known length":
						w.Header().Set("Content-Length", "36")
					}
					http.NewResponseController(w).Flush()
					for i := range 4 {
						if _, ok := <-seen; !ok {
							return
						}
						fmt.Fprintf(w, "data: %d\n\n", i)
						http.NewResponseController(w).Flush()
					}
				}), "www.example.com")
				defer close(seen)
				res := must[*http.Response](t)(c.Get("https://www.example.com/events"))
				defer res.Body.Close()
				br := bufio.NewReader(res.Body)
				for i := range 4 {
					seen <- true
					line, err := br.ReadString('\n')
					if err != nil || line != fmt.Sprintf("data: %d\n", i) {
						t.Fatalf("event %d: %q, %v", i, line, err)
					}
					br.ReadString('\n')
				}
				if b, err := io.ReadAll(br); err != nil || len(b) != 0 {
					t.Errorf("after the events: %q, %v", b, err)
				}
			})
		})
	}
}

// A client and an origin talk in turns, both bodies open at once.
func TestFullDuplex(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			br := bufio.NewReader(r.Body)
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "echo "+line)
				rc.Flush()
			}
		}), "www.example.com")
		pr, pw := io.Pipe()
		res := must[*http.Response](t)(c.Do(must[*http.Request](t)(http.NewRequest("POST", "https://www.example.com/talk", pr))))
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 5 {
			fmt.Fprintf(pw, "line %d\n", i)
			if line, err := br.ReadString('\n'); err != nil || line != fmt.Sprintf("echo line %d\n", i) {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		pw.Close()
		if b, err := io.ReadAll(br); err != nil || len(b) != 0 {
			t.Errorf("after the talk: %q, %v", b, err)
		}
		if f := g.Recorder.Last(1); f.Sent.Body != 35 || f.Received.Body != 60 || f.RequestBody != "complete" || f.ResponseBody != "complete" {
			t.Errorf("flow: sent %d %s, received %d %s", f.Sent.Body, f.RequestBody, f.Received.Body, f.ResponseBody)
		}
	})
}

// A stream of events is silent as long as there are none: what bounds the silence of other bodies does not cut it, nor an
// upgraded connection; and it has a bound of its own.
func TestSilentStreams(t *testing.T) {
	for _, tc := range []struct {
		contentType string
		stream      time.Duration
		whole       bool
	}{
		{"text/event-stream; charset=utf-8", 0, true}, {"Application/gRPC+proto", 0, true}, {"application/x-ndjson", 0, true},
		{"text/plain", 0, false}, {"", 0, false}, {"text/event-stream", 100 * time.Millisecond, false},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v h2=%v", tc.contentType, tc.stream, h2), func(t *testing.T) {
				t.Parallel()
				g := New(t, func(p *mitm.Proxy) { p.Timeouts.BodyIdle, p.Timeouts.StreamIdle = 100*time.Millisecond, tc.stream })
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header()["Content-Type"] = []string{tc.contentType}
					io.WriteString(w, "first")
					http.NewResponseController(w).Flush()
					select {
					case <-time.After(500 * time.Millisecond): // no event for a while
					case <-r.Context().Done():
						return
					}
					io.WriteString(w, " second")
				}), www)
				res := must[*http.Response](t)(g.Client(h2).Get("https://" + www + "/"))
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if (err == nil && string(b) == "first second") != tc.whole {
					t.Errorf("got %q, %v", b, err)
				}
				if f := g.Recorder.Last(1); (f.Outcome() == exitgate.OutcomeAllowed) != tc.whole {
					t.Errorf("flow: %s", describe(f))
				}
			})
		}
	}
}
