package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"

	"go.step.sm/crypto/keyutil"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// Options say where an Issuer keeps its keys and how it behaves. Only Dir is needed.
type Options struct {
	// Dir is the folder that holds the keys. It is made with mode 0700 when it is missing, and refused when
	// others than its owner may enter it.
	Dir string
	// NeverIntercept lists domains for which no leaf is ever made: each stands for itself and for every name
	// below it. In ASCII (xn--), without a wildcard; together at most 8 KiB, since the list travels in every
	// handshake.
	NeverIntercept []string
	// OnlyIntercept, when it is not empty, lists the domains for which leaves are made at all, written alike; then
	// none is made for an address. The issuer says so to hosts too.
	OnlyIntercept []string
	// RootKey says where the key of the root is. Empty: in Dir. "offline": not here at all; then Dir holds root.crt,
	// and issuers come through Request and Install. Else it is the URI of a KMS in which the key of a root that is
	// made from now on lives; a root that is there knows its own.
	RootKey string
	// IssuerKey says where keys of issuers that are made from now on are. Empty: in Dir. Else it is the URI of a KMS.
	IssuerKey string
	// RootPassphrase and IssuerPassphrase encrypt the keys that are in Dir, where they are not empty. A file that is
	// there in clear is encrypted at the next Open.
	RootPassphrase, IssuerPassphrase []byte
	// Gateway is the organization in the subjects of a root and of issuers that are made from now on; at
	// most 64 characters. Empty: "exitgate".
	Gateway   string
	Lifetimes Lifetimes
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: nothing is logged
}

// Lifetimes say how long certificates are valid. A zero field takes its default.
type Lifetimes struct {
	Root     time.Duration // from when it is made; default ten years
	Issuer   time.Duration // default 30 days, never past the root's end; renewed with the first leaf that is signed when a third is left
	Leaf     time.Duration // default 20 h, never past the issuer's end; replaced when half is left
	Backdate time.Duration // of each certificate, for hosts whose clock is behind; default 1 h
}

// The bounds within which lifetimes make sense.
const (
	day         = 24 * time.Hour
	minLifetime = time.Minute
	maxLeaf     = day // with its backdating: no host keeps trusting a leaf of yesterday
)

// maxLeaves bounds the leaves that are kept, at about 4 KiB each (BenchmarkLeafKept).
const maxLeaves = 10_000

// An Issuer makes leaves under the interception root of one folder. It is safe for concurrent use, starts no
// goroutine and needs no closing.
type Issuer struct {
	folder    folder
	keys      keyring
	subject   string
	lifetimes Lifetimes
	now       func() time.Time
	log       *slog.Logger

	renewing sync.Mutex  // held while a generation is replaced, and for a step of a rotation; guards what follows
	want     constraints // of the next generation
	retry    retry

	current atomic.Pointer[generation]
	leaves  *cache
	flights singleflight.Group // keyed by generation and name

	minted, hits, renewals atomic.Uint64
}

// Open returns the issuer whose keys are in o.Dir, and makes root and issuer when the folder holds neither.
// It returns an error, one line that names the file and says what to do, when the folder or a key may be read by
// others, or when a file is damaged, expired, foreign, or missing while others are there. A step of a rotation
// that was cut off is completed. Two processes may open one folder at the same time.
func Open(o Options) (*Issuer, error) {
	i, err := newIssuer(o)
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	unlock, err := i.folder.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	g, err := i.openGeneration(i.now(), i.want)
	if err != nil {
		return nil, err
	}
	i.current.Store(g)
	i.complain(g, i.now())
	return i, nil
}

