package provision

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestHostileWindows holds each line of what Windows reads to the strings that are meant to be on it.
func TestHostileWindows(t *testing.T) {
	f := hostile(t)
	good, bad := render(t, PowerShell, facts(t)), render(t, PowerShell, f)
	if g, b := strings.Count(good, "\r\n"), strings.Count(bad, "\r\n"); b < g {
		t.Errorf("%d lines of hostile facts, %d of ordinary ones", b, g)
	}
	code := unquoted(t, bad)
	if strings.Contains(code, "touch") {
		t.Errorf("a value got out of its quotes:\n%s", code)
	}
	for line := range strings.SplitSeq(render(t, Registry, f), "\r\n") {
		if strings.HasPrefix(line, `"`) && !strings.HasPrefix(line, `"Blob"`) && !strings.Contains(line, "=dword:") {
			rest := strings.NewReplacer(`\\`, "", `\"`, "").Replace(line)
			if strings.Count(rest, `"`) != 4 || strings.ContainsAny(line, "\r\n") {
				t.Errorf("a value got out of its quotes: %s", line)
			}
		} else if strings.Contains(line, "touch") && !strings.HasPrefix(line, ";") {
			t.Errorf("a value is outside of quotes: %s", line)
		}
	}
}

// unquoted returns a PowerShell script without comments and verbatim strings, as PowerShell reads them.
func unquoted(t *testing.T, s string) string {
	t.Helper()
	quote := func(r rune) bool { return strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) }
	var out strings.Builder
	in, remark := false, false
	list := []rune(s)
	for i := 0; i < len(list); i++ {
		switch r := list[i]; {
		case remark:
			remark = r != '\n'
		case in && quote(r) && i+1 < len(list) && quote(list[i+1]):
			i++
		case quote(r):
			in = !in
		case !in && r == '#':
			remark = true
		case !in:
			out.WriteRune(r)
		}
	}
	if in {
		t.Error("a string is not closed")
	}
	return out.String()
}

// TestRegistryBlob reads the certificate out of the .reg file.
func TestRegistryBlob(t *testing.T) {
	f := facts(t)
	s := strings.NewReplacer("\\\r\n  ", "", ",", "").Replace(render(t, Registry, f))
	for _, r := range f.roots() {
		_, hexa, _ := strings.Cut(s, r.SHA1+"]\r\n\"Blob\"=hex:")
		hexa, _, _ = strings.Cut(hexa, "\r\n")
		var b []byte
		if _, err := fmt.Sscanf(hexa, "%x", &b); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(b, r.DER) || len(b) != len(r.DER)+12+20+12 {
			t.Errorf("the blob of %s has %d bytes, and the certificate %d", r.SHA1, len(b), len(r.DER))
		}
	}
}

// TestPowerShellRoots reads the certificates out of the script.
func TestPowerShellRoots(t *testing.T) {
	f := facts(t)
	s := render(t, PowerShell, f)
	for _, r := range f.roots() {
		_, part, _ := strings.Cut(s, "# "+r.SHA1)
		part, _, _ = strings.Cut(part, ") -join")
		der, err := base64.StdEncoding.DecodeString(strings.NewReplacer("@(", "", "'", "", ",", "", "\r\n", "", " ", "").Replace(part))
		if err != nil || !bytes.Equal(der, r.DER) {
			t.Errorf("the certificate of %s: %v", r.SHA1, err)
		}
	}
}

func TestCheck(t *testing.T) {
	leaf := certificate(t, false)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for _, c := range []struct {
		change func(*Facts)
		want   string
	}{
		{func(f *Facts) {}, ""},
		{func(f *Facts) { f.Class = "" }, "the class"},
		{func(f *Facts) { f.Class = "a\nb" }, "the class"},
		{func(f *Facts) { f.Class = "-rf" }, "the class"},
		{func(f *Facts) { f.Gateway = "http://gate.example.com" }, "the gateway"},
		{func(f *Facts) { f.Gateway = "https://u:p@gate.example.com" }, "the gateway: a URL that everybody"},
		{func(f *Facts) { f.Gateway = "https://gate.example.com/ x" }, "the gateway"},
		{func(f *Facts) { f.Gateway = "https://" }, "the gateway"},
		{func(f *Facts) { f.Gateway = "" }, "of no use without"},
		{func(f *Facts) { f.Fingerprint = "" }, "the fingerprint"},
		{func(f *Facts) { f.Fingerprint = "abc" }, "the fingerprint"},
		{func(f *Facts) { f.Token = "xga_admin" }, "the token: it is none that hosts enrol with"},
		{func(f *Facts) { f.Token = "xgh_a\nb" }, "the token"},
		{func(f *Facts) { f.HTTPS = "socks5://gate.example.com" }, "the proxy for https"},
		{func(f *Facts) { f.HTTP = "gate.example.com:3128" }, "the proxy for http"},
		{func(f *Facts) { f.PAC = "file:///etc" }, "the PAC file"},
		{func(f *Facts) { f.NoProxy = []string{"a,b"} }, "no_proxy"},
		{func(f *Facts) { f.NoProxy = []string{""} }, "no_proxy"},
		{func(f *Facts) { f.NoProxy = []string{"a\x00"} }, "no_proxy"},
		{func(f *Facts) { f.NoProxy = []string{"\u202e"} }, "no_proxy"},
		{func(f *Facts) { f.Bundle = "roots.pem" }, "the bundle"},
		{func(f *Facts) { f.Namespace = "Shop" }, "the namespace"},
		{func(f *Facts) { f.Roots = "" }, "the roots: there is no certificate"},
		{func(f *Facts) { f.Roots = string(leaf) }, "not the certificate of an authority"},
		{func(f *Facts) { f.Roots += string(key) }, "not to be given away"},
		{func(f *Facts) { f.Roots = strings.Repeat(f.Roots, 9) }, "at most 16"},
		{func(f *Facts) { f.Roots = "# EOF\n" + f.Roots + "EXITGATE\nRUN evil\n" }, ""},
	} {
		f := facts(t)
		c.change(&f)
		err := f.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if err == nil && f.Roots != facts(t).Roots {
			t.Errorf("the roots bring along what is no certificate: %s", f.Roots)
		}
		if err != nil && strings.Contains(err.Error(), "xg") && strings.Contains(err.Error(), "admin") {
			t.Errorf("the error holds the token: %v", err)
		}
	}
}

func certificate(t *testing.T, ca bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: ca, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// FuzzCheck holds that what Check takes is rendered in the shape of ordinary facts.
func FuzzCheck(f *testing.F) {
	f.Add("build", "https://gate.example.com:3130", "http://gate.example.com:3128", "localhost", "/etc/ssl/cert.pem")
	f.Add("a", "https://[2001:db8::1]:1/%27", "http://h/'\"$x", "*.example.com", "/'")
	f.Fuzz(func(t *testing.T, class, gateway, proxy, no, bundle string) {
		x := facts(t)
		x.Class, x.Gateway, x.HTTP, x.HTTPS, x.NoProxy, x.Bundle = class, gateway, proxy, proxy, []string{no}, bundle
		if x.Check() != nil || gateway == "" || proxy == "" {
			return
		}
		for _, format := range []Format{CloudInit, Kubernetes, PatchInit} {
			if g, b := shape(documents(t, render(t, format, facts(t)))), shape(documents(t, render(t, format, x))); g != b {
				t.Errorf("%s: %s, want %s", format, b, g)
			}
		}
		if code := unquoted(t, render(t, PowerShell, x)); strings.Contains(code, proxy) {
			t.Errorf("the proxy is outside of quotes: %s", code)
		}
	})
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
