package gatetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// laptop is a host that no address names.
var laptop = mitm.RegisteredHost{Name: "laptop", Class: "build"}

// tlsProxy returns a client that reaches origins through the listener at addr, where it shows id unless that is nil.
func (g *Gate) tlsProxy(addr string, id *tls.Certificate, h2 bool, change ...func(*tls.Config)) *http.Client {
	c := g.Client(h2)
	t := c.Transport.(*http.Transport)
	t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: addr})
	conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1"}
	if id != nil {
		conf.Certificates = []tls.Certificate{*id}
	}
	for _, f := range change {
		f(conf)
	}
	t.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", addr)
	}
	return c
}

// TestCertificateNamesTheHost: on the TLS proxy a host is who its certificate says, whatever its address and whatever
// token it shows, in tunnels and without; without a certificate it is who its address says.
func TestCertificateNamesTheHost(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		for _, shown := range []bool{true, false} {
			t.Run(fmt.Sprintf("h2=%v certificate=%v", h2, shown), func(t *testing.T) {
				g := New(t)
				far := mitm.RegisteredHost{Name: "far", Class: "db", Token: tokenSum("the-token")}
				g.Register(tester, laptop, far)
				addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
				ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.Header["Proxy-Authorization"])) })
				g.Origin(ok, www)
				g.PlainOrigin(ok, www)
				want := exitgate.Host{Name: "tester", Class: "app", Addr: netip.MustParseAddr("127.0.0.1"), By: exitgate.ByAddress}
				var id *tls.Certificate
				if shown {
					id = g.Identity.Host(t, "laptop", "build", nil)
					want.Name, want.Class, want.By = "laptop", "build", exitgate.ByCertificate
				}
				c := g.tlsProxy(addr, id, h2)
				token := http.Header{"Proxy-Authorization": {"Bearer the-token"}}
				if shown { // and a token beside it, which changes nothing
					c.Transport.(*http.Transport).ProxyConnectHeader = token
				}
				for _, scheme := range []string{"https", "http"} {
					res, body := do(t, c, "GET", scheme+"://"+www+"/", nil)
					if res.StatusCode != 200 || body != "0" {
						t.Errorf("%s: %d %s", scheme, res.StatusCode, body)
					}
				}
				if shown {
					do(t, c, "GET", "http://"+www+"/", nil, "Proxy-Authorization", "Bearer the-token")
				}
				for _, f := range g.Recorder.Wait(map[bool]int{true: 3, false: 2}[shown]) {
					if f.Question.Host != want || f.Question.Way != exitgate.WayTLSProxy {
						t.Errorf("flow: host %+v, way %s", f.Question.Host, f.Question.Way)
					}
				}
			})
		}
	}
}