// newIssuer checks o and fills in what it leaves out.
func newIssuer(o Options) (*Issuer, error) {
	i := &Issuer{folder: folder{dir: keydir.Dir(o.Dir)}, subject: o.Gateway, lifetimes: o.Lifetimes, now: o.Now, log: o.Logger, leaves: newCache(maxLeaves)}
	if o.Dir == "" {
		return nil, errors.New("no folder was given for its keys")
	}
	if i.subject == "" {
		i.subject = "exitgate"
	}
	if n := len([]rune(i.subject)); n > 64 || bytes.ContainsFunc([]byte(i.subject), notPrintable) {
		return nil, fmt.Errorf("the gateway's name %.80q cannot stand in a certificate: at most 64 printable characters", i.subject)
	}
	if i.now == nil {
		i.now = time.Now
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if i.lifetimes, err = o.Lifetimes.complete(); err != nil {
		return nil, err
	}
	if i.keys, err = newKeyring(o); err != nil {
		return nil, err
	}
	i.want, err = parseConstraints(o.NeverIntercept, o.OnlyIntercept)
	return i, err
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }

// complete returns l with its defaults, or an error when they do not fit one another.
func (l Lifetimes) complete() (Lifetimes, error) {
	for _, f := range []struct {
		field   *time.Duration
		missing time.Duration
	}{{&l.Root, 3652 * day}, {&l.Issuer, 30 * day}, {&l.Leaf, 20 * time.Hour}, {&l.Backdate, time.Hour}} {
		if *f.field == 0 {
			*f.field = f.missing
		}
	}
	switch {
	case l.Leaf < minLifetime || l.Backdate < 0:
		return l, fmt.Errorf("a leaf of %v, backdated %v, is too short: at least %v, and not backdated into the future", l.Leaf, l.Backdate, minLifetime)
	case l.Leaf+l.Backdate > maxLeaf:
		return l, fmt.Errorf("a leaf of %v, backdated %v, is too long: together at most %v", l.Leaf, l.Backdate, maxLeaf)
	case l.Issuer < l.Leaf || l.Root < l.Issuer:
		return l, fmt.Errorf("a root of %v, an issuer of %v and a leaf of %v do not fit into one another", l.Root, l.Issuer, l.Leaf)
	}
	return l, nil
}

// SetIntercept replaces the lists of Options.NeverIntercept and Options.OnlyIntercept. When that changes what the
// issuer excludes, leaves come from a new issuer as soon as it returns; where the root's key is not here, the gateway
// itself refuses what the lists exclude, and hosts do so from the next issuer on. With an error nothing has changed.
func (i *Issuer) SetIntercept(never, only []string) error {
	want, err := parseConstraints(never, only)
	if err != nil {
		return err
	}
	i.renewing.Lock()
	defer i.renewing.Unlock()
	if want.equal(i.want) {
		return nil
	}
	g, err := i.lockedGeneration(i.now(), want)
	if err != nil {
		return err
	}
	i.want = want
	i.replace(g)
	return nil
}

// SetNeverIntercept is SetIntercept, with the list of domains that alone are intercepted as it is.
func (i *Issuer) SetNeverIntercept(list []string) error {
	i.renewing.Lock()
	only := i.want.only.list()
	i.renewing.Unlock()
	return i.SetIntercept(list, only)
}

// RootFile returns the path of the certificate, as PEM, of the root that leaves chain to now.
func (i *Issuer) RootFile() string { return i.folder.path(rootCertFile) }

// RootPEM returns what is in RootFile.
func (i *Issuer) RootPEM() []byte { return keydir.EncodeCert(i.root().cert) }

// RootCertificate returns the root that leaves chain to now, which must not be changed.
func (i *Issuer) RootCertificate() *x509.Certificate { return i.root().cert }

// RootsFile returns the path of the certificates, as PEM, of all roots that hosts should trust now: what hosts are
// given. During a rotation there are two.
func (i *Issuer) RootsFile() string { return i.folder.path(rootsFile) }

// RootsPEM returns what is in RootsFile.
func (i *Issuer) RootsPEM() []byte { return encodeCerts(i.Roots()) }

// Roots returns the roots that hosts should trust now, which must not be changed: first the one that leaves chain to.
func (i *Issuer) Roots() []*x509.Certificate { return i.trust().published() }

// Fingerprint returns the SHA-256 of the root that leaves chain to now, in lower-case hex, as "step certificate
// fingerprint" prints it.
func (i *Issuer) Fingerprint() string { return Fingerprint(i.root().cert) }

// Fingerprint returns the SHA-256 of c in lower-case hex.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// IssuerNotAfter returns when the issuer that signs now ends. It is renewed well before.
func (i *Issuer) IssuerNotAfter() time.Time { return i.current.Load().cert.NotAfter }

// NeverIntercept returns the domains for which no leaf is made now, sorted, without those below another.
func (i *Issuer) NeverIntercept() []string { return i.current.Load().bars.never.list() }

func (i *Issuer) trust() *trust { return i.current.Load().trust }
func (i *Issuer) root() pair    { return i.trust().root }

// IsOwn reports whether c is an interception root that this folder has or ever had, certifies its key, is an issuer
// that one of them ever signed, in this process or in another, or a leaf of the current issuer. The engine asks it
// about each certificate of a chain that an upstream presents, since the roots may well be in the trust store of the
// gateway's own system.
func (i *Issuer) IsOwn(c *x509.Certificate) bool {
	g := i.current.Load()
	for _, root := range g.trust.all() {
		if keyutil.Equal(c.PublicKey, root.PublicKey) || signedBy(c, root) {
			return true
		}
	}
	return signedBy(c, g.cert)
}

func signedBy(c, parent *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, parent.RawSubject) &&
		parent.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Stats count what an Issuer did since Open.
type Stats struct {
	Minted   uint64 // leaves signed
	Hits     uint64 // leaves served from memory
	Renewals uint64 // issuers that took the place of another
	Entries  int    // leaves in memory now; at most 10,000
}

// Stats returns the counts now.
func (i *Issuer) Stats() Stats {
	return Stats{Minted: i.minted.Load(), Hits: i.hits.Load(), Renewals: i.renewals.Load(), Entries: i.leaves.len()}
}
