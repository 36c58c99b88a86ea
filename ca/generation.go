package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"github.com/smallstep/certificates/cas/softcas"
	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/x509util"
)

// A generation is one issuer with the key of its leaves, under what the folder said about roots. It is never changed.
type generation struct {
	pair
	trust   *trust
	id      string   // of its certificate, unique
	flight  string   // of id and trust: leaves of one flight have one chain
	chain   [][]byte // what a leaf is sent with
	cas     *softcas.SoftCAS
	bars    constraints // that leaves are refused by: the issuer's, and what the next one shall have
	want    constraints // of the next one
	renewAt time.Time
	leafKey crypto.Signer // of every leaf; in memory only
	leafSKI []byte
}

// newGeneration returns the generation of the issuer p, which t.root signed.
func (i *Issuer) newGeneration(p pair, t *trust, want constraints) (*generation, error) {
	p, err := i.keys.issuerSigner(p)
	if err != nil {
		return nil, err
	}
	leafKey, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return nil, fmt.Errorf("make the key of leaves: %w", err)
	}
	ski, err := x509util.GenerateSubjectKeyID(leafKey.Public())
	if err != nil {
		return nil, fmt.Errorf("make the key identifier of leaves: %w", err)
	}
	g := &generation{pair: p, trust: t, id: p.cert.SerialNumber.Text(16), bars: constraintsOf(p.cert).and(want), want: want, leafKey: leafKey, leafSKI: ski}
	g.flight = g.id + " " + t.id()
	g.cas = &softcas.SoftCAS{CertificateChain: []*x509.Certificate{p.cert}, Signer: p.key}
	g.chain = [][]byte{p.cert.Raw}
	if t.bridged() {
		g.chain = append(g.chain, t.turn.bridge.Raw)
	}
	g.renewAt = renewal(p.cert, t)
	return g, nil
}

// renewal returns when another issuer should take the place of c.
func renewal(c *x509.Certificate, t *trust) time.Time {
	at := c.NotAfter
	if at.Before(t.root.cert.NotAfter) { // else a new one would not end later
		at = at.Add(-c.NotAfter.Sub(c.NotBefore) / 3)
	}
	if s := t.switchAt(); !s.IsZero() && s.Before(at) {
		at = s
	}
	return at
}

// valid reports whether g can sign leaves at now; fresh, whether it need not be replaced first.
func (g *generation) valid(now time.Time) bool {
	return g.cert.NotAfter.After(now) && !now.Before(g.cert.NotBefore)
}
func (g *generation) fresh(now time.Time) bool {
	return g.renewAt.After(now) && !now.Before(g.cert.NotBefore)
}

// How long a renewal is not tried again: one that failed, and one that waits for a person.
const (
	retryRenewal = time.Minute
	retryPerson  = time.Hour
)

// A retry says until when no renewal is tried, while the current generation is valid.
type retry struct {
	at   time.Time
	wait time.Duration // before at: when the clock is further back than that, it was set
}

func (r retry) waits(now time.Time) bool {
	left := r.at.Sub(now)
	return 0 < left && left <= r.wait
}

// generation returns the generation that signs at now, and replaces it first when it is due. Who finds another
// at that work goes on with a generation that is still valid.
func (i *Issuer) generation(now time.Time) (*generation, error) {
	g := i.current.Load()
	if g.fresh(now) {
		return g, nil
	}
	if !i.renewing.TryLock() {
		if g.valid(now) {
			return g, nil
		}
		i.renewing.Lock()
	}
	defer i.renewing.Unlock()
	if g = i.current.Load(); g.fresh(now) {
		return g, nil
	}
	if g.valid(now) && i.retry.waits(now) {
		return g, nil
	}
	return i.renew(g, now)
}

