package gatetest

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

const probe = mitm.ProbeName

// unasked fails the test when the policy is asked.
func unasked(t *testing.T) func(*exitgate.Question) exitgate.Verdict {
	return func(q *exitgate.Question) exitgate.Verdict {
		t.Errorf("the policy was asked at %s for %s", q.Stage, q.Dest)
		return refused(q)
	}
}

// TestProbe: every host, known or not, learns from the engine itself what it is taken for, over each way and protocol;
// no policy is asked, no name is looked up, and it is recorded.
func TestProbe(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, tokens := range []bool{true, false} {
			t.Run(fmt.Sprintf("known=%v tokens=%v", known, tokens), func(t *testing.T) {
				g := New(t)
				far := mitm.RegisteredHost{Name: "far", Class: "db"}
				if tokens { // then a host that is not known is asked for one, but not here
					far.Token = tokenSum("the-token")
				}
				list := []mitm.RegisteredHost{far, laptop}
				want := map[string]string{"host": "", "class": "unknown", "by": ""}
				if known {
					list, want = append(list, tester), map[string]string{"host": "tester", "class": "app", "by": "address"}
				}
				g.Register(list...)
				g.Decide(unasked(t))
				n := 0
				check := func(c *http.Client, url string, want map[string]string) {
					t.Helper()
					res, body := do(t, c, "GET", url, nil, "Accept", "application/json")
					n++
					f := g.Recorder.Last(n)
					var got map[string]string
					if err := json.Unmarshal([]byte(body), &got); err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
						t.Fatalf("%s: %d %v\n%s", url, res.StatusCode, err, body)
					}
					for k, v := range want {
						if got[k] != v {
							t.Errorf("%s: %s is %q, want %q", url, k, got[k], v)
						}
					}
					if got["source"] != "127.0.0.1" || got["gateway"] != "exitgate" || got["flow"] != f.ID.String() || got["time"] == "" {
						t.Errorf("%s: %v", url, got)
					}
					if f.Kind != exitgate.KindRequest || f.Outcome() != exitgate.OutcomeAllowed || f.Verdict.Rule != mitm.RuleProbe || f.Status != 200 ||
						f.Upstream != (exitgate.Side{}) || f.Authority.Dialled.IsValid() || f.Sent != (exitgate.Bytes{}) || f.Question.Dest.Host != probe {
						t.Errorf("%s: flow %s %+v", url, describe(f), f)
					}
				}
				for _, h2 := range []bool{false, true} {
					want["way"], want["tls"] = "proxy", "1.3"
					check(g.Client(h2), "https://"+probe+"/", want)
					check(g.Client(h2), "https://"+probe+":8443/", want)
					want["tls"] = ""
					check(g.Client(h2), "http://"+probe+"/", want)
				}
				addr := g.Listen("127.0.0.1:0", exitgate.WayTLSProxy)
				check(g.tlsProxy(addr, g.Identity.Host(t, "laptop", "build", nil), true), "https://"+probe+"/",
					map[string]string{"host": "laptop", "class": "build", "by": "certificate", "way": "tls-proxy", "tls": "1.3"})
				if tokens {
					c := g.Client(false)
					c.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: g.Addr, User: url.UserPassword("far", "the-token")})
					check(c, "https://"+probe+"/", map[string]string{"host": "far", "class": "db", "by": "token", "way": "proxy"})
					check(c, "http://"+probe+"/", map[string]string{"host": "far", "class": "db", "by": "token", "way": "proxy"})
				}
				if asked := g.Resolver.Asked(); len(asked) > 0 {
					t.Errorf("names were looked up: %v", asked)
				}
			})
		}
	}
}

// TestProbeSays: text for people, and what the engine does not answer.
func TestProbeSays(t *testing.T) {
	g := New(t)
	g.Decide(unasked(t))
	for _, h2 := range []bool{false, true} {
		c := g.Client(h2)
		res, body := do(t, c, "GET", "https://"+probe+"/", nil)
		for _, want := range []string{"host      tester\n", "class     app\n", "known by  address\n", "source    127.0.0.1\n", "tls       1.3\n"} {
			if !strings.Contains(body, want) {
				t.Errorf("no %q in\n%s", want, body)
			}
		}
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
		for _, r := range []struct {
			method, path string
			want         int
		}{{"HEAD", "/", 200}, {"POST", "/", 405}, {"PUT", "/", 405}, {"DELETE", "/x", 405}, {"OPTIONS", "/", 405}, {"GET", "/x", 404}, {"GET", "/?a=b", 200}, {"GET", "/%2e%2e/", 400}} {
			res, body := do(t, c, r.method, "https://"+probe+r.path, strings.NewReader("body"))
			if res.StatusCode != r.want || r.want == 405 && res.Header.Get("Allow") != "GET, HEAD" || r.method == "HEAD" && body != "" {
				t.Errorf("%s %s: %d, want %d\n%s", r.method, r.path, res.StatusCode, r.want, body)
			}
		}
	}
	c := g.opened(probe + ":80") // plain HTTP in a tunnel, which stays open
	br := bufio.NewReader(c)
	for range 2 {
		send(t, c, "GET / HTTP/1.1\r\nHost: "+probe+":80\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if a := receive(t, br, "GET"); a.status != 200 {
			t.Errorf("in plain text: %d\n%s", a.status, a.body)
		}
	}
}

