package gatetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/martian/v3"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// TestNothingBeforeBegin is law 2: while Begin has not returned, the upstream sees no connection and no byte.
func TestNothingBeforeBegin(t *testing.T) {
	for _, way := range []string{"request", "absolute", "splice", "h2"} {
		t.Run(way, func(t *testing.T) {
			g := New(t)
			entered, leave := make(chan struct{}), make(chan struct{})
			g.Recorder.BeginErr = func(*exitgate.Flow) error { close(entered); <-leave; return nil }
			secure := wire(g, "www.example.com", true, nil)
			plain := wire(g, "www.example.com", false, nil)
			done := make(chan error, 1)
			switch way {
			case "splice":
				g.Decide(spliceAll)
				c := g.opened("www.example.com:443")
				go func() { _, err := io.WriteString(c, "bytes that may not leave yet"); done <- err }()
			case "absolute":
				c := g.Client(false)
				go func() { _, err := c.Get("http://www.example.com/"); done <- err }()
			default:
				c := g.Client(way == "h2")
				go func() { _, err := c.Get("https://www.example.com/"); done <- err }()
			}
			<-entered
			if asked := g.Resolver.Asked(); len(asked) != 0 {
				t.Errorf("names were resolved before Begin returned: %v", asked)
			}
			secure.untouched(t)
			plain.untouched(t)
			close(leave)
			if err := <-done; err != nil {
				t.Errorf("after Begin returned: %v", err)
			}
		})
	}
}

// TestBeginFails is law 2: an error of Begin is 503, and nothing leaves.
func TestBeginFails(t *testing.T) {
	g := New(t)
	fails := errors.New("the store is gone")
	g.Recorder.BeginErr = func(*exitgate.Flow) error { return fails }
	o := wire(g, "www.example.com", true, nil)
	for _, h2 := range []bool{false, true} {
		status, body, header := get(t, g.Client(h2), "https://www.example.com/")
		if status != 503 || !strings.Contains(header.Get("Proxy-Status"), "error=proxy_internal_error") || !strings.Contains(body, exitgate.RuleRecord) {
			t.Errorf("h2=%v: %d %v\n%s", h2, status, header, body)
		}
	}
	g.Decide(spliceAll)
	c := g.opened("www.example.com:443")
	send(t, c, "bytes that may not leave")
	if got := mustEnd(t, c); got != "" {
		t.Errorf("the tunnel said %q", got)
	}
	o.untouched(t)
	if n := g.Recorder.Begun(); n != 0 {
		t.Errorf("%d flows were begun", n)
	}
}

// explode is a step that panics.
type explode struct{}

func (explode) ModifyRequest(*http.Request) error   { panic("exploded in a request step") }
func (explode) ModifyResponse(*http.Response) error { panic("exploded in a response step") }

type panicking struct{}

func (panicking) Leaf(context.Context, string) (*tls.Certificate, error) {
	panic("exploded in the issuer")
}
func (panicking) Resolve(context.Context, string, uint16) ([]netip.AddrPort, error) {
	panic("exploded in the resolver")
}
func (panicking) Decide(context.Context, *exitgate.Question) (exitgate.Verdict, error) {
	panic("exploded in the policy")
}
func (panicking) ByAddress(netip.Addr) (exitgate.Host, error) { panic("exploded in the identifier") }
func (panicking) ByToken(netip.Addr, string) (exitgate.Host, error) {
	panic("exploded in the identifier")
}
func (panicking) ByCertificate(netip.Addr, []*x509.Certificate) (exitgate.Host, error) {
	panic("exploded in the identifier")
}
func (panicking) Epoch() uint64            { panic("exploded in the identifier") }
func (panicking) NeedsToken() bool         { panic("exploded in the identifier") }
func (panicking) Scan([]byte) (int, error) { panic("exploded in the screen") }
func (panicking) Pass()                    {}

// settleBomb panics when the flow is settled.
type settleBomb struct{}

func (settleBomb) ModifyRequest(r *http.Request) error {
	exitgate.ExchangeOf(r.Context()).OnSettle(func(*exitgate.Flow) { panic("exploded in a meter") })
	return nil
}

// bodyBomb panics when the request's body is read, on whatever goroutine that is.
type bodyBomb struct{ io.ReadCloser }

