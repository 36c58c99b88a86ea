package enrolltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/trust"
)

// A Gateway is the listener and what a test may set of it.
type Gateway struct {
	URL         string // https://127.0.0.1:PORT
	Fingerprint string // of the identity root
	Issuer      *ca.Issuer
	Proxy       *Proxy
	server      *httptest.Server
	root        pair
	issuer      pair

	// Before, when it is set before the first request, is called for each, while the host waits.
	Before func(path string)

	mu       sync.Mutex // guards what follows
	Fail     map[string]int
	Date     string            // in place of the time, when set
	Mode     string            // proxy, unless set
	NoProxy  []string          // beside what the host adds
	Program  string            // path of the program at /bin/{os}-{arch}; "" has none
	Retire   bool              // the first interception root is no longer served
	More     []byte            // PEM of interception roots beside the issuer's
	Lifetime time.Duration     // of an identity
	Names    map[string]string // names of hosts that are registered, and their addresses
	Tokens   map[string]int    // uses left
	Asked    []string          // METHOD PATH of all requests, in order
	Stores   []string          // of the last registration
}

type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New starts a gateway that the test's end stops.
func New(t testing.TB) *Gateway {
	t.Helper()
	issuer, err := ca.Open(ca.Options{Dir: filepath.Join(t.TempDir(), "ca")})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Issuer: issuer, Fail: map[string]int{}, Mode: "proxy", Names: map[string]string{}, Tokens: map[string]int{}, Lifetime: 8 * time.Hour}
	g.Proxy = newProxy(t, issuer)
	g.root = g.make(t, pair{}, &x509.Certificate{Subject: pkix.Name{CommonName: "identity root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	g.issuer = g.make(t, g.root, &x509.Certificate{Subject: pkix.Name{CommonName: "identity issuer"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign})
	server := g.make(t, g.issuer, &x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 99, 0, 1)},
		DNSNames: []string{"localhost", "gate.example.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	sum := sha256.Sum256(g.root.cert.Raw)
	g.Fingerprint = hex.EncodeToString(sum[:])
	clients := x509.NewCertPool()
	clients.AddCert(g.root.cert)
	g.server = httptest.NewUnstartedServer(g)
	g.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse are what some tests are about
	g.server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.cert.Raw, g.issuer.cert.Raw}, PrivateKey: server.key}}}
	g.server.StartTLS()
	t.Cleanup(g.server.Close)
	g.URL = g.server.URL
	return g
}

// make signs a certificate with by, or with itself.
func (g *Gateway) make(t testing.TB, by pair, template *x509.Certificate) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by.key == nil {
		by = pair{template, key}
	}
	c, err := certify(by, key.Public(), template, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return pair{c, key}
}

func certify(by pair, public any, template *x509.Certificate, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Minute), time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, public, by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Lock gives the fields to the test until unlock is called.
func (g *Gateway) Lock() (unlock func()) { g.mu.Lock(); return g.mu.Unlock }

// Token makes a token that is good for a number of hosts.
func (g *Gateway) Token(uses int) string {
	token := "xgh_" + strings.ToLower(rand.Text())
	defer g.Lock()()
	g.Tokens[token] = uses
	return token
}

// Count returns how often a route was asked for.
func (g *Gateway) Count(request string) int {
	defer g.Lock()()
	n := 0
	for _, a := range g.Asked {
		if a == request {
			n++
		}
	}
	return n
}

// Registered lists the names of hosts.
func (g *Gateway) Registered() []string {
	defer g.Lock()()
	var names []string
	for n := range g.Names {
		names = append(names, n)
	}
	return names
}

func problem(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"status": status, "detail": fmt.Sprintf(format, args...)})
}

// ServeHTTP implements http.Handler: the routes of the listener.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.Before != nil {
		g.Before(r.URL.Path)
	}
	defer g.Lock()()
	g.Asked = append(g.Asked, r.Method+" "+r.URL.Path)
	if g.Date != "" {
		w.Header().Set("Date", g.Date)
	}
	if status := g.Fail[path.Dir(r.URL.Path)+"/"] + g.Fail[r.URL.Path]; status != 0 {
		problem(w, status, "failed by the test")
		return
	}
	switch p := r.URL.Path; {
	case strings.HasPrefix(p, "/root/"):
		if p != "/root/"+g.Fingerprint {
			problem(w, http.StatusNotFound, "no such root")
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"ca": text(g.root.cert)})
	case p == "/trust/roots.pem":
		b, err := os.ReadFile(g.Issuer.RootFile())
		if err != nil {
			problem(w, 500, "%v", err)
			return
		}
		if g.Retire {
			b = nil
		}
		w.Write(append(b, g.More...))
	case p == "/enroll.sh":
		w.Write(enroll.Script())
	case p == "/proxy.pac":
		w.Write(enroll.PAC(g.proxy()))
	case strings.HasPrefix(p, "/bin/"):
		if g.Program == "" {
			problem(w, http.StatusNotFound, "no program for this architecture")
			return
		}
		http.ServeFile(w, r, g.Program)
	case p == "/enroll/v1/token":
		g.token(w, r)
	case p == "/1.0/sign":
		g.sign(w, r)
	case len(r.TLS.PeerCertificates) == 0:
		problem(w, http.StatusUnauthorized, "an identity certificate is needed")
	default:
		g.known(w, r, r.TLS.PeerCertificates[0])
	}
}

