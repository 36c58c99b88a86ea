package gatetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// 64 clients that keep their connections make the gateway keep its own.
func TestConnectionsAreReused(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		h, conns := counted(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
		g.Origin(h, "www.example.com")
		tr := c.Transport.(*http.Transport)
		tr.MaxIdleConnsPerHost = 64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 5 {
					res, err := c.Get("https://www.example.com/")
					if err != nil {
						t.Error(err)
						return
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
		}
		wg.Wait()
		if n := conns(); n > 64 {
			t.Errorf("320 requests of 64 clients took %d upstream connections", n)
		}
		g.Recorder.Wait(320)
	})
}

// 1,000 requests at one time on HTTP/2, all of them open at the origin before the first is answered.
func TestThousandStreams(t *testing.T) {
	g := New(t)
	n := int64(1000)
	if raceDetector {
		n = 300 // the upstream's side opens connections for most of them, and handshakes are dear there
	}
	var came atomic.Int64
	all := make(chan bool)
	release := sync.OnceFunc(func() { close(all) })
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			return
		}
		if came.Add(1) == n {
			release()
		}
		<-all
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	}), "www.example.com")
	var conns []*http.ClientConn // of 250 streams each, which is what the gate allows
	for range 4 {
		c := g.speak("www.example.com", "h2")
		tr := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		cc := must[*http.ClientConn](t)(tr.NewClientConn(t.Context(), "https", "www.example.com:443"))
		// Before the gate's settings came, a client counts on 100 streams.
		res := must[*http.Response](t)(cc.RoundTrip(must[*http.Request](t)(http.NewRequest("GET", "https://www.example.com/", nil))))
		res.Body.Close()
		conns = append(conns, cc)
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := fmt.Sprint("request ", i)
			r, _ := http.NewRequest("POST", "https://www.example.com/", strings.NewReader(want))
			res, err := conns[i%4].RoundTrip(r)
			if err != nil {
				t.Error(err)
				release()
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || string(b) != want {
				t.Errorf("got %q, %v, want %q", b, err, want)
			}
		})
	}
	wg.Wait()
	for _, f := range g.Recorder.Wait(int(n) + 4) {
		if f.Outcome() != exitgate.OutcomeAllowed || f.Client.Proto != "HTTP/2.0" {
			t.Fatalf("flow: %s %v %s", f.Outcome(), f.Fault, f.Client.Proto)
		}
	}
}

// A drain lets what is under way come to its end, cuts the rest at its deadline, and every flow has its end before Shutdown returns.
func TestShutdownDrains(t *testing.T) {
	pairs(t, func(t *testing.T, g *Gate, c *http.Client) {
		finish, stuck := make(chan bool), make(chan bool)
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begin ")
			http.NewResponseController(w).Flush()
			if r.URL.Path == "/finish" {
				<-finish
				io.WriteString(w, "end")
				return
			}
			select {
			case <-stuck:
			case <-r.Context().Done():
			}
		}), "www.example.com")
		defer close(stuck)
		open := func(path string) *http.Response {
			res := must[*http.Response](t)(c.Get("https://www.example.com" + path))
			io.ReadFull(res.Body, make([]byte, 6))
			return res
		}
		idle := g.speak("idle.example.com")
		one, two := open("/finish"), open("/stuck")
		defer one.Body.Close()
		defer two.Body.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- g.Proxy.Shutdown(ctx) }()
		if _, err := idle.Read(make([]byte, 1)); err == nil {
			t.Error("an idle connection was spoken to")
		}
		close(finish)
		if b, err := io.ReadAll(one.Body); err != nil || string(b) != "end" {
			t.Errorf("the download under way ended with %q, %v", b, err)
		}
		select {
		case err := <-done:
			t.Fatalf("Shutdown did not wait: %v", err)
		default:
		}
		cancel()
		if _, err := io.ReadAll(two.Body); err == nil {
			t.Error("the download that was cut came to its end")
		}
		if err := within(t, done, "Shutdown to return"); err == nil {
			t.Error("Shutdown said nothing of what it cut")
		}
		flows := g.Recorder.Wait(g.Recorder.Begun())
		if len(flows) != 3 {
			t.Errorf("%d flows", len(flows))
		}
		for _, f := range flows {
			switch {
			case f.Question.HTTP != nil && f.Question.HTTP.Path == "/finish":
				if f.Outcome() != exitgate.OutcomeAllowed || f.ResponseBody != exitgate.BodyComplete {
					t.Errorf("the flow that ended: %s %v", f.Outcome(), f.Fault)
				}
			case f.Question.HTTP != nil:
				fault(t, f, "gateway", "connection_terminated")
			}
		}
	})
}

// Tunnels that are spliced end with the drain's deadline, too.
func TestShutdownCutsSplice(t *testing.T) {
	g := New(t)
	g.Decide(exempt(true, 0))
	o := newRaw(t, func(n int, c net.Conn) { io.Copy(c, c) })
	g.Resolver.Add("db.example.com", 5432, o.Addr)
	c := g.opened("db.example.com:5432")
	io.WriteString(c, "ping")
	io.ReadFull(c, make([]byte, 4))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Proxy.Shutdown(ctx); err == nil {
		t.Error("Shutdown said nothing of what it cut")
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is open")
	}
	f := g.Recorder.Last(1)
	fault(t, f, "gateway", "connection_terminated")
	if f.Sent.Body != 4 || f.Received.Body != 4 {
		t.Errorf("flow: sent %d, received %d", f.Sent.Body, f.Received.Body)
	}
}
