package authority

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"

	"github.com/exitgate/exitgate"
)

// TestIdentifyReasons presents what is no identity; each has its own error and a line that says what to do.
func TestIdentifyReasons(t *testing.T) {
	e, stranger := newEnv(t), newEnv(t)
	h, revoked, denied := e.enrol(t, "web-01.hosts.example", "app"), e.enrol(t, "web-02.hosts.example", "app"), e.enrol(t, "web-03.hosts.example", "app")
	foreign := stranger.enrol(t, "web-01.hosts.example", "app")
	if err := e.a.Revoke(t.Context(), revoked.serial(), "stolen"); err != nil {
		t.Fatal(err)
	}
	e.deny("web-03.hosts.example", errTest)
	server, err := e.a.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	own, err := server(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	all := []error{ErrNone, ErrForeign, ErrKind, ErrExpired, ErrNotYet, ErrRevoked, ErrDisabled, ErrUnknown}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		at    time.Time
		want  error
		text  string
	}{
		"none":                       {nil, now, ErrNone, "must enrol"},
		"nil":                        {[]*x509.Certificate{nil}, now, ErrNone, "must enrol"},
		"foreign":                    {foreign.chain, now, ErrForeign, "enrol with this gateway"},
		"foreign with our issuer":    {append(foreign.chain[:1:1], h.chain[1]), now, ErrForeign, "enrol with this gateway"},
		"forged":                     {append(forge(t, h.chain[0]).chain, h.chain[1]), now, ErrForeign, "enrol with this gateway"},
		"issuer":                     {h.chain[1:], now, ErrKind, ""},
		"root":                       {certsOf(t, e.a.RootsPEM()), now, ErrKind, ""},
		"server":                     {[]*x509.Certificate{own.Leaf, h.chain[1]}, now, ErrKind, "for servers"},
		"expired":                    {h.chain, now.Add(9 * time.Hour), ErrExpired, "renew it before it ends"},
		"expired and foreign":        {foreign.chain, now.Add(9 * time.Hour), ErrForeign, ""},
		"not yet":                    {h.chain, now.Add(-time.Hour), ErrNotYet, "begins at"},
		"revoked":                    {revoked.chain, now, ErrRevoked, "enrol again"},
		"disabled":                   {denied.chain, now, ErrDisabled, "ops@example.com"},
		"good":                       {h.chain, now, nil, ""},
		"good without its issuer":    {h.chain[:1], now, nil, ""},
		"good behind a long chain":   {append(h.chain[:1:1], foreign.chain[0], foreign.chain[1], h.chain[1], foreign.chain[0], nil), now, nil, ""},
		"good, a second time":        {h.chain, now, nil, ""},
		"good at the last moment":    {h.chain, h.chain[0].NotAfter.Add(-time.Second), nil, ""},
		"ended at the moment it did": {h.chain, h.chain[0].NotAfter, ErrExpired, ""},
	} {
		host, class, err := e.a.Identify(c.chain, c.at)
		for _, other := range all {
			if is := errors.Is(err, other); is != (other == c.want) {
				t.Errorf("%s: is %v: %v, err %v", name, other, is, err)
			}
		}
		if (err == nil) != (host == "web-01.hosts.example" && class == "app") || err != nil && (host != "" || class != "") {
			t.Errorf("%s: %q %q with %v", name, host, class, err)
		}
		if err != nil {
			oneLine(t, err, c.text)
		}
	}
}

