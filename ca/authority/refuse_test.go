package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/certificates/api"
	smallca "github.com/smallstep/certificates/ca"
	"go.step.sm/crypto/x509util"

	"github.com/exitgate/exitgate"
)

// signBody returns the body of a sign request for the token, with a key of its own and what change does to it.
func signBody(t testing.TB, ott string, change func(map[string]any)) string {
	t.Helper()
	req, _, err := smallca.CreateSignRequest(ott)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(m)
	}
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// csrPEM returns a request for whatever t says, signed by key.
func csrPEM(t testing.TB, tmpl *x509.CertificateRequest, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// TestClassFromTokenOnly asks for another class in each way that a request has.
func TestClassFromTokenOnly(t *testing.T) {
	e := newEnv(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evil := map[string]any{"class": "admin", "Token": map[string]any{"class": "admin"}, "token": map[string]string{"class": "admin"},
		"SANs": []any{map[string]string{"type": "uri", "value": "spiffe://gw.example/class/admin/host/web-01.hosts.example"}}}
	for name, change := range map[string]func(map[string]any){
		"template data": func(m map[string]any) { m["templateData"] = evil },
		"fields":        func(m map[string]any) { m["class"] = "admin"; m["Token"] = evil },
		"extension of the request": func(m map[string]any) {
			m["csr"] = csrPEM(t, &x509.CertificateRequest{ExtraExtensions: classExtension("admin")}, key)
		},
	} {
		status, body, err := e.do(nil, "POST", "/1.0/sign", signBody(t, e.token(t, "web-01.hosts.example", "app"), change))
		if err != nil || status != http.StatusCreated {
			t.Errorf("%s: %d %s %v", name, status, body, err)
			continue
		}
		var res api.SignResponse
		if err := json.Unmarshal([]byte(body), &res); err != nil {
			t.Fatal(err)
		}
		h := newHost(&res, nil)
		if _, class, err := e.a.Identify(h.chain, time.Now()); class != "app" || err != nil {
			t.Errorf("%s: class %q, %v", name, class, err)
		}
		if bytes.Contains(h.chain[0].Raw, []byte("admin")) {
			t.Errorf("%s: it stands in the certificate", name)
		}
	}
}

// TestSignRefused sends what must not be signed, and wants one line that says why, and the token still good where it
// was not to blame.
func TestSignRefused(t *testing.T) {
	e := newEnv(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := newEnv(t)
	fresh := func() string { return e.token(t, "web-01.hosts.example", "app") }
	csr := func(r *x509.CertificateRequest) func(map[string]any) {
		return func(m map[string]any) { m["csr"] = csrPEM(t, r, key) }
	}
	for name, c := range map[string]struct {
		ott    string
		change func(map[string]any)
		status int
		want   string
	}{
		"no token":                 {fresh(), func(m map[string]any) { delete(m, "ott") }, 401, "no one-time token"},
		"garbage token":            {fresh(), func(m map[string]any) { m["ott"] = "garbage" }, 401, "damaged"},
		"long token":               {fresh(), func(m map[string]any) { m["ott"] = strings.Repeat("a", maxToken+1) }, 401, "longer"},
		"cut token":                {fresh(), func(m map[string]any) { s := m["ott"].(string); m["ott"] = s[:len(s)-4] }, 401, "token is not"},
		"unsigned token":           {fresh(), func(m map[string]any) { m["ott"] = unsigned(m["ott"].(string)) }, 401, "token is not"},
		"token of another gateway": {foreign.token(t, "web-01.hosts.example", "app"), nil, 401, "not from this gateway"},
		"token for revocation":     {mustRevokeToken(t, e), func(m map[string]any) { m["csr"] = csrPEM(t, &x509.CertificateRequest{}, key) }, 401, "and this is " + e.url + "/1.0/sign"},
		"no request":               {fresh(), func(m map[string]any) { delete(m, "csr") }, 400, "certificate signing request"},
		"garbage request":          {fresh(), func(m map[string]any) { m["csr"] = "garbage" }, 400, "cannot be read"},
		"weak key":                 {fresh(), func(m map[string]any) { m["csr"] = csrPEM(t, &x509.CertificateRequest{}, weak) }, 403, "use P-256"},
		"another name":             {fresh(), csr(&x509.CertificateRequest{DNSNames: []string{"db-01.hosts.example"}}), 403, "DNS names"},
		"another common name":      {fresh(), csr(&x509.CertificateRequest{Subject: pkix.Name{CommonName: "db-01.hosts.example"}}), 403, "common name"},
		"from the future":          {fresh(), func(m map[string]any) { m["notBefore"] = "8760h" }, 403, "notBefore"},
		"for a year":               {fresh(), func(m map[string]any) { m["notAfter"] = "8760h" }, 403, "more than the authorized maximum"},
		"in the past":              {fresh(), func(m map[string]any) { m["notAfter"] = "-1h" }, 400, "past"},
	} {
		status, body, err := e.do(nil, "POST", "/1.0/sign", signBody(t, c.ott, c.change))
		if err != nil || status != c.status || !strings.Contains(body, c.want) || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: %d %s %v, want %d with %q", name, status, body, err, c.status, c.want)
		}
	}
	if n := len(e.issued); n != 0 {
		t.Errorf("%d identities were issued", n)
	}
}

// TestTokenTime uses tokens of another time.
func TestTokenTime(t *testing.T) {
	e := newEnv(t)
	e.skew(-10 * time.Minute)
	old := e.token(t, "web-01.hosts.example", "app")
	e.skew(0)
	_, err := e.try(t, old)
	oneLine(t, err, "the token ended at", "ask for another")
	e.skew(10 * time.Minute)
	early := e.token(t, "web-01.hosts.example", "app")
	e.skew(0)
	_, err = e.try(t, early)
	oneLine(t, err, "the token begins at", "set the clocks")
	ott := e.token(t, "web-01.hosts.example", "app")
	if _, err = e.try(t, ott); err != nil {
		t.Fatal(err)
	}
	_, err = e.try(t, ott)
	oneLine(t, err, "used before", "ask for another")
}

// TestRenewNeedsIdentity presents what smallstep alone would renew.
func TestRenewNeedsIdentity(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	m := e.a.current.Load().material
	sign := func(change func(*x509.Certificate)) *host {
		c := *h.chain[0]
		c.ExtraExtensions = nil
		for _, x := range c.Extensions {
			if x.Id.Equal(classOID()) || x.Id.String() == "1.3.6.1.4.1.37476.9000.64.1" {
				c.ExtraExtensions = append(c.ExtraExtensions, x)
			}
		}
		change(&c)
		cert, err := x509util.CreateCertificate(&c, m.issuer.Cert, c.PublicKey, m.issuer.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &host{chain: []*x509.Certificate{cert, m.issuer.Cert}, key: h.key}
	}
	if _, err := e.renew(sign(func(*x509.Certificate) {})); err != nil {
		t.Fatalf("what the cases below change is refused itself: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"no step extension": {func(c *x509.Certificate) { c.ExtraExtensions = classExtension("app") }, "does not say that a host enrolled"},
		"no class":          {func(c *x509.Certificate) { c.ExtraExtensions = slices.DeleteFunc(c.ExtraExtensions, isClass) }, "no class"},
		"two classes":       {func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }, "class"},
		"another class": {func(c *x509.Certificate) {
			c.ExtraExtensions = append(slices.DeleteFunc(c.ExtraExtensions, isClass), classExtension("db")...)
		}, "class"},
		"for servers": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "for servers"},
		"for both":    {func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) }, "more than clients"},
		"ended": {func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Hour)
			c.NotBefore = time.Now().Add(-2 * time.Hour)
		}, "ended at"},
		"later":               {func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "begins at"},
		"another common name": {func(c *x509.Certificate) { c.Subject.CommonName = "db-01.hosts.example"; c.RawSubject = nil }, "name a host"},
	} {
		_, err := e.renew(sign(c.change))
		if err == nil {
			t.Errorf("%s: renewed", name)
			continue
		}
		oneLine(t, err, c.want)
	}
	status, body, err := e.do(nil, "POST", "/1.0/renew", "")
	if err != nil || status != 400 || !strings.Contains(body, "no client certificate") {
		t.Errorf("none: %d %s %v", status, body, err)
	}
	status, body, err = e.do(nil, "POST", "/1.0/renew", "", "Authorization", "Bearer x.y.z")
	if err != nil || status != 401 || !strings.Contains(body, "by token") {
		t.Errorf("token: %d %s %v", status, body, err)
	}
	_, err = e.renew(forge(t, h.chain[0]))
	oneLine(t, err, "foreign")
}

