package gatetest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"
)

func benches(b *testing.B, f func(b *testing.B, g *Gate, c *http.Client)) {
	for _, p := range pairings[:2] {
		b.Run(p.name, func(b *testing.B) {
			g := New(b, p.set...)
			f(b, g, g.Client(p.h2))
		})
	}
}

// BenchmarkGet carries small requests one after another on one connection. Allocations are those of client,
// gateway and origin together; BenchmarkGetDirect tells how many of them are not the gateway's.
func BenchmarkGet(b *testing.B) {
	benches(b, func(b *testing.B, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "www.example.com")
		b.ReportAllocs()
		for b.Loop() {
			benchGet(b, c, "https://www.example.com/path?q=1")
		}
	})
}

// BenchmarkGetDirect is BenchmarkGet without a gateway.
func BenchmarkGetDirect(b *testing.B) {
	benches(b, func(b *testing.B, g *Gate, c *http.Client) {
		s := g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
		t := c.Transport.(*http.Transport)
		t.Proxy, t.TLSClientConfig.RootCAs, t.TLSClientConfig.ServerName = nil, g.Origins.Pool(), "www.example.com"
		b.ReportAllocs()
		for b.Loop() {
			benchGet(b, c, s.URL+"/path?q=1")
		}
	})
}

func benchGet(b *testing.B, c *http.Client, url string) {
	res, err := c.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != 2 || err != nil || res.StatusCode != 200 {
		b.Fatal(n, err, res.Status)
	}
	res.Body.Close()
}

// BenchmarkConnection opens a tunnel, does a full handshake in it, and carries one request.
func BenchmarkConnection(b *testing.B) {
	g := New(b)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "www.example.com")
	conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "www.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		raw := g.opened("www.example.com:443")
		c := tls.Client(raw, conf)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
		if n, err := io.Copy(io.Discard, c); n == 0 || err != nil {
			b.Fatal(n, err)
		}
		raw.Close()
	}
}

const piece = 64 << 20 // bytes of one upload or download in a benchmark

// BenchmarkUpload reports bytes of the body per second.
func BenchmarkUpload(b *testing.B) {
	benches(b, func(b *testing.B, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), "www.example.com")
		b.SetBytes(piece)
		b.ReportAllocs()
		for b.Loop() {
			r, err := http.NewRequest("POST", "https://www.example.com/", io.NopCloser(&noise{left: piece}))
			if err != nil {
				b.Fatal(err)
			}
			r.ContentLength = piece
			res, err := c.Do(r)
			if err != nil || res.StatusCode != 200 {
				b.Fatal(res, err)
			}
			res.Body.Close()
		}
	})
}

// BenchmarkDownload reports bytes of the body per second.
func BenchmarkDownload(b *testing.B) {
	benches(b, func(b *testing.B, g *Gate, c *http.Client) {
		g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, &noise{left: piece}) }), "www.example.com")
		b.SetBytes(piece)
		b.ReportAllocs()
		for b.Loop() {
			res, err := c.Get("https://www.example.com/")
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, res.Body); n != piece || err != nil {
				b.Fatal(n, err)
			}
			res.Body.Close()
		}
	})
}