// TestRevokedElsewhere revokes at another gateway: it bites here within two seconds, without a look-up for each
// connection before.
func TestRevokedElsewhere(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	other := mustOpen(t, e.o)
	now := time.Now()
	identify := func(at time.Time) error { _, _, err := e.a.Identify(h.chain, at); return err }
	if err := identify(now); err != nil {
		t.Fatal(err)
	}
	before := e.kv.gets
	for i := range 1000 {
		if err := identify(now.Add(time.Duration(i) * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.kv.gets - before; n != 0 {
		t.Errorf("%d look-ups for 1000 connections in a second", n)
	}
	if err := other.Revoke(t.Context(), h.serial(), "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := identify(now.Add(freshRevocation)); !errors.Is(err, ErrRevoked) {
		t.Errorf("two seconds later: %v", err)
	}
	if err := identify(now); !errors.Is(err, ErrRevoked) {
		t.Errorf("forgotten: %v", err)
	}
}

// TestStoreAway takes the store away: who was good goes on for minutes, who was not seen is refused, who was revoked
// stays so.
func TestStoreAway(t *testing.T) {
	e := newEnv(t)
	h, unseen, revoked := e.enrol(t, "web-01.hosts.example", "app"), e.enrol(t, "web-02.hosts.example", "app"), e.enrol(t, "web-03.hosts.example", "app")
	now := time.Now()
	identify := func(h *host, after time.Duration) error {
		_, _, err := e.a.Identify(h.chain, now.Add(after))
		return err
	}
	if err := errors.Join(identify(h, 0), e.a.Revoke(t.Context(), revoked.serial(), "stolen")); err != nil {
		t.Fatal(err)
	}
	e.kv.setFail(errors.New("connection refused"))
	if err := identify(h, staleRevocation-time.Second); err != nil {
		t.Error(err)
	}
	if err := identify(h, staleRevocation); !errors.Is(err, ErrUnknown) {
		t.Errorf("after five minutes: %v", err)
	}
	oneLine(t, identify(unseen, 0), "connection refused", "try again")
	if err := identify(revoked, time.Hour); !errors.Is(err, ErrRevoked) {
		t.Error(err)
	}
	e.deny("web-01.hosts.example", errTest)
	if err := identify(h, time.Minute); !errors.Is(err, ErrDisabled) {
		t.Errorf("a host that was disabled meanwhile: %v", err)
	}
	e.kv.setFail(nil)
	if err := identify(unseen, 0); err != nil {
		t.Error(err)
	}
}

// TestStoreHangs connects many times at once while the store does not answer: one look-up is made, and who has no more
// time leaves.
func TestStoreHangs(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	gate := make(chan struct{})
	e.kv.mu.Lock()
	e.kv.gate, e.kv.gets = gate, 0
	e.kv.mu.Unlock()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := e.a.Verify(context.Background(), h.chain); err != nil {
				t.Error(err)
			}
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.a.Verify(gone, h.chain); !errors.Is(err, ErrUnknown) {
		t.Errorf("a client that has gone: %v", err)
	}
	close(gate)
	wg.Wait()
	e.kv.mu.Lock()
	defer e.kv.mu.Unlock()
	if e.kv.gets > 50 {
		t.Errorf("%d look-ups", e.kv.gets)
	}
}

// TestBounded fills what is remembered: it stays bounded, and what is used stays.
func TestBounded(t *testing.T) {
	b := bounded[int, int]{max: 10}
	b.put(-1, 7)
	for i := range 1000 {
		b.put(i, i)
		if v, ok := b.get(-1); !ok || v != 7 {
			t.Fatalf("what is used was forgotten at %d", i)
		}
		if n := len(b.young) + len(b.old); n > 2*b.max {
			t.Fatalf("%d entries", n)
		}
	}
	if _, ok := b.get(1); ok {
		t.Error("what was not used is still there")
	}
}

// TestAnotherTrustDomain opens the folder under another trust domain: its identities are no longer good.
func TestAnotherTrustDomain(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	o := e.o
	o.TrustDomain = "other.example"
	_, _, err := mustOpen(t, o).Identify(h.chain, time.Now())
	if !errors.Is(err, ErrKind) {
		t.Errorf("%v", err)
	}
	oneLine(t, err, "other.example")
}

// FuzzSaid reads what certificates say, whoever signed them: what is taken names a host and a class that could be.
func FuzzSaid(f *testing.F) {
	a := mustOpen(f, testOptions(f)) // no listener: its goroutines would be coverage of the input
	ott, err := a.Token(f.Context(), "web-01.hosts.example", "app")
	if err != nil {
		f.Fatal(err)
	}
	w := newRecorder()
	a.Handler().ServeHTTP(w, newRequest("POST", "/1.0/sign", []byte(signBody(f, ott, nil))))
	var res api.SignResponse
	if err := json.Unmarshal(w.Body.Bytes(), &res); err != nil {
		f.Fatal(err)
	}
	for _, c := range res.CertChainPEM {
		f.Add(c.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		id, err := a.said(c)
		if err == nil && (checkHost(id.Name) != nil || checkClass(id.Class) != nil || len(c.URIs) != 1) {
			t.Errorf("%+v", id)
		}
	})
}

// FuzzSign sends bodies to the path that signs, with a token that is good: the answer is JSON of one line, never 500,
// and what is signed is signed for the token's host and class.
func FuzzSign(f *testing.F) {
	o := testOptions(f)
	var last Issued
	o.Issued = func(i Issued) { last = i }
	a := mustOpen(f, o)
	ott, err := a.Token(f.Context(), "web-01.hosts.example", "app")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signBody(f, ott, nil))
	f.Add(`{"ott":"TOKEN","csr":"","notAfter":"1h","templateData":{"class":"x"}}`)
	f.Add(`{"ott":["TOKEN"]}`)
	f.Fuzz(func(t *testing.T, body string) {
		ott, err := a.Token(t.Context(), "web-01.hosts.example", "app")
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/1.0/sign", strings.NewReader(strings.ReplaceAll(body, "TOKEN", ott))))
		if !json.Valid(w.Body.Bytes()) || w.Code >= 500 || strings.Count(w.Body.String(), "\n") != 1 {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		if w.Code == 201 && (last.Name != "web-01.hosts.example" || last.Class != "app") {
			t.Errorf("signed for %+v", last)
		}
	})
}

// FuzzToken redeems tokens that are not.
func FuzzToken(f *testing.F) {
	a := mustOpen(f, testOptions(f))
	ott, err := a.Token(f.Context(), "web-01.hosts.example", "app")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ott)
	f.Add(unsigned(ott))
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := a.checkToken(token, "sign")
		if err == nil && (c.Subject != "web-01.hosts.example" || c.Class != "app") {
			t.Errorf("%+v", c)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %q", err)
		}
	})
}

// BenchmarkIdentify is what each connection costs.
func BenchmarkIdentify(b *testing.B) {
	e := newEnv(b)
	h := e.enrol(b, "web-01.hosts.example", "app")
	now := time.Now()
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := e.a.Identify(h.chain, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.a.read(e.a.current.Load(), h.chain); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("foreign", func(b *testing.B) {
		x := forge(b, h.chain[0])
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := e.a.Identify(x.chain, now); err == nil {
				b.Fatal("taken")
			}
		}
	})
}

// BenchmarkSign is what a first identity costs the gateway.
func BenchmarkSign(b *testing.B) {
	o := testOptions(b)
	a := mustOpen(b, o)
	for b.Loop() {
		b.StopTimer()
		ott, err := a.Token(b.Context(), "web-01.hosts.example", exitgate.Class("app"))
		if err != nil {
			b.Fatal(err)
		}
		body := signBody(b, ott, nil)
		b.StartTimer()
		w := httptest.NewRecorder()
		a.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/1.0/sign", strings.NewReader(body)))
		if w.Code != 201 {
			b.Fatal(fmt.Sprint(w.Code), w.Body.String())
		}
	}
}