// TestBadCertificates: whatever is wrong with a certificate, the handshake is finished, each request and CONNECT is
// refused with the reason, over HTTP/1.1 and HTTP/2, and no token helps. A connection without a request is recorded too.
func TestBadCertificates(t *testing.T) {
	foreign := NewCA(t, "foreign")
	for _, tc := range []struct {
		name   string
		reason string
		cert   func(g *Gate) *tls.Certificate
	}{
		{"expired", "has expired", func(g *Gate) *tls.Certificate {
			return g.Identity.Host(t, "laptop", "build", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		}},
		{"not yet valid", "not yet valid", func(g *Gate) *tls.Certificate {
			return g.Identity.Host(t, "laptop", "build", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
		}},
		{"foreign", "unknown authority", func(g *Gate) *tls.Certificate { return foreign.Host(t, "laptop", "build", nil) }},
		{"of the interception root", "unknown authority", func(g *Gate) *tls.Certificate { return g.CA.Host(t, "laptop", "build", nil) }},
		{"for servers", "key usage", func(g *Gate) *tls.Certificate {
			return g.Identity.Host(t, "laptop", "build", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		}},
		{"of a host that is disabled", "it was disabled", func(g *Gate) *tls.Certificate {
			g.Register(tester, mitm.RegisteredHost{Name: "laptop", Class: "build", Refused: "it was disabled by ann: stolen"})
			return g.Identity.Host(t, "laptop", "build", nil)
		}},
		{"of a host that was removed", "not registered", func(g *Gate) *tls.Certificate {
			g.Register(tester)
			return g.Identity.Host(t, "laptop", "build", nil)
		}},
		{"of another class", "enrol it again", func(g *Gate) *tls.Certificate { return g.Identity.Host(t, "laptop", "db", nil) }},
		{"none, and one is required", "asks for one", func(g *Gate) *tls.Certificate { return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := New(t, func(p *mitm.Proxy) { p.TLSProxy.Require = true })
			g.Register(tester, laptop, mitm.RegisteredHost{Name: "far", Class: "db", Token: tokenSum("the-token")})
			addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
			o := wire(g, www, false, nil)
			id := tc.cert(g)
			conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}}
			if id != nil {
				conf.Certificates = []tls.Certificate{*id}
			}
			c := must[*tls.Conn](t)(tls.Dial("tcp", addr, conf))
			br := bufio.NewReader(c)
			for n, head := range []string{
				"GET http://" + www + "/ HTTP/1.1\r\nHost: " + www + "\r\nProxy-Authorization: Bearer the-token\r\n\r\n",
				"GET http://" + www + "/ HTTP/1.1\r\nHost: " + www + "\r\nAccept: application/json\r\n\r\n",
				"CONNECT " + www + ":443 HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
			} {
				send(t, c, head)
				a := receive(t, br, "GET")
				f := g.Recorder.Last(n + 1)
				if a.status != 403 || !strings.Contains(a.body, tc.reason) || !strings.Contains(a.header.Get("Proxy-Status"), "exitgate:host: ") {
					t.Errorf("%q: %d %v\n%s", head, a.status, a.header, a.body)
				}
				if strings.Contains(a.body, "grant add") {
					t.Errorf("a grant is proposed, which would not help:\n%s", a.body)
				}
				if !strings.Contains(a.body, f.ID.String()) || f.Verdict.Rule != exitgate.RuleHost || f.Outcome() != exitgate.OutcomeRefused || f.Status != 403 {
					t.Errorf("flow: %s", describe(f))
				}
			}
			c.Close()
			conf.NextProtos = []string{"h2"}
			c = must[*tls.Conn](t)(tls.Dial("tcp", addr, conf))
			h := newRawH2(t, c)
			for _, fields := range [][]string{
				{":method", "CONNECT", ":authority", www + ":443"},
				{":method", "GET", ":scheme", "http", ":authority", www, ":path", "/"},
			} {
				if a := h.answer(h.headers(true, fields...)); a.status != "403" || !strings.Contains(a.body, tc.reason) {
					t.Errorf("h2 %s: %v", fields[1], a)
				}
			}
			c.Close()
			c = must[*tls.Conn](t)(tls.Dial("tcp", addr, conf))
			c.Close()
			f := g.Recorder.Last(6)
			if id != nil && (f.Verdict.Rule != exitgate.RuleHost || f.Kind != exitgate.KindConnection) {
				t.Errorf("the silent connection: %s", describe(f))
			}
			if asked := g.Resolver.Asked(); len(asked) > 0 {
				t.Errorf("names were looked up: %v", asked)
			}
			o.untouched(t)
		})
	}
}

// disabled is h as an operator disabled it.
func disabled(h mitm.RegisteredHost) mitm.RegisteredHost {
	h.Refused = "it was disabled by ann: stolen"
	return h
}

// entry is one way in which a host can be known, and the connection it makes.
type entry struct {
	name string
	host mitm.RegisteredHost
	head string                 // fields of CONNECT
	conn func(g *Gate) net.Conn // to the proxy
}

func entries() []entry {
	plain := func(g *Gate) net.Conn { return g.Dial() }
	return []entry{
		{name: "address", host: tester, conn: plain},
		{name: "token", host: mitm.RegisteredHost{Name: "far", Class: "db", Token: tokenSum("the-token")}, head: "Proxy-Authorization: Bearer the-token\r\n", conn: plain},
		{name: "certificate", host: laptop, conn: func(g *Gate) net.Conn {
			conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{*g.Identity.Host(g.T, "laptop", "build", nil)}}
			c, err := tls.Dial("tcp", g.Listen("127.0.0.1:0", exitgate.WayTLSProxy), conf)
			if err != nil {
				g.T.Fatal(err)
			}
			g.T.Cleanup(func() { c.Close() })
			return c
		}},
	}
}

