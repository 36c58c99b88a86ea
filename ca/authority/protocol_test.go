package authority

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	smallca "github.com/smallstep/certificates/ca"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/x509util"
)

// TestEnrol takes a host through smallstep's own client: from a token alone to an identity, another, and its end.
func TestEnrol(t *testing.T) {
	e := newEnv(t)
	ott := e.token(t, "web-01.hosts.example", "app", "web.example.com", "192.0.2.10")
	client, err := smallca.Bootstrap(ott) // finds URL and fingerprint in the token
	if err != nil {
		t.Fatal(err)
	}
	req, key, err := smallca.CreateSignRequest(ott)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Sign(req)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(res, key)
	c := h.chain[0]
	if c.Subject.CommonName != "web-01.hosts.example" || !slices.Equal(c.DNSNames, []string{"web-01.hosts.example", "web.example.com"}) ||
		len(c.IPAddresses) != 1 || c.URIs[0].String() != "spiffe://gw.example/class/app/host/web-01.hosts.example" {
		t.Errorf("names: %v %v %v %v", c.Subject, c.DNSNames, c.IPAddresses, c.URIs)
	}
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("usage: %v %v %v", c.ExtKeyUsage, c.IsCA, c.KeyUsage)
	}
	if life := c.NotAfter.Sub(c.NotBefore); life > 8*time.Hour+2*time.Minute || life < 8*time.Hour {
		t.Errorf("it lives for %v", life)
	}
	name, class, err := e.a.Identify(h.chain, time.Now())
	if name != "web-01.hosts.example" || class != "app" || err != nil {
		t.Errorf("identified as %q, %q: %v", name, class, err)
	}
	i := e.lastIssued()
	if i.Name != name || i.Class != "app" || i.Serial != h.serial() || i.Renewed || !i.NotAfter.Equal(c.NotAfter) || i.Remote.String() != "127.0.0.1" {
		t.Errorf("told of %+v", i)
	}

	again, err := e.renew(h)
	if err != nil {
		t.Fatal(err)
	}
	if name, class, err := e.a.Identify(again.chain, time.Now()); name != i.Name || class != "app" || err != nil || again.serial() == h.serial() {
		t.Errorf("renewed as %q, %q: %v", name, class, err)
	}
	if i := e.lastIssued(); !i.Renewed || i.Serial != again.serial() {
		t.Errorf("told of %+v", i)
	}

	roots, err := client.Roots()
	if err != nil || len(roots.Certificates) != 1 || fingerprint(roots.Certificates[0].Certificate) != e.a.Fingerprint() {
		t.Errorf("roots: %v %v", roots, err)
	}
	if fed, err := client.Federation(); err != nil || len(fed.Certificates) != 1 {
		t.Errorf("federation: %v %v", fed, err)
	}
	if f, err := client.RootFingerprint(); err != nil || f != e.a.Fingerprint() {
		t.Errorf("fingerprint %s: %v", f, err)
	}
	if _, err := client.Health(); err != nil {
		t.Error(err)
	}
	if v, err := client.Version(); err != nil || v.RequireClientAuthentication {
		t.Errorf("version: %v %v", v, err)
	}
	revoked, err := client.Revoke(&api.RevokeRequest{Serial: again.serial(), Passive: true, Reason: "left"}, e.transport(e.roots(), again.pair()))
	if err != nil || revoked.Status != "ok" {
		t.Fatal(err)
	}
	_, _, err = e.a.Identify(again.chain, time.Now())
	oneLine(t, err, "revoked", again.serial(), "enrol again")
	_, err = e.renew(again)
	oneLine(t, err, "revoked")
	_, err = client.Revoke(&api.RevokeRequest{Serial: again.serial(), Passive: true}, e.transport(e.roots(), again.pair()))
	oneLine(t, err, "revoked already")
	if strings.Contains(e.logged(), ott) {
		t.Error("the token is in the log")
	}
}

// TestRekey gives a host another key, and not one that is too weak or not its own.
func TestRekey(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509util.CreateCertificateRequest("another.example", []string{"another.example"}, key)
	if err != nil {
		t.Fatal(err)
	}
	req := &api.RekeyRequest{CsrPEM: api.NewCertificateRequest(csr)}
	res, err := e.client(t).Rekey(req, e.transport(e.roots(), h.pair()))
	if err != nil {
		t.Fatal(err)
	}
	again := newHost(res, key)
	if name, class, err := e.a.Identify(again.chain, time.Now()); name != "web-01.hosts.example" || class != "app" || err != nil {
		t.Errorf("%q %q %v: the request named the host", name, class, err)
	}
	if !keyutil.Equal(again.chain[0].PublicKey, key.Public()) {
		t.Error("the key is the old one")
	}
	csr.Raw[len(csr.Raw)-1] ^= 1
	_, err = e.client(t).Rekey(req, e.transport(e.roots(), h.pair()))
	oneLine(t, err, "not signed by the key")
}