// renew replaces g. While g is valid, a renewal that fails is logged and g goes on. i.renewing is held.
func (i *Issuer) renew(g *generation, now time.Time) (*generation, error) {
	next, err := i.lockedGeneration(now, i.want)
	if err != nil && !g.valid(now) {
		return nil, err
	}
	if err != nil {
		i.retry = retry{now.Add(retryRenewal), retryRenewal}
		i.log.Error("the interception issuer could not be renewed", "error", err, "ends", g.cert.NotAfter)
		return g, nil
	}
	if !next.fresh(now) {
		i.retry = retry{now.Add(retryPerson), retryPerson}
		i.complain(next, now)
	}
	if next.flight == g.flight {
		return g, nil // with the leaves that are in memory
	}
	i.replace(next)
	return next, nil
}

// replace makes g the current generation.
func (i *Issuer) replace(g *generation) {
	if i.current.Swap(g).id != g.id {
		i.renewals.Add(1)
	}
}

// lockedGeneration is openGeneration under the folder's lock.
func (i *Issuer) lockedGeneration(now time.Time, want constraints) (*generation, error) {
	unlock, err := i.folder.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return i.openGeneration(now, want)
}

// openGeneration returns the generation of the issuer in the folder, after it switched to the next root when that is
// due, and put a new issuer there when there is none, when it is due, and when it excludes others than want. Where
// the key for that is not here, an issuer that is valid goes on. The folder is locked.
func (i *Issuer) openGeneration(now time.Time, want constraints) (*generation, error) {
	t, err := i.openTrust(now)
	if err != nil {
		return nil, err
	}
	if t.due(now) {
		g, err := i.switchOver(t, now, want)
		if err == nil || !now.Before(t.root.cert.NotAfter) {
			return g, err
		}
		i.log.Error("the switch to the next interception root failed; the old one goes on", "error", err)
	}
	if err := checkValidity(t.root.cert, now); err != nil {
		return nil, fmt.Errorf("open the interception root %s: the root %w", i.rootPath(), err)
	}
	p, err := i.readIssuer(t, now)
	if errors.Is(err, fs.ErrNotExist) {
		return i.makeGeneration(t, now, want)
	}
	if err != nil {
		return nil, fmt.Errorf("read the interception issuer %s: %w; remove the file, and a new issuer is made under the same root",
			i.folder.path(issuerFile), err)
	}
	g, err := i.newGeneration(p, t, want)
	if err != nil || g.fresh(now) && constraintsOf(p.cert).equal(want) {
		return g, err
	}
	next, err := i.makeGeneration(t, now, want)
	if errors.Is(err, ErrNoRootKey) && g.valid(now) {
		return g, nil
	}
	return next, err
}

// readIssuer returns the issuer in the folder, or fs.ErrNotExist. One of a root that is leaving is none; then an issuer
// that was installed for the new root ahead of the switch is the one.
func (i *Issuer) readIssuer(t *trust, now time.Time) (pair, error) {
	p, err := i.readSecret(issuerFile, i.keys.issuPhrase)
	missing := errors.Is(err, fs.ErrNotExist)
	if missing || err == nil && t.phase() == Leaving && signedBy(p.cert, t.other.cert) {
		if p, err = i.readInstalled(t.root.cert, now); err == nil {
			err = i.putIssuer(p)
		}
		return p, err
	}
	if err == nil {
		err = checkIssuer(p.cert, t.root.cert)
	}
	return p, err
}

// readInstalled returns the issuer that was installed ahead of the switch, or fs.ErrNotExist when there is none that
// root signed and that is valid.
func (i *Issuer) readInstalled(root *x509.Certificate, now time.Time) (pair, error) {
	p, err := i.readSecret(nextIssuerFile, i.keys.issuPhrase)
	if err == nil && (checkIssuer(p.cert, root) != nil || checkValidity(p.cert, now) != nil) {
		err = fs.ErrNotExist
	}
	return p, err
}

// putIssuer makes p the issuer in the folder.
func (i *Issuer) putIssuer(p pair) error {
	if err := i.folder.writePair(issuerFile, p, i.keys.issuPhrase); err != nil {
		return err
	}
	return i.folder.remove(nextIssuerFile)
}

