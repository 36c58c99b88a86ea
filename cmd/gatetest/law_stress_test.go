package gatetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/mitm"
)

// TestMisbehavingClients is law 3 as a property: whatever hundreds of clients do, each that sent a byte has a flow,
// each flow has one end (the Recorder sees to that), and nothing of them is left.
func TestMisbehavingClients(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("clients", func(t *testing.T) { misbehave(t, 400) })
	settled(t, before)
}

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func misbehave(t *testing.T, n int) {
	log := &logged{}
	g := New(t, quiet(log))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		switch {
		case q.Dest.Host == "exempt.example.com" && q.Stage == exitgate.StageConnect:
			return exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:x", Raw: q.TLS == nil}
		case q.HTTP != nil && strings.HasPrefix(q.HTTP.Path, "/no"), q.Dest.Host == "no.example.com":
			return refused(q)
		}
		return exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:all", Limits: exitgate.Limits{RequestBody: 64 << 10, ResponseBody: 512 << 10}}
	})
	h := http.HandlerFunc(unreliable)
	s := g.Origin(h, "www.example.com", "no.example.com", "exempt.example.com")
	g.PlainOrigin(h, "www.example.com")
	g.Resolver.Add("dead.example.com", 443, "127.0.0.1:1")
	_ = s
	var clients sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range n {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			c := g.Dial()
			defer c.Close()
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			behaviours[r.IntN(len(behaviours))](g, c, r)
		})
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Proxy.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v; %d connections are open", err, g.Proxy.Connections())
	}
	conns := map[exitgate.ID]bool{}
	for _, f := range g.Recorder.Wait(0) {
		conns[f.Conn] = true
		if f.Fault != nil && f.Fault.Type == "proxy_internal_error" {
			t.Errorf("a bug: %s", describe(f))
		}
	}
	if len(conns) != n {
		t.Errorf("%d connections sent bytes, %d have flows", n, len(conns))
	}
	if strings.Contains(log.String(), "panic") {
		t.Error(log)
	}
}

// unreliable is an origin that does one of the things that origins do.
func unreliable(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/abort"):
		w.Write(make([]byte, 10000))
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(r.URL.Path, "/hang"):
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, "/big"):
		w.Write(make([]byte, 1<<20))
	case strings.HasPrefix(r.URL.Path, "/early"):
		w.WriteHeader(413)
	default:
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}
}

var paths = []string{"/ok", "/no", "/abort", "/big", "/early", "/bad/../path", "/ok?token=x"}

var behaviours = []func(*Gate, net.Conn, *rand.Rand){
	func(_ *Gate, c net.Conn, r *rand.Rand) { // garbage
		b := make([]byte, 1+r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		c.Write(b)
		if r.IntN(2) == 0 {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
	},
	func(g *Gate, c net.Conn, r *rand.Rand) { // part of a request
		s := fmt.Sprintf("POST http://www.example.com%s HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 100\r\n\r\n", pick(r)) + strings.Repeat("x", 100)
		io.WriteString(c, s[:1+r.IntN(len(s)-1)])
		if r.IntN(2) == 0 {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}
	},
	func(g *Gate, c net.Conn, r *rand.Rand) { // a few requests on one connection, the last one bad
		br := bufio.NewReader(c)
		for range r.IntN(4) {
			fmt.Fprintf(c, "GET http://www.example.com%s HTTP/1.1\r\nHost: www.example.com\r\n\r\n", pick(r))
			if _, err := tryReceive(br, "GET"); err != nil {
				return
			}
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost : x\r\n\r\n")
		io.Copy(io.Discard, c)
	},
	func(g *Gate, c net.Conn, r *rand.Rand) { // pipelining, and leaving
		for range 1 + r.IntN(5) {
			fmt.Fprintf(c, "GET http://www.example.com%s HTTP/1.1\r\nHost: www.example.com\r\n\r\n", pick(r))
		}
		io.WriteString(c, "GET http://www.example.com/ok HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
		io.CopyN(io.Discard, c, int64(r.IntN(3000)))
	},
	func(g *Gate, c net.Conn, r *rand.Rand) { // CONNECT, and anything
		names := []string{"www.example.com", "no.example.com", "exempt.example.com", "dead.example.com", "missing.example.com"}
		name := names[r.IntN(len(names))]
		fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", name, name)
		if r.IntN(5) == 0 {
			return
		}
		if a, err := tryReceive(oneByOne(c), "CONNECT"); err != nil || a.status != 200 {
			return
		}
		inTheTunnel(g, c, name, r)
	},
}

func pick(r *rand.Rand) string { return paths[r.IntN(len(paths))] }

func inTheTunnel(g *Gate, c net.Conn, name string, r *rand.Rand) {
	switch r.IntN(5) {
	case 0:
		return
	case 1:
		io.WriteString(c, "SSH-2.0-x\r\n")
		io.Copy(io.Discard, c)
		return
	case 2:
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s:443\r\nConnection: close\r\n\r\n", pick(r), name)
		io.CopyN(io.Discard, c, int64(r.IntN(100)))
		return
	}
	conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: name}
	if name == "exempt.example.com" {
		conf.RootCAs = g.Origins.Pool()
	}
	switch r.IntN(6) {
	case 0:
		conf.ServerName = "other.example.com"
	case 1:
		conf.RootCAs = g.Origins.Pool() // does not trust the gate
	}
	h2 := r.IntN(2) == 0
	if h2 {
		conf.NextProtos = []string{"h2"}
	}
	t := tls.Client(c, conf)
	if t.Handshake() != nil || r.IntN(6) == 0 {
		return
	}
	if !h2 {
		fmt.Fprintf(t, "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n", pick(r), name)
		for range r.IntN(12) {
			fmt.Fprintf(t, "2000\r\n%s\r\n", strings.Repeat("x", 0x2000))
		}
		if r.IntN(2) == 0 {
			io.WriteString(t, "0\r\n\r\n")
			io.CopyN(io.Discard, t, int64(r.IntN(2000)))
		}
		return
	}
	tr := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return t, nil }}
	cc, err := tr.NewClientConn(context.Background(), "https", name+":443")
	if err != nil {
		return
	}
	for range 1 + r.IntN(4) {
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+name+pick(r), strings.NewReader(strings.Repeat("x", r.IntN(100000))))
		res, err := cc.RoundTrip(req)
		if err == nil {
			io.CopyN(io.Discard, res.Body, int64(r.IntN(20000)))
			if r.IntN(2) == 0 {
				res.Body.Close()
			}
		}
		cancel()
	}
}