// TestServedOnly asks for what smallstep has and this authority does not serve.
func TestServedOnly(t *testing.T) {
	e := newEnv(t)
	for _, p := range []string{"POST /ssh/sign", "GET /ssh/roots", "POST /1.0/ssh/renew", "GET /provisioners/hosts/encrypted-key", "GET /admin/provisioners",
		"GET /acme/acme/directory", "GET /", "GET /root/" + strings.Repeat("0", 64), "POST /sign/../ssh/sign", "GET /scep/x", "PUT /sign"} {
		method, path, _ := strings.Cut(p, " ")
		status, body, err := e.do(nil, method, path, "{}")
		if err != nil || status/100 != 4 {
			t.Errorf("%s: %d %s %v", p, status, body, err)
		}
	}
	body, err := e.get("/provisioners")
	if err != nil || strings.Contains(body, "encryptedKey") || !strings.Contains(body, `"hosts"`) || strings.Contains(body, `"d":`) {
		t.Errorf("provisioners: %s %v", body, err)
	}
}

// TestBodies sends bodies that are too large, endless or no JSON to each path that reads one.
func TestBodies(t *testing.T) {
	e := newEnv(t)
	h := e.enrol(t, "web-01.hosts.example", "app")
	for _, path := range []string{"/1.0/sign", "/rekey", "/revoke"} {
		for name, c := range map[string]struct {
			body   string
			status int
		}{
			"huge":  {`{"ott":"` + strings.Repeat("a", maxBody) + `"}`, 413},
			"deep":  {strings.Repeat("[", 20000), 400},
			"empty": {"", 400},
			"text":  {"hello", 400},
			"null":  {"null", 0},
			"types": {`{"csr":7,"ott":[],"serial":{}}`, 400},
		} {
			status, body, err := e.do(h, "POST", path, c.body)
			if err != nil || c.status != 0 && status != c.status || status < 400 || status >= 500 || strings.Count(body, "\n") != 1 {
				t.Errorf("%s %s: %d %.200s %v", path, name, status, body, err)
			}
		}
	}
}

