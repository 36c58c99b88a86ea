package gatetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate/mitm"
)

// signedBy issues a certificate for pub, signed by the CA, that change made of the ordinary one.
func (c *CA) signedBy(t testing.TB, key any, pub any, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: []string{"www.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	change(tmpl)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, c.cert, pub, c.key))
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: key}
}

// Trouble with an upstream's TLS is told in a page over a leaf of the gateway's, with its reason, and is never a refusal.
func TestUpstreamTLSFaults(t *testing.T) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	ours := func(change func(*x509.Certificate)) func(*testing.T, *Gate) *tls.Config {
		return func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{*g.Origins.signedBy(t, key, &key.PublicKey, change)}}
		}
	}
	for _, tc := range []struct {
		name, typ, reason string
		conf              func(*testing.T, *Gate) *tls.Config // nil: not TLS at all
	}{
		{"expired", "tls_certificate_error", "expired", ours(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
		{"not yet valid", "tls_certificate_error", "not yet valid", ours(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })},
		{"wrong name", "tls_certificate_error", "valid for other.example.com, not www.example.com", ours(func(c *x509.Certificate) { c.DNSNames = []string{"other.example.com"} })},
		{"no name", "tls_certificate_error", "", ours(func(c *x509.Certificate) { c.DNSNames = nil; c.Subject.CommonName = "www.example.com" })},
		{"for clients", "tls_certificate_error", "usage", ours(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		{"a CA", "tls_certificate_error", "it is a CA certificate", ours(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })},
		{"key usage", "tls_certificate_error", "key usage", ours(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })},
		{"public suffix", "tls_certificate_error", "covers a public suffix", ours(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "*.co.uk") })},
		{"must staple", "tls_certificate_error", "OCSP", ours(func(c *x509.Certificate) {
			v, _ := asn1.Marshal([]int{5})
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: v}}
		})},
		{"weak key", "tls_certificate_error", "RSA key of 1024 bits", func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{*g.Origins.signedBy(t, weak, &weak.PublicKey, func(*x509.Certificate) {})}}
		}},
		{"unknown CA", "tls_certificate_error", "unknown authority", func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{*NewCA(t, "stranger").signedBy(t, key, &key.PublicKey, func(*x509.Certificate) {})}}
		}},
		{"self-signed", "tls_certificate_error", "unknown authority", func(t *testing.T, g *Gate) *tls.Config {
			tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{"www.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
			der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key))
			return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		}},
		{"our own CA", "tls_certificate_error", "gateway's own CA", func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{*g.CA.signedBy(t, key, &key.PublicKey, func(*x509.Certificate) {})}}
		}},
		{"TLS 1.1", "tls_alert_received", "protocol version", func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{GetCertificate: g.Origins.forHello, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
		}},
		{"alert", "tls_alert_received", "handshake failure", func(t *testing.T, g *Gate) *tls.Config {
			return &tls.Config{GetCertificate: g.Origins.forHello, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}
		}},
		{"not TLS", "tls_protocol_error", "does not speak TLS", nil},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			g := New(t, func(p *mitm.Proxy) {
				p.Upstream.IsOwn = func(c *x509.Certificate) bool { return c.Subject.CommonName == "interception" }
			})
			g.Proxy.Upstream.Roots.AddCert(g.CA.Cert()) // as provisioning has put it into the system's store
			o := newRaw(t, func(n int, c net.Conn) {
				if tc.conf == nil {
					io.WriteString(c, "220 mail.example.com ESMTP\r\n")
					io.Copy(io.Discard, c)
					return
				}
				s := tls.Server(c, tc.conf(t, g))
				if s.Handshake() == nil {
					io.Copy(io.Discard, s)
				}
			})
			g.Resolver.Add("www.example.com", 443, o.Addr)
			for _, h2 := range []bool{false, true} {
				res, body := do(t, g.Client(h2), "GET", "https://www.example.com/", nil)
				if res.StatusCode != 502 || !strings.Contains(body, tc.reason) || !strings.Contains(res.Header.Get("Proxy-Status"), "error="+tc.typ+";") {
					t.Errorf("h2=%v: got %d, %s\n%s", h2, res.StatusCode, res.Header.Get("Proxy-Status"), body)
				}
				if res.TLS.PeerCertificates[0].Issuer.CommonName != "interception" {
					t.Errorf("the page came over a leaf of %s", res.TLS.PeerCertificates[0].Issuer)
				}
			}
			for _, f := range g.Recorder.Wait(2) {
				fault(t, f, "tls", tc.typ)
				if f.Sent.Body != 0 || f.Status != 502 {
					t.Errorf("flow: %d, sent %+v", f.Status, f.Sent)
				}
			}
		})
	}
}

// An upstream that never finishes its handshake is given up.
func TestUpstreamTLSSilent(t *testing.T) {
	g := New(t, short)
	o := newRaw(t, func(n int, c net.Conn) { io.Copy(io.Discard, c) })
	g.Resolver.Add("www.example.com", 443, o.Addr)
	if res, _ := do(t, g.Client(true), "GET", "https://www.example.com/", nil); res.StatusCode != 504 {
		t.Errorf("got %d", res.StatusCode)
	}
	fault(t, g.Recorder.Last(1), "tls", "connection_timeout")
}

// A destination that has a client certificate gets it; its neighbours do not.
func TestClientCertificates(t *testing.T) {
	set := func(g **Gate) func(p *mitm.Proxy) {
		return func(p *mitm.Proxy) { p.Upstream.ClientCertificates = map[string]*tls.Certificate{} }
	}
	var g *Gate
	g = New(t, set(&g))
	issue := func(name string) *tls.Certificate {
		return must[*tls.Certificate](t)(g.Origins.Issue(func(c *x509.Certificate) { c.Subject.CommonName = name }))
	}
	g.Proxy.Upstream.ClientCertificates["one.example.com"] = issue("for one")
	g.Proxy.Upstream.ClientCertificates["*.wild.example.com"] = issue("for wild")
	conf := &tls.Config{GetCertificate: g.Origins.forHello, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}
	}), TLSConfig: conf}
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
	for name, want := range map[string]string{"one.example.com": "for one", "a.wild.example.com": "for wild", "wild.example.com": "", "two.example.com": ""} {
		g.Resolver.Add(name, 443, l.Addr().String())
		for _, h2 := range []bool{false, true} {
			if _, body := do(t, g.Client(h2), "GET", "https://"+name+"/", nil); body != want {
				t.Errorf("%s got the certificate %q, want %q", name, body, want)
			}
		}
	}
}

// Clients that come again resume their session, and so does the gateway upstream.
func TestResumption(t *testing.T) {
	g := New(t)
	resumed := make(chan bool, 2)
	g.Origin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		w.Header().Set("Connection", "close")
	}), "www.example.com")
	conf := &tls.Config{RootCAs: g.CA.Pool(), ServerName: "www.example.com", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for i := range 2 {
		c := tls.Client(g.opened("www.example.com:443"), conf)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || len(b) == 0 {
			t.Fatal(err)
		}
		if got := c.ConnectionState().DidResume; got != (i == 1) {
			t.Errorf("connection %d of the client: resumed %v", i, got)
		}
		if got := within(t, resumed, "the origin"); got != (i == 1) {
			t.Errorf("connection %d of the gateway: resumed %v", i, got)
		}
		c.Close()
	}
}
