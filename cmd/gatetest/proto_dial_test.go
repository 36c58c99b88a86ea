package gatetest

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

// The first address that answers is used, whatever stands before it.
func TestSeveralAddresses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		addrs func(live string) []string
	}{
		{"first refused", func(live string) []string { return []string{dead(t), live} }},
		{"many refused", func(live string) []string { return []string{dead(t), dead(t), dead(t), live} }},
		{"IPv6 refused", func(live string) []string { return []string{strings.Replace(dead(t), "127.0.0.1", "[::1]", 1), live} }},
		{"not allowed before allowed", func(live string) []string { return []string{"169.254.169.254:80", "10.0.0.1:443", live} }},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			g := New(t)
			s := g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }), "www.example.com")
			live := s.Listener.Addr().String()
			g.Resolver.Add("www.example.com", 443, tc.addrs(live)...)
			if _, body := do(t, g.Client(true), "GET", "https://www.example.com/", nil); body != "here" {
				t.Errorf("got %q", body)
			}
			if f := g.Recorder.Last(1); f.Authority.Dialled.String() != live {
				t.Errorf("flow: dialled %s, want %s", f.Authority.Dialled, live)
			}
		})
	}
}

func TestAllAddressesRefuse(t *testing.T) {
	g := New(t)
	g.Resolver.Add("www.example.com", 443, dead(t), dead(t))
	if res, body := do(t, g.Client(false), "GET", "https://www.example.com/", nil); res.StatusCode != 502 || !strings.Contains(body, "any of its 2 addresses") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	fault(t, g.Recorder.Last(1), "connect", "connection_refused")
}

func TestOverIPv6(t *testing.T) {
	g := New(t)
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal("the tests need IPv6 on loopback:", err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	g.Resolver.Add("www.example.com", 80, l.Addr().String())
	for url, want := range map[string]string{"http://www.example.com/": "www.example.com", "http://" + l.Addr().String() + "/": l.Addr().String()} {
		if _, body := do(t, g.Client(false), "GET", url, nil); body != want {
			t.Errorf("%s: %q", url, body)
		}
	}
}

// What may not be dialled is not, in whatever form it is written and whatever name leads there.
func TestGuardedDestinations(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255",
		"169.254.169.254", "169.254.0.1", "192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "2001:db8::1", "3fff::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b:1::808:808",
		"2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:c0a8:101::1", "2001:0:808:808:0:0:f5ff:fffe", // Teredo, the client's address inverted: 10.0.0.1
		"2001:db8::5efe:10.0.0.1", "2620:1::200:5efe:192.168.0.1",
	} {
		a := netip.MustParseAddr(addr)
		var guard mitm.Guard
		if err := guard.Check(netip.AddrPortFrom(a, 443)); err == nil {
			t.Errorf("%s may be dialled", addr)
		}
	}
	for _, addr := range []string{"8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "11.0.0.1"} {
		var guard mitm.Guard
		if err := guard.Check(netip.AddrPortFrom(netip.MustParseAddr(addr), 443)); err != nil {
			t.Errorf("%s may not be dialled: %v", addr, err)
		}
	}
}

func TestGuardInTheEngine(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Guard.Allow = nil })
	hits := make(chan bool, 100)
	s := g.PlainOrigin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hits <- true }), "in.example.com")
	live := s.Listener.Addr().String()
	g.Resolver.Add("meta.example.com", 80, "169.254.169.254:80")
	g.Resolver.Add("mixed.example.com", 80, "10.0.0.1:80", "[::ffff:127.0.0.1]:80", live)
	for _, url := range []string{"http://in.example.com/", "http://meta.example.com/", "http://mixed.example.com/", "http://" + live + "/", "http://[::ffff:127.0.0.1]/",
		"http://169.254.169.254/latest/meta-data/", "http://" + g.Addr + "/"} {
		res, body := do(t, g.Client(false), "GET", url, nil)
		if res.StatusCode != 403 || !strings.Contains(res.Header.Get("Proxy-Status"), "error=destination_ip_prohibited") {
			t.Errorf("%s: got %d, %s\n%s", url, res.StatusCode, res.Header.Get("Proxy-Status"), body)
		}
		f := g.Recorder.Last(g.Recorder.Begun())
		if f.Outcome() != exitgate.OutcomeRefused || f.Verdict.Rule != exitgate.RuleAddress {
			t.Errorf("%s: flow %s, rule %s", url, f.Outcome(), f.Verdict.Rule)
		}
	}
	if len(hits) > 0 {
		t.Error("the origin on loopback was reached")
	}
}

// Allowed or not, the gateway's own listeners are not dialled.
func TestOwnListener(t *testing.T) {
	g := New(t)
	g.Resolver.Add("self.example.com", 80, g.Addr)
	for _, url := range []string{"http://self.example.com/", "http://" + g.Addr + "/"} {
		if res, body := do(t, g.Client(false), "GET", url, nil); res.StatusCode != 403 || !strings.Contains(body, "own listener") {
			t.Errorf("%s: got %d %s", url, res.StatusCode, body)
		}
	}
}
