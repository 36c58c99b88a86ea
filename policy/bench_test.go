package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// manyGrants makes n grants of 20 classes at n/20 names, with paths and every tenth with a wildcard.
func manyGrants(n int) []exitgate.Grant {
	out := make([]exitgate.Grant, n)
	for i := range out {
		g := exitgate.Grant{
			ID: fmt.Sprintf("g%d", i), Class: exitgate.Class(fmt.Sprintf("class%d", i%20)), To: fmt.Sprintf("s%d.example.com", i/20),
			Methods: []string{"GET", "POST"}, Paths: []string{fmt.Sprintf("/v%d/", i%3), "/status"}, Reason: "bench",
		}
		if i%10 == 0 {
			g.To = fmt.Sprintf("*.s%d.example.com", i/20)
		}
		out[i] = g
	}
	return out
}

func benchQuestion(path string) *exitgate.Question {
	return &exitgate.Question{
		Stage: exitgate.StageRequest, At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Way: exitgate.WayProxy,
		Host: exitgate.Host{Name: "web01", Class: "class7", By: exitgate.ByAddress},
		Dest: exitgate.Destination{Host: "s4.example.com", Port: 443},
		TLS:  &exitgate.TLS{SNI: "s4.example.com", ALPN: []string{"h2", "http/1.1"}},
		HTTP: &exitgate.Request{
			Method: "GET", Scheme: "https", URL: "https://s4.example.com" + path, Path: path, Proto: "HTTP/2.0", Length: -1,
			Headers: map[string][]string{"user-agent": {"curl/8"}, "accept": {"*/*"}, "accept-encoding": {"gzip"}, "x-request-id": {"12345"}},
		},
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		for _, mode := range []string{"kept", "evaluated"} {
			b.Run(fmt.Sprintf("grants=%d/%s", n, mode), func(b *testing.B) {
				o := Options{Timeout: time.Minute}
				if mode == "evaluated" {
					o.Kept = -1
				}
				e, err := New(b.Context(), o, Data{Grants: manyGrants(n)})
				if err != nil {
					b.Fatal(err)
				}
				q := benchQuestion("/v0/users/4711/orders")
				q.HTTP.Path = fmt.Sprintf("/v%d/users/4711/orders", 87%3)
				b.ReportAllocs()
				for b.Loop() {
					v, err := e.Decide(b.Context(), q)
					if err != nil || v.Action != exitgate.Allow {
						b.Fatal(v, err)
					}
				}
			})
		}
	}
}

func BenchmarkDecideRefused(b *testing.B) {
	e, err := New(b.Context(), Options{Timeout: time.Minute}, Data{Grants: manyGrants(1000)})
	if err != nil {
		b.Fatal(err)
	}
	q := benchQuestion("/v9/users")
	b.ReportAllocs()
	for b.Loop() {
		if v, err := e.Decide(b.Context(), q); err != nil || v.Action != exitgate.Refuse {
			b.Fatal(v, err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		grants := manyGrants(n)
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := New(b.Context(), Options{}, Data{Grants: grants}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
