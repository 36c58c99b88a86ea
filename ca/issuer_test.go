package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// A clock is the Now of an issuer in tests.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) forward(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *clock { return &clock{time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func testOptions(t *testing.T, never ...string) Options {
	t.Helper()
	return Options{Dir: filepath.Join(t.TempDir(), "ca"), Gateway: "gw.example", NeverIntercept: never}
}

func mustOpen(t testing.TB, o Options) *Issuer {
	t.Helper()
	i, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func rootOf(i *Issuer) *pair { r := i.root(); return &r }

func mustLeaf(t testing.TB, i *Issuer, name string) *x509.Certificate {
	t.Helper()
	c, err := i.Leaf(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// verify checks a chain as a Go client does that trusts the root, at the issuer's time.
func verify(t testing.TB, i *Issuer, leaf *x509.Certificate, name string) error {
	t.Helper()
	roots, issuers := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(i.RootCertificate())
	issuers.AddCert(i.current.Load().cert)
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: issuers, CurrentTime: i.now()})
	return err
}

func TestFirstStart(t *testing.T) {
	o := testOptions(t)
	i := mustOpen(t, o)
	for name, want := range map[string]os.FileMode{".": 0o700, rootFile: 0o600, issuerFile: 0o600, rootCertFile: 0o644, rootsFile: 0o644} {
		fi, err := os.Stat(filepath.Join(o.Dir, name))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, mode %v, want %v", name, err, fi.Mode().Perm(), want)
		}
	}
	public, err := os.ReadFile(i.RootFile())
	if err != nil || string(public) != string(i.RootPEM()) || strings.Contains(string(public), "PRIVATE") {
		t.Errorf("root.crt: %v\n%s", err, public)
	}
	leaf := mustLeaf(t, i, "www.example.com")
	if err := verify(t, i, leaf, "www.example.com"); err != nil {
		t.Error(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life >= 24*time.Hour {
		t.Errorf("the leaf lives for %v", life)
	}
	again := mustOpen(t, o)
	if again.Fingerprint() != i.Fingerprint() || !again.IssuerNotAfter().Equal(i.IssuerNotAfter()) {
		t.Error("the second start made other certificates")
	}
}

func TestLeafRefuses(t *testing.T) {
	i := mustOpen(t, testOptions(t, "bank.example"))
	long := strings.Repeat("a", 63)
	for name, rule := range map[string]string{
		"":                                   exitgate.RuleMalformed,
		".":                                  exitgate.RuleMalformed,
		"www.example.com.":                   exitgate.RuleMalformed,
		"a..example":                         exitgate.RuleMalformed,
		"*.example.com":                      exitgate.RuleMalformed,
		"-a.example":                         exitgate.RuleMalformed,
		"a-.example":                         exitgate.RuleMalformed,
		"a b.example":                        exitgate.RuleMalformed,
		"a\x00.example":                      exitgate.RuleMalformed,
		"ü.example":                          exitgate.RuleMalformed,
		"a/b":                                exitgate.RuleMalformed,
		"user@example.com":                   exitgate.RuleMalformed,
		"example.com:443":                    exitgate.RuleMalformed,
		"[2001:db8::1]":                      exitgate.RuleMalformed,
		"fe80::1%eth0":                       exitgate.RuleMalformed,
		"192.0.2":                            exitgate.RuleMalformed,
		"192.0.2.256":                        exitgate.RuleMalformed,
		"0x7f.0x1":                           exitgate.RuleMalformed,
		long + "a.example":                   exitgate.RuleMalformed,
		strings.Repeat(long+".", 4) + "test": exitgate.RuleMalformed,
		"bank.example":                       exitgate.RuleNeverIntercept,
		"BANK.example":                       exitgate.RuleNeverIntercept,
		"a.b.bank.example":                   exitgate.RuleNeverIntercept,
	} {
		_, err := i.Leaf(context.Background(), name)
		var r *exitgate.Refusal
		if !errors.As(err, &r) || r.Verdict.Rule != rule || r.Verdict.Action != exitgate.Refuse {
			t.Errorf("%q: %v, want a refusal by %s", name, err, rule)
			continue
		}
		if rule == exitgate.RuleMalformed && r.Status != http.StatusBadRequest {
			t.Errorf("%q: status %d", name, r.Status)
		}
		if rule == exitgate.RuleNeverIntercept && !strings.Contains(r.Verdict.Reason, "exemption") {
			t.Errorf("%q: %q does not say what to do", name, r.Verdict.Reason)
		}
	}
}

// TestFoldingRegression: the Kelvin sign was folded into a k, so that a name that is not ASCII had a leaf of another.
func TestFoldingRegression(t *testing.T) {
	i := mustOpen(t, testOptions(t))
	_, err := i.Leaf(context.Background(), "\u212aey.example")
	var r *exitgate.Refusal
	if !errors.As(err, &r) || r.Verdict.Rule != exitgate.RuleMalformed {
		t.Errorf("a Kelvin sign: %v", err)
	}
	if err := i.SetNeverIntercept([]string{"ban\u212a.example"}); err == nil {
		t.Error("a Kelvin sign in the list")
	}
}

func TestLeafAccepts(t *testing.T) {
	i := mustOpen(t, testOptions(t, "bank.example"))
	label := strings.Repeat("a", 63)
	for _, name := range []string{
		"example.com", "localhost", "a.b.c.d.e.example", "xn--bcher-kva.example", "1.example", "a--b.example", "notbank.example", "bank.example.test",
		"192.0.2.7", "2001:db8::1", strings.Repeat("a.", 40) + "example", label + "." + label + "." + label + "." + strings.Repeat("b", 61),
	} {
		leaf := mustLeaf(t, i, name)
		if err := verify(t, i, leaf, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(leaf.DNSNames) + len(leaf.IPAddresses); n != 1 || len(leaf.URIs)+len(leaf.EmailAddresses) != 0 {
			t.Errorf("%s: %d names in one leaf", name, n)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
