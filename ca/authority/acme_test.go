package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// A fleet is the hosts that an ACME authority may dial, on the loopback.
type fleet struct {
	mu     sync.Mutex // guards what follows
	hosts  map[string][]netip.Addr
	dialed []string
	ports  map[uint16]string // where a port really is
}

func (f *fleet) addresses(_ context.Context, name string) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, ok := f.hosts[name]; ok {
		return a, nil
	}
	return nil, errors.New("it is not registered")
}

func (f *fleet) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	f.mu.Lock()
	f.dialed = append(f.dialed, to.String())
	real := f.ports[to.Port()]
	f.mu.Unlock()
	return (&net.Dialer{}).DialContext(ctx, network, real)
}

func (f *fleet) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dialed)
}

func newACME(t *testing.T) (*env, *fleet) {
	f := &fleet{hosts: map[string][]netip.Addr{"web-01.hosts.example": {netip.MustParseAddr("192.0.2.10")}}, ports: map[uint16]string{}}
	e := newEnv(t, func(o *Options) {
		o.ACME = &ACME{Names: []string{"*.hosts.example"}, Addresses: f.addresses, Dial: f.dial}
	})
	return e, f
}

// account returns an ACME client with an account.
func account(t *testing.T, e *env) *acme.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &acme.Client{Key: key, DirectoryURL: e.url + "/acme/acme/directory", HTTPClient: &http.Client{Transport: e.transport(e.roots())},
		RetryBackoff: func(int, *http.Request, *http.Response) time.Duration { return -1 }}
	if _, err := c.Register(t.Context(), &acme.Account{}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	return c
}

// solve orders a certificate for name and lets answer prepare the challenge of the kind.
func solve(t *testing.T, c *acme.Client, name, kind string, key crypto.Signer, answer func(*acme.Challenge)) ([]*x509.Certificate, error) {
	t.Helper()
	ctx := t.Context()
	order, err := c.AuthorizeOrder(ctx, acme.DomainIDs(name))
	if err != nil {
		return nil, err
	}
	authz, err := c.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(authz.Challenges, func(ch *acme.Challenge) bool { return ch.Type == kind })
	if i < 0 {
		return nil, fmt.Errorf("no challenge %s", kind)
	}
	answer(authz.Challenges[i])
	ch, err := c.Accept(ctx, authz.Challenges[i])
	if err != nil {
		return nil, err
	}
	if ch.Status != acme.StatusValid {
		return nil, fmt.Errorf("challenge %s: %w", ch.Status, ch.Error)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}, ExtraExtensions: classExtension("app")}, key)
	if err != nil {
		t.Fatal(err)
	}
	ders, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, der := range ders {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, x)
	}
	return chain, nil
}

