package export

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// roots makes two roots, as there are during a rotation.
func roots(t *testing.T) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for n := range 2 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: []string{"elder root", "younger root"}[n]},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// file writes the roots into a file, as a person would.
func file(t *testing.T, f Format, list []*x509.Certificate, password string) string {
	t.Helper()
	b, err := f.Encode(list, password)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("PRIVATE")) {
		t.Error("a key")
	}
	path := filepath.Join(t.TempDir(), "roots."+string(f))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a real reader of the format.
func run(t *testing.T, program, pkg string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is missing: install the package %s, or run make test, which does", program, pkg)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, out string, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err != nil || !strings.Contains(out, w) {
			t.Fatalf("%v, want %q in:\n%s", err, w, out)
		}
	}
}

func TestKeytool(t *testing.T) {
	list := roots(t)
	for _, f := range []Format{JKS, P12} {
		for _, password := range []string{"", "another password"} {
			pass := password
			if pass == "" {
				pass = DefaultPassword
			}
			path := file(t, f, list, password)
			out, err := run(t, "keytool", "default-jdk-headless", "-list", "-v", "-keystore", path, "-storepass", pass)
			must(t, out, err, "2 entries", "trustedCertEntry", "CN=elder root", "CN=younger root", Alias(list[0]), Alias(list[1]))
			if out, err := run(t, "keytool", "default-jdk-headless", "-list", "-keystore", path, "-storepass", "wrong-"+pass); err == nil {
				t.Errorf("%s: opened with a wrong password:\n%s", f, out)
			}
		}
	}
	// into a store that is there
	store := filepath.Join(t.TempDir(), "cacerts")
	out, err := run(t, "keytool", "default-jdk-headless", "-importcert", "-noprompt", "-alias", "one", "-file", file(t, DER, list, ""), "-keystore", store, "-storepass", "changeit")
	must(t, out, err, "added")
	out, err = run(t, "keytool", "default-jdk-headless", "-importkeystore", "-noprompt", "-srckeystore", file(t, JKS, list, ""), "-srcstorepass", "changeit", "-destkeystore", store, "-deststorepass", "changeit")
	must(t, out, err, "2 entries successfully imported")
	out, err = run(t, "keytool", "default-jdk-headless", "-printcert", "-file", file(t, P7B, list, ""))
	must(t, out, err, "CN=elder root", "CN=younger root")
}

func TestOpenSSL(t *testing.T) {
	list := roots(t)
	out, err := run(t, "openssl", "openssl", "pkcs7", "-inform", "DER", "-in", file(t, P7B, list, ""), "-print_certs")
	must(t, out, err, "CN = elder root", "CN = younger root")
	out, err = run(t, "openssl", "openssl", "pkcs12", "-in", file(t, P12, list, ""), "-passin", "pass:changeit", "-nokeys")
	must(t, out, err, "CN = elder root", "CN = younger root", "friendlyName: "+Alias(list[0]))
	out, err = run(t, "openssl", "openssl", "x509", "-inform", "DER", "-in", file(t, DER, list, ""), "-noout", "-subject")
	must(t, out, err, "CN = elder root")
	out, err = run(t, "openssl", "openssl", "storeutl", "-certs", "-noout", file(t, PEM, list, ""))
	must(t, out, err, "Total found: 2")
}

// TestCertutil imports into the database of NSS, which Chromium and Firefox read.
func TestCertutil(t *testing.T) {
	list := roots(t)
	db := "sql:" + t.TempDir()
	out, err := run(t, "certutil", "libnss3-tools", "-N", "--empty-password", "-d", db)
	must(t, out, err, "")
	for _, c := range list {
		out, err = run(t, "certutil", "libnss3-tools", "-A", "-d", db, "-t", "C,,", "-n", Alias(c), "-i", file(t, DER, []*x509.Certificate{c}, ""))
		must(t, out, err, "")
	}
	out, err = run(t, "certutil", "libnss3-tools", "-L", "-d", db)
	must(t, out, err, Alias(list[0]), Alias(list[1]), "C,,")
	out, err = run(t, "pk12util", "libnss3-tools", "-l", file(t, P12, list, ""), "-W", "changeit")
	must(t, out, err, Alias(list[0]))
}

func TestOne(t *testing.T) {
	list := roots(t)
	for _, f := range Formats() {
		b, err := f.Encode(list[1:], "")
		if err != nil || len(b) == 0 || f.ContentType() == "application/octet-stream" {
			t.Errorf("%s: %v", f, err)
		}
		if p, err := Parse(string(f)); p != f || err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if f == DER && (!bytes.Equal(b, list[1].Raw) || f.Holds() != 1) {
			t.Error("DER is not the certificate")
		}
		if block, rest := pem.Decode(b); f == PEM && (block == nil || len(rest) > 0) {
			t.Error("PEM is not one certificate")
		}
		if f == JKS || f == PEM || f == P7B {
			if again, _ := f.Encode(list[1:], ""); !bytes.Equal(again, b) {
				t.Errorf("%s is written in two ways", f)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	list := roots(t)
	for name, f := range map[string]func() ([]byte, error){
		"no roots":       func() ([]byte, error) { return PEM.Encode(nil, "") },
		"no format":      func() ([]byte, error) { return Format("xml").Encode(list, "") },
		"short password": func() ([]byte, error) { return JKS.Encode(list, "12345") },
	} {
		if b, err := f(); err == nil || len(b) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := Parse("PEM "); err == nil {
		t.Error("a format that is none")
	}
}
