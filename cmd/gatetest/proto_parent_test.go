package gatetest

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// A parent is a small proxy between the gate and origins. It knows no names: it takes them to where the gate's
// resolver would.
type parent struct {
	addr   string
	mu     sync.Mutex // guards seen
	seen   []string   // request lines, and credentials
	answer string     // "": it opens tunnels
	early  string     // sent in one piece with the answer to CONNECT
}

func newParent(t *testing.T, to func() string) *parent {
	p := &parent{}
	o := newRaw(t, func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			auth, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic "))
			p.mu.Lock()
			p.seen = append(p.seen, fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, auth))
			answer, early := p.answer, p.early
			p.mu.Unlock()
			if answer != "" {
				io.WriteString(c, answer)
				return
			}
			if r.Method != http.MethodConnect {
				body, _ := io.ReadAll(r.Body)
				s := fmt.Sprintf("parent got %s %s", r.URL, body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(s), s)
				continue
			}
			up, err := net.Dial("tcp", to())
			if err != nil {
				return
			}
			defer up.Close()
			io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"+early)
			go func() { io.Copy(up, br); up.(*net.TCPConn).CloseWrite() }()
			io.Copy(c, up)
			return
		}
	})
	p.addr = o.Addr
	return p
}

func (p *parent) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

func through(p *parent, no ...string) func(*mitm.Proxy) {
	return func(m *mitm.Proxy) {
		m.Upstream.Proxy = &url.URL{Scheme: "http", Host: p.addr, User: url.UserPassword("gate", "s3cret")}
		m.Upstream.NoProxy = no
	}
}

func TestParentProxy(t *testing.T) {
	var origin, direct string
	par := newParent(t, func() string { return origin })
	g := New(t, through(par, ".direct.example.com", "10.0.0.0/8"))
	s := g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }), "a.direct.example.com")
	origin, direct = s.Listener.Addr().String(), s.Listener.Addr().String()
	_ = direct
	for _, h2 := range []bool{false, true} {
		c := g.Client(h2)
		if _, body := do(t, c, "GET", "https://www.example.com/", nil); body != "www.example.com" {
			t.Errorf("https, h2=%v: %q", h2, body)
		}
		if _, body := do(t, c, "POST", "http://www.example.com/x?y", strings.NewReader("body")); body != "parent got http://www.example.com/x?y body" {
			t.Errorf("http, h2=%v: %q", h2, body)
		}
		if _, body := do(t, c, "GET", "https://a.direct.example.com/", nil); body != "a.direct.example.com" {
			t.Errorf("direct, h2=%v: %q", h2, body)
		}
	}
	want := []string{"CONNECT www.example.com:443 gate:s3cret", "POST http://www.example.com/x?y gate:s3cret",
		"CONNECT www.example.com:443 gate:s3cret", "POST http://www.example.com/x?y gate:s3cret"}
	if got := par.got(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the parent got %q", got)
	}
	if asked := g.Resolver.Asked(); len(asked) == 0 || strings.Contains(strings.Join(asked, " "), "www") {
		t.Errorf("the gate resolved %v: names behind the parent are the parent's to resolve", asked)
	}
	for _, f := range g.Recorder.Wait(6) {
		if f.Outcome() != exitgate.OutcomeAllowed || strings.Contains(fmt.Sprint(f), "s3cret") {
			t.Errorf("flow: %+v", f)
		}
	}
}

func TestParentProxyRefuses(t *testing.T) {
	par := newParent(t, func() string { return "" })
	par.answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
	g := New(t, through(par))
	for _, h2 := range []bool{false, true} {
		res, body := do(t, g.Client(h2), "GET", "https://www.example.com/", nil)
		if res.StatusCode != 502 || !strings.Contains(body, "did not open a tunnel to www.example.com:443: 403 Forbidden") {
			t.Errorf("got %d %s", res.StatusCode, body)
		}
	}
	fault(t, g.Recorder.Last(2), "connect", "destination_unavailable")
}

// A destination that speaks first may do so in one piece with the parent's answer.
func TestParentProxyEarlyBytes(t *testing.T) {
	o := newRaw(t, func(n int, c net.Conn) { io.Copy(c, c) })
	par := newParent(t, func() string { return o.Addr })
	par.early = "220 hello\r\n"
	g := New(t, through(par))
	g.Decide(exempt(true, 0))
	c := g.opened("mail.example.com:25")
	fmt.Fprint(c, "EHLO\r\n")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "220 hello\r\nEHLO\r\n" {
		t.Errorf("got %q, %v", b, err)
	}
	if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeAllowed || f.Sent.Body != 6 || f.Received.Body != 17 {
		t.Errorf("flow: %s %v, sent %d, received %d", f.Outcome(), f.Fault, f.Sent.Body, f.Received.Body)
	}
}

// A host cannot reach the parent proxy itself by naming it.
func TestParentProxyIsNoDestination(t *testing.T) {
	par := newParent(t, func() string { return "" })
	par.answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
	g := New(t, through(par, "127.0.0.1"), func(p *mitm.Proxy) { p.Guard.Allow = nil })
	for _, h2 := range []bool{false, true} {
		if res, body := do(t, g.Client(h2), "GET", "http://"+par.addr+"/", nil); res.StatusCode != 403 || body == "secret" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
	}
}
