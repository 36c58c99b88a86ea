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

// A generation is one issuer with the key of its leaves. It is never changed.
type generation struct {
	pair
	id      string // of its certificate, unique
	cas     *softcas.SoftCAS
	never   domains
	renewAt time.Time
	leafKey crypto.Signer // of every leaf; in memory only
	leafSKI []byte
}

func newGeneration(p, root pair) (*generation, error) {
	leafKey, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return nil, fmt.Errorf("make the key of leaves: %w", err)
	}
	ski, err := x509util.GenerateSubjectKeyID(leafKey.Public())
	if err != nil {
		return nil, fmt.Errorf("make the key identifier of leaves: %w", err)
	}
	g := &generation{pair: p, id: p.cert.SerialNumber.Text(16), never: newDomains(p.cert.ExcludedDNSDomains), leafKey: leafKey, leafSKI: ski}
	g.cas = &softcas.SoftCAS{CertificateChain: []*x509.Certificate{p.cert}, Signer: p.key}
	g.renewAt = p.cert.NotAfter
	if g.renewAt.Before(root.cert.NotAfter) { // else a new one would not end later
		g.renewAt = g.renewAt.Add(-p.cert.NotAfter.Sub(p.cert.NotBefore) / 3)
	}
	return g, nil
}

// valid reports whether g can sign leaves at now; fresh, whether it need not be replaced first.
func (g *generation) valid(now time.Time) bool {
	return g.cert.NotAfter.After(now) && !now.Before(g.cert.NotBefore)
}
func (g *generation) fresh(now time.Time) bool {
	return g.renewAt.After(now) && !now.Before(g.cert.NotBefore)
}

// retryRenewal is how long a renewal that failed is not tried again: it is tried while leaves are made.
const retryRenewal = time.Minute

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
	wait := i.retryAt.Sub(now)
	if g.valid(now) && 0 < wait && wait <= retryRenewal {
		return g, nil
	}
	return i.renew(g, now)
}

// renew replaces g. While g is valid, a renewal that fails is logged and g goes on. i.renewing is held.
func (i *Issuer) renew(g *generation, now time.Time) (*generation, error) {
	next, err := i.lockedGeneration(now, i.never)
	if err == nil {
		i.replace(next)
		return next, nil
	}
	if !g.valid(now) {
		return nil, err
	}
	i.retryAt = now.Add(retryRenewal)
	i.log.Error("the interception issuer could not be renewed", "error", err, "ends", g.cert.NotAfter)
	return g, nil
}

func (i *Issuer) replace(g *generation) {
	i.current.Store(g)
	i.renewals.Add(1)
}

// lockedGeneration is openGeneration under the folder's lock.
func (i *Issuer) lockedGeneration(now time.Time, never domains) (*generation, error) {
	unlock, err := i.folder.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return i.openGeneration(now, never)
}

// openGeneration returns the generation of the issuer in the folder, after it put a new one there when there is
// none, when it is due, and when it excludes others than never. The folder is locked.
func (i *Issuer) openGeneration(now time.Time, never domains) (*generation, error) {
	p, err := i.folder.readPair(issuerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return i.makeGeneration(now, never)
	}
	if err == nil {
		err = checkIssuer(p, i.root)
	}
	if err != nil {
		return nil, fmt.Errorf("read the interception issuer %s: %w; remove the file, and a new issuer is made under the same root",
			i.folder.path(issuerFile), err)
	}
	g, err := newGeneration(p, i.root)
	if err != nil || g.fresh(now) && g.never.equal(never) {
		return g, err
	}
	return i.makeGeneration(now, never)
}

// makeGeneration makes an issuer and writes it to the folder.
func (i *Issuer) makeGeneration(now time.Time, never domains) (*generation, error) {
	if err := checkValidity(i.root.cert, now); err != nil {
		return nil, fmt.Errorf("make an interception issuer: the root in %s %w", i.folder.path(rootFile), err)
	}
	p, err := i.newPair("issuer", i.lifetimes.Issuer, now, &i.root, func(t *x509.Certificate) {
		t.MaxPathLenZero = true
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		t.ExcludedDNSDomains = never.list()
		t.PermittedDNSDomainsCritical = len(t.ExcludedDNSDomains) > 0
	})
	if err == nil {
		err = i.folder.writePair(issuerFile, p)
	}
	if err != nil {
		return nil, fmt.Errorf("make the interception issuer %s: %w", i.folder.path(issuerFile), err)
	}
	i.log.Info("made an interception issuer", "ends", p.cert.NotAfter, "never_intercept", len(p.cert.ExcludedDNSDomains))
	if left := i.root.cert.NotAfter.Sub(now); left < 90*day {
		i.log.Warn("the interception root ends soon: hosts need another before", "ends", i.root.cert.NotAfter)
	}
	return newGeneration(p, i.root)
}

// openRoot returns the root in the folder, after it made one in a folder that never had one. The folder is locked.
func (i *Issuer) openRoot(now time.Time) (pair, error) {
	p, err := i.folder.readPair(rootFile)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = i.makeRoot(now)
	} else if err == nil {
		if err = checkRoot(p); err == nil {
			err = checkValidity(p.cert, now)
		}
		if err != nil {
			err = fmt.Errorf("the root %w", err)
		}
	}
	if err != nil {
		return p, fmt.Errorf("open the interception root %s: %w", i.folder.path(rootFile), err)
	}
	return p, i.folder.publish(p.cert)
}

// clockFloor is before any honest clock: a root that a machine without a clock battery makes in 1970 would have
// ended when its clock is set.
var clockFloor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (i *Issuer) makeRoot(now time.Time) (pair, error) {
	for _, name := range []string{rootFile, rootCertFile, issuerFile} { // rootFile: a link to what is not mounted
		if i.folder.has(name) {
			return pair{}, fmt.Errorf("it is missing, but %s is there: bring it back from a backup, or move the folder away to "+
				"begin with a new root, which every host must then be given", name)
		}
	}
	if now.Before(clockFloor) {
		return pair{}, fmt.Errorf("the clock says %s: set it before a root is made that is valid from then", now.UTC().Format(time.DateOnly))
	}
	p, err := i.newPair("root", i.lifetimes.Root, now, nil, func(t *x509.Certificate) {
		t.MaxPathLen = 1
		t.NotBefore = now.Add(-day) // whatever time zone the clock was mistaken for
	})
	if err == nil {
		err = i.folder.writePair(rootFile, p)
	}
	if err != nil {
		return p, fmt.Errorf("make it: %w", err)
	}
	i.log.Info("made an interception root", "file", i.folder.path(rootFile), "ends", p.cert.NotAfter)
	return p, nil
}

// newPair makes a key and a certificate authority's certificate for it, signed by parent or, without one, by
// itself. Its subject is unique, since clients that look for an issuer by name alone take the first they know.
func (i *Issuer) newPair(kind string, lifetime time.Duration, now time.Time, parent *pair, complete func(*x509.Certificate)) (pair, error) {
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return pair{}, err
	}
	serial := make([]byte, 16)
	rand.Read(serial) // never fails: crypto/rand.Read aborts the process instead
	serial[0] = serial[0]&0x7f | 0x40
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
	if parent == nil {
		parent = &pair{cert: t, key: key}
	}
	t.NotBefore, t.NotAfter = within(parent.cert, t.NotBefore, t.NotAfter)
	cert, err := x509util.CreateCertificate(t, parent.cert, key.Public(), parent.key)
	return pair{cert: cert, key: key}, err
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