func (bodyBomb) Read([]byte) (int, error) { panic("exploded in a body") }

// TestPanic is law 3: wherever a part of the gate panics, that flow ends as a fault of the gateway, the client
// learns that it was the gateway's own failure, and the process lives.
func TestPanic(t *testing.T) {
	request := func(m martian.RequestModifier) func(*mitm.Proxy) {
		return func(p *mitm.Proxy) { p.Request = append(p.Request, m) }
	}
	for _, c := range []struct {
		name   string
		set    func(*mitm.Proxy)
		decide func(*exitgate.Question) exitgate.Verdict
		status int // 0: the connection is closed
		fault  bool
	}{
		{"request step", request(explode{}), nil, 500, true},
		{"first request step", func(p *mitm.Proxy) { p.Request = append([]martian.RequestModifier{explode{}}, p.Request...) }, nil, 500, true},
		{"response step", func(p *mitm.Proxy) { p.Response = append(p.Response, explode{}) }, nil, 500, true},
		{"settling", request(settleBomb{}), nil, 200, true},
		{"body", request(martian.RequestModifierFunc(func(r *http.Request) error { r.Body = bodyBomb{r.Body}; return nil })), nil, 500, true},
		{"policy", WithDecider(panicking{}), nil, 503, false},
		{"issuer", func(p *mitm.Proxy) { p.Issuer = panicking{} }, nil, 500, true},
		{"issuer, refused", func(p *mitm.Proxy) { p.Issuer = panicking{} }, refused, 500, true},
		{"resolver", func(p *mitm.Proxy) { p.Resolver = panicking{} }, nil, 500, true},
		{"identifier", func(p *mitm.Proxy) { p.Identify = panicking{} }, nil, 500, true},
		{"screen", func(p *mitm.Proxy) { p.NewScreen = func() mitm.Screen { return panicking{} } }, nil, 0, true},
		{"new screen", func(p *mitm.Proxy) { p.NewScreen = func() mitm.Screen { panic("exploded before the screen") } }, nil, 0, true},
		{"sniffer", func(p *mitm.Proxy) {
			p.Sniff = func([]byte) (exitgate.Opening, error) { panic("exploded in the sniffer") }
		}, nil, 0, true},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s h2=%v", c.name, h2), func(t *testing.T) {
				g := New(t, c.set)
				if c.decide != nil {
					g.Decide(c.decide)
				}
				g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), "www.example.com")
				status := 0
				res, err := g.Client(h2).Post("https://www.example.com/", "text/plain", strings.NewReader("some bytes"))
				if err == nil {
					status = res.StatusCode
					res.Body.Close()
				} else if code := connectStatus(err); code != 0 {
					status = code
				}
				if status != c.status {
					t.Errorf("the client got %d (%v), want %d", status, err, c.status)
				}
				f := g.Recorder.Last(1)
				if bug := f.Fault != nil && f.Fault.Type == "proxy_internal_error"; bug != c.fault {
					t.Errorf("flow: %s", describe(f))
				}
				if !c.fault && f.Verdict.Rule != exitgate.RulePolicy {
					t.Errorf("flow: %s", describe(f))
				}
			})
		}
	}
}

// connectStatus reads the status out of the error with which net/http's client reports a refused CONNECT.
func connectStatus(err error) int {
	for code, text := range map[int]string{500: http.StatusText(http.StatusInternalServerError), 503: http.StatusText(http.StatusServiceUnavailable), 403: "Forbidden"} {
		if strings.HasSuffix(err.Error(), text) {
			return code
		}
	}
	return 0
}

// TestPanicSplice is law 3 for bytes that are carried unread.
func TestPanicSplice(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Resolver = panicking{} })
	g.Decide(spliceAll)
	c := g.opened("www.example.com:443")
	send(t, c, "hello")
	mustEnd(t, c)
	if f := g.Recorder.Last(1); f.Fault == nil || f.Fault.Type != "proxy_internal_error" || f.Kind != exitgate.KindTunnel {
		t.Errorf("flow: %s", describe(f))
	}
}

