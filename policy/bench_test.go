package policy

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"syscall"
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
			Methods: []string{"GET", "POST"}, Paths: []string{"/status", fmt.Sprintf("/v%d/", i%3)}, Reason: "bench",
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

// BenchmarkDecide: kept is an answer that was given before, special one that the policy is asked for as it is for the site,
// and whole one for which all of the policy is asked.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		for mode, o := range map[string]Options{"kept": {}, "special": {Kept: -1, Specialise: 1}, "whole": {Kept: -1, Specialise: -1}} {
			b.Run(fmt.Sprintf("grants=%d/%s", n, mode), func(b *testing.B) {
				e := mustEngine(b, o, Data{Grants: manyGrants(n)})
				q := benchQuestion("/v0/users/4711/orders")
				runtime.GC()
				b.ReportAllocs()
				from := cpuTime(b)
				for b.Loop() {
					v, err := e.Decide(b.Context(), q)
					if err != nil || v.Action != exitgate.Allow {
						b.Fatal(v, err)
					}
				}
				reportCPU(b, from)
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
			from := cpuTime(b)
			for b.Loop() {
				if _, err := New(b.Context(), Options{}, Data{Grants: grants}); err != nil {
					b.Fatal(err)
				}
			}
			reportCPU(b, from)
		})
	}
}

// BenchmarkReload loads one more grant beside many, with what each revision is made of being kept, while questions are
// asked: it reports how long the slowest of these took.
func BenchmarkReload(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			kept := NewRevisions(b.TempDir(), RevisionBounds{})
			e := mustEngine(b, Options{Revisions: kept}, Data{Grants: manyGrants(n)})
			stop, slowest := make(chan struct{}), make(chan []time.Duration)
			go askUntil(e, stop, slowest)
			grants, i, from := manyGrants(n), 0, cpuTime(b)
			for b.Loop() {
				i++
				one := exitgate.Grant{ID: fmt.Sprintf("more%d", i), Class: "app", To: "x.example.com", Reason: "r"}
				if changed, err := e.Reload(b.Context(), Data{Grants: append(grants[:n:n], one)}); err != nil || !changed {
					b.Fatal(changed, err)
				}
			}
			reportCPU(b, from)
			close(stop)
			took := <-slowest
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "slowest-us")
			b.ReportMetric(float64(took[len(took)*999/1000].Microseconds()), "p999-us")
		})
	}
}

// askUntil asks a question each 100 microseconds or so, and reports how long each took, in order.
func askUntil(e *Engine, stop <-chan struct{}, out chan<- []time.Duration) {
	var took []time.Duration
	for tick := time.NewTicker(100 * time.Microsecond); ; {
		select {
		case <-stop:
			tick.Stop()
			slices.Sort(took)
			out <- took
			return
		case <-tick.C:
		}
		begin := time.Now()
		e.Decide(context.Background(), benchQuestion("/v0/users/4711/orders"))
		took = append(took, time.Since(begin))
	}
}

// reportCPU adds what one operation costs all cores together, whatever else runs on the machine.
func reportCPU(b *testing.B, from time.Duration) {
	b.ReportMetric(float64(cpuTime(b)-from)/float64(b.N)/1000, "cpu-us/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
