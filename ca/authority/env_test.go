package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	smallca "github.com/smallstep/certificates/ca"

	"github.com/exitgate/exitgate"
)

// An env is an authority that listens on the loopback, with what surrounds it.
type env struct {
	a   *Authority
	o   Options
	kv  *memKV
	url string

	mu     sync.Mutex // guards what follows
	denied map[string]error
	issued []Issued
	ahead  time.Duration // of the authority's clock
	log    bytes.Buffer
}

func (e *env) now() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().Add(e.ahead)
}

func (e *env) skew(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ahead = d
}

func (e *env) deny(name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.denied[name] = err
}

func (e *env) allowed(_ context.Context, name string, class exitgate.Class) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.denied[name]
}

func (e *env) noteIssued(i Issued) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.issued = append(e.issued, i)
}

func (e *env) lastIssued() Issued {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.issued[len(e.issued)-1]
}

// Write implements io.Writer for the log.
func (e *env) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(b)
}

func (e *env) logged() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.String()
}

// testOptions returns options that open, with nothing behind them that a test looks at.
func testOptions(t testing.TB) Options {
	return Options{
		Dir:     filepath.Join(t.TempDir(), "identity"),
		URL:     "https://gw.example.com:3130",
		KV:      newMemKV(),
		Allowed: func(context.Context, string, exitgate.Class) error { return nil },
	}
}

func newEnv(t testing.TB, change ...func(*Options)) *env {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &env{kv: newMemKV(), denied: map[string]error{}, url: "https://" + l.Addr().String()}
	e.o = testOptions(t)
	e.o.URL, e.o.Names, e.o.TrustDomain = e.url, []string{"localhost"}, "gw.example"
	e.o.KV, e.o.Allowed, e.o.Issued, e.o.Now = e.kv, e.allowed, e.noteIssued, e.now
	e.o.Logger = slog.New(slog.NewTextHandler(e, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, f := range change {
		f(&e.o)
	}
	if e.a, err = Open(e.o); err != nil {
		t.Fatal(err)
	}
	e.serve(t, l)
	return e
}

// serve serves the authority until the test ends.
func (e *env) serve(t testing.TB, l net.Listener) {
	t.Helper()
	config, err := e.a.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	srv := e.a.Server(e.a.Handler())
	srv.TLSConfig = config
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
}

// A host is a host that enrolled.
type host struct {
	chain []*x509.Certificate
	key   crypto.PrivateKey
	sign  *api.SignResponse
}

func (h *host) serial() string { return h.chain[0].SerialNumber.String() }

func (h *host) pair() tls.Certificate {
	c := tls.Certificate{PrivateKey: h.key, Leaf: h.chain[0]}
	for _, x := range h.chain {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

func newHost(res *api.SignResponse, key crypto.PrivateKey) *host {
	h := &host{key: key, sign: res}
	for _, c := range res.CertChainPEM {
		h.chain = append(h.chain, c.Certificate)
	}
	return h
}

func (e *env) token(t testing.TB, name string, class exitgate.Class, sans ...string) string {
	t.Helper()
	ott, err := e.a.Token(t.Context(), name, class, sans...)
	if err != nil {
		t.Fatal(err)
	}
	return ott
}

// client returns smallstep's client, which trusts the root with the fingerprint.
func (e *env) client(t testing.TB) *smallca.Client {
	t.Helper()
	c, err := smallca.NewClient(e.url, smallca.WithRootSHA256(e.a.Fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// try redeems a token as smallstep's client does.
func (e *env) try(t testing.TB, ott string) (*host, error) {
	t.Helper()
	req, key, err := smallca.CreateSignRequest(ott)
	if err != nil {
		t.Fatal(err)
	}
	res, err := e.client(t).Sign(req)
	if err != nil {
		return nil, err
	}
	return newHost(res, key), nil
}

func (e *env) enrol(t testing.TB, name string, class exitgate.Class, sans ...string) *host {
	t.Helper()
	h, err := e.try(t, e.token(t, name, class, sans...))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// roots returns a pool of the roots that are published.
func (e *env) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.a.RootsPEM())
	return pool
}

// transport returns one that presents the certificates given.
func (e *env) transport(roots *x509.CertPool, certs ...tls.Certificate) *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}, DisableKeepAlives: true}
}

// renew renews h as smallstep's client does.
func (e *env) renew(h *host) (*host, error) {
	c, err := smallca.NewClient(e.url, smallca.WithTransport(e.transport(e.roots())))
	if err != nil {
		return nil, err
	}
	res, err := c.Renew(e.transport(e.roots(), h.pair()))
	if err != nil {
		return nil, err
	}
	return newHost(res, h.key), nil
}

// do makes a request, with a certificate if h is not nil, and returns status and body.
func (e *env) do(h *host, method, path, body string, header ...string) (int, string, error) {
	var certs []tls.Certificate
	if h != nil {
		certs = append(certs, h.pair())
	}
	req, err := http.NewRequest(method, e.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := e.transport(e.roots(), certs...).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (e *env) get(path string) (string, error) {
	status, body, err := e.do(nil, "GET", path, "")
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%d %s", status, body)
	}
	return body, err
}

// clientVia returns smallstep's client, which trusts the roots.
func (e *env) clientVia(t testing.TB, roots *x509.CertPool) *smallca.Client {
	t.Helper()
	c, err := smallca.NewClient(e.url, smallca.WithTransport(e.transport(roots)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fetch returns the body of a successful GET.
func fetch(tr http.RoundTripper, url string) ([]byte, error) {
	res, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%d %s", res.StatusCode, b)
	}
	return b, err
}

// oneLine checks that err is one line that says each of want.
func oneLine(t testing.TB, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", want)
		return
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// certsOf returns the certificates in PEM.
func certsOf(t testing.TB, b []byte) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			return list
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list, b = append(list, c), rest
	}
}

var errTest = errors.New("it was disabled by ops@example.com")
