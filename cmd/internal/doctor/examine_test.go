package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web/hostapi"
)

func noon() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

// A signer signs chains of two.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t testing.TB, name string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signer{key: key}
	s.cert = s.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return s
}

func (s signer) sign(t testing.TB, c *x509.Certificate) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), noon().Add(-time.Hour), noon().Add(time.Hour)
	by := s.cert
	if by == nil {
		by = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &s.key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (s signer) chain(t testing.TB, name string) []*x509.Certificate {
	return []*x509.Certificate{s.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}), s.cert}
}

func (s signer) shown(t testing.TB, name string) (list []hostapi.Certificate) {
	for _, c := range s.chain(t, name) {
		list = append(list, hostapi.Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(), SHA256: fingerprint(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	return list
}

// A stage is a host and a gateway on which all is well, for a test to spoil.
type stage struct {
	env      []string
	now      time.Time
	e        Enrolment
	eErr     error
	names    map[string]Names
	namesErr map[string]error
	route    Route
	routeErr error
	reached  Reached
	reachErr error
	probed   Probed
	probeErr error
	view     GatewayView
	viewErr  error
	system   error

	gate, public signer
}

func newStage(t testing.TB) *stage {
	s := &stage{gate: newSigner(t, "gate root"), public: newSigner(t, "public root"), now: noon(), namesErr: map[string]error{}}
	s.env = []string{"https_proxy=http://gate.example.test:3128", "no_proxy=localhost"}
	s.e = Enrolment{Gateway: "https://gate.example.test:3130", Name: "web-01", Class: "app", Mode: "proxy", HTTP: "http://gate.example.test:3128",
		HTTPS: "http://gate.example.test:3128", Identity: IdentityState{Name: "web-01", NotBefore: noon().Add(-time.Hour), NotAfter: noon().Add(7 * time.Hour)},
		Roots: []*x509.Certificate{s.gate.cert}}
	s.names = map[string]Names{
		"www.example.com":   {Resolvers: []string{"192.0.2.53"}, Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10")}},
		"gate.example.test": {Addresses: []netip.Addr{netip.MustParseAddr("10.99.1.1")}},
	}
	s.route = Route{Interface: "eth0", Source: netip.MustParseAddr("10.99.1.2")}
	s.reached = Reached{Peer: netip.MustParseAddrPort("10.99.1.1:3128"), Status: 200, TLS: "1.3", ALPN: "h2", Chain: s.gate.chain(t, "www.example.com")}
	s.probed = Probed{Gateway: "gate", Host: "web-01", Class: "app", By: "address", Source: "10.99.1.2", Time: noon(), Heard: noon()}
	s.view = GatewayView{Clock: &Clock{At: noon()}, View: hostapi.View{URL: "https://www.example.com/", Host: "web-01", Class: "app", Time: noon(), Action: "allow",
		Rule: "grant:site", Revision: "r1", Looked: true, Addresses: []string{"203.0.113.10:443"}, Dialled: "203.0.113.10:443", TLS: "1.3", ALPN: "h2",
		Chain: s.public.shown(t, "www.example.com")}}
	return s
}

func (s *stage) host() Host {
	return Host{Env: s.env, Now: func() time.Time { return s.now }, Probes: Probes{
		Enrolment: func(context.Context) (Enrolment, error) { return s.e, s.eErr },
		Lookup:    func(_ context.Context, name string) (Names, error) { return s.names[name], s.namesErr[name] },
		Route:     func(context.Context, netip.Addr) (Route, error) { return s.route, s.routeErr },
		Reach:     func(context.Context, Way) (Reached, error) { return s.reached, s.reachErr },
		Probe:     func(context.Context, Way) (Probed, error) { return s.probed, s.probeErr },
		Ask:       func(context.Context, Enrolment, string) (GatewayView, error) { return s.view, s.viewErr },
		Accepts:   func(string, Reached) error { return s.system },
	}}
}

func (s *stage) examine(t testing.TB, target string) Report {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return s.host().Examine(t.Context(), u)
}

// transparent makes the stage one without a proxy.
func (s *stage) transparent() {
	s.e.Mode, s.e.HTTP, s.e.HTTPS, s.env = "transparent", "", "", []string{"PATH=/bin"}
	s.reached.Status, s.reached.Peer = 0, netip.MustParseAddrPort("203.0.113.10:443")
}

func (s *stage) resolves(addr string, file ...string) {
	s.names["www.example.com"] = Names{Resolvers: []string{"192.0.2.53"}, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, File: file}
}

// look is what TestDifferences expects: the first advice, and a mark on a row.
type look struct {
	side Side
	note bool
	what string // of the first advice
	do   string
	row  string // with a mark
	mark Mark
}

// TestDifferences spoils one thing at a time.
func TestDifferences(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, s *stage)
		want  look
	}{
		"wrong answer, transparent": {func(t *testing.T, s *stage) { s.transparent(); s.resolves("10.0.0.9", "/etc/hosts:7") },
			look{SideHost, false, "/etc/hosts:7 sends www.example.com to 10.0.0.9, and for the gateway it is at 203.0.113.10:443", "remove the entry", "addresses", Differs}},
		"wrong answer, proxied": {func(t *testing.T, s *stage) { s.resolves("10.0.0.9", "/etc/hosts:7") },
			look{SideHost, true, "programs that use the proxy leave the name to the gateway", "remove the entry", "addresses", Differs}},
		"private answer": {func(t *testing.T, s *stage) { s.transparent(); s.resolves("10.0.0.9") },
			look{SideHost, false, "an address that is not public, 10.0.0.9", "192.0.2.53", "addresses", Differs}},
		"another public address": {func(t *testing.T, s *stage) { s.transparent(); s.resolves("198.51.100.7") },
			look{SideHost, true, "different addresses", "each resolver differently", "address chosen", Differs}},
		"unknown to the host": {func(t *testing.T, s *stage) {
			s.transparent()
			s.names["www.example.com"], s.namesErr["www.example.com"] = Names{Resolvers: []string{"192.0.2.53"}}, failed(KindNoName, "www.example.com does not exist")
		}, look{SideHost, false, "does not know www.example.com, and the gateway's does", "192.0.2.53", "addresses", Wrong}},
		"resolver down": {func(t *testing.T, s *stage) {
			s.transparent()
			s.names["www.example.com"], s.namesErr["www.example.com"] = Names{Resolvers: []string{"192.0.2.53"}}, failed(KindTimeout, "no resolver answered")
		}, look{SideNetwork, false, "no resolver answered", "192.0.2.53", "addresses", Wrong}},
		"the proxy's name": {func(t *testing.T, s *stage) {
			s.e.HTTPS, s.env = "http://proxy.example.test:3128", []string{"https_proxy=http://proxy.example.test:3128"}
			s.namesErr["proxy.example.test"] = failed(KindNoName, "proxy.example.test does not exist")
		}, look{SideHost, false, "the name of the proxy http://proxy.example.test:3128 cannot be looked up", "by its address", "connection", Wrong}},
		"not intercepted, the origin": {func(t *testing.T, s *stage) {
			s.reached.Chain = s.public.chain(t, "www.example.com")
			s.view.Chain[0].SHA256 = fingerprint(s.reached.Chain[0])
		}, look{SideNetwork, false, "the host meets the destination itself", "pass the gateway", "signed by", Wrong}},
		"intercepted by another": {func(t *testing.T, s *stage) { s.reached.Chain = newSigner(t, "somebody").chain(t, "www.example.com") },
			look{SideNetwork, false, "neither the gateway nor the destination made, signed by CN=somebody", "who else", "signed by", Wrong}},
		"clock behind": {func(t *testing.T, s *stage) { s.view.Clock.Offset = 26 * time.Hour },
			look{SideHost, false, "the host's clock is 26h0m0s behind the gateway's", "timedatectl", "clock", Wrong}},
		"clock ahead, refused for it": {func(t *testing.T, s *stage) {
			s.view = GatewayView{Clock: &Clock{At: noon(), Offset: -time.Hour, Skewed: true}}
			s.viewErr = failed(KindAnswered, "the identity is not valid yet")
		}, look{SideHost, false, "1h0m0s ahead of the gateway's", "timedatectl", "clock", Wrong}},
		"clock a little off": {func(t *testing.T, s *stage) { s.view.Clock.Offset = -time.Minute }, look{SideHost, true, "1m0s ahead of", "", "clock", Note}},
		"expired identity": {func(t *testing.T, s *stage) {
			s.e.Identity.NotAfter = noon().Add(-time.Minute)
			s.view, s.viewErr = GatewayView{}, failed(KindAnswered, "expired identity")
		}, look{SideHost, false, "the identity of web-01 ended at 2026-06-01 11:59:00Z", "a new token", "identity", Wrong}},
		"not renewed": {func(t *testing.T, s *stage) { s.e.Identity.NotAfter = noon().Add(10 * time.Minute) },
			look{SideHost, true, "ends in 10m0s and should have been renewed", "enroll --renew", "identity", Good}},
		"not root": {func(t *testing.T, s *stage) {
			s.e.Identity = IdentityState{Problem: &Problem{KindPermission, "permission denied"}}
			s.viewErr = failed(KindPermission, "permission denied")
		}, look{SideRun, true, "for root only", "sudo", "identity", Note}},
		"refused": {func(t *testing.T, s *stage) {
			s.view.View = hostapi.View{Host: "web-01", Class: "app", Time: noon(), Action: "refuse", Rule: "no-grant", Reason: "nothing grants it", Revision: "r9"}
		}, look{SidePolicy, false, "class app may not GET this URL (no-grant, revision r9): nothing grants it", "exitgate request --reason WHY 'https://www.example.com/'", "decision", Wrong}},
		"a law": {func(t *testing.T, s *stage) {
			s.view.Action, s.view.Rule, s.view.Looked = "refuse", exitgate.RuleNeverIntercept, false
		},
			look{SideGateway, false, "exitgate:never-intercept", "no grant changes this", "decision", Wrong}},
		"an action from the future": {func(t *testing.T, s *stage) { s.view.Action = "ponder" }, look{SidePolicy, false, "may not GET", "", "decision", Wrong}},
		"disabled": {func(t *testing.T, s *stage) { s.viewErr = failed(KindAnswered, "host web-01 is disabled") },
			look{SideGateway, false, "host web-01 is disabled", "exitgate host list", "who", Wrong}},
		"unknown host": {func(t *testing.T, s *stage) {
			s.probed = Probed{Class: "unknown", Source: "10.99.1.77", Time: noon(), Heard: noon()}
		},
			look{SideGateway, false, "does not know who comes from 10.99.1.77", "register the address", "the proxy's probe", Wrong}},
		"another host": {func(t *testing.T, s *stage) { s.probed.Host, s.probed.Class = "db-01", "db" },
			look{SideGateway, false, "for db-01 of class db (by address), and this host is web-01 of class app", "exitgate host list", "the proxy's probe", Wrong}},
		"class changed": {func(t *testing.T, s *stage) { s.view.Class = "build" },
			look{SideHost, false, "the gateway for web-01 of class build", "enrol again", "who", Differs}},
		"no route": {func(t *testing.T, s *stage) {
			s.routeErr, s.reachErr = failed(KindNoRoute, "there is no route to 10.99.1.1"), syscall.ENETUNREACH
			s.reached, s.probeErr = Reached{Step: "connect"}, syscall.ENETUNREACH
		}, look{SideHost, false, "there is no route to 10.99.1.1", "ip route", "route", Wrong}},
		"proxy down": {func(t *testing.T, s *stage) {
			s.reached, s.reachErr, s.probeErr = Reached{Step: "connect"}, syscall.ECONNREFUSED, syscall.ECONNREFUSED
		}, look{SideGateway, false, "nobody listens at the proxy http://gate.example.test:3128", "listen.proxy", "connection", Wrong}},
		"firewall": {func(t *testing.T, s *stage) {
			s.reached, s.reachErr = Reached{Step: "connect"}, failed(KindTimeout, "10.99.1.1:3128 did not answer in time")
		}, look{SideNetwork, false, "did not answer in time", "firewall", "connection", Wrong}},
		"CONNECT refused": {func(t *testing.T, s *stage) {
			s.reached, s.reachErr = Reached{Step: "proxy", Status: 403, Said: "class unknown may reach nothing"}, failed(KindProxySaid, "the proxy answered 403")
		}, look{SidePolicy, false, "refused: class unknown may reach nothing", "register the address", "connection", Wrong}},
		"CONNECT wants a token": {func(t *testing.T, s *stage) {
			s.reached, s.reachErr = Reached{Step: "proxy", Status: 407, Said: "no token"}, failed(KindProxySaid, "the proxy answered 407")
		}, look{SideHost, false, "does not know this host: no token", "host token", "connection", Wrong}},
		"no trust": {func(t *testing.T, s *stage) { s.system = x509.UnknownAuthorityError{} },
			look{SideHost, false, "does not accept the gateway's certificate: its root is not there", "enroll --renew", "trust", Wrong}},
		"not enrolled": {func(t *testing.T, s *stage) {
			s.e, s.eErr = Enrolment{}, failed(KindMissing, "there is no /etc/exitgate/host.json")
		},
			look{SideHost, true, "not enrolled", "exitgate host token", "who", Note}},
		"damaged state": {func(t *testing.T, s *stage) { s.eErr = failed(KindDamaged, "/etc/exitgate/host.json is damaged") },
			look{SideHost, false, "is damaged", "unenroll", "who", Wrong}},
		"impostor": {func(t *testing.T, s *stage) {
			s.viewErr = failed(KindImpostor, "who answers is not under the identity root")
		},
			look{SideNetwork, false, "not under the identity root", "who answers there", "who", Good}},
		"enrolment listener down": {func(t *testing.T, s *stage) { s.viewErr = syscall.ECONNREFUSED },
			look{SideNetwork, false, "the enrolment listener https://gate.example.test:3130 cannot be reached", "exitgate doctor there", "who", Good}},
		"variables unset": {func(t *testing.T, s *stage) { s.env = []string{"PATH=/bin"} },
			look{SideHost, true, "not set in this session", "/etc/profile.d/exitgate.sh", "proxy", Note}},
		"another proxy": {func(t *testing.T, s *stage) {
			s.env = []string{"HTTPS_PROXY=http://me:secret@old.example.test:8080"}
			s.names["old.example.test"] = s.names["gate.example.test"]
			s.probeErr = failed(KindOther, "the proxy is no exitgate")
		},
			look{SideHost, false, "uses the proxy http://me:xxxxx@old.example.test:8080, and the gateway's is http://gate.example.test:3128", "HTTPS_PROXY", "proxy", Differs}},
		"another way in": {func(t *testing.T, s *stage) {
			s.env = []string{"HTTPS_PROXY=https://gate.example.test:3129"}
		}, look{SideHost, true, "uses the proxy https://gate.example.test:3129, and the enrolment names", "", "proxy", Note}},
		"the gateway's name": {func(t *testing.T, s *stage) {
			s.env = []string{"https_proxy=http://10.99.1.1:3128"}
			s.names["gate.example.test"], s.namesErr["gate.example.test"] = Names{}, failed(KindTimeout, "no resolver answered")
		}, look{SideHost, false, "its name gate.example.test cannot be looked up: no resolver answered", "192.0.2.53", "who", Good}},
		"no_proxy": {func(t *testing.T, s *stage) {
			s.env = append(s.env, "no_proxy=localhost, .example.com")
			s.reached.Status = 0
		},
			look{SideHost, true, "no_proxy has .example.com", "take it out", "proxy", Note}},
		"no proxy at all": {func(t *testing.T, s *stage) { s.env = []string{"https_proxy=socks5://x:1"} }, look{SideHost, false, "socks5", "correct it", "proxy", Wrong}},
		"gateway cannot resolve": {func(t *testing.T, s *stage) {
			s.view.Step, s.view.Type, s.view.Error = "resolve", "dns_error", "the name does not exist"
			s.view.Addresses = nil
		},
			look{SideGateway, false, "the name does not exist", "the gateway's resolver", "upstream", Wrong}},
		"guarded": {func(t *testing.T, s *stage) {
			s.view.Step, s.view.Error = "guard", "www.example.com leads to an address that the gateway does not dial"
			s.view.Barred = []hostapi.Barred{{Address: "10.0.0.1:443", Why: "private"}}
		}, look{SideGateway, false, "does not dial", "upstream.allow", "address chosen", Wrong}},
		"upstream certificate": {func(t *testing.T, s *stage) {
			s.view.Step, s.view.Type, s.view.Error = "tls", "tls_certificate_error", "signed by unknown authority"
		},
			look{SideDestination, false, "unknown authority", "upstream.roots", "trust", Wrong}},
		"upstream down": {func(t *testing.T, s *stage) {
			s.view.Step, s.view.Type, s.view.Error = "connect", "connection_refused", "it refused"
		},
			look{SideDestination, false, "it refused", "destination", "upstream", Wrong}},
		"spliced and read": {func(t *testing.T, s *stage) { s.view.Action, s.view.Rule = "splice", "exemption:x" }, look{SideGateway, true, "does not read", "", "signed by", Differs}},
		"spliced": {func(t *testing.T, s *stage) {
			s.view.Action, s.view.Rule = "splice", "exemption:x"
			s.reached.Chain = s.public.chain(t, "www.example.com")
		}, look{row: "signed by", mark: Note}},
		"all is well":              {func(*testing.T, *stage) {}, look{row: "who"}},
		"all is well, transparent": {func(_ *testing.T, s *stage) { s.transparent() }, look{row: "addresses"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			s := newStage(t)
			tc.spoil(t, s)
			r := s.examine(t, "https://www.example.com/")
			var first Advice
			if len(r.Advice) > 0 {
				first = r.Advice[0]
			}
			w := tc.want
			if first.Side != w.side || first.Note != w.note || !strings.Contains(first.What, w.what) || !strings.Contains(first.Do, w.do) {
				t.Errorf("advice %+v\nwant %+v", r.Advice, w)
			}
			for _, row := range r.Rows {
				if row.What == w.row {
					if row.Mark != w.mark {
						t.Errorf("row %+v, want mark %q", row, w.mark)
					}
					return
				}
			}
			t.Errorf("no row %q: %+v", w.row, r.Rows)
		})
	}
}

// TestStepsFailAlone: a step that panics, hangs or fails hides none of the others.
func TestStepsFailAlone(t *testing.T) {
	s := newStage(t)
	s.viewErr = errors.New("broken")
	h := s.host()
	h.Probes.Route = func(context.Context, netip.Addr) (Route, error) { panic("route") }
	h.Probes.Probe = func(ctx context.Context, _ Way) (Probed, error) { <-ctx.Done(); return Probed{}, ctx.Err() }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := h.Examine(ctx, &url.URL{Scheme: "https", Host: "www.example.com", Path: "/"})
	if r.Views.Host.Route.Problem == nil || !strings.Contains(r.Views.Host.Route.Problem.Text, "route") || r.Views.Host.Reached.TLS != "1.3" || r.Views.Host.Probed.Problem == nil {
		t.Errorf("%+v", r.Views.Host)
	}
}

// TestStepIsBounded: a step that does not heed its context is left behind.
func TestStepIsBounded(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	_, err := within(t.Context(), time.Millisecond, func(context.Context) (int, error) { <-stuck; return 1, nil })
	if p := problem(err); p == nil || p.Kind != KindTimeout {
		t.Errorf("%+v", p)
	}
}

// TestNoSecrets: passwords in proxy settings and queries of URLs are told to nobody.
func TestNoSecrets(t *testing.T) {
	s := newStage(t)
	s.env = []string{"https_proxy=http://me:hunter2@gate.example.test:3128"}
	s.view.View = hostapi.View{Host: "web-01", Class: "app", Action: "refuse", Rule: "no-grant"}
	r := s.examine(t, "https://www.example.com/a?token=hunter2")
	if text := fmt.Sprintf("%+v %+v", r.Rows, r.Advice); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}
