package gatetest

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/mitm"
)

func look(t *testing.T, g *Gate, s string) mitm.Look {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.Proxy.Look(ctx, u, exitgate.Flow{Verdict: exitgate.Verdict{Action: exitgate.Allow}})
}

// TestLook: a look meets what a request meets, by the same addresses, and asks the upstream for nothing.
func TestLook(t *testing.T) {
	g := New(t)
	var asked atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); io.WriteString(w, "here") })
	live := g.Origin(h, "www.example.com").Listener.Addr().String()
	g.Resolver.Add("www.example.com", 443, "10.0.0.1:443", dead(t), live)
	l := look(t, g, "https://WWW.example.com/some/path?q")
	if l.Err != nil || l.Dest.String() != "www.example.com:443" || l.Dialled.String() != live || l.ALPN != "h2" || l.TLS != "1.3" {
		t.Fatalf("%+v", l)
	}
	if f := g.Recorder.Last(1); f.Kind != exitgate.KindConnection || f.Authority.Dialled != l.Dialled || f.UpstreamCert == "" || f.End.IsZero() {
		t.Errorf("the look is recorded as %+v", f) // a handshake has left
	}
	if len(l.Answers) != 3 || len(l.Barred) != 1 || l.Barred[0].Addr.Addr() != netip.MustParseAddr("10.0.0.1") || !strings.Contains(l.Barred[0].Why, "private") {
		t.Errorf("answers %v, barred %v", l.Answers, l.Barred)
	}
	if len(l.Chain) != 2 || l.Chain[0].DNSNames[0] != "www.example.com" || !l.Chain[1].Equal(g.Origins.Cert()) {
		t.Errorf("chain of %d", len(l.Chain))
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
	if _, body := do(t, g.Client(true), "GET", "https://www.example.com/", nil); body != "here" {
		t.Fatal(body)
	}
	if f := g.Recorder.Last(1); f.Authority.Dialled != l.Dialled || f.Upstream.ALPN != l.ALPN || f.Upstream.TLS != l.TLS {
		t.Errorf("the request met %+v %v, the look %+v", f.Upstream, f.Authority.Dialled, l)
	}
	if l := look(t, g, "https://"+mitm.ProbeName+"/"); !l.Own || l.Err != nil || l.Answers != nil {
		t.Errorf("the probe: %+v", l)
	}
	if v, ok := g.Proxy.Answers(&url.URL{Host: "Probe.exitgate.internal:443"}); !ok || v.Action != exitgate.Allow {
		t.Errorf("the probe: %+v", v)
	}
	plain := g.PlainOrigin(h, "plain.example.com").Listener.Addr().String()
	if l := look(t, g, "http://plain.example.com/"); l.Err != nil || l.Dialled.String() != plain || l.Chain != nil || l.TLS != "" {
		t.Errorf("plain text: %+v", l)
	}
}