// TestDisabledHostOnOpenConnections: a host that was disabled is refused from the next request on, on connections that
// were open before, however it was known; and it passes again when it is enabled, on the same connection.
func TestDisabledHostOnOpenConnections(t *testing.T) {
	for _, e := range entries() {
		for _, way := range []string{"absolute", "tunnel", "tunnel h2"} {
			t.Run(e.name+" "+way, func(t *testing.T) {
				g := New(t)
				g.Register(e.host)
				ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
				g.Origin(ok, www)
				g.PlainOrigin(ok, www)
				c := e.conn(g)
				ask := func() (int, string) {
					send(t, c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\n"+e.head+"\r\n")
					a := receive(t, oneByOne(c), "GET")
					return a.status, a.body
				}
				if way != "absolute" {
					send(t, c, "CONNECT "+www+":443 HTTP/1.1\r\nHost: "+www+"\r\n"+e.head+"\r\n")
					if a := receive(t, oneByOne(c), "CONNECT"); a.status != 200 {
						t.Fatal(a.status)
					}
					conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: www}
					if way == "tunnel h2" {
						conf.NextProtos = []string{"h2"}
					}
					in := tls.Client(c, conf)
					if way == "tunnel h2" {
						h := newRawH2(t, in)
						ask = func() (int, string) {
							a := h.answer(h.headers(true, ":method", "GET", ":scheme", "https", ":authority", www, ":path", "/"))
							n := 0
							fmt.Sscan(a.status, &n)
							return n, a.body
						}
					} else {
						br := bufio.NewReader(in)
						ask = func() (int, string) {
							send(t, in, "GET / HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
							a := receive(t, br, "GET")
							return a.status, a.body
						}
					}
				}
				for i, step := range []struct {
					host mitm.RegisteredHost
					want int
				}{{e.host, 200}, {disabled(e.host), 403}, {disabled(e.host), 403}, {e.host, 200}} {
					g.Register(step.host)
					status, body := ask()
					if status != step.want {
						t.Errorf("request %d: %d, want %d\n%s", i, status, step.want, body)
					}
					f := g.Recorder.Last(i + 1)
					if step.want == 403 && (!strings.Contains(body, "disabled by ann: stolen") || f.Verdict.Rule != exitgate.RuleHost) {
						t.Errorf("request %d: %s\n%s", i, describe(f), body)
					}
					if f.Question.Host.Name != e.host.Name || f.Question.Host.By != e.name {
						t.Errorf("request %d: host %+v", i, f.Question.Host)
					}
				}
			})
		}
	}
}

// TestMovedHost: a host that moves to another class is judged as that on open tunnels, their CONNECT included.
func TestMovedHost(t *testing.T) {
	g := New(t)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), www)
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		if q.Host.Class == "app" || q.Stage != exitgate.StageConnect { // what was moved away may not even connect
			return allowed(q)
		}
		return exitgate.Verdict{Rule: "no-grant", Reason: "class " + string(q.Host.Class) + " may not"}
	})
	c := g.speak(www)
	br := bufio.NewReader(c)
	for i, class := range []exitgate.Class{"app", "quarantine", "app"} {
		moved := tester
		moved.Class = class
		g.Register(moved)
		send(t, c, "GET / HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
		want := 200
		if class != "app" {
			want = 403
		}
		if a := receive(t, br, "GET"); a.status != want {
			t.Errorf("as %s: %d\n%s", class, a.status, a.body)
		}
		if f := g.Recorder.Last(i + 1); f.Question.Host.Class != class {
			t.Errorf("flow: %+v", f.Question.Host)
		}
	}
	g.Register() // removed
	send(t, c, "GET / HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
	if a := receive(t, br, "GET"); a.status != 403 || !strings.Contains(a.body, "class unknown") {
		t.Errorf("removed: %d\n%s", a.status, a.body)
	}
}

// TestExpiresWhileOpen: a certificate that comes to its end is refused from then on, although its connection is older.
func TestExpiresWhileOpen(t *testing.T) {
	clock := &testClock{at: time.Now()}
	g := New(t, func(p *mitm.Proxy) { p.Now = clock.now })
	g.Register(laptop)
	g.Hosts.Now = clock.now
	g.Hosts.Certificate = func(chain []*x509.Certificate) (string, exitgate.Class, error) {
		if clock.now().After(chain[0].NotAfter) {
			return "laptop", "build", exitgate.NewRefusal(0, exitgate.RuleHost, "the identity certificate has expired")
		}
		return "laptop", "build", nil
	}
	g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), www)
	id := g.Identity.Host(t, "laptop", "build", func(c *x509.Certificate) { c.NotAfter = clock.at.Add(time.Hour) })
	c := g.tlsProxy(g.Listen("127.0.0.1:0", exitgate.WayTLSProxy), id, false)
	for i, step := range []time.Duration{0, 59 * time.Minute, 2 * time.Minute} {
		clock.move(step)
		want := []int{200, 200, 403}[i]
		if res, body := do(t, c, "GET", "http://"+www+"/", nil); res.StatusCode != want {
			t.Errorf("after %v: %d\n%s", step, res.StatusCode, body)
		}
	}
	flows := g.Recorder.Wait(3)
	if flows[0].Conn != flows[2].Conn {
		t.Error("the refused request came on another connection: the test tests nothing")
	}
}

