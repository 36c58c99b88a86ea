package gatetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// bounded exempts every tunnel, up to so many bytes.
func boundedSplice(n int64) func(*exitgate.Question) exitgate.Verdict {
	return func(q *exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Action: exitgate.Splice, Rule: "exemption:x", Exemption: "x", Raw: true, Limits: exitgate.Limits{Bytes: n}}
	}
}

// TestSplicedToTheBound is law 6 for bytes carried unread: exactly the bound passes, one more is a refusal, and never more than
// the bound leaves.
func TestSplicedToTheBound(t *testing.T) {
	const bound = 100_000
	for _, c := range []struct{ out, in int }{{bound, 0}, {0, bound}, {bound / 2, bound / 2}, {bound + 1, 0}, {0, bound + 1}, {bound, 1}, {1, bound}, {3 * bound, 3 * bound}} {
		t.Run(fmt.Sprintf("%d out %d in", c.out, c.in), func(t *testing.T) {
			g := New(t)
			g.Decide(boundedSplice(bound))
			o := wire(g, www, true, nil)
			read := make(chan struct{})
			raw := wirePlain(g, "raw.example.com", 443, func(_ *wireOrigin, conn net.Conn, br *bufio.Reader) {
				io.Copy(io.Discard, br)
				close(read)
				conn.Write(make([]byte, c.in))
			})
			conn := g.opened("raw.example.com:443")
			conn.Write(make([]byte, c.out)) // may be cut
			conn.(*net.TCPConn).CloseWrite()
			got, _ := io.Copy(io.Discard, conn)
			f := g.Recorder.Last(1)
			<-read
			_, sent, _ := raw.seen()
			over := c.out+c.in > bound
			if over != (f.Outcome() == exitgate.OutcomeRefused) || over != (f.Verdict.Rule == exitgate.RuleLimit) {
				t.Errorf("flow: %s", describe(f))
			}
			if int64(len(sent))+got > bound || f.Sent.Body != int64(len(sent)) || !over && f.Received.Body != got {
				t.Errorf("%d out and %d in passed; the flow says %d and %d", len(sent), got, f.Sent.Body, f.Received.Body)
			}
			if over != (f.RequestBody == exitgate.BodyOverLimit) {
				t.Errorf("body: %s", f.RequestBody)
			}
			o.untouched(t)
		})
	}
}

// wirePlain is wire for a protocol that is no HTTP, on any port.
func wirePlain(g *Gate, name string, port uint16, serve func(*wireOrigin, net.Conn, *bufio.Reader)) *wireOrigin {
	o := wire(g, name, false, serve)
	g.Resolver.Add(name, port, o.l.Addr().String())
	return o
}

// TestSplicedBothWaysRegression: what one direction is about to move must not look to the other as if the bound were reached.
func TestSplicedBothWaysRegression(t *testing.T) {
	g := New(t)
	g.Decide(boundedSplice(300_000))
	wirePlain(g, "raw.example.com", 443, func(_ *wireOrigin, c net.Conn, br *bufio.Reader) {
		var out sync.WaitGroup
		out.Go(func() {
			for range 100 {
				c.Write(make([]byte, 1000))
			}
			c.(*net.TCPConn).CloseWrite()
		})
		io.Copy(io.Discard, br)
		out.Wait()
	})
	const n = 30
	var clients sync.WaitGroup
	for range n {
		c := g.opened("raw.example.com:443")
		clients.Go(func() {
			for range 100 {
				c.Write(make([]byte, 1000))
			}
			c.(*net.TCPConn).CloseWrite()
		})
		clients.Go(func() { io.Copy(io.Discard, c) })
	}
	clients.Wait()
	for _, f := range g.Recorder.Wait(n) {
		if f.Outcome() != exitgate.OutcomeAllowed || f.Sent.Body != 100_000 || f.Received.Body != 100_000 {
			t.Errorf("%d out, %d in, of 300000: %s", f.Sent.Body, f.Received.Body, describe(f))
		}
	}
}

// TestDuration is law 6 for time: a flow that outlives its limit is refused by it, however it is carried.
func TestDuration(t *testing.T) {
	for _, way := range []string{"waiting", "streaming", "uploading", "splice"} {
		for _, h2 := range []bool{false, true} {
			if h2 && way == "splice" {
				continue
			}
			t.Run(fmt.Sprintf("%s h2=%v", way, h2), func(t *testing.T) {
				t.Parallel()
				g := New(t)
				g.Decide(func(q *exitgate.Question) exitgate.Verdict {
					v := allowed(q)
					if v.Limits.Duration = soon; way == "splice" {
						v.Action, v.Raw = exitgate.Splice, true
					}
					return v
				})
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if way == "streaming" {
						w.Write([]byte("some"))
						w.(http.Flusher).Flush()
					}
					io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				}), www)
				if way == "splice" {
					c := g.opened(www + ":443")
					mustEnd(t, c)
				} else {
					pr, pw := io.Pipe()
					defer pw.Close()
					req, _ := http.NewRequest("POST", "https://"+www+"/", nil)
					if way == "uploading" {
						req.Body = pr
					}
					if res, err := g.Client(h2).Do(req); err == nil {
						if _, err := io.Copy(io.Discard, res.Body); err == nil && way == "streaming" {
							t.Error("the answer came to its end")
						}
						res.Body.Close()
					}
				}
				if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleLimit {
					t.Errorf("flow: %s", describe(f))
				}
			})
		}
	}
}

