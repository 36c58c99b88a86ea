package gatetest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// burst sends n requests at one time on one HTTP/2 connection.
func burst(t *testing.T, g *Gate, n int, want int) {
	t.Helper()
	h := newRawH2(t, g.insideAs(www+":443", www, "h2"))
	for range n {
		h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", "/")
	}
	go io.Copy(io.Discard, h.conn) // somebody must read the answers
	for _, f := range g.Recorder.Wait(n) {
		if f.Status != want {
			t.Errorf("flow: %s", describe(f))
		}
	}
}

// TestColdBurst: many requests that come at one time for an upstream that nothing is connected to share connections, and
// do not make one each.
func TestColdBurst(t *testing.T) {
	const n = 90 // below what a connection takes by itself before its settings are known
	g := New(t)
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{GetCertificate: g.Origins.forHello, NextProtos: []string{"h2"}}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	g.Resolver.Add(www, 443, s.Listener.Addr().String())
	burst(t, g, n, 200)
	t.Logf("%d requests, %d connections", n, conns.Load())
	if conns.Load() > 5 {
		t.Errorf("%d requests made %d connections", n, conns.Load())
	}
}

// TestColdBurstHTTP1: the same for an upstream that turns out to speak HTTP/1.1: nobody waits for another's request.
func TestColdBurstHTTP1(t *testing.T) {
	const n = 20
	g := New(t)
	var all sync.WaitGroup
	all.Add(n)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Done()
		all.Wait() // each is answered when all have come
		fmt.Fprint(w, r.Proto)
	}))
	s.TLS = &tls.Config{GetCertificate: g.Origins.forHello, NextProtos: []string{"http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	g.Resolver.Add(www, 443, s.Listener.Addr().String())
	burst(t, g, n, 200)
}

// TestColdBurstFails: an upstream that cannot be reached is a fault to each of them, and the next one finds it when it is back.
func TestColdBurstFails(t *testing.T) {
	g := New(t)
	g.Resolver.Add(www, 443, dead(t))
	burst(t, g, 30, 502)
	g.Origin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), www)
	if res, body := do(t, g.Client(true), "GET", "https://"+www+"/", nil); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