// TestLookFaults: what goes wrong is the very fault or refusal of a request, and what was met before it is told.
func TestLookFaults(t *testing.T) {
	g := New(t)
	text := g.PlainOrigin(http.NotFoundHandler()).Listener.Addr().String()
	for _, tc := range []struct {
		name, url       string
		addrs           []string
		step, typ       string // of the fault
		rule            string // of the refusal
		answers, barred int
		dialled         bool
	}{
		{name: "unknown", url: "https://no.example.com/", step: "resolve", typ: "dns_error"},
		{name: "refused", url: "https://a.example.com/", addrs: []string{dead(t)}, step: "connect", typ: "connection_refused", answers: 1},
		{name: "barred", url: "https://b.example.com/", addrs: []string{"169.254.169.254:443", "[fd00::1]:443"}, rule: exitgate.RuleAddress, answers: 2, barred: 2},
		{name: "own listener", url: "https://c.example.com/", addrs: []string{g.Addr}, rule: exitgate.RuleAddress, answers: 1, barred: 1},
		{name: "no TLS", url: "https://d.example.com/", addrs: []string{text}, step: "tls", typ: "tls_protocol_error", answers: 1, dialled: true},
		{name: "malformed", url: "https://-a.example.com/", rule: exitgate.RuleMalformed},
		{name: "zone", url: "https://[fe80::1%25lo]/", rule: exitgate.RuleMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := must[*url.URL](t)(url.Parse(tc.url))
			if tc.addrs != nil {
				g.Resolver.Add(u.Hostname(), 443, tc.addrs...)
			}
			l := look(t, g, tc.url)
			var f *exitgate.Fault
			var r *exitgate.Refusal
			switch {
			case tc.step != "" && (!errors.As(l.Err, &f) || f.Step != tc.step || f.Type != tc.typ):
				t.Errorf("got %v", l.Err)
			case tc.rule != "" && (!errors.As(l.Err, &r) || r.Verdict.Rule != tc.rule):
				t.Errorf("got %v", l.Err)
			}
			if len(l.Answers) != tc.answers || len(l.Barred) != tc.barred || l.Dialled.IsValid() != tc.dialled {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestLookShowsBadChains: a chain that is not accepted is shown all the same.
func TestLookShowsBadChains(t *testing.T) {
	for name, set := range map[string]func(*mitm.Proxy){
		"unknown root": func(p *mitm.Proxy) { p.Upstream.Roots = x509.NewCertPool() },
		"our own":      func(p *mitm.Proxy) { p.Upstream.IsOwn = func(*x509.Certificate) bool { return true } },
	} {
		t.Run(name, func(t *testing.T) {
			g := New(t, set)
			g.Origin(http.NotFoundHandler(), "www.example.com")
			l := look(t, g, "https://www.example.com/")
			var f *exitgate.Fault
			if !errors.As(l.Err, &f) || f.Type != "tls_certificate_error" || len(l.Chain) != 2 || !l.Dialled.IsValid() {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestLookEnds: a look ends with its context, and a seam that panics is a Bug and not the process's end.
func TestLookEnds(t *testing.T) {
	g := New(t)
	silent := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")) // its connections are never accepted
	t.Cleanup(func() { silent.Close() })
	g.Resolver.Add("www.example.com", 443, silent.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var f *exitgate.Fault
	if l := g.Proxy.Look(ctx, &url.URL{Scheme: "https", Host: "www.example.com"}, exitgate.Flow{}); !errors.As(l.Err, &f) || f.Step != "tls" || f.Type != "connection_timeout" {
		t.Errorf("%+v", l)
	}
	g = New(t, func(p *mitm.Proxy) { p.Resolver = panics{} })
	var b *exitgate.Bug
	if l := look(t, g, "https://www.example.com/"); !errors.As(l.Err, &b) {
		t.Errorf("%+v", l)
	}
}

type panics struct{}

func (panics) Resolve(context.Context, string, uint16) ([]netip.AddrPort, error) { panic("broken") }

// TestLookThroughParent: behind a parent proxy the gateway sees the parent's address, and the upstream's chain.
func TestLookThroughParent(t *testing.T) {
	var g *Gate
	live := ""
	p := newParent(t, func() string { return live })
	g = New(t, func(x *mitm.Proxy) {
		x.Upstream.Proxy = &url.URL{Scheme: "http", Host: p.addr, User: url.UserPassword("u", "secret")}
	})
	live = g.Origin(http.NotFoundHandler()).Listener.Addr().String()
	l := look(t, g, "https://www.example.com/")
	if l.Err != nil || l.Parent != p.addr || l.Dialled.String() != p.addr || len(l.Answers) != 0 || len(l.Chain) != 2 {
		t.Errorf("%+v", l)
	}
}

// TestLookUnrecorded: what cannot be recorded is not looked at (law 2).
func TestLookUnrecorded(t *testing.T) {
	g := New(t, func(p *mitm.Proxy) { p.Recorder = noRecord{p.Recorder} })
	origin := g.Origin(http.NotFoundHandler(), "www.example.com")
	g.Resolver.Add("www.example.com", 443, origin.Listener.Addr().String())
	l := look(t, g, "https://www.example.com/")
	var r *exitgate.Refusal
	if !errors.As(l.Err, &r) || r.Verdict.Rule != exitgate.RuleRecord || l.Dialled.IsValid() {
		t.Errorf("%+v", l)
	}
}

type noRecord struct{ mitm.Recorder }

func (noRecord) Begin(context.Context, *exitgate.Flow) error {
	return errors.New("the journal is full")
}
