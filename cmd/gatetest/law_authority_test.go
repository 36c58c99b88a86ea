package gatetest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/exitgate/exitgate"
)

const (
	www   = "www.example.com"
	other = "other.example.com"
)

// TestNamesAgree is law 4 as a matrix: what CONNECT, the TLS hello, and the request name must be one destination, and a
// request for which they are not reaches neither origin.
func TestNamesAgree(t *testing.T) {
	for _, c := range []struct {
		name              string
		connect, sni      string
		target            string // of h1, and :path of h2
		host              string // Host of h1, :authority of h2
		field             string // a Host field beside it on h2; a second one on h1
		h1, h2            int    // status; 0: not tried; -1: TLS is refused; -2: the stream is reset
		connectHostHeader string
	}{
		{name: "agree", connect: www + ":443", sni: www, target: "/", host: www, h1: 200, h2: 200},
		{name: "agree with the port", connect: www + ":443", sni: www, target: "/", host: www + ":443", h1: 200, h2: 200},
		{name: "agree in another case", connect: "WWW.Example.com:443", sni: www, target: "/", host: "wWw.example.com", h1: 200, h2: 200},
		{name: "no SNI", connect: www + ":443", target: "/", host: www, h1: 200, h2: 200},
		{name: "another Host", connect: www + ":443", sni: www, target: "/", host: other, h1: 403, h2: 421},
		{name: "another Host, no SNI", connect: www + ":443", target: "/", host: other, h1: 403, h2: 421},
		{name: "another port in Host", connect: www + ":443", sni: www, target: "/", host: www + ":8443", h1: 403, h2: 421},
		{name: "the port of plain HTTP", connect: www + ":443", sni: www, target: "/", host: www + ":80", h1: 403, h2: 421},
		{name: "another SNI", connect: www + ":443", sni: other, target: "/", host: www, h1: -1, h2: -1},
		{name: "SNI and Host against CONNECT", connect: www + ":443", sni: other, target: "/", host: other, h1: -1, h2: -1},
		{name: "a subdomain in Host", connect: www + ":443", sni: www, target: "/", host: "a." + www, h1: 403, h2: 421},
		{name: "a parent in Host", connect: www + ":443", sni: www, target: "/", host: "example.com", h1: 403, h2: 421},
		{name: "a trailing dot in Host", connect: www + ":443", sni: www, target: "/", host: www + ".", h1: 400, h2: 400},
		{name: "a trailing dot with a port", connect: www + ":443", sni: www, target: "/", host: www + ".:443", h1: 400, h2: 400},
		{name: "user information in Host", connect: www + ":443", sni: www, target: "/", host: "me@" + www, h1: 400, h2: -2},
		{name: "a user that looks like the host", connect: www + ":443", sni: www, target: "/", host: www + ":443@" + other, h1: 400, h2: -2},
		{name: "an address in Host", connect: www + ":443", sni: www, target: "/", host: "127.0.0.1", h1: 403, h2: 421},
		{name: "IPv6 in Host", connect: www + ":443", sni: www, target: "/", host: "[::1]", h1: 403, h2: 421},
		{name: "two names in Host", connect: www + ":443", sni: www, target: "/", host: www + "," + other, h1: 400, h2: 400},
		{name: "a path in Host", connect: www + ":443", sni: www, target: "/", host: www + "/" + other, h1: 400, h2: 400},
		{name: "a blank in Host", connect: www + ":443", sni: www, target: "/", host: www + " " + other, h1: 400, h2: 400},
		{name: "a tab in Host", connect: www + ":443", sni: www, target: "/", host: www + "\t" + other, h1: 400, h2: 400},
		{name: "empty Host", connect: www + ":443", sni: www, target: "/", host: "", h1: 400, h2: 400},
		{name: "two Hosts, alike", connect: www + ":443", sni: www, target: "/", host: www, field: www, h1: 400, h2: 200},
		{name: "two Hosts", connect: www + ":443", sni: www, target: "/", host: www, field: other, h1: 400, h2: 421},
		{name: "two Hosts, the other first", connect: www + ":443", sni: www, target: "/", host: other, field: www, h1: 400, h2: 421},
		{name: "absolute form inside", connect: www + ":443", sni: www, target: "http://" + www + "/", host: www, h1: 400, h2: 400},
		{name: "absolute form to another", connect: www + ":443", sni: www, target: "http://" + other + "/", host: www, h1: 400, h2: 400},
		{name: "absolute https form inside", connect: www + ":443", sni: www, target: "https://" + www + "/", host: www, h1: 400, h2: 400},
		{name: "CONNECT to an address, Host a name", connect: "127.0.0.1:443", target: "/", host: www, h1: 403, h2: 421},
		{name: "CONNECT to an address, SNI a name", connect: "127.0.0.1:443", sni: www, target: "/", host: www, h1: -1, h2: -1},
		{name: "CONNECT to another port", connect: www + ":8443", sni: www, target: "/", host: www, h1: 403, h2: 421},
		{name: "CONNECT to another port, Host with it", connect: www + ":8443", sni: www, target: "/", host: www + ":8443", h1: 200, h2: 200},
	} {
		for _, h2 := range []bool{false, true} {
			want := c.h1
			if h2 {
				want = c.h2
			}
			if want == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s h2=%v", c.name, h2), func(t *testing.T) {
				g := New(t)
				o, o2 := wire(g, www, true, nil), wire(g, other, true, nil)
				g.Resolver.Add(www, 8443, o.l.Addr().String())
				g.Resolver.Add("127.0.0.1", 443, o.l.Addr().String())
				tc := tls.Client(g.opened(c.connect), &tls.Config{ServerName: c.sni, InsecureSkipVerify: true,
					NextProtos: map[bool][]string{true: {"h2"}, false: {"http/1.1"}}[h2]})
				got := 0
				if err := tc.Handshake(); err != nil {
					if got = -1; !strings.Contains(err.Error(), "access denied") {
						t.Errorf("the handshake failed with %v", err)
					}
				} else if h2 {
					got = askH2(t, newRawH2(t, tc), c.target, c.host, c.field)
				} else {
					got = askH1(t, tc, c.target, c.host, c.field)
				}
				if got != want {
					t.Errorf("got %d, want %d", got, want)
				}
				tc.Close()
				f := g.Recorder.Last(1)
				if want == 200 {
					return
				}
				if f.Verdict.Rule != exitgate.RuleAuthority && f.Verdict.Rule != exitgate.RuleMalformed {
					t.Errorf("flow: %s", describe(f))
				}
				if want == -1 && f.Authority.SNI != c.sni || f.Authority.Connect != c.connect {
					t.Errorf("the flow's names: %+v", f.Authority)
				}
				o.untouched(t)
				o2.untouched(t)
			})
		}
	}
}

