package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// newKey makes the key of an identity.
func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// request makes the request for a certificate with the names that the gateway's one-time token carries: they are
// compared there, and the class comes from the token alone.
func request(key crypto.Signer, name, ott string) ([]byte, error) {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	sans, err := tokenSANs(ott)
	if err != nil {
		return nil, err
	}
	for _, s := range sans {
		if u, err := url.Parse(s); err == nil && u.Scheme != "" && u.Host != "" {
			template.URIs = append(template.URIs, u)
		} else if ip := net.ParseIP(s); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, s)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), err
}

// tokenSANs reads the names in a signed token. Its signature is the gateway's own business.
func tokenSANs(ott string) ([]string, error) {
	parts := strings.Split(ott, ".")
	if len(parts) != 3 {
		return nil, errors.New("the gateway's one-time token is no signed token")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("read the gateway's one-time token: %w", err)
	}
	var claims struct {
		Subject string   `json:"sub"`
		SANs    []string `json:"sans"`
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return nil, fmt.Errorf("read the gateway's one-time token: %w", err)
	}
	if len(claims.SANs) == 0 {
		claims.SANs = []string{claims.Subject}
	}
	return claims.SANs, nil
}

// signed is smallstep's answer to /1.0/sign and /1.0/renew.
type signed struct {
	Crt   string   `json:"crt"`
	CA    string   `json:"ca"`
	Chain []string `json:"certChain"`
}

// certificate returns the identity that was signed, its chain after it, once it is what it should be: for this key, under
// the root, for clients, now.
func (s signed) certificate(key crypto.Signer, roots []*x509.Certificate, now time.Time) (*tls.Certificate, error) {
	list := s.Chain
	if len(list) == 0 {
		list = []string{s.Crt, s.CA}
	}
	c := &tls.Certificate{PrivateKey: key}
	under := x509.NewCertPool()
	for _, text := range list {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the identity certificate: %w", err)
		}
		if c.Leaf == nil {
			c.Leaf = cert
		} else if slices.ContainsFunc(roots, cert.Equal) {
			continue // the gateway has it
		}
		under.AddCert(cert)
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	if c.Leaf == nil {
		return nil, errors.New("the gateway answered no certificate")
	}
	if pub, ok := key.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(c.Leaf.PublicKey) {
		return nil, errors.New("the gateway answered a certificate for another key")
	}
	if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool(roots), Intermediates: under, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, fmt.Errorf("the identity certificate is not under the gateway's root: %w", err)
	}
	return c, nil
}

// sign has a certificate made for key.
func (l *link) sign(ctx context.Context, key crypto.Signer, name, ott string, now time.Time) (*tls.Certificate, error) {
	csr, err := request(key, name, ott)
	if err != nil {
		return nil, err
	}
	var s signed
	if err := l.call(ctx, http.MethodPost, "/1.0/sign", map[string]string{"csr": string(csr), "ott": ott}, &s); err != nil {
		return nil, fmt.Errorf("the identity was not signed: %w", err)
	}
	return s.certificate(key, l.roots, now)
}

// renew has the certificate with which the link connects made again.
func (l *link) renew(ctx context.Context, key crypto.Signer, now time.Time) (*tls.Certificate, error) {
	var s signed
	if err := l.call(ctx, http.MethodPost, "/1.0/renew", nil, &s); err != nil {
		return nil, fmt.Errorf("the identity was not renewed: %w", err)
	}
	return s.certificate(key, l.roots, now)
}

// due reports whether half of the life of c is over. Hosts that were enrolled together do not come together: each is
// up to a tenth of the life later, by a number from its own certificate.
func due(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	jitter := time.Duration(0)
	if n := len(c.Signature); n > 0 {
		jitter = life / 10 * time.Duration(c.Signature[n-1]) / 256
	}
	return !now.Before(c.NotBefore.Add(life/2 + jitter))
}

func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func chainPEM(certs []*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func identityPEM(c *tls.Certificate) []byte {
	var b []byte
	for _, der := range c.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return b
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
