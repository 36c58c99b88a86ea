package ca

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/keyutil"
)

// A Signing says with what an issuer is signed where the root's key is.
type Signing struct {
	Root       []byte           // what is in root.pem; or a certificate alone, when Key says where its key is
	Key        string           // URI of the key in a KMS, or path of a file that holds it alone
	Passphrase []byte           // of the key, in Root or in a file
	Lifetime   time.Duration    // 0: 90 days; never past the root's end
	Now        func() time.Time // nil: time.Now
}

// defaultSigned is how long an issuer lives that a person signed: others are renewed by themselves.
const defaultSigned = 90 * day

// SignIssuer signs what Request returned. Whatever the request asks for, what comes of it is an issuer of leaves for
// servers, within the name constraints of the request.
func SignIssuer(request []byte, s Signing) (*x509.Certificate, error) {
	csr, err := parseRequest(request)
	if err != nil {
		return nil, fmt.Errorf("sign an issuer: the request: %w", err)
	}
	want, err := requestedConstraints(csr)
	if err != nil {
		return nil, fmt.Errorf("sign an issuer: the request: %w", err)
	}
	root, done, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("sign an issuer: %w", err)
	}
	defer done()
	i, err := newIssuer(Options{Dir: "none", Gateway: strings.Join(csr.Subject.Organization, " "), Now: s.Now})
	if err != nil {
		return nil, fmt.Errorf("sign an issuer: the request: %w", err)
	}
	if s.Lifetime == 0 {
		s.Lifetime = defaultSigned
	}
	now := i.now()
	if err := errors.Join(checkRoot(root.cert), checkValidity(root.cert, now)); err != nil {
		return nil, fmt.Errorf("sign an issuer: the root %w", err)
	}
	if s.Lifetime < time.Hour {
		return nil, fmt.Errorf("sign an issuer: a lifetime of %v is over before it is installed", s.Lifetime)
	}
	if keyutil.Equal(csr.PublicKey, root.cert.PublicKey) {
		return nil, errors.New("sign an issuer: the request is for the key of the root")
	}
	return i.certify("issuer", csr.PublicKey, s.Lifetime, now, &root, issuerShape(want))
}

// SignBridge signs the root next with the one in s, which it follows: hosts that know only that one accept leaves over
// the bridge that is returned (see Rotation). Lifetime plays no part.
func SignBridge(next *x509.Certificate, s Signing) (*x509.Certificate, error) {
	old, done, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("sign a bridge: %w", err)
	}
	defer done()
	if err := errors.Join(checkRoot(old.cert), checkRoot(next)); err != nil {
		return nil, fmt.Errorf("sign a bridge: a root %w", err)
	}
	if keyutil.Equal(old.cert.PublicKey, next.PublicKey) {
		return nil, errors.New("sign a bridge: the roots at its ends have one key")
	}
	c, err := signBridge(old, next)
	if err == nil {
		err = checkBridge(c, old.cert, next)
	}
	if err != nil {
		return nil, fmt.Errorf("sign a bridge: %w", err)
	}
	return c, nil
}

// open returns the root with its key.
func (s Signing) open() (pair, func(), error) {
	if s.Key == "" {
		p, err := parsePair(s.Root, s.Passphrase)
		if err != nil {
			return p, nil, fmt.Errorf("read the root: %w; where its key is not in the same file, say where it is", err)
		}
		k := keyring{rootPhrase: s.Passphrase}
		return k.rootSigner(p)
	}
	certs, err := parseCerts(s.Root)
	if err != nil || len(certs) != 1 {
		return pair{}, nil, errors.New("read the root: it should be one certificate in PEM")
	}
	uri := s.Key
	if strings.HasPrefix(uri, "/") || strings.HasPrefix(uri, ".") || !strings.Contains(uri, ":") {
		uri = "softkms:path=" + url.QueryEscape(s.Key)
	}
	p := pair{cert: certs[0], uri: uri}
	key, err := openKey(p, s.Passphrase)
	if err != nil {
		return pair{}, nil, err
	}
	p.key = key
	return p, func() { key.Close() }, nil
}

func parseRequest(b []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("it is not a certificate signing request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("whoever wrote it does not hold its key: %w", err)
	}
	switch k := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return csr, nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return csr, nil
		}
	}
	return nil, errors.New("its key is neither ECDSA nor RSA of at least 2048 bits, which is what clients take")
}

// requestedConstraints reads the name constraints that a request asks for, with the reader that certificates have, and
// refuses what issuerShape would not write.
func requestedConstraints(csr *x509.CertificateRequest) (c constraints, err error) {
	n := slices.IndexFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) })
	if n < 0 {
		return constraints{}, nil
	}
	asked, err := sample(func(t *x509.Certificate) { t.ExtraExtensions = csr.Extensions[n : n+1] })
	if err != nil {
		return c, fmt.Errorf("its name constraints cannot be read: %w", err)
	}
	if c, err = parseConstraints(asked.ExcludedDNSDomains, asked.PermittedDNSDomains); err != nil {
		return c, err
	}
	written, err := sample(c.write)
	if err != nil {
		return c, err
	}
	if !sameConstraints(asked, written) {
		return c, errors.New("it asks for name constraints that exitgate does not write")
	}
	return c, nil
}

// sample returns a certificate with what complete says, signed by a key that is thrown away.
func sample(complete func(*x509.Certificate)) (*x509.Certificate, error) {
	i := Issuer{}
	p, err := i.newPair("sample", time.Hour, time.Now(), nil, complete)
	return p.cert, err
}

// sameConstraints compares the name constraints of two certificates byte by byte.
func sameConstraints(a, b *x509.Certificate) bool {
	value := func(c *x509.Certificate) string {
		for _, e := range c.Extensions {
			if e.Id.Equal(oidNameConstraints) {
				return fmt.Sprint(e.Critical, e.Value)
			}
		}
		return ""
	}
	return value(a) == value(b)
}