// TestEveryConnectionIsAccounted is law 3: whoever sent a byte has a flow, and it says what was wrong.
func TestEveryConnectionIsAccounted(t *testing.T) {
	hello := clientHello(t, "www.example.com")
	for _, c := range []struct {
		name string
		do   func(*testing.T, *Gate)
		want string // in the flow
	}{
		{"garbage", raw("\x00\x01\x02garbage\r\n\r\n"), exitgate.RuleProtocol},
		{"one byte", raw("G"), exitgate.RuleMalformed},
		{"half a request line", raw("GET http://www.exam"), exitgate.RuleMalformed},
		{"half a head", raw("GET http://www.example.com/ HTTP/1.1\r\nHost: www.ex"), exitgate.RuleMalformed},
		{"a bad head", raw("GET http://www.example.com/ HTTP/1.1\r\nHost : www.example.com\r\n\r\n"), exitgate.RuleMalformed},
		{"half a hello", raw(string(hello[:len(hello)/2])), exitgate.RuleMalformed},
		{"a hello", raw(string(hello)), "client_tls"},
		{"ssh", raw("SSH-2.0-OpenSSH_9.2p1\r\n"), exitgate.RuleProtocol},
		{"smtp", raw("EHLO example.com\r\n"), exitgate.RuleProtocol},
		{"socks", raw("\x05\x02\x00\x01"), exitgate.RuleProtocol},
		{"h2 preface", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), exitgate.RuleMalformed},
		{"half an h2 preface", raw("PRI * HTTP/2.0\r\n"), exitgate.RuleMalformed},
		{"connect, close", inTunnel(""), "client_gone"},
		{"connect, one byte", inTunnel("\x16"), exitgate.RuleMalformed},
		{"connect, garbage", inTunnel("\xff\xfe garbage"), exitgate.RuleProtocol},
		{"connect, ssh", inTunnel("SSH-2.0-OpenSSH_9.2p1\r\n"), exitgate.RuleProtocol},
		{"connect, h2c", inTunnel("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), exitgate.RuleProtocol},
		{"connect, half a hello", inTunnel(string(hello[:200])), exitgate.RuleMalformed},
		{"connect, a hello", inTunnel(string(hello)), "client_tls"},
		{"connect, half a request", inTunnel("GET / HTTP/1.1\r\nHost:"), "client_gone"},
		{"connect, handshake, close", func(t *testing.T, g *Gate) { g.insideAs("www.example.com:443", "www.example.com").Close() }, "client_tls"},
		{"connect, handshake h2, close", func(t *testing.T, g *Gate) { g.insideAs("www.example.com:443", "www.example.com", "h2").Close() }, "client_tls"},
		{"connect, handshake, half a request", func(t *testing.T, g *Gate) {
			c := g.insideAs("www.example.com:443", "www.example.com")
			send(t, c, "GET / HTT")
			c.Close()
		}, "client_"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := New(t)
			o := wire(g, "www.example.com", true, nil)
			c.do(t, g)
			f := g.Recorder.Last(1)
			if d := describe(f); !strings.Contains(d, c.want) {
				t.Errorf("flow: %s; want %s", d, c.want)
			}
			o.untouched(t)
			if n := g.Recorder.Begun(); n != 1 {
				t.Errorf("%d flows for one connection", n)
			}
		})
	}
}

// raw sends bytes to the gate, says that there are no more, and waits for the end.
func raw(s string) func(*testing.T, *Gate) {
	return func(t *testing.T, g *Gate) { closing(t, g.Dial(), s) }
}

func inTunnel(s string) func(*testing.T, *Gate) {
	return func(t *testing.T, g *Gate) { closing(t, g.opened("www.example.com:443"), s) }
}

func closing(t *testing.T, c net.Conn, s string) {
	send(t, c, s)
	c.(*net.TCPConn).CloseWrite()
	mustEnd(t, c)
}

// clientHello returns the first flight of a Go client.
func clientHello(t testing.TB, sni string, alpn ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		tls.Client(a, &tls.Config{ServerName: sni, NextProtos: alpn}).Handshake()
		a.Close()
	}()
	defer b.Close()
	br := bufio.NewReader(b)
	head, err := br.Peek(5)
	if err != nil {
		t.Fatal(err)
	}
	hello := make([]byte, 5+int(head[3])<<8+int(head[4]))
	if _, err := io.ReadFull(br, hello); err != nil {
		t.Fatal(err)
	}
	return hello
}
