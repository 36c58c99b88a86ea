package enroll_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/ca/enroll"
	"github.com/exitgate/exitgate/ca/enroll/enrolltest"
)

func TestRenew(t *testing.T) {
	g := enrolltest.New(t)
	h, _ := newHost(t)
	clean := snapshot(t, h)
	first, err := h.Enroll(t.Context(), invite(g))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for _, step := range []struct {
		after   time.Duration
		renewed bool
	}{{time.Hour, false}, {3*time.Hour + 50*time.Minute, false}, {4*time.Hour + 50*time.Minute, true}} {
		h.Now = func() time.Time { return start.Add(step.after) }
		g.Ahead(step.after)
		r, err := h.Renew(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Renewed != step.renewed {
			t.Errorf("after %s: renewed %v", step.after, r.Renewed)
		}
	}
	if _, err := h.Renew(t.Context()); err != nil { // the certificate and the key still belong together
		t.Fatal(err)
	}
	h.Now = func() time.Time { return start.Add(20 * time.Hour) }
	before := snapshot(t, h)
	_, err = h.Renew(t.Context())
	if err == nil || !strings.Contains(err.Error(), "run exitgate enroll again") {
		t.Errorf("an identity that ended: %v", err)
	}
	differ(t, "an identity that ended", before, snapshot(t, h))
	h.Now = nil
	g.Ahead(0)
	expire(t, h)
	if _, err := h.Renew(t.Context()); err == nil {
		t.Error("an identity that ended was renewed")
	}
	second, err := h.Enroll(t.Context(), invite(g))
	if err != nil || !second.Renewed || second.NotAfter.Before(first.NotAfter) {
		t.Errorf("enrolment after the end: %+v, %v", second, err)
	}
	if _, err := h.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "unenroll", clean, snapshot(t, h))
}

// expire puts an identity that ended in the place of the host's.
func expire(t *testing.T, h *enroll.Host) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"identity.crt": {Type: "CERTIFICATE", Bytes: der}, "identity.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(h.Trust.Root+"/var/lib/exitgate-host/"+name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIdentityRootRotates replaces the root whose fingerprint hosts were given. A host that looks in between goes on.
func TestIdentityRootRotates(t *testing.T) {
	g := enrolltest.New(t)
	h, _ := newHost(t)
	clean := snapshot(t, h)
	if _, err := h.Enroll(t.Context(), invite(g)); err != nil {
		t.Fatal(err)
	}
	if err := g.Authority.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	late, _ := newHost(t) // was given the old fingerprint, and comes during the rotation
	if _, err := late.Enroll(t.Context(), invite(g)); err != nil {
		t.Errorf("a host with the old fingerprint: %v", err)
	}
	h.Now = func() time.Time { return time.Now().Add(5 * time.Hour) }
	g.Ahead(5 * time.Hour)
	if r, err := h.Renew(t.Context()); err != nil || !r.Renewed {
		t.Fatalf("during the rotation: %+v, %v", r, err)
	}
	if err := g.Authority.Finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := h.Renew(t.Context()); err != nil {
			t.Fatalf("after the rotation: %v", err)
		}
	}
	inv := invite(g)
	inv.Fingerprint = g.Authority.Fingerprint()
	if _, err := h.Enroll(t.Context(), inv); err != nil {
		t.Errorf("a second run with the new fingerprint: %v", err)
	}
	if b, err := os.ReadFile(h.Trust.Root + "/var/lib/exitgate-host/root.crt"); err != nil || strings.Count(string(b), "BEGIN") != 1 {
		t.Errorf("the host keeps the old root: %s, %v", b, err)
	}
	if _, err := h.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "unenroll", clean, snapshot(t, h))
}

// TestRootsRotate lets a root come, and the old one go.
func TestRootsRotate(t *testing.T) {
	g := enrolltest.New(t)
	h, _ := newHost(t)
	clean := snapshot(t, h)
	if _, err := h.Enroll(t.Context(), invite(g)); err != nil {
		t.Fatal(err)
	}
	next, err := ca.Open(ca.Options{Dir: filepath.Join(t.TempDir(), "ca")})
	if err != nil {
		t.Fatal(err)
	}
	if g.More, err = os.ReadFile(next.RootFile()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		retire    bool
		old, next bool
	}{{false, true, true}, {true, false, true}} {
		g.Retire = step.retire
		if _, err := h.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		bundle, err := os.ReadFile(h.Trust.Root + "/etc/ssl/certs/ca-certificates.crt")
		if err != nil {
			t.Fatal(err)
		}
		oldRoot, err := os.ReadFile(g.Issuer.RootFile())
		if err != nil {
			t.Fatal(err)
		}
		if old := strings.Contains(string(bundle), strings.TrimSpace(string(oldRoot))); old != step.old {
			t.Errorf("the old root is in the bundle: %v, want %v", old, step.old)
		}
		if !strings.Contains(string(bundle), strings.TrimSpace(string(g.More))) {
			t.Error("the new root is not in the bundle")
		}
	}
	g.Mode = "transparent" // the proxy settings go
	if _, err := h.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(h.Trust.Root + "/etc/profile.d/exitgate.sh"); err != nil || strings.Contains(string(b), "https_proxy") {
		t.Errorf("proxy settings in transparent mode: %s, %v", b, err)
	}
	if _, err := h.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	differ(t, "unenroll", clean, snapshot(t, h))
}

// TestLeaveAlone undoes all when the gateway is gone, and says that it was not told.
func TestLeaveAlone(t *testing.T) {
	g := enrolltest.New(t)
	h, _ := newHost(t)
	clean := snapshot(t, h)
	if _, err := h.Enroll(t.Context(), invite(g)); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	r, err := h.Leave(t.Context(), false)
	if err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "was not told") {
		t.Errorf("%+v, %v", r, err)
	}
	differ(t, "unenroll", clean, snapshot(t, h))
}

// TestHostileAnswers feeds the client what a stranger might: cut, huge, wrong. Nothing is believed, nothing hangs.
func TestHostileAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"empty":   func(http.ResponseWriter, *http.Request) {},
		"other root": func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(map[string]string{"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"})
		},
		"huge": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 4<<20)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
		},
		"escape code": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{\"ca\": \"\\u001b[31m\"}")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := enrolltest.Serve(t, answer)
			h, _ := newHost(t)
			before := snapshot(t, h)
			_, err := h.Enroll(t.Context(), enroll.Invitation{Gateway: s, Fingerprint: strings.Repeat("ab", 32), Token: "xgh_secret", Name: "x"})
			if err == nil || strings.Contains(err.Error(), "\x1b") || strings.Contains(err.Error(), "xgh_secret") {
				t.Errorf("the error is %v", err)
			}
			differ(t, name, before, snapshot(t, h))
		})
	}
}
