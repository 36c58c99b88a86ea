package authority

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/x509util"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// The files of the folder, see the package comment. While a rotation is under way, the root and issuer that are in
// force have nextPrefix before their names.
const (
	rootFile     = "root.pem"
	rootCertFile = "root.crt"
	issuerFile   = "issuer.pem"
	crossFile    = "next-cross.crt"
	tokenFile    = "tokens.pem"
	finishFile   = "finishing"
	nextPrefix   = "next-"
)

// A root is the certificate of a root, and its key when that is here.
type root struct {
	keydir.Pair
	away error // why Key is nil
}

// A material is what the folder holds: never changed, replaced as a whole.
type material struct {
	root   root              // in force: it signs issuers
	old    *x509.Certificate // trusted as well, until a rotation is finished; nil at other times
	cross  *x509.Certificate // root, as old signed it; nil with old
	issuer keydir.Pair       // under root
	since  time.Time         // when the rotation began
}

// roots returns the certificates that are trusted, that in force first.
func (m *material) roots() []*x509.Certificate {
	if m.old == nil {
		return []*x509.Certificate{m.root.Cert}
	}
	return []*x509.Certificate{m.root.Cert, m.old}
}

// chain returns what goes behind a certificate that the issuer signed, so that who trusts any root can verify it.
func (m *material) chain() []*x509.Certificate {
	if m.cross == nil {
		return []*x509.Certificate{m.issuer.Cert}
	}
	return []*x509.Certificate{m.issuer.Cert, m.cross}
}

// load returns what is in the folder, and makes what should be there: everything in a folder that never had a root,
// an issuer that is due, and the rest of a rotation that was begun. The folder is locked.
func (a *Authority) load(ctx context.Context, now time.Time) (*material, error) {
	if err := a.resumeFinish(); err != nil {
		return nil, err
	}
	current, err := a.openRoot(ctx, "", now)
	if err != nil {
		return nil, err
	}
	if !a.rotating() {
		issuer, err := a.openIssuer(ctx, "", current, now)
		return &material{root: current, issuer: issuer}, err
	}
	next, err := a.openRoot(ctx, nextPrefix, now)
	if err != nil {
		return nil, err
	}
	m := &material{root: next, old: current.Cert}
	if m.cross, err = a.openCross(current, next, now); err != nil {
		return nil, err
	}
	m.since = m.cross.NotBefore.Add(a.o.Lifetimes.Backdate)
	m.issuer, err = a.openIssuer(ctx, nextPrefix, next, now)
	return m, err
}

// rotating reports whether a rotation was begun and not finished.
func (a *Authority) rotating() bool {
	return a.keys.dir.Has(nextPrefix+rootFile) || a.keys.dir.Has(nextPrefix+rootCertFile)
}

// prefix returns what the names of the root and issuer in force begin with.
func (a *Authority) prefix() string {
	if a.rotating() {
		return nextPrefix
	}
	return ""
}

// openRoot returns a root of the folder. In a folder that has nothing it makes one.
func (a *Authority) openRoot(ctx context.Context, prefix string, now time.Time) (root, error) {
	file := a.keys.dir.Path(prefix + rootFile)
	p, err := a.keys.read(ctx, prefix+rootFile)
	r := root{Pair: p}
	switch {
	case errors.Is(err, errKeyAway):
		r.away, err = err, nil
	case errors.Is(err, fs.ErrNotExist) && a.keys.dir.Has(prefix+rootCertFile):
		r.away = fmt.Errorf("%s is not there", file)
		r.Cert, err = a.readCert(prefix + rootCertFile)
	case errors.Is(err, fs.ErrNotExist):
		r, err = a.firstRoot(ctx, now)
	}
	if err == nil {
		err = checkRoot(r.Cert)
	}
	if err == nil && prefix == a.prefix() { // an old root that ended is trusted no longer, and that is all
		err = checkValidity(r.Cert, now)
	}
	if err == nil {
		err = a.publish(prefix+rootCertFile, r.Cert)
	}
	if err != nil {
		return root{}, fmt.Errorf("open the identity root %s: %w", file, err)
	}
	return r, nil
}

// firstRoot makes the root of a folder that never had one.
func (a *Authority) firstRoot(ctx context.Context, now time.Time) (root, error) {
	for _, name := range []string{rootFile, issuerFile, tokenFile} { // rootFile: a link to what is not mounted
		if a.keys.dir.Has(name) {
			return root{}, fmt.Errorf("it is missing, and so is %s, but %s is there: bring one of them back from a backup, or move "+
				"the folder away to begin with a new root, under which every host must then enrol again", rootCertFile, name)
		}
	}
	return a.makeRoot(ctx, "", a.o.RootKey, now)
}