// makeGeneration makes an issuer and writes it to the folder.
func (i *Issuer) makeGeneration(t *trust, now time.Time, want constraints) (*generation, error) {
	p, err := i.makeIssuer(t, now, want)
	if err == nil {
		err = i.folder.writePair(issuerFile, p, i.keys.issuPhrase)
	}
	if err != nil {
		return nil, fmt.Errorf("make the interception issuer %s: %w", i.folder.path(issuerFile), err)
	}
	g, err := i.newGeneration(p, t, want)
	if err == nil {
		i.complain(g, now)
	}
	return g, err
}

// makeIssuer makes an issuer under the root of t.
func (i *Issuer) makeIssuer(t *trust, now time.Time, want constraints) (pair, error) {
	if err := checkValidity(t.root.cert, now); err != nil {
		return pair{}, fmt.Errorf("the root %w", err)
	}
	root, done, err := i.keys.rootSigner(t.root)
	if err != nil {
		return pair{}, err
	}
	defer done()
	key, err := newKey(i.keys.issuer, i.keys.issuPhrase)
	if err != nil {
		return pair{}, err
	}
	cert, err := i.certify("issuer", key.Public(), i.lifetimes.Issuer, now, &root, issuerShape(want))
	if i.keys.issuer != "" {
		closeKey(key)
		key = nil
	}
	if err != nil {
		return pair{}, err
	}
	i.log.Info("made an interception issuer", "ends", cert.NotAfter, "never_intercept", len(cert.ExcludedDNSDomains))
	return pair{cert: cert, key: key, uri: i.keys.issuer}, nil
}

// issuerShape completes the template of an issuer.
func issuerShape(c constraints) func(*x509.Certificate) {
	return func(t *x509.Certificate) {
		t.MaxPathLenZero = true
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.write(t)
	}
}

// newPair makes a key in memory and a certificate authority's certificate for it, signed by parent or, without one,
// by itself.
func (i *Issuer) newPair(kind string, lifetime time.Duration, now time.Time, parent *pair, complete func(*x509.Certificate)) (pair, error) {
	key, err := newKey("", nil)
	if err != nil {
		return pair{}, err
	}
	if parent == nil {
		parent = &pair{key: key}
	}
	cert, err := i.certify(kind, key.Public(), lifetime, now, parent, complete)
	return pair{cert: cert, key: key}, err
}

// certify makes a certificate authority's certificate for a key, signed by parent, or by itself when parent has a key
// only. Its subject is unique, since clients that look for an issuer by name alone take the first they know.
func (i *Issuer) certify(kind string, public crypto.PublicKey, lifetime time.Duration, now time.Time, parent *pair, complete func(*x509.Certificate)) (*x509.Certificate, error) {
	serial := newSerial()
	t := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{Organization: []string{i.subject}, CommonName: "exitgate interception " + kind + " " + hex.EncodeToString(serial[:4])},
		NotBefore:             now.Add(-i.lifetimes.Backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	complete(t)
	signer := parent.cert
	if signer == nil {
		signer = t
	}
	t.NotBefore, t.NotAfter = within(signer, t.NotBefore, t.NotAfter)
	return x509util.CreateCertificate(t, signer, public, parent.key)
}

// newSerial returns the 127 bits of a serial number.
func newSerial() []byte {
	serial := make([]byte, 16)
	rand.Read(serial) // never fails: crypto/rand.Read aborts the process instead
	serial[0] = serial[0]&0x7f | 0x40
	return serial
}

// within cuts a validity to that of the certificate that signs it.
func within(parent *x509.Certificate, from, to time.Time) (time.Time, time.Time) {
	if from.Before(parent.NotBefore) {
		from = parent.NotBefore
	}
	if to.After(parent.NotAfter) {
		to = parent.NotAfter
	}
	return from, to
}