// TestServerBounds holds the server to a bound on everything that a slow client can draw out.
func TestServerBounds(t *testing.T) {
	s := mustOpen(t, testOptions(t)).Server(http.NotFoundHandler())
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 || s.ErrorLog == nil {
		t.Errorf("%+v", s)
	}
}

// TestTokenArguments asks for tokens that must not be made.
func TestTokenArguments(t *testing.T) {
	e := newEnv(t)
	for name, c := range map[string]struct {
		host  string
		class exitgate.Class
		sans  []string
	}{
		"no name":     {"", "app", nil},
		"capitals":    {"Web", "app", nil},
		"long name":   {strings.Repeat("a", 60) + ".example", "app", nil},
		"address":     {"192.0.2.1", "app", nil},
		"wildcard":    {"*.example", "app", nil},
		"no class":    {"web", "", nil},
		"unknown":     {"web", exitgate.ClassUnknown, nil},
		"slash":       {"web", "a/b", nil},
		"quote":       {"web", `a"b`, nil},
		"dots":        {"web", "..", nil},
		"uri":         {"web", "app", []string{"spiffe://gw.example/class/admin/host/web"}},
		"mail":        {"web", "app", []string{"root@example.com"}},
		"many":        {"web", "app", slices.Repeat([]string{"a"}, maxSANs+1)},
		"empty extra": {"web", "app", []string{""}},
	} {
		ott, err := e.a.Token(t.Context(), c.host, c.class, c.sans...)
		if err == nil || ott != "" {
			t.Errorf("%s: a token was made", name)
			continue
		}
		oneLine(t, err, "make a token")
	}
}

// classExtension returns the extension with a class, as a request or a certificate carries it.
func classExtension(class string) []pkix.Extension {
	return []pkix.Extension{{Id: classOID(), Value: append([]byte{0x0c, byte(len(class))}, class...)}}
}

func isClass(e pkix.Extension) bool { return e.Id.Equal(classOID()) }

// forge returns a host with a certificate that says what c says, signed by itself.
func forge(t testing.TB, c *x509.Certificate) *host {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	copied := *c
	copied.PublicKey = key.Public()
	copied.ExtraExtensions = c.Extensions
	copied.SignatureAlgorithm = 0
	der, err := x509.CreateCertificate(rand.Reader, &copied, &copied, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &host{chain: []*x509.Certificate{forged}, key: key}
}

// unsigned returns the token as one that says it needs no signature.
func unsigned(ott string) string {
	parts := strings.Split(ott, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"hosts","typ":"JWT"}`)) + "." + parts[1] + "."
}

func mustRevokeToken(t testing.TB, e *env) string {
	t.Helper()
	ott, err := e.a.RevokeToken(t.Context(), "17")
	if err != nil {
		t.Fatal(err)
	}
	return ott
}
