package enrolltest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/authority"
	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/trust"
)

// A Gateway is the listener and what a test may set of it.
type Gateway struct {
	URL         string // https://127.0.0.1:PORT
	Fingerprint string // of the identity root
	Authority   *authority.Authority
	Issuer      *ca.Issuer
	Proxy       *Proxy
	server      *httptest.Server
	ahead       atomic.Int64

	// Before, when it is set before the first request, is called for each, while the host waits.
	Before func(path string)

	mu      sync.Mutex // guards what follows
	Fail    map[string]int
	Mode    string            // proxy, unless set
	NoProxy []string          // beside what the host adds
	Program string            // path of the program at /bin/{os}-{arch}; "" has none
	Retire  bool              // the first interception root is no longer served
	More    []byte            // PEM of interception roots beside the issuer's
	Root    []byte            // answered in place of the identity root, as PEM, when set
	Names   map[string]string // names of hosts that are registered, and their addresses
	Tokens  map[string]int    // uses left
	Asked   []string          // METHOD PATH of all requests, in order
	Stores  []string          // of the last registration
}

// New starts a gateway that the test's end stops.
func New(t testing.TB) *Gateway {
	t.Helper()
	issuer, err := ca.Open(ca.Options{Dir: filepath.Join(t.TempDir(), "ca")})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Issuer: issuer, Fail: map[string]int{}, Mode: "proxy", Names: map[string]string{}, Tokens: map[string]int{}}
	g.Proxy = newProxy(t, issuer)
	g.server = httptest.NewUnstartedServer(g)
	g.URL = "https://" + g.server.Listener.Addr().String()
	g.Authority, err = authority.Open(authority.Options{Dir: filepath.Join(t.TempDir(), "identity"), URL: g.URL, KV: &memory{data: map[string][]byte{}}, Now: g.now,
		Allowed: func(context.Context, string, exitgate.Class) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	g.Fingerprint = g.Authority.Fingerprint()
	g.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse are what some tests are about
	config, err := g.Authority.TLSConfig()
	if err != nil {
		t.Fatal(err)
	}
	g.server.Listener = tls.NewListener(g.server.Listener, config) // StartTLS would serve a certificate of its own
	g.server.Start()
	t.Cleanup(g.server.Close)
	return g
}

func (g *Gateway) now() time.Time { return time.Now().Add(time.Duration(g.ahead.Load())) }

// Ahead sets the clock of the gateway.
func (g *Gateway) Ahead(d time.Duration) { g.ahead.Store(int64(d)) }

// memory is an authority's KV.
type memory struct {
	mu   sync.Mutex // guards data
	data map[string][]byte
}

// Get implements authority.KV.
func (m *memory) Get(_ context.Context, bucket string, key []byte) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.data[bucket+"/"+string(key)]
	return bytes.Clone(v), ok, nil
}

// CompareAndSwap implements authority.KV.
func (m *memory) CompareAndSwap(_ context.Context, bucket string, key, old, next []byte) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := bucket + "/" + string(key)
	have, ok := m.data[at]
	if ok != (old != nil) || !bytes.Equal(have, old) {
		return bytes.Clone(have), false, nil
	}
	if delete(m.data, at); next != nil {
		m.data[at] = bytes.Clone(next)
	}
	return next, true, nil
}

// List implements authority.KV.
func (m *memory) List(_ context.Context, bucket string, visit func(key, value []byte) error) error {
	m.mu.Lock()
	all := maps.Clone(m.data)
	m.mu.Unlock()
	for at, v := range all {
		if key, ok := strings.CutPrefix(at, bucket+"/"); ok {
			if err := visit([]byte(key), v); err != nil {
				return err
			}
		}
	}
	return nil
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
	w.Header().Set("Date", g.now().UTC().Format(http.TimeFormat))
	if status := g.Fail[path.Dir(r.URL.Path)+"/"] + g.Fail[r.URL.Path]; status != 0 {
		problem(w, status, "failed by the test")
		return
	}
	switch p := r.URL.Path; {
	case strings.HasPrefix(p, "/root/") && g.Root != nil:
		json.NewEncoder(w).Encode(map[string]string{"ca": string(g.Root)})
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
	case strings.HasPrefix(p, "/enroll/v1/"):
		name, _, err := g.Authority.Identify(r.TLS.PeerCertificates, g.now())
		if err != nil {
			problem(w, http.StatusForbidden, "%v", err)
			return
		}
		g.known(w, r, name)
	default:
		g.Authority.Handler().ServeHTTP(w, r)
	}
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
	ott, err := g.Authority.Token(r.Context(), in.Name, "build")
	if err != nil {
		problem(w, http.StatusBadRequest, "%v", err)
		return
	}
	proxy := trust.Proxy{}
	if g.Mode == "proxy" {
		proxy = g.proxy()
	}
	json.NewEncoder(w).Encode(map[string]any{"ott": ott, "name": in.Name, "class": "build",
		"ca_url": g.URL, "mode": g.Mode, "proxy": proxy})
}

func (g *Gateway) proxy() trust.Proxy {
	return trust.Proxy{HTTP: g.Proxy.URL, HTTPS: g.Proxy.URL, NoProxy: g.NoProxy}
}

// known serves a host with an identity.
func (g *Gateway) known(w http.ResponseWriter, r *http.Request, name string) {
	switch r.URL.Path {
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

// Serve starts a TLS server with a handler and any certificate, and returns its URL.
func Serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewTLSServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s.URL
}