// TestShutdown is law 3 at the end: in whatever phase a flow is, Shutdown ends it, and nothing is recorded after.
func TestShutdown(t *testing.T) {
	for _, phase := range []string{"idle", "half a request", "in the tunnel", "tls half", "handshaken", "deciding", "waiting", "streaming", "uploading", "splicing", "h2 waiting"} {
		t.Run(phase, func(t *testing.T) {
			sniffed := make(chan struct{}, 100)
			g := New(t, func(p *mitm.Proxy) {
				p.Sniff = func(b []byte) (exitgate.Opening, error) {
					sniffed <- struct{}{}
					return inspect.Sniff(b)
				}
			})
			reached := make(chan struct{}, 1)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if phase == "streaming" {
					w.Write(make([]byte, 100))
					w.(http.Flusher).Flush()
				}
				reached <- struct{}{}
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}), "www.example.com")
			inPhase(t, g, phase, reached, sniffed)
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // no patience: everything is cut
			g.Proxy.Shutdown(ctx)
			n := g.Recorder.Begun()
			if want := map[bool]int{true: 0, false: 1}[phase == "idle"]; n != want {
				t.Errorf("%d flows, want %d", n, want)
				for _, f := range g.Recorder.Wait(0) {
					t.Log(describe(f))
				}
			}
			if f := g.Recorder.Wait(0); len(f) != n {
				t.Errorf("%d flows begun and %d ended when Shutdown returned", n, len(f))
			}
			if n := g.Proxy.Connections(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
		})
	}
}

func inPhase(t *testing.T, g *Gate, phase string, reached, sniffed <-chan struct{}) {
	const request = "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
	hello := clientHello(t, "www.example.com")
	seen := make(chan struct{}, 1)
	switch phase {
	case "idle":
		g.Dial()
		g.waitFor(1)
		return
	case "half a request":
		send(t, g.Dial(), "GET http://www.example.com/ HTTP/1.1\r\nHost")
		<-sniffed
		return
	case "in the tunnel":
		g.opened("www.example.com:443")
		return
	case "tls half":
		c := g.opened("www.example.com:443")
		<-sniffed // of CONNECT
		send(t, c, string(hello[:100]))
		<-sniffed
		return
	case "handshaken":
		g.insideAs("www.example.com:443", "www.example.com")
		return
	case "deciding":
		leave := make(chan struct{})
		g.Decide(func(q *exitgate.Question) exitgate.Verdict {
			if q.HTTP != nil {
				seen <- struct{}{}
				<-leave
			}
			return allowed(q)
		})
		c := g.insideAs("www.example.com:443", "www.example.com")
		send(t, c, request)
		<-seen
		go func() { // the policy answers once the connection is gone
			io.Copy(io.Discard, c)
			close(leave)
		}()
		return
	case "uploading":
		c := g.insideAs("www.example.com:443", "www.example.com")
		send(t, c, "POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 100\r\n\r\nsome")
	case "splicing":
		g.Decide(spliceAll)
		c := tls.Client(g.opened("www.example.com:443"), &tls.Config{RootCAs: g.Origins.Pool(), ServerName: "www.example.com"})
		send(t, c, request)
	case "h2 waiting":
		h := newRawH2(t, g.insideAs("www.example.com:443", "www.example.com", "h2"))
		h.headers(true, ":method", "GET", ":scheme", "https", ":authority", "www.example.com", ":path", "/")
	default:
		c := g.insideAs("www.example.com:443", "www.example.com")
		send(t, c, request)
	}
	<-reached
}

// waitFor returns when the gate has n connections.
func (g *Gate) waitFor(n int) {
	g.T.Helper()
	for deadline := time.Now().Add(10 * time.Second); g.Proxy.Connections() != n; runtime.Gosched() {
		if time.Now().After(deadline) {
			g.T.Fatalf("%d connections, want %d", g.Proxy.Connections(), n)
		}
	}
}

func quiet(l *logged) func(*mitm.Proxy) {
	return func(p *mitm.Proxy) { p.Logger = slog.New(slog.NewTextHandler(l, nil)) }
}