// makeRoot makes a root with the key at the URI, or a new one in the folder, and writes it.
func (a *Authority) makeRoot(ctx context.Context, prefix, at string, now time.Time) (root, error) {
	if now.Before(clockFloor()) {
		return root{}, fmt.Errorf("the clock says %s: set it before a root is made that is valid from then", now.UTC().Format(time.DateOnly))
	}
	key, err := a.keys.makeKey(ctx, at)
	if err != nil {
		return root{}, fmt.Errorf("make it: %w", err)
	}
	t := a.template("root", now.Add(-day), now.Add(a.o.Lifetimes.Root)) // a day: whatever time zone the clock was mistaken for
	t.MaxPathLen = 2                                                    // an issuer, and the root that follows this one
	p, err := signAuthority(t, key, nil)
	if err == nil {
		err = a.keys.write(prefix+rootFile, p, at)
	}
	if err != nil {
		return root{}, fmt.Errorf("make it: %w", err)
	}
	a.o.Logger.Info("made an identity root", "file", a.keys.dir.Path(prefix+rootFile), "ends", p.Cert.NotAfter)
	return root{Pair: p}, nil
}

// publish puts a root's certificate under its public name when it is missing there.
func (a *Authority) publish(name string, c *x509.Certificate) error {
	have, err := a.readCert(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a.keys.dir.Write(name, keydir.EncodeCert(c), 0o644)
	case err != nil:
		return fmt.Errorf("%s: %w; remove it to have it written again", name, err)
	case !bytes.Equal(have.Raw, c.Raw):
		return fmt.Errorf("%s is the certificate of another root: remove it to have it written again, and consider which of the two hosts were given", name)
	}
	return nil
}

func (a *Authority) readCert(name string) (*x509.Certificate, error) {
	b, err := a.keys.dir.Read(name, false)
	if err != nil {
		return nil, err
	}
	return keydir.ParseCert(b)
}

// openCross returns next as old signed it, which makes what next signs good for hosts that know only old.
func (a *Authority) openCross(old, next root, now time.Time) (*x509.Certificate, error) {
	c, err := a.readCert(crossFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a.makeCross(old, next, now)
	}
	if err == nil && (!keyutil.Equal(c.PublicKey, next.Cert.PublicKey) || c.CheckSignatureFrom(old.Cert) != nil) {
		err = errors.New("it is foreign: it is not the next root under the old one")
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the file, and it is made again", a.keys.dir.Path(crossFile), err)
	}
	return c, nil
}