func text(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (g *Gateway) token(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Token, Name string
		Addresses   []string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		problem(w, http.StatusBadRequest, "%v", err)
		return
	}
	uses, ok := g.Tokens[in.Token]
	switch {
	case !ok:
		problem(w, http.StatusForbidden, "the token is not known, or its time is over")
		return
	case uses == 0:
		problem(w, http.StatusForbidden, "the token was used already")
		return
	}
	g.Tokens[in.Token]--
	claims, err := json.Marshal(map[string]any{"sub": in.Name, "sans": []string{in.Name, "spiffe://gw.example.test/class/build/host/" + in.Name}})
	if err != nil {
		problem(w, 500, "%v", err)
		return
	}
	proxy := trust.Proxy{}
	if g.Mode == "proxy" {
		proxy = g.proxy()
	}
	json.NewEncoder(w).Encode(map[string]any{"ott": "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln", "name": in.Name, "class": "build",
		"ca_url": g.URL, "mode": g.Mode, "proxy": proxy})
}

func (g *Gateway) proxy() trust.Proxy {
	return trust.Proxy{HTTP: g.Proxy.URL, HTTPS: g.Proxy.URL, NoProxy: g.NoProxy}
}

func (g *Gateway) sign(w http.ResponseWriter, r *http.Request) {
	var in struct{ CSR, OTT string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		problem(w, http.StatusBadRequest, "%v", err)
		return
	}
	block, _ := pem.Decode([]byte(in.CSR))
	if block == nil {
		problem(w, http.StatusBadRequest, "no request")
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = errors.Join(csr.CheckSignature())
	}
	if err != nil || len(csr.URIs) != 1 {
		problem(w, http.StatusForbidden, "the request does not fit the token: %v", err)
		return
	}
	g.answer(w, csr.PublicKey, &x509.Certificate{Subject: csr.Subject, DNSNames: csr.DNSNames, URIs: csr.URIs})
}

func (g *Gateway) answer(w http.ResponseWriter, public any, template *x509.Certificate) {
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	c, err := certify(g.issuer, public, template, g.Lifetime)
	if err != nil {
		problem(w, 500, "%v", err)
		return
	}
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]any{"crt": text(c), "ca": text(g.issuer.cert), "certChain": []string{text(c), text(g.issuer.cert)}})
}

// known serves a host with an identity.
func (g *Gateway) known(w http.ResponseWriter, r *http.Request, c *x509.Certificate) {
	name := c.Subject.CommonName
	switch r.URL.Path {
	case "/1.0/renew":
		g.answer(w, c.PublicKey, &x509.Certificate{Subject: c.Subject, DNSNames: c.DNSNames, URIs: c.URIs})
	case "/enroll/v1/register":
		var in struct{ Addresses, Trust []string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			problem(w, http.StatusBadRequest, "%v", err)
			return
		}
		g.Names[name], g.Stores = strings.Join(in.Addresses, ","), in.Trust
		json.NewEncoder(w).Encode(map[string]any{"mode": g.Mode, "proxy": g.proxy()})
	case "/enroll/v1/leave":
		delete(g.Names, name)
		w.WriteHeader(http.StatusNoContent)
	default:
		problem(w, http.StatusNotFound, "no such route")
	}
}

// Stop ends the listener before the test does.
func (g *Gateway) Stop() { g.server.Close() }

// Answer makes g answer with the identity root of another gateway, which is public, over its own certificate.
func (g *Gateway) Answer(other *Gateway) {
	defer g.Lock()()
	g.root.cert, g.Fingerprint = other.root.cert, other.Fingerprint
}

// Serve starts a TLS server with a handler and any certificate, and returns its URL.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewTLSServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s.URL
}