// TestResumedIdentity: a session that is resumed brings its certificate along and is judged anew; one that was made
// without a certificate is not resumed, so that a host that has enrolled since shows what it has; and no connection has
// the identity of another.
func TestResumedIdentity(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			g := New(t)
			g.Register(tester, laptop)
			addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
			g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), www)
			conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "127.0.0.1", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			n := 0
			ask := func(conf *tls.Config, wantStatus int, wantResumed bool, wantName string) {
				t.Helper()
				n++
				c := must[*tls.Conn](t)(tls.Dial("tcp", addr, conf))
				defer c.Close()
				send(t, c, "GET http://"+www+"/ HTTP/1.1\r\nHost: "+www+"\r\nConnection: close\r\n\r\n")
				a := receive(t, bufio.NewReader(c), "GET")
				io.Copy(io.Discard, c) // and its tickets
				f := g.Recorder.Last(n)
				if a.status != wantStatus || c.ConnectionState().DidResume != wantResumed || f.Question.Host.Name != wantName {
					t.Errorf("connection %d: %d, resumed %v, host %q; want %d, %v, %q", n, a.status, c.ConnectionState().DidResume, f.Question.Host.Name, wantStatus, wantResumed, wantName)
				}
			}
			ask(conf, 200, false, "tester") // by address
			conf.Certificates = []tls.Certificate{*g.Identity.Host(t, "laptop", "build", nil)}
			ask(conf, 200, false, "laptop")
			ask(conf, 200, true, "laptop")
			fresh := conf.Clone()
			fresh.Certificates, fresh.ClientSessionCache = nil, nil
			ask(fresh, 200, false, "tester")
			ask(conf, 200, true, "laptop")
			g.Register(tester, disabled(laptop))
			ask(conf, 403, true, "laptop")
			g.Register(tester, laptop)
			ask(conf, 200, true, "laptop")
		})
	}
}