// TestACME gets a server certificate by each challenge, for a P-256 and an RSA key. It is no identity.
func TestACME(t *testing.T) {
	e, f := newACME(t)
	c := account(t, e)
	const name = "web-01.hosts.example"
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	answers := http.NewServeMux()
	web := httptest.NewServer(answers)
	t.Cleanup(web.Close)
	f.ports[80] = web.Listener.Addr().String()
	chain, err := solve(t, c, name, "http-01", ec, func(ch *acme.Challenge) {
		text, err := c.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		answers.HandleFunc(c.HTTP01ChallengePath(ch.Token), func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, e, chain, name)
	chain, err = solve(t, c, name, "tls-alpn-01", rs, func(ch *acme.Challenge) {
		cert, err := c.TLSALPN01ChallengeCert(ch.Token, name)
		if err != nil {
			t.Fatal(err)
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{acme.ALPNProto}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f.mu.Lock()
		f.ports[443] = l.Addr().String()
		f.mu.Unlock()
		go func() {
			if conn, err := l.Accept(); err == nil {
				conn.(*tls.Conn).Handshake()
				io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, e, chain, name)
	if chain[0].KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		t.Error("an RSA key of a server cannot encipher")
	}
	for _, d := range f.calls() {
		if d != "192.0.2.10:80" && d != "192.0.2.10:443" {
			t.Errorf("dialled %s", d)
		}
	}
	if err := c.RevokeCert(t.Context(), ec, chain[0].Raw, acme.CRLReasonUnspecified); err == nil {
		t.Error("revoked with another key")
	}
	if err := c.RevokeCert(t.Context(), nil, chain[0].Raw, acme.CRLReasonUnspecified); err != nil {
		t.Error(err)
	}
}

// check verifies a server certificate that ACME gave, and that it is no identity.
func check(t *testing.T, e *env, chain []*x509.Certificate, name string) {
	t.Helper()
	pool := x509.NewCertPool()
	for _, x := range chain[1:] {
		pool.AddCert(x)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: e.roots(), Intermediates: pool}); err != nil {
		t.Error(err)
	}
	if len(chain[0].ExtKeyUsage) != 1 || chain[0].ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("usage %v", chain[0].ExtKeyUsage)
	}
	_, _, err := e.a.Identify(chain, time.Now())
	if !errors.Is(err, ErrKind) {
		t.Errorf("as an identity: %v", err)
	}
	if _, err := classOf(chain[0]); err == nil {
		t.Error("the request put a class into it")
	}
}

// TestACMEGuarded asks for what would make the gateway reach out.
func TestACMEGuarded(t *testing.T) {
	e, f := newACME(t)
	c := account(t, e)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	none := func(*acme.Challenge) {}
	for name, want := range map[string]string{
		"data.attacker.test":          "",
		"a.b.hosts.example":           "",
		"*.hosts.example":             "",
		"hosts.example":               "",
		"web-02.hosts.example":        "could not connect", // allowed by name, and not registered
		"data.attacker.test:80":       "",
		"hosts.example.attacker.test": "",
	} {
		for _, kind := range []string{"http-01", "tls-alpn-01"} {
			if _, err := solve(t, c, name, kind, key, none); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s by %s: %v", name, kind, err)
			}
		}
	}
	if _, err := solve(t, c, "web-01.hosts.example", "dns-01", key, none); err == nil {
		t.Error("dns-01 is offered")
	}
	if _, err := c.AuthorizeOrder(t.Context(), acme.IPIDs("192.0.2.10")); err == nil {
		t.Error("an address was ordered")
	}
	if d := f.calls(); len(d) != 0 {
		t.Errorf("dialled %v", d)
	}

	// A host that answers a challenge with a redirect, an endless body or nothing at all reaches nothing.
	hits := 0
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	t.Cleanup(trap.Close)
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, trap.URL, http.StatusFound) },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"wrong": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") },
	} {
		web := httptest.NewServer(h)
		f.mu.Lock()
		f.ports[80] = web.Listener.Addr().String()
		f.mu.Unlock()
		if _, err := solve(t, c, "web-01.hosts.example", "http-01", key, none); err == nil {
			t.Errorf("%s: a certificate", name)
		}
		web.Close()
	}
	if hits != 0 {
		t.Error("a redirect was followed")
	}
}

// TestChallenger asks the guarded client for what smallstep would not, too.
func TestChallenger(t *testing.T) {
	f := &fleet{hosts: map[string][]netip.Addr{"web-01.hosts.example": {netip.MustParseAddr("192.0.2.10")}}}
	c := (&ACME{Addresses: f.addresses, Dial: f.dial}).client()
	for _, url := range []string{"https://web-01.hosts.example/", "http://web-01.hosts.example:8080/", "http://127.0.0.1/", "http://[::1]/", "file:///etc/passwd", "http://", ""} {
		if res, err := c.Get(url); err == nil {
			res.Body.Close()
			t.Errorf("%q was fetched", url)
		}
	}
	for _, addr := range []string{"web-01.hosts.example:22", "127.0.0.1:443", "web-01.hosts.example", "other.example:443"} {
		if conn, err := c.TLSDial("tcp", addr, &tls.Config{}); err == nil {
			conn.Close()
			t.Errorf("%q was dialled", addr)
		}
	}
	if _, err := c.LookupTxt("_acme-challenge.data.attacker.test"); err == nil {
		t.Error("a name was looked up")
	}
	if d := f.calls(); len(d) != 0 {
		t.Errorf("dialled %v", d)
	}
}
