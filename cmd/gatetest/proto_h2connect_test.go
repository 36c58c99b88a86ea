//lint:file-ignore SA1019 net/http's HTTP/2 client takes no CONNECT on a connection that it is given

package gatetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// A duplex is a net.Conn over a CONNECT stream, as far as tests need one.
type duplex struct {
	io.Reader
	io.WriteCloser
	body io.Closer
}

func (d *duplex) Close() error                     { d.WriteCloser.Close(); return d.body.Close() }
func (d *duplex) CloseWrite() error                { return d.WriteCloser.Close() }
func (d *duplex) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (d *duplex) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (d *duplex) SetDeadline(time.Time) error      { return nil }
func (d *duplex) SetReadDeadline(time.Time) error  { return nil }
func (d *duplex) SetWriteDeadline(time.Time) error { return nil }

// An h2Proxy speaks HTTP/2 with the gate itself: over TLS, or in plain text by prior knowledge.
type h2Proxy struct {
	t testing.TB
	g *Gate
	c *http2.ClientConn
}

func (g *Gate) overH2(secure bool) *h2Proxy {
	g.T.Helper()
	conn := must[net.Conn](g.T)(net.Dial("tcp", g.Addr))
	g.T.Cleanup(func() { conn.Close() })
	if secure {
		c := tls.Client(conn, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", NextProtos: []string{"h2", "http/1.1"}})
		if err := c.Handshake(); err != nil {
			g.T.Fatal(err)
		}
		if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
			g.T.Fatalf("the gate agreed to %q", p)
		}
		conn = c
	}
	return &h2Proxy{g.T, g, must[*http2.ClientConn](g.T)((&http2.Transport{AllowHTTP: true}).NewClientConn(conn))}
}

// open opens a tunnel.
func (p *h2Proxy) open(ctx context.Context, target string) (*duplex, *http.Response) {
	p.t.Helper()
	pr, pw := io.Pipe()
	r := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Host: target}, Host: target, Body: pr, Header: http.Header{}, ContentLength: -1}).WithContext(ctx)
	res := must[*http.Response](p.t)(p.c.RoundTrip(r))
	return &duplex{res.Body, pw, res.Body}, res
}

// client speaks with origins through tunnels of p.
func (p *h2Proxy) client(h2 bool) *http.Client {
	t := p.g.Client(h2).Transport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		d, res := p.open(context.WithoutCancel(ctx), addr)
		if res.StatusCode != 200 {
			return nil, fmt.Errorf("CONNECT: %s", res.Status)
		}
		return d, nil
	}
	p.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func TestConnectOverH2(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			g := New(t)
			g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				w.Write(b)
				io.WriteString(w, r.Proto)
			}), "www.example.com")
			p := g.overH2(secure)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					h2 := i%2 == 0
					want := strings.Repeat("x", 100_000) + map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[h2]
					res, err := p.client(h2).Post("https://www.example.com/", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					if b, err := io.ReadAll(res.Body); err != nil || string(b) != want {
						t.Errorf("got %d bytes, %v", len(b), err)
					}
				})
			}
			wg.Wait()
			for _, f := range g.Recorder.Wait(20) {
				if f.Outcome() != exitgate.OutcomeAllowed || f.Authority.Connect != "www.example.com:443" || f.Question.Way != map[bool]exitgate.Way{true: exitgate.WayTLSProxy, false: exitgate.WayProxy}[secure] {
					t.Errorf("flow: %s %v, CONNECT %s, way %s", f.Outcome(), f.Fault, f.Authority.Connect, f.Question.Way)
				}
			}
		})
	}
}

// A request that takes a while, so that its client is watched, leaves the tunnel as it was for the next one.
func TestConnectOverH2SlowRequestRegression(t *testing.T) {
	g := New(t)
	h, conns := counted(func(w http.ResponseWriter, r *http.Request) {
		<-time.After(100 * time.Millisecond) // an origin that takes its time
		io.WriteString(w, "ok")
	})
	g.Origin(h, "www.example.com")
	d, _ := g.overH2(true).open(t.Context(), "www.example.com:443")
	c := tls.Client(d, &tls.Config{RootCAs: g.CA.Pool(), ServerName: "www.example.com"})
	br := bufio.NewReader(c)
	for i := range 3 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
		if res, body := answerOn(t, br, "GET"); res.StatusCode != 200 || body != "ok" {
			t.Fatalf("request %d: %d %q", i, res.StatusCode, body)
		}
	}
	if conns() != 1 {
		t.Errorf("%d upstream connections", conns())
	}
}