// TestProbeRefusedHost: a host that may not pass learns why at the probe, too.
func TestProbeRefusedHost(t *testing.T) {
	g := New(t)
	g.Decide(unasked(t))
	g.Register(disabled(tester))
	if res, body := do(t, g.Client(false), "GET", "http://"+probe+"/", nil); res.StatusCode != 403 || !strings.Contains(body, "stolen") {
		t.Errorf("%d\n%s", res.StatusCode, body)
	}
	c := g.Dial()
	send(t, c, "CONNECT "+probe+":443 HTTP/1.1\r\nHost: "+probe+"\r\n\r\n")
	if a := receive(t, oneByOne(c), "CONNECT"); a.status != 403 || !strings.Contains(a.body, "stolen") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
}

// TestNoWayRoundByProbe: nothing that was let in for the probe reaches anything else, and nothing else passes for it.
func TestNoWayRoundByProbe(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, c := range []struct {
			name               string
			connect, sni, host string
			h1, h2             int // -1: TLS is refused
		}{
			{"another Host in the probe's tunnel", probe + ":443", probe, www, 403, 421},
			{"another Host, no SNI", probe + ":443", "", www, 403, 421},
			{"another SNI in the probe's tunnel", probe + ":443", www, www, -1, -1},
			{"another port in Host", probe + ":443", probe, probe + ":8443", 403, 421},
			{"a name below", probe + ":443", probe, "a." + probe, 403, 421},
			{"a trailing dot", probe + ":443", probe, probe + ".", 400, 400},
			{"the probe in another tunnel", www + ":443", www, probe, 403, 421},
			{"the probe as SNI in another tunnel", www + ":443", probe, probe, -1, -1},
		} {
			if !known && strings.HasPrefix(c.connect, www) {
				continue // it gets no other tunnel
			}
			for _, h2 := range []bool{false, true} {
				t.Run(fmt.Sprintf("known=%v %s h2=%v", known, c.name, h2), func(t *testing.T) {
					g := New(t)
					if !known {
						g.Register(mitm.RegisteredHost{Name: "far", Class: "db", Token: tokenSum("the-token")})
					}
					o := wire(g, www, true, nil)
					want := c.h1
					if h2 {
						want = c.h2
					}
					tc := tls.Client(g.opened(c.connect), &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, NextProtos: map[bool][]string{true: {"h2"}, false: {"http/1.1"}}[h2]})
					got := -1
					if tc.Handshake() == nil {
						if h2 {
							got = askH2(t, newRawH2(t, tc), "/", c.host, "")
						} else {
							got = askH1(t, tc, "/", c.host, "")
						}
					}
					if got != want {
						t.Errorf("got %d, want %d", got, want)
					}
					tc.Close()
					if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused {
						t.Errorf("flow: %s", describe(f))
					}
					o.untouched(t)
				})
			}
		}
	}
	g := New(t)
	g.Register(mitm.RegisteredHost{Name: "far", Class: "db", Token: tokenSum("the-token")})
	o := wire(g, www, false, nil)
	for _, head := range []string{ // what owes a token gets nowhere else
		"GET http://" + www + "/ HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
		"GET http://" + www + "/" + probe + " HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
		"GET http://" + probe + "." + www + "/ HTTP/1.1\r\nHost: " + probe + "." + www + "\r\n\r\n",
		"CONNECT " + www + ":443 HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
		"GET http://" + probe + "@" + www + "/ HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
		"GET http://" + www + "/ HTTP/1.1\r\nHost: " + probe + "\r\n\r\n",
		"GET http://" + probe + "/ HTTP/1.1\r\nHost: " + www + "\r\n\r\n",
	} {
		c := g.Dial()
		send(t, c, head)
		if a := receive(t, bufio.NewReader(c), "GET"); a.status != 407 && a.status != 400 && a.status != 403 {
			t.Errorf("%q: %d\n%s", head, a.status, a.body)
		}
		c.Close()
	}
	for i, bytes := range []string{"SSH-2.0-x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} { // nor does a tunnel to it carry what cannot be read
		c := g.opened(probe + ":22")
		send(t, c, bytes)
		mustEnd(t, c)
		if f := g.Recorder.Last(8 + i); f.Verdict.Rule != exitgate.RuleProtocol {
			t.Errorf("flow: %s", describe(f))
		}
	}
	o.untouched(t)
	if asked := g.Resolver.Asked(); len(asked) > 0 {
		t.Errorf("names were looked up: %v", asked)
	}
}

// TestProbeByAnotherName: the name can be chosen, and then the usual one is a name like any other.
func TestProbeByAnotherName(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Probe = "hello.test" })
	g.Decide(refused)
	if status, body, _ := get(t, g.Client(true), "https://hello.test/"); status != 200 || !strings.Contains(body, "tester") {
		t.Errorf("%d %s", status, body)
	}
	if status, _, _ := get(t, g.Client(true), "https://"+probe+"/"); status != 403 {
		t.Errorf("%d", status)
	}
}

// TestProbeThatMayNotBeRead: an issuer that may not sign for the name says so, and nothing is opened.
func TestProbeThatMayNotBeRead(t *testing.T) {
	g := New(t)
	g.CA.Never[probe] = true
	c := g.Dial()
	send(t, c, "CONNECT "+probe+":443 HTTP/1.1\r\nHost: "+probe+"\r\n\r\n")
	if a := receive(t, oneByOne(c), "CONNECT"); a.status != 403 || !strings.Contains(a.body, "never intercepted") {
		t.Errorf("%d\n%s", a.status, a.body)
	}
}
