package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"
)

// An issuer under a root whose key is elsewhere comes in three steps: a request with the key of the issuer to be, its
// signing where the root's key is, and the certificate that is brought back.

// Request returns a certificate signing request, as PEM, for an issuer of this folder. Until Install, the same key is
// asked for each time.
func (i *Issuer) Request() ([]byte, error) {
	i.renewing.Lock()
	defer i.renewing.Unlock()
	return i.request()
}

// Request is Issuer.Request for a folder that has no issuer yet, so that Open refuses it.
func Request(o Options) ([]byte, error) {
	i, err := newIssuer(o)
	if err != nil {
		return nil, fmt.Errorf("request an issuer: %w", err)
	}
	return i.request()
}

func (i *Issuer) request() ([]byte, error) {
	unlock, err := i.folder.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := i.pending()
	if err != nil {
		return nil, fmt.Errorf("request an issuer: %w", err)
	}
	signer, done, err := i.pendingSigner(p)
	if err != nil {
		return nil, fmt.Errorf("request an issuer: %w", err)
	}
	defer done()
	shape, err := i.certify("issuer", signer.Public(), time.Hour, i.now(), &pair{key: signer}, issuerShape(i.want))
	if err != nil {
		return nil, fmt.Errorf("request an issuer: %w", err)
	}
	t := &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{i.subject}, CommonName: "exitgate interception issuer"}}
	for _, e := range shape.Extensions {
		if slices.ContainsFunc(requested, e.Id.Equal) {
			t.ExtraExtensions = append(t.ExtraExtensions, e)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, t, signer)
	if err != nil {
		return nil, fmt.Errorf("request an issuer: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// requested are the extensions that a request asks for: basic constraints, key usage, extended key usage and name
// constraints (RFC 5280, section 4.2.1).
var (
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
	requested          = []asn1.ObjectIdentifier{{2, 5, 29, 19}, {2, 5, 29, 15}, {2, 5, 29, 37}, oidNameConstraints}
)

// pending returns the key that was asked for, after it made one when there is none. Beside it stands a certificate that
// it signed itself, which nothing uses: the file is written like all others. The folder is locked.
func (i *Issuer) pending() (pair, error) {
	p, err := i.readSecret(requestFile, i.keys.issuPhrase)
	if err == nil && !i.inUse(p) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	key, err := newKey(i.keys.issuer, i.keys.issuPhrase)
	if err != nil {
		return p, err
	}
	p = pair{uri: i.keys.issuer}
	p.cert, err = i.certify("request", key.Public(), time.Hour, i.now(), &pair{key: key}, func(*x509.Certificate) {})
	if p.uri != "" {
		closeKey(key)
	} else {
		p.key = key
	}
	if err != nil {
		return p, err
	}
	return p, i.folder.writePair(requestFile, p, i.keys.issuPhrase)
}

// inUse reports whether the key of p is that of an issuer already: then the process died after it was installed. A key
// in a KMS is used again and again.
func (i *Issuer) inUse(p pair) bool {
	for _, name := range []string{issuerFile, nextIssuerFile} {
		have, err := i.readSecret(name, i.keys.issuPhrase)
		if err == nil && p.uri == "" && keyutil.Equal(have.cert.PublicKey, p.cert.PublicKey) {
			return true
		}
	}
	return false
}

func (i *Issuer) pendingSigner(p pair) (crypto.Signer, func(), error) {
	if p.key != nil {
		return p.key, func() {}, nil
	}
	key, err := openKey(p, i.keys.issuPhrase)
	if err != nil {
		return nil, nil, err
	}
	return key, func() { key.Close() }, nil
}

// Install takes the certificate, as PEM, that was signed for Request. One under the current root signs leaves from
// when it returns; one under the next root waits for the switch. What does not fit is a *StateError.
func (i *Issuer) Install(certificate []byte) error {
	return i.step(func(t *trust, now time.Time) (*generation, error) {
		if err := i.install(t, now, certificate); err != nil {
			return nil, err
		}
		return i.settle(t, now)
	})
}

// Install is Issuer.Install for a folder that has no issuer yet, so that Open refuses it.
func Install(o Options, certificate []byte) error {
	i, err := newIssuer(o)
	if err != nil {
		return fmt.Errorf("install an issuer: %w", err)
	}
	unlock, err := i.folder.open()
	if err != nil {
		return err
	}
	defer unlock()
	now := i.now()
	t, err := i.openTrust(now)
	if err != nil {
		return err
	}
	return i.install(t, now, certificate)
}

// install writes the issuer to the folder, which is locked.
func (i *Issuer) install(t *trust, now time.Time, certificate []byte) error {
	p, err := i.readSecret(requestFile, i.keys.issuPhrase)
	if errors.Is(err, fs.ErrNotExist) {
		return notNow(`install an issuer: none was asked for: begin with "exitgate ca issuer-request"`)
	}
	if err != nil {
		return fmt.Errorf("install an issuer: read %s: %w", i.folder.path(requestFile), err)
	}
	certs, err := parseCerts(certificate)
	if err != nil || len(certs) == 0 {
		return notNow("install an issuer: what was brought is not a certificate in PEM")
	}
	asked := p.cert.PublicKey
	if p.cert = certs[0]; !keyutil.Equal(p.cert.PublicKey, asked) {
		return notNow("install an issuer: the certificate is for another key than was asked for: sign what \"exitgate ca issuer-request\" writes on this gateway")
	}
	name, err := place(p.cert, t, now)
	if err != nil {
		return err
	}
	if err := i.folder.writePair(name, p, i.keys.issuPhrase); err != nil {
		return fmt.Errorf("install an issuer: write %s: %w", i.folder.path(name), err)
	}
	i.log.Info("installed an interception issuer", "ends", p.cert.NotAfter, "file", i.folder.path(name))
	return i.folder.remove(requestFile)
}

// place returns the file for the issuer c: of the current root, or of the next.
func place(c *x509.Certificate, t *trust, now time.Time) (string, error) {
	name, root := issuerFile, t.root.cert
	if t.phase() == Overlap && signedBy(c, t.other.cert) {
		name, root = nextIssuerFile, t.other.cert
	}
	if err := checkIssuer(c, root); err != nil {
		return "", notNow("install an issuer: %v", err)
	}
	if err := checkValidity(c, now); err != nil {
		return "", notNow("install an issuer: the certificate %v", err)
	}
	return name, nil
}

// CreateRoot makes a root in o.Dir, which holds nothing else, where its key shall stay: root.crt is what gateways are
// given.
func CreateRoot(o Options) (*x509.Certificate, error) {
	i, err := newIssuer(o)
	if err != nil {
		return nil, fmt.Errorf("create a root: %w", err)
	}
	unlock, err := i.folder.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if i.folder.has(rootFile) {
		return nil, fmt.Errorf("create a root: there is one, %s", i.folder.path(rootFile))
	}
	p, err := i.makeRoot(i.now())
	if err == nil {
		err = i.publish(&trust{root: p})
	}
	if err != nil {
		return nil, fmt.Errorf("create the root %s: %w", i.folder.path(rootFile), err)
	}
	return p.cert, nil
}