// rebinding answers each look-up with the next of its addresses.
type rebinding struct {
	mu    sync.Mutex
	addrs []string
	asked int
}

func (r *rebinding) Resolve(context.Context, string, uint16) ([]netip.AddrPort, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.addrs[min(r.asked, len(r.addrs)-1)]
	r.asked++
	var out []netip.AddrPort
	for one := range strings.SplitSeq(a, " ") {
		out = append(out, netip.MustParseAddrPort(one))
	}
	return out, nil
}

// TestRebinding is law 1: a name is resolved once for a dial, every address is checked, and what was checked is dialled.
func TestRebinding(t *testing.T) {
	var dialled atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.2:0") // stands for what may not be dialled
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialled.Add(1)
			c.Close()
		}
	}()
	inside := l.Addr().String()
	for _, way := range []string{"h1", "h2", "absolute", "splice"} {
		t.Run(way, func(t *testing.T) {
			r := &rebinding{}
			g := New(t, func(p *mitm.Proxy) {
				p.Resolver = r
				p.Guard.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			})
			s := g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") }), www)
			plain := g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") }), www)
			outside := s.Listener.Addr().String()
			if way == "absolute" {
				outside = plain.Listener.Addr().String()
			}
			r.addrs = []string{outside, inside, inside + " " + outside, "169.254.169.254:80 [::ffff:10.0.0.1]:80 " + inside}
			for i, want := range []int{200, 403, 200, 403} {
				if got := askBy(t, g, way); got != want {
					t.Errorf("look-up %d (%s): %d, want %d", i, r.addrs[i], got, want)
				}
				f := g.Recorder.Last(i + 1)
				if (f.Verdict.Rule == exitgate.RuleAddress) != (want == 403) || want == 200 && f.Authority.Dialled.String() != outside {
					t.Errorf("look-up %d: flow: %s %v", i, describe(f), f.Authority.Dialled)
				}
			}
			if r.asked != 4 {
				t.Errorf("resolved %d times for 4 dials", r.asked)
			}
			if n := dialled.Load(); n != 0 {
				t.Errorf("the prohibited address was dialled %d times", n)
			}
		})
	}
}

// askBy makes one request on a fresh connection and returns its status; for a splice 200 when the origin spoke.
func askBy(t *testing.T, g *Gate, way string) int {
	t.Helper()
	if way == "splice" {
		g.Decide(spliceAll)
		c := g.opened(www + ":443")
		send(t, c, "GET / HTTP/1.0\r\n\r\n")
		defer c.Close()
		if strings.Contains(mustEnd(t, c), "HTTP") {
			return 200
		}
		return 403
	}
	c := g.Client(way == "h2")
	defer c.CloseIdleConnections()
	url := "https://" + www + "/"
	if way == "absolute" {
		url = "http://" + www + "/"
	}
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// TestSelf is law 1 for the gateway's own address: whatever it is called, the gateway does not dial itself.
func TestSelf(t *testing.T) {
	g := New(t)
	addr := netip.MustParseAddrPort(g.Addr)
	g.Resolver.Add("self.example.com", addr.Port(), g.Addr)
	g.Resolver.Add("self.example.com", 443, g.Addr)
	g.Resolver.Add("mapped.example.com", 443, fmt.Sprintf("[::ffff:127.0.0.1]:%d", addr.Port()))
	n := 0
	for _, target := range []string{g.Addr, fmt.Sprintf("self.example.com:%d", addr.Port()), "self.example.com:443", "mapped.example.com:443"} {
		for _, verdict := range []func(*exitgate.Question) exitgate.Verdict{allowed, spliceAll} {
			g.Decide(verdict)
			c := g.opened(target)
			send(t, c, "GET / HTTP/1.1\r\nHost: "+target+"\r\nConnection: close\r\n\r\n")
			answer := mustEnd(t, c)
			c.Close()
			n++
			if f := g.Recorder.Last(n); f.Verdict.Rule != exitgate.RuleAddress || f.Outcome() != exitgate.OutcomeRefused {
				t.Errorf("%s: %s\n%.100s", target, describe(f), answer)
			}
		}
	}
	if n := g.Proxy.Connections(); n > 2*n+2 {
		t.Errorf("%d connections: the gateway dialled itself", n)
	}
}