// TestSessionsDoNotCross: a ticket of a tunnel is none at the TLS proxy, and the other way round.
func TestSessionsDoNotCross(t *testing.T) {
	g := New(t)
	g.Register(tester, laptop)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), www)
	conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: www, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Certificates: []tls.Certificate{*g.Identity.Host(t, "laptop", "build", nil)}}
	c := tls.Client(g.opened(www+":443"), conf)
	send(t, c, "GET / HTTP/1.1\r\nHost: "+www+"\r\nConnection: close\r\n\r\n")
	io.Copy(io.Discard, c)
	p := must[*tls.Conn](t)(tls.Dial("tcp", addr, conf))
	send(t, p, "CONNECT "+www+":443 HTTP/1.1\r\nHost: "+www+"\r\n\r\n")
	receive(t, oneByOne(p), "CONNECT")
	if p.ConnectionState().DidResume {
		t.Error("the session of a tunnel was resumed at the proxy")
	}
	in := tls.Client(p, conf)
	send(t, in, "GET / HTTP/1.1\r\nHost: "+www+"\r\nConnection: close\r\n\r\n")
	io.Copy(io.Discard, in)
	if in.ConnectionState().DidResume {
		t.Error("the session of the proxy was resumed in a tunnel")
	}
	if names := []string{g.Recorder.Wait(2)[0].Question.Host.Name, g.Recorder.Wait(2)[1].Question.Host.Name}; !slices.Equal(names, []string{"tester", "laptop"}) {
		t.Errorf("hosts: %q", names)
	}
}

// TestServerCertificate: the listener's own certificate comes from its seam, for any name or none.
func TestServerCertificate(t *testing.T) {
	asked := make(chan string, 4)
	var g *Gate
	g = New(t, func(p *mitm.Proxy) {
		p.TLSProxy.Certificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			asked <- h.ServerName
			if h.ServerName == "panic.example.com" {
				panic("exploded in the seam")
			}
			return g.Identity.Leaf(h.Context(), "gate.example.com")
		}
	})
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	for _, name := range []string{"gate.example.com", "", "panic.example.com"} {
		c, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if got := within(t, asked, "the seam"); got != name {
			t.Errorf("the seam was asked for %q", got)
		}
		if name == "panic.example.com" {
			if err == nil {
				t.Error("a seam that panicked served")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0]; got.DNSNames[0] != "gate.example.com" || got.Issuer.CommonName != "identity" {
			t.Errorf("%q: the certificate of %v by %s", name, got.DNSNames, got.Issuer)
		}
		c.Close()
	}
}

// TestPlainTextAtTheTLSProxy: who took the wrong scheme is told, in a form that its client shows.
func TestPlainTextAtTheTLSProxy(t *testing.T) {
	g := New(t)
	addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
	for i, head := range []string{"CONNECT " + www + ":443 HTTP/1.1\r\nHost: " + www + "\r\n\r\n", "GET http://" + www + "/ HTTP/1.1\r\nHost: " + www + "\r\n\r\n"} {
		c := must[net.Conn](t)(net.Dial("tcp", addr))
		send(t, c, head)
		a := receive(t, bufio.NewReader(c), "GET")
		if a.status != 400 || !strings.Contains(a.body, "https://") {
			t.Errorf("%d %s", a.status, a.body)
		}
		mustEnd(t, c)
		c.Close()
		if f := g.Recorder.Last(i + 1); f.Verdict.Rule != exitgate.RuleProtocol || f.Status != 400 {
			t.Errorf("flow: %s", describe(f))
		}
	}
	must[net.Conn](t)(net.Dial("tcp", addr)).Close() // a check of the port
	c := must[net.Conn](t)(net.Dial("tcp", addr))
	send(t, c, "\x00\x01\x02\x03\x04\x05\x06\x07garbage")
	mustEnd(t, c)
	fault(t, g.Recorder.Last(3), "client", "client_tls")
}
