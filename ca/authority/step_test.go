//go:build stepcli

package authority

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// A stepCLI is smallstep's own client with a home of its own.
type stepCLI struct {
	t    *testing.T
	bin  string
	home string
}

func newStep(t *testing.T) *stepCLI {
	bin := os.Getenv("STEP")
	if bin == "" {
		t.Fatal("STEP does not name the step program: run make test-step")
	}
	return &stepCLI{t: t, bin: bin, home: t.TempDir()}
}

func (s *stepCLI) path(name string) string { return filepath.Join(s.home, name) }

func (s *stepCLI) try(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), s.bin, args...)
	cmd.Dir = s.home
	cmd.Env = []string{"HOME=" + s.home, "STEPPATH=" + s.path(".step"), "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *stepCLI) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("step %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs step, which must fail and say why.
func (s *stepCLI) fails(why string, args ...string) {
	s.t.Helper()
	out, err := s.try(args...)
	if err == nil || !strings.Contains(out, why) {
		s.t.Errorf("step %s: %v, want %q in\n%s", strings.Join(args, " "), err, why, out)
	}
}

func (s *stepCLI) chain() []*x509.Certificate {
	s.t.Helper()
	pair, err := tls.LoadX509KeyPair(s.path("host.crt"), s.path("host.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	res := &api.SignResponse{}
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			s.t.Fatal(err)
		}
		res.CertChainPEM = append(res.CertChainPEM, api.NewCertificate(c))
	}
	return newHost(res, nil).chain
}

// TestStep takes a host through its life with smallstep's own client, and a rotation in the midst of it.
func TestStep(t *testing.T) {
	e, s := newEnv(t), newStep(t)
	const host = "web-01.hosts.example"
	s.fails("", "ca", "bootstrap", "--ca-url", e.url, "--fingerprint", strings.Repeat("0", 64))
	s.run("ca", "bootstrap", "--ca-url", e.url, "--fingerprint", e.a.Fingerprint())
	if out := s.run("ca", "health"); !strings.Contains(out, "ok") {
		t.Errorf("health: %s", out)
	}
	ott := e.token(t, host, "app")
	s.run("ca", "certificate", host, "host.crt", "host.key", "--token", ott)
	first := s.chain()
	if name, class, err := e.a.Identify(first, time.Now()); name != host || class != "app" || err != nil {
		t.Errorf("%q %q %v", name, class, err)
	}
	s.fails("used before", "ca", "certificate", host, "again.crt", "again.key", "--token", ott)
	s.fails("", "ca", "certificate", "db-01.hosts.example", "again.crt", "again.key", "--token", e.token(t, host, "app"))
	s.fails("ended", "ca", "certificate", host, "again.crt", "again.key", "--not-after", "1h", "--token", oldToken(t, e, host))
	s.run("ca", "renew", "--force", "host.crt", "host.key")
	second := s.chain()
	if second[0].SerialNumber.Cmp(first[0].SerialNumber) == 0 {
		t.Error("renewed: it is the same")
	}

	if err := e.a.Rotate(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	s.run("ca", "renew", "--force", "host.crt", "host.key") // knows only the old root
	s.run("ca", "rekey", "--force", "host.crt", "host.key")
	s.run("ca", "roots", "roots.pem")
	b, err := os.ReadFile(s.path("roots.pem"))
	if err != nil || bytes.Count(b, []byte("BEGIN CERTIFICATE")) != 2 {
		t.Errorf("roots: %v\n%s", err, b)
	}
	s.run("ca", "federation", "federation.pem")
	s.run("ca", "root", "root.pem", "--fingerprint", e.a.Fingerprint(), "--ca-url", e.url)
	if out := strings.TrimSpace(s.run("certificate", "fingerprint", "root.pem")); out != e.a.Fingerprint() {
		t.Errorf("fingerprint %s", out)
	}
	if name, class, err := e.a.Identify(s.chain(), time.Now()); name != host || class != "app" || err != nil {
		t.Errorf("%q %q %v", name, class, err)
	}

	e.deny(host, errTest)
	s.fails("disabled by ops@example.com", "ca", "renew", "--force", "host.crt", "host.key")
	e.deny(host, nil)
	s.run("ca", "revoke", "--cert", "host.crt", "--key", "host.key", "--reason", "left")
	_, _, err = e.a.Identify(s.chain(), time.Now())
	oneLine(t, err, "revoked")
	s.fails("revoked", "ca", "renew", "--force", "host.crt", "host.key")
	list, err := e.get("/1.0/crl?pem")
	if err == nil {
		err = os.WriteFile(s.path("crl.pem"), []byte(list), 0o600)
	}
	if err == nil {
		err = os.WriteFile(s.path("issuer.crt"), keydir.EncodeCert(e.a.current.Load().material.issuer.Cert), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := s.run("crl", "inspect", "--ca", "issuer.crt", "crl.pem"); !strings.Contains(out, "Valid: true") || !strings.Contains(out, s.chain()[0].SerialNumber.String()) {
		t.Errorf("crl: %s", out)
	}

	serial := second[0].SerialNumber.String()
	revoke, err := e.a.RevokeToken(t.Context(), serial)
	if err != nil {
		t.Fatal(err)
	}
	s.run("ca", "revoke", serial, "--token", revoke)
	_, _, err = e.a.Identify(second, time.Now())
	oneLine(t, err, "revoked")
	if strings.Contains(e.logged(), ott) || strings.Contains(e.logged(), revoke) {
		t.Error("a token is in the log")
	}
}

func oldToken(t *testing.T, e *env, name string) string {
	e.skew(-time.Hour)
	defer e.skew(0)
	return e.token(t, name, "app")
}