func (a *Authority) makeCross(old, next root, now time.Time) (*x509.Certificate, error) {
	if old.Key == nil {
		return nil, fmt.Errorf("a rotation needs the key of the old identity root to sign the next one: %w; bring it back until the rotation is under way", old.away)
	}
	t := a.template("root", now.Add(-a.o.Lifetimes.Backdate), next.Cert.NotAfter)
	t.Subject, t.RawSubject = next.Cert.Subject, next.Cert.RawSubject
	t.SubjectKeyId, t.MaxPathLen = next.Cert.SubjectKeyId, 1
	t.NotBefore, t.NotAfter = within(old.Cert, t.NotBefore, t.NotAfter)
	c, err := x509util.CreateCertificate(t, old.Cert, next.Cert.PublicKey, old.Key)
	if err == nil {
		err = a.keys.dir.Write(crossFile, keydir.EncodeCert(c), 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("sign the next identity root with the old one: %w", err)
	}
	return c, nil
}

// openIssuer returns the issuer under r, after it made one when there is none or it is due. One that is due and cannot
// be replaced, because the root's key is away, goes on while it is valid.
func (a *Authority) openIssuer(ctx context.Context, prefix string, r root, now time.Time) (keydir.Pair, error) {
	file := a.keys.dir.Path(prefix + issuerFile)
	p, err := a.keys.read(ctx, prefix+issuerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a.makeIssuer(ctx, prefix, r, now)
	}
	if err == nil {
		err = checkIssuer(p.Cert, r.Cert)
	}
	if err != nil {
		return p, fmt.Errorf("read the identity issuer %s: %w; remove the file, and a new issuer is made under the same root", file, err)
	}
	if now.Before(renewIssuerAt(p.Cert, r.Cert)) && !now.Before(p.Cert.NotBefore) {
		return p, nil
	}
	next, err := a.makeIssuer(ctx, prefix, r, now)
	if err == nil || now.Before(p.Cert.NotBefore) || !now.Before(p.Cert.NotAfter) {
		return next, err
	}
	a.o.Logger.Error("the identity issuer is due and could not be replaced", "error", err, "ends", p.Cert.NotAfter)
	return p, nil
}

// renewIssuerAt returns when an issuer is replaced: with a third of its life left, unless its root ends with it.
func renewIssuerAt(issuer, root *x509.Certificate) time.Time {
	if !issuer.NotAfter.Before(root.NotAfter) {
		return issuer.NotAfter
	}
	return issuer.NotAfter.Add(-issuer.NotAfter.Sub(issuer.NotBefore) / 3)
}

// makeIssuer makes an issuer under r and writes it.
func (a *Authority) makeIssuer(ctx context.Context, prefix string, r root, now time.Time) (keydir.Pair, error) {
	file := a.keys.dir.Path(prefix + issuerFile)
	if r.Key == nil {
		return keydir.Pair{}, fmt.Errorf("make the identity issuer %s: the key of the root is needed: %w; bring it back until the issuer is made", file, r.away)
	}
	key, err := a.keys.makeKey(ctx, a.o.IssuerKey)
	if err == nil && keyutil.Equal(key.Public(), r.Cert.PublicKey) {
		err = errors.New("it would have the key of the root: give it a key of its own")
	}
	var p keydir.Pair
	if err == nil {
		t := a.template("issuer", now.Add(-a.o.Lifetimes.Backdate), now.Add(a.o.Lifetimes.Issuer))
		t.MaxPathLenZero = true
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		p, err = signAuthority(t, key, &r.Pair)
	}
	if err == nil {
		err = a.keys.write(prefix+issuerFile, p, a.o.IssuerKey)
	}
	if err != nil {
		return p, fmt.Errorf("make the identity issuer %s: %w", file, err)
	}
	a.o.Logger.Info("made an identity issuer", "ends", p.Cert.NotAfter)
	return p, nil
}

// template returns what all certificates that sign have in common. The subject is unique, since clients that look for
// an issuer by name alone take the first they know.
func (a *Authority) template(kind string, from, to time.Time) *x509.Certificate {
	serial := make([]byte, 16)
	rand.Read(serial) // never fails: crypto/rand.Read aborts the process instead
	serial[0] = serial[0]&0x7f | 0x40
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{Organization: []string{a.o.Gateway}, CommonName: "exitgate identity " + kind + " " + hex.EncodeToString(serial[:4])},
		NotBefore:             from,
		NotAfter:              to,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// signAuthority signs t for key, by parent or, without one, by itself.
func signAuthority(t *x509.Certificate, key crypto.Signer, parent *keydir.Pair) (keydir.Pair, error) {
	if parent == nil {
		parent = &keydir.Pair{Cert: t, Key: key}
	}
	t.NotBefore, t.NotAfter = within(parent.Cert, t.NotBefore, t.NotAfter)
	c, err := x509util.CreateCertificate(t, parent.Cert, key.Public(), parent.Key)
	return keydir.Pair{Cert: c, Key: key}, err
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

// checkRoot returns an error when c cannot be an identity root, whoever made it.
func checkRoot(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it is foreign: not the certificate of a certificate authority")
	case c.MaxPathLenZero || c.MaxPathLen == 0 || c.MaxPathLen == 1:
		return errors.New("it is foreign: its path length leaves no room for an issuer and for the root that follows it")
	case len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0:
		return errors.New("it is foreign: it is limited to some uses")
	case c.CheckSignatureFrom(c) != nil:
		return errors.New("it is foreign: not signed by itself")
	}
	return nil
}

// checkIssuer returns an error when c is not an issuer that root signed, within the bounds that makeIssuer sets.
// That it may be due is no error.
func checkIssuer(c, root *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it is foreign: not the certificate of a certificate authority")
	case keyutil.Equal(c.PublicKey, root.PublicKey):
		return errors.New("it is foreign: it certifies the key of the root")
	case c.CheckSignatureFrom(root) != nil:
		return errors.New("it is foreign: another root signed it")
	case !c.MaxPathLenZero || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}):
		return errors.New("it is foreign: it may sign more than leaves, or other ones")
	}
	return nil
}

// checkValidity returns an error when c is not valid at now.
func checkValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("it is valid from %s, and the clock says %s: set the clock", stamp(c.NotBefore), stamp(now))
	case !now.Before(c.NotAfter):
		return fmt.Errorf("it ended at %s, and the clock says %s: move the folder away to begin with a new root, under which every host must then enrol again",
			stamp(c.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// fingerprint returns the SHA-256 of a certificate in lower-case hex, as "step certificate fingerprint" prints it.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