func askH1(t *testing.T, c *tls.Conn, target, host, second string) int {
	s := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
	if second != "" {
		s += "Host: " + second + "\r\n"
	}
	send(t, c, s+"\r\n")
	return receive(t, bufio.NewReader(c), "GET").status
}

func askH2(t *testing.T, h *rawH2, path, authority, field string) int {
	fields := []string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", path}
	if field != "" {
		fields = append(fields, "host", field)
	}
	a := h.answer(h.headers(true, fields...))
	if a.reset != nil {
		if *a.reset != http2.ErrCodeProtocol {
			t.Errorf("reset with %v", a.reset)
		}
		return -2
	}
	var status int
	if _, err := fmt.Sscan(a.status, &status); err != nil {
		t.Errorf("answer %v", a)
	}
	return status
}

// targets are what CONNECT may not name; each is refused without a look-up or a dial, over every version of HTTP.
var targets = []string{
	"www.example.com", ":443", "www.example.com:", "www.example.com:0", "www.example.com:65536", "www.example.com:0443",
	"www.example.com:+443", "www.example.com:4 43", "www.example.com:443:443", "www.example.com.:443", ".example.com:443",
	"www..example.com:443", "-.example.com:443x", "me:secret@www.example.com:443", "http://www.example.com:443", "www.example.com:443/",
	"www.example.com:443?x", "127.1:443", "2130706433:443", "0x7f000001:443", "0x7f.0.0.1:443", "0177.0.0.1:443", "127.0.0.01:443",
	"127.0.0.1.:443", "1.2.3.4.5:443", "[::1:443", "::1:443", "[::1%25lo]:443", "[::1%lo]:443", "[127.0.0.1]:443", "[]:443", "[www.example.com]:443",
	"w\u00e4w.example.com:443", "www.example.com%00:443", "www_example\x7f.com:443", strings.Repeat("a", 64) + ".example.com:443",
	strings.Repeat("a.", 127) + "com:443", "*.example.com:443", "*:443", "/:443", "www.example.com\\@other.example.com:443",
}

func TestConnectTargets(t *testing.T) {
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			g := New(t)
			g.Decide(func(q *exitgate.Question) exitgate.Verdict {
				t.Errorf("the policy was asked for %s", q.Dest)
				return allowed(q)
			})
			c := g.Dial()
			send(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n")
			if a := receive(t, bufio.NewReader(c), http.MethodConnect); a.status != 400 {
				t.Errorf("HTTP/1.1: %d", a.status)
			}
			c.Close()
			if f := g.Recorder.Last(1); f.Verdict.Rule != exitgate.RuleMalformed || f.Question.Dest.Port != 0 {
				t.Errorf("flow: %s %s", describe(f), f.Question.Dest)
			}
			h := newRawH2(t, g.Dial())
			if a := h.answer(h.headers(true, ":method", "CONNECT", ":authority", target)); a.status != "400" && a.reset == nil {
				t.Errorf("HTTP/2: %v", a)
			}
			h.conn.Close()
			f := g.Recorder.Last(2)
			if f.Verdict.Rule != exitgate.RuleMalformed || f.Question.Dest.Port != 0 {
				t.Errorf("flow: %s %s", describe(f), f.Question.Dest)
			}
			if s := allFlows(t, g.Recorder.Wait(2)); strings.Contains(s, "secret") {
				t.Errorf("a password is in the record: %s", s)
			}
			if asked := g.Resolver.Asked(); len(asked) != 0 {
				t.Errorf("looked up: %v", asked)
			}
		})
	}
}

// TestConnectHost is law 4 for the Host field of CONNECT itself.
func TestConnectHost(t *testing.T) {
	g := New(t)
	n := 0
	for host, want := range map[string]int{"www.example.com:443": 200, "www.example.com": 200, "other.example.com:443": 400, "www.example.com:80": 400} {
		c := g.Dial()
		send(t, c, "CONNECT www.example.com:443 HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		if a := receive(t, oneByOne(c), http.MethodConnect); a.status != want {
			t.Errorf("HTTP/1.1 Host %s: %d, want %d", host, a.status, want)
		}
		c.Close()
		h := newRawH2(t, g.Dial())
		id := h.headers(want != 200, ":method", "CONNECT", ":authority", "www.example.com:443", "host", host)
		if want != 200 {
			if a := h.answer(id); a.status != "400" && a.status != "421" {
				t.Errorf("HTTP/2 Host %s: %v", host, a)
			}
		}
		h.conn.Close()
		n += 2
		g.Recorder.Wait(n)
	}
	if asked := g.Resolver.Asked(); len(asked) != 0 {
		t.Errorf("looked up: %v", asked)
	}
}
