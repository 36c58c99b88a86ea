package gatetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// A pairing is two protocols: what the client speaks, and what the upstream is spoken to in.
type pairing struct {
	name string
	h2   bool // the client speaks HTTP/2
	set  []func(*mitm.Proxy)
}

var pairings = []pairing{
	{"h1-h1", false, nil},
	{"h2-h2", true, nil},
	{"h2-h1", true, []func(*mitm.Proxy){func(p *mitm.Proxy) { p.Upstream.DisableHTTP2 = true }}},
}

// pairs runs f for every pairing of protocols, each with a gate of its own.
func pairs(t *testing.T, f func(t *testing.T, g *Gate, c *http.Client), set ...func(*mitm.Proxy)) {
	t.Helper()
	for _, w := range pairings {
		t.Run(w.name, func(t *testing.T) {
			g := New(t, append(append([]func(*mitm.Proxy){}, w.set...), set...)...)
			f(t, g, g.Client(w.h2))
		})
	}
}

// bounded is a context that outlives no test.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// must returns v, or ends the test.
func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// within waits for ch, and fails the test when nothing comes.
func within[T any](t testing.TB, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited 20 s in vain: %s", what)
	}
	return v
}

// do sends a request and returns the answer with its body read.
func do(t testing.TB, c *http.Client, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	r := must[*http.Request](t)(http.NewRequest(method, url, body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res := must[*http.Response](t)(c.Do(r))
	defer res.Body.Close()
	return res, string(must[[]byte](t)(io.ReadAll(res.Body)))
}

// speak opens a tunnel to host and TLS in it, as an honest client does.
func (g *Gate) speak(host string, protos ...string) *tls.Conn {
	g.T.Helper()
	return g.insideAs(host+":443", host, protos...)
}

// answerOn reads one response from c.
func answerOn(t testing.TB, br *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res := must[*http.Response](t)(http.ReadResponse(br, &http.Request{Method: method}))
	defer res.Body.Close()
	return res, string(must[[]byte](t)(io.ReadAll(res.Body)))
}

// A rawOrigin is an upstream that speaks whatever serve makes of its connections.
type rawOrigin struct {
	Addr string
	l    net.Listener

	mu    sync.Mutex // guards the rest
	conns []net.Conn
}

// newRaw serves each accepted connection with serve, which owns it, and ends with the test. n counts connections
// from 1.
func newRaw(t testing.TB, serve func(n int, c net.Conn)) *rawOrigin {
	t.Helper()
	o := &rawOrigin{l: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))}
	o.Addr = o.l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := o.l.Accept()
			if err != nil {
				return
			}
			o.mu.Lock()
			o.conns = append(o.conns, c)
			o.mu.Unlock()
			wg.Go(func() { defer c.Close(); serve(n, c) })
		}
	})
	t.Cleanup(func() {
		o.l.Close()
		o.mu.Lock()
		for _, c := range o.conns {
			c.Close()
		}
		o.mu.Unlock()
		wg.Wait()
	})
	return o
}

// rawTLS is a raw origin behind TLS that is known as name, port 443. Protos is what it agrees to; none: HTTP/1.1.
func (g *Gate) rawTLS(name string, serve func(n int, c net.Conn), protos ...string) *rawOrigin {
	g.T.Helper()
	if protos == nil {
		protos = []string{"http/1.1"}
	}
	conf := &tls.Config{GetCertificate: g.Origins.forHello, NextProtos: protos}
	o := newRaw(g.T, func(n int, c net.Conn) {
		s := tls.Server(c, conf)
		if s.Handshake() == nil {
			serve(n, s)
		}
		s.Close()
	})
	g.Resolver.Add(name, 443, o.Addr)
	return o
}

// rawHTTP is rawTLS that reads each request's head and body whole and answers with answer(n, i), i counting
// requests of the connection from 1, until that is "".
func (g *Gate) rawHTTP(name string, answer func(n, i int, r *http.Request, body string) string) *rawOrigin {
	g.T.Helper()
	return g.rawTLS(name, func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		for i := 1; ; i++ {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			b, _ := io.ReadAll(r.Body)
			s := answer(n, i, r, string(b))
			if s == "" {
				return
			}
			io.WriteString(c, s)
		}
	})
}

// fault fails the test unless f ended with a fault of that type.
func fault(t testing.TB, f exitgate.Flow, step, typ string) {
	t.Helper()
	if f.Outcome() != exitgate.OutcomeFault || f.Fault.Type != typ || f.Fault.Step != step {
		t.Errorf("flow %s %s: outcome %s, fault %+v, verdict %+v; want a fault %s at %s", f.Kind, f.Question.Dest, f.Outcome(), f.Fault, f.Verdict, typ, step)
	}
}

// allow is the verdict of a policy that has nothing against it.
func allow(l exitgate.Limits) func(*exitgate.Question) exitgate.Verdict {
	return func(*exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:all", Limits: l}
	}
}

// exempt is a policy that splices.
func exempt(raw bool, bytes int64) func(*exitgate.Question) exitgate.Verdict {
	return func(*exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:x", Exemption: "x", Raw: raw, Limits: exitgate.Limits{Bytes: bytes}}
	}
}