// Ends pass through a spliced tunnel on HTTP/2, and nothing is lost before them.
func TestConnectOverH2Ends(t *testing.T) {
	const size = 1 << 20
	for _, first := range []string{"client", "upstream"} {
		t.Run(first, func(t *testing.T) {
			g := New(t)
			g.Decide(exempt(true, 0))
			got := make(chan int64, 1)
			o := newRaw(t, func(n int, c net.Conn) {
				if first == "upstream" {
					io.Copy(c, &noise{left: size})
					c.(*net.TCPConn).CloseWrite()
				}
				m, _ := io.Copy(io.Discard, c)
				got <- m
				if first == "client" {
					io.Copy(c, &noise{left: size})
				}
			})
			g.Resolver.Add("db.example.com", 5432, o.Addr)
			d, _ := g.overH2(true).open(bounded(t), "db.example.com:5432")
			if first == "client" {
				io.Copy(d, &noise{left: size})
				d.CloseWrite()
				if n := within(t, got, "the client's end"); n != size {
					t.Errorf("%d bytes went out", n)
				}
			}
			if n, err := io.Copy(io.Discard, d); n != size || err != nil {
				t.Errorf("%d bytes came back, %v", n, err)
			}
			d.Close()
			if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeAllowed || f.Received.Body != size {
				t.Errorf("flow: %s %v, received %d", f.Outcome(), f.Fault, f.Received.Body)
			}
		})
	}
}

// A stream that the client resets ends its tunnel, upstream included, and no other one.
func TestConnectOverH2Reset(t *testing.T) {
	g := New(t)
	g.Decide(exempt(true, 0))
	ended := make(chan bool, 2)
	o := newRaw(t, func(n int, c net.Conn) { io.Copy(c, c); ended <- true })
	g.Resolver.Add("db.example.com", 5432, o.Addr)
	p := g.overH2(false)
	one, _ := p.open(t.Context(), "db.example.com:5432")
	two, _ := p.open(t.Context(), "db.example.com:5432")
	echo := func(d *duplex) {
		t.Helper()
		b := make([]byte, 4)
		d.Write([]byte("ping"))
		if _, err := io.ReadFull(d, b); err != nil || string(b) != "ping" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	echo(one)
	echo(two)
	one.WriteCloser.(*io.PipeWriter).CloseWithError(io.ErrUnexpectedEOF) // a body that fails resets the stream
	within(t, ended, "the upstream of the reset stream to end")
	g.Recorder.Last(1)
	echo(two)
	two.Close()
	within(t, ended, "the other one")
	g.Recorder.Last(2)
}

// A refusal on HTTP/2 is an answer, inside for a host that is known and outside for another one, and does not close the connection.
func TestConnectOverH2Refused(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Refusals.Connect = mitm.RefuseOutside })
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		if q.Dest.Host == "www.example.com" {
			return exitgate.Verdict{Action: exitgate.Allow}
		}
		return exitgate.Verdict{Rule: "no-grant", Reason: "not granted"}
	})
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }), "www.example.com")
	p := g.overH2(true)
	d, res := p.open(t.Context(), "other.example.com:443")
	b, _ := io.ReadAll(d)
	if res.StatusCode != 403 || !strings.Contains(string(b), "not granted") || res.Header.Get("Connection") != "" {
		t.Errorf("got %d %s", res.StatusCode, b)
	}
	if _, res := p.open(t.Context(), "no-port.example.com"); res.StatusCode != 400 {
		t.Errorf("without a port: %d", res.StatusCode)
	}
	if _, body := do(t, p.client(true), "GET", "https://www.example.com/", nil); body != "ok" {
		t.Errorf("the next tunnel: %q", body)
	}
}

// A plain request by HTTP/2 to the proxy is judged and guarded as any other; the parent proxy is no destination.
func TestPlainRequestOverH2(t *testing.T) {
	par := newParent(t, func() string { return "" })
	par.answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
	g := New(t, through(par, "127.0.0.1", "in.example.com"), func(p *mitm.Proxy) { p.Guard.Allow = nil })
	g.Resolver.Add("in.example.com", 80, "127.0.0.1:80")
	p := g.overH2(false)
	for _, url := range []string{"http://" + par.addr + "/", "http://in.example.com/"} {
		res := must[*http.Response](t)(p.c.RoundTrip(must[*http.Request](t)(http.NewRequest("GET", url, nil))))
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 403 || string(b) == "secret" {
			t.Errorf("%s: got %d %q", url, res.StatusCode, b)
		}
	}
}

func TestCurlThroughHTTPSProxy(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), "www.example.com")
	g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain") }), "www.example.com")
	ca := g.caFile()
	for url, want := range map[string]string{"https://www.example.com/": "HTTP/2.0", "http://www.example.com/": "plain"} {
		b, err := exec.CommandContext(bounded(t), "curl", "-sS", "--proxy", "https://"+g.Addr, "--proxy-cacert", ca, "--cacert", ca, url).CombinedOutput()
		if err != nil || string(b) != want {
			t.Errorf("%s: curl says %q, %v", url, b, err)
		}
	}
	if f := g.Recorder.Last(2); f.Question.Way != exitgate.WayTLSProxy {
		t.Errorf("flow: way %s", f.Question.Way)
	}
}
