package gatetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/cmd/internal/pipeline"
	"github.com/exitgate/exitgate/inspect"
	"github.com/exitgate/exitgate/mitm"
)

// A Gate is a running engine.
type Gate struct {
	T        testing.TB
	Proxy    *mitm.Proxy
	Addr     string // of the explicit proxy
	CA       *CA    // interception
	Origins  *CA    // what upstreams are verified against
	Identity *CA    // what hosts' certificates are verified against
	Hosts    *mitm.Hosts
	Recorder *Recorder
	Resolver *Resolver

	mu     sync.Mutex // guards decide
	decide func(*exitgate.Question) exitgate.Verdict
}

// New starts a gate that allows everything to *.example.com, for a host "tester" of class "app" on loopback.
// Each set changes the engine before it starts.
func New(t testing.TB, set ...func(*mitm.Proxy)) *Gate {
	t.Helper()
	g := &Gate{T: t, CA: NewCA(t, "interception"), Origins: NewCA(t, "origins"), Identity: NewCA(t, "identity"),
		Hosts: &mitm.Hosts{}, Recorder: NewRecorder(t), Resolver: &Resolver{}}
	g.Decide(func(q *exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Action: exitgate.Allow, Rule: "grant:all", Revision: "r1"}
	})
	g.Hosts.Certificate = g.Identity.host
	g.Register(tester)
	p := &mitm.Proxy{
		Gateway: "exitgate", Decider: policy{g}, Issuer: g.CA, Recorder: g.Recorder, Identify: g.Hosts, Resolver: g.Resolver,
		Sniff:     inspect.Sniff,
		NewScreen: func() mitm.Screen { return inspect.NewScreen(inspect.ScreenLimits{}) },
		Guard:     mitm.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		Upstream:  mitm.Upstream{Roots: g.Origins.Pool()},
		Logger:    slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	Pipeline(p)
	for _, f := range set {
		f(p)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	g.Proxy = p
	g.Addr = g.Listen("127.0.0.1:0", exitgate.WayProxy)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		p.Shutdown(ctx)
		g.Recorder.check()
	})
	return g
}

// tester is the host that every Gate knows.
var tester = mitm.RegisteredHost{Name: "tester", Class: "app", Addresses: []netip.Prefix{
	netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}}

// Register replaces the list of hosts.
func (g *Gate) Register(list ...mitm.RegisteredHost) {
	g.T.Helper()
	if err := g.Hosts.Set(list); err != nil {
		g.T.Fatal(err)
	}
}

// Listen serves one more listener and returns its address.
func (g *Gate) Listen(addr string, way exitgate.Way) string {
	g.T.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		g.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Proxy.Serve(ctx, l, way) }()
	g.T.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

// Decide sets the policy.
func (g *Gate) Decide(f func(*exitgate.Question) exitgate.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.decide = f
}

type deciderFunc interface {
	Decide(context.Context, *exitgate.Question) (exitgate.Verdict, error)
}

// WithDecider sets the whole policy seam, for policies that fail.
func WithDecider(d deciderFunc) func(*mitm.Proxy) { return func(p *mitm.Proxy) { p.Decider = d } }

type policy struct{ g *Gate }

// Decide implements mitm.Decider on a Gate by its function.
func (p policy) Decide(_ context.Context, q *exitgate.Question) (exitgate.Verdict, error) {
	p.g.mu.Lock()
	f := p.g.decide
	p.g.mu.Unlock()
	return f(q), nil
}