// TestTokenOnce redeems one token many times at once: one host gets an identity.
func TestTokenOnce(t *testing.T) {
	e := newEnv(t)
	client := e.client(t)
	for round := range 40 {
		ott := e.token(t, "web-01.hosts.example", "app")
		req, _, err := smallca.CreateSignRequest(ott)
		if err != nil {
			t.Fatal(err)
		}
		signed := 0
		for _, err := range together(6, func() error { _, err := client.Sign(req); return err }) {
			if err == nil {
				signed++
			} else if !strings.Contains(err.Error(), "used before") {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if signed != 1 {
			t.Fatalf("round %d: %d identities for one token", round, signed)
		}
	}
	if n := len(e.issued); n != 40 {
		t.Errorf("told of %d identities", n)
	}
}

// TestTokenOnceTwoGateways redeems one token at two gateways that share store and key of tokens.
func TestTokenOnceTwoGateways(t *testing.T) {
	e := newEnv(t)
	other, err := Open(e.o)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ott := e.token(t, "web-01.hosts.example", "app")
		req, _, err := smallca.CreateSignRequest(ott)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		ok := 0
		ways := make(chan *Authority, 2)
		ways <- e.a
		ways <- other
		for _, status := range together(2, func() error {
			a := <-ways
			w := newRecorder()
			a.Handler().ServeHTTP(w, newRequest("POST", "/1.0/sign", b))
			if w.Code == http.StatusCreated {
				return nil
			}
			return http.ErrAbortHandler
		}) {
			if status == nil {
				ok++
			}
		}
		if ok != 1 {
			t.Fatalf("%d gateways signed", ok)
		}
	}
}

// TestDisabled takes an identity away at each place where it is asked about.
func TestDisabled(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	ott := e.token(t, "web-01.hosts.example", "app")
	e.deny("web-01.hosts.example", errTest)
	_, err := e.try(t, ott)
	oneLine(t, err, "disabled by ops@example.com")
	_, err = e.renew(h)
	oneLine(t, err, "disabled by ops@example.com")
	_, _, err = e.a.Identify(h.chain, time.Now())
	oneLine(t, err, "disabled by ops@example.com", "class app")
	if status, body, _ := e.do(h, "POST", "/1.0/revoke", `{"serial":"`+h.serial()+`","passive":true}`); status != 200 {
		t.Errorf("a host that is disabled cannot give up its identity: %d %s", status, body)
	}
	e.deny("web-01.hosts.example", nil)
	if _, err = e.try(t, ott); err != nil {
		t.Errorf("the token was used up by a refusal: %v", err)
	}
}

// TestRevokeByToken revokes for a token, of this serial and path only, once.
func TestRevokeByToken(t *testing.T) {
	e := newEnv(t)
	h, other := e.enrol(t, "web-01.hosts.example", "app"), e.enrol(t, "web-02.hosts.example", "app")
	ott, err := e.a.RevokeToken(t.Context(), h.serial())
	if err != nil {
		t.Fatal(err)
	}
	client, tr := e.client(t), e.transport(e.roots())
	_, err = client.Revoke(&api.RevokeRequest{Serial: other.serial(), OTT: ott, Passive: true}, tr)
	oneLine(t, err, "the token is for certificate")
	_, err = client.Revoke(&api.RevokeRequest{Serial: h.serial(), OTT: e.token(t, "web-01.hosts.example", "app"), Passive: true}, tr)
	oneLine(t, err, "and this is")
	_, err = client.Revoke(&api.RevokeRequest{Serial: h.serial(), OTT: ott}, tr)
	oneLine(t, err, "non-passive")
	if _, err = client.Revoke(&api.RevokeRequest{Serial: h.serial(), OTT: ott, Passive: true}, tr); err != nil {
		t.Fatal(err)
	}
	_, err = client.Revoke(&api.RevokeRequest{Serial: h.serial(), OTT: ott, Passive: true}, tr)
	oneLine(t, err, "used before")
	_, _, err = e.a.Identify(h.chain, time.Now())
	oneLine(t, err, "revoked")
	if _, _, err = e.a.Identify(other.chain, time.Now()); err != nil {
		t.Error(err)
	}
	// A self-made certificate with the serial of another is no right to revoke it.
	forged := forge(t, other.chain[0])
	status, body, err := e.do(forged, "POST", "/1.0/revoke", `{"serial":"`+other.serial()+`","passive":true}`)
	if err != nil || status != 401 || !strings.Contains(body, "foreign") {
		t.Errorf("%d %s %v", status, body, err)
	}
	if status, body, _ = e.do(other, "POST", "/1.0/revoke", `{"serial":"17","passive":true}`); status != 403 {
		t.Errorf("another's serial: %d %s", status, body)
	}
}

// TestCRL lists revoked certificates, signed by the issuer.
func TestCRL(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	number := ""
	for i, path := range []string{"/crl", "/1.0/crl"} {
		body, err := e.get(path)
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(h.chain[1]); err != nil {
			t.Error(err)
		}
		if list.Issuer.CommonName != h.chain[1].Subject.CommonName {
			t.Errorf("issuer %s", list.Issuer)
		}
		if len(list.RevokedCertificateEntries) != i || list.Number.String() == number {
			t.Errorf("%s: %d entries, number %s after %s", path, len(list.RevokedCertificateEntries), list.Number, number)
		}
		number = list.Number.String()
		if i == 0 {
			if err := e.a.Revoke(t.Context(), h.serial(), "stolen"); err != nil {
				t.Fatal(err)
			}
			if err := e.a.Revoke(t.Context(), h.serial(), "stolen"); err != nil {
				t.Errorf("a second time: %v", err)
			}
		}
	}
	if body, err := e.get("/crl?pem"); err != nil || !strings.HasPrefix(body, "-----BEGIN X509 CRL") {
		t.Errorf("%s %v", body, err)
	}
	oneLine(t, e.a.Revoke(t.Context(), "0x12", "test"), "not a serial")
}

// TestSignerBounds signs and renews with an issuer that ends soon, and for longer than is configured.
func TestSignerBounds(t *testing.T) {
	a := mustOpen(t, testOptions(t))
	m := *a.current.Load().material
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		t.Fatal(err)
	}
	soon := *m.issuer.Cert
	soon.NotAfter = time.Now().Add(time.Hour)
	s := newSigner(&m, a.o.Lifetimes)
	template := func() *x509.Certificate {
		return &x509.Certificate{PublicKey: key.Public(), NotBefore: time.Now().Add(-1000 * day), NotAfter: time.Now().Add(1000 * day)}
	}
	for name, c := range map[string]struct {
		issuer *x509.Certificate
		most   time.Duration
	}{"configured": {m.issuer.Cert, a.o.Lifetimes.Identity}, "issuer ends": {&soon, time.Hour}} {
		s.issuer = c.issuer
		renewed, err := s.RenewCertificate(&casapi.RenewCertificateRequest{Template: template(), Lifetime: 100 * day, Backdate: time.Minute})
		if err != nil || time.Until(renewed.Certificate.NotAfter) > c.most {
			t.Errorf("%s: renewed until %v, %v", name, renewed.Certificate.NotAfter, err)
		}
		signed, err := s.CreateCertificate(&casapi.CreateCertificateRequest{Template: template(), Lifetime: 100 * day})
		if err != nil || signed.Certificate.NotAfter.After(c.issuer.NotAfter) || signed.Certificate.NotBefore.Before(c.issuer.NotBefore.Add(-time.Second)) {
			t.Errorf("%s: signed from %v until %v, %v", name, signed.Certificate.NotBefore, signed.Certificate.NotAfter, err)
		}
	}
}