// Origin starts an HTTPS origin (h1 and h2) known as each of names, port 443.
func (g *Gate) Origin(h http.Handler, names ...string) *httptest.Server {
	g.T.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{GetCertificate: g.Origins.forHello, NextProtos: []string{"h2", "http/1.1"}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	g.T.Cleanup(s.Close)
	for _, n := range names {
		g.Resolver.Add(n, 443, s.Listener.Addr().String())
	}
	return s
}

// PlainOrigin starts an HTTP origin known as each of names, port 80.
func (g *Gate) PlainOrigin(h http.Handler, names ...string) *httptest.Server {
	g.T.Helper()
	s := httptest.NewServer(h)
	g.T.Cleanup(s.Close)
	for _, n := range names {
		g.Resolver.Add(n, 80, s.Listener.Addr().String())
	}
	return s
}

// Client returns a client that goes through the gate and trusts its CA. h2 chooses the protocol inside.
func (g *Gate) Client(h2 bool) *http.Client {
	t := &http.Transport{
		Proxy:              http.ProxyURL(&url.URL{Scheme: "http", Host: g.Addr}),
		TLSClientConfig:    &tls.Config{RootCAs: g.CA.Pool()},
		DisableCompression: true,
		ForceAttemptHTTP2:  h2,
	}
	if !h2 {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	g.T.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Dial opens a TCP connection to the gate with a deadline.
func (g *Gate) Dial() net.Conn {
	g.T.Helper()
	c, err := net.Dial("tcp", g.Addr)
	if err != nil {
		g.T.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	g.T.Cleanup(func() { c.Close() })
	return c
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) { l.t.Logf("%s", b); return len(b), nil }

// A Resolver knows what it was told, and else that a name does not exist.
type Resolver struct {
	mu    sync.Mutex
	addrs map[string][]netip.AddrPort
	asked []string
}

// Add makes host:port lead to each of addrs.
func (r *Resolver) Add(host string, port uint16, addrs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addrs == nil {
		r.addrs = map[string][]netip.AddrPort{}
	}
	var list []netip.AddrPort
	for _, a := range addrs {
		list = append(list, netip.MustParseAddrPort(a))
	}
	r.addrs[fmt.Sprintf("%s:%d", host, port)] = list
}

// Asked returns which destinations were looked up.
func (r *Resolver) Asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.asked...)
}

// Resolve implements mitm.Resolver.
func (r *Resolver) Resolve(_ context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprintf("%s:%d", host, port)
	r.asked = append(r.asked, key)
	if a, ok := r.addrs[key]; ok {
		return a, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip, port)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// A CA issues certificates for tests, and implements mitm.Issuer.
type CA struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	leaf  *ecdsa.PrivateKey
	mu    sync.Mutex
	leafs map[string]*tls.Certificate
	// Never holds names that Leaf refuses.
	Never map[string]bool
}

// NewCA makes a root.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{cert: cert, key: key, leaf: leaf, leafs: map[string]*tls.Certificate{}, Never: map[string]bool{}}
}

// Pool returns the root as a pool.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// Cert returns the root.
func (c *CA) Cert() *x509.Certificate { return c.cert }

func (c *CA) forHello(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h.ServerName == "" {
		return c.Leaf(h.Context(), "127.0.0.1")
	}
	return c.Leaf(h.Context(), h.ServerName)
}

// Leaf implements mitm.Issuer.
func (c *CA) Leaf(_ context.Context, name string) (*tls.Certificate, error) {
	if c.Never[name] {
		return nil, exitgate.NewRefusal(0, "exitgate:never-intercept", "%s is never intercepted", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.leafs[name]; l != nil {
		return l, nil
	}
	l, err := c.Issue(func(t *x509.Certificate) {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = []net.IP{ip}
		} else {
			t.DNSNames = []string{name}
		}
	})
	if err == nil {
		c.leafs[name] = l
	}
	return l, err
}

// Issue signs a certificate that change made of the ordinary one, which names nothing.
func (c *CA) Issue(change func(*x509.Certificate)) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	change(t)
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, &c.leaf.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: c.leaf}, nil
}

// Host issues the identity certificate of a host, which change may spoil.
func (c *CA) Host(t testing.TB, name string, class exitgate.Class, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	id, err := c.Issue(func(t *x509.Certificate) {
		t.Subject.CommonName, t.DNSNames = name, []string{name}
		t.URIs = []*url.URL{{Scheme: "spiffe", Host: "gate.test", Path: "/class/" + string(class) + "/host/" + name}}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if change != nil {
			change(t)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// host is the Certificate of mitm.Hosts for certificates that Host issued.
func (c *CA) host(chain []*x509.Certificate) (name string, class exitgate.Class, err error) {
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: c.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", "", exitgate.NewRefusal(0, exitgate.RuleHost, "the identity certificate is not valid: %v", err)
	}
	if len(chain[0].URIs) != 1 {
		return "", "", exitgate.NewRefusal(0, exitgate.RuleHost, "the identity certificate names no host")
	}
	// The path as it is written: decoded, "/class/a%2fhost%2fb" would be another host's.
	part := strings.Split(chain[0].URIs[0].EscapedPath(), "/")
	if len(part) != 5 || part[1] != "class" || part[3] != "host" {
		return "", "", exitgate.NewRefusal(0, exitgate.RuleHost, "the identity certificate names no host")
	}
	return part[4], exitgate.Class(part[2]), nil
}

// Pipeline gives p the product's own list of steps.
func Pipeline(p *mitm.Proxy) {
	pipeline.Set(p, pipeline.Options{Redact: inspect.NewRedactor(make([]byte, 32), inspect.Secrets{})})
}