// TestCRLOnce asks for the list many times: it is made once.
func TestCRLOnce(t *testing.T) {
	e := newEnv(t)
	first, err := e.get("/crl")
	if err != nil {
		t.Fatal(err)
	}
	e.kv.setFail(errors.New("asked again"))
	for range 10 {
		if body, err := e.get("/crl"); err != nil || body != first {
			t.Errorf("%v", err)
		}
	}
	e.kv.setFail(nil)
	e.skew(crlFresh)
	if body, err := e.get("/crl"); err != nil || body == first {
		t.Errorf("the list is not made again: %v", err)
	}
}

// TestServerCertificate verifies and renews the certificate of a listener.
func TestServerCertificate(t *testing.T) {
	e := newEnv(t)
	get, err := e.a.ServerCertificate("gw.example.com", "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	leaf := func() *tls.Certificate {
		c, err := get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := leaf()
	pool := x509.NewCertPool()
	pool.AddCert(e.a.current.Load().material.issuer.Cert)
	for _, name := range []string{"gw.example.com", "192.0.2.1"} {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: e.roots(), Intermediates: pool}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := e.a.Identify([]*x509.Certificate{first.Leaf, e.a.current.Load().material.issuer.Cert}, time.Now()); err == nil {
		t.Error("the gateway's own certificate is an identity")
	}
	if leaf() != first {
		t.Error("each handshake makes a certificate")
	}
	e.skew(13 * time.Hour)
	second := leaf()
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("it was not renewed at half of its life")
	}
	if _, err := e.a.ServerCertificate("a b"); err == nil {
		t.Error("a name that is none")
	}
	sum := sha256.Sum256(second.Leaf.Raw)
	if hex.EncodeToString(sum[:]) != fingerprint(second.Leaf) {
		t.Error("the fingerprint is not the SHA-256")
	}
}

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newRequest(method, path string, body []byte) *http.Request {
	return httptest.NewRequest(method, path, bytes.NewReader(body))
}
