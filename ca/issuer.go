package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"

	"go.step.sm/crypto/keyutil"
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
	root      pair
	subject   string
	lifetimes Lifetimes
	now       func() time.Time
	log       *slog.Logger

	renewing sync.Mutex // held while a generation is replaced; guards never and retryAt
	never    domains    // what the next generation excludes
	retryAt  time.Time  // no renewal is tried before, while the current generation is valid

	current atomic.Pointer[generation]
	leaves  *cache
	flights singleflight.Group // keyed by generation and name

	minted, hits, renewals atomic.Uint64
}

// Open returns the issuer whose keys are in o.Dir, and makes root and issuer when the folder holds neither.
// It returns an error, one line that names the file and says what to do, when the folder or a key may be read by
// others, or when a file is damaged, expired, foreign, or missing while others are there. Two processes
// may open one folder at the same time.
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
	now := i.now()
	if i.root, err = i.openRoot(now); err != nil {
		return nil, err
	}
	g, err := i.openGeneration(now, i.never)
	if err != nil {
		return nil, err
	}
	i.current.Store(g)
	return i, nil
}

// newIssuer checks o and fills in what it leaves out.
func newIssuer(o Options) (*Issuer, error) {
	i := &Issuer{folder: folder(o.Dir), subject: o.Gateway, lifetimes: o.Lifetimes, now: o.Now, log: o.Logger, leaves: newCache(maxLeaves)}
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
	i.never, err = parseDomains(o.NeverIntercept)
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

// SetNeverIntercept replaces the list of Options.NeverIntercept. When that changes what is excluded, leaves come
// from a new issuer as soon as it returns. With an error nothing has changed.
func (i *Issuer) SetNeverIntercept(list []string) error {
	d, err := parseDomains(list)
	if err != nil {
		return err
	}
	i.renewing.Lock()
	defer i.renewing.Unlock()
	if d.equal(i.never) {
		return nil
	}
	g, err := i.lockedGeneration(i.now(), d)
	if err != nil {
		return err
	}
	i.never = d
	i.replace(g)
	return nil
}

// RootFile returns the path of the root's certificate as PEM, without its key: what hosts are given.
func (i *Issuer) RootFile() string { return i.folder.path(rootCertFile) }

// RootPEM returns what is in RootFile.
func (i *Issuer) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.root.cert.Raw})
}

// RootCertificate returns the root, which must not be changed.
func (i *Issuer) RootCertificate() *x509.Certificate { return i.root.cert }

// Fingerprint returns the SHA-256 of the root in lower-case hex, as "step certificate fingerprint" prints it.
func (i *Issuer) Fingerprint() string {
	sum := sha256.Sum256(i.root.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// IssuerNotAfter returns when the issuer that signs now ends. It is renewed well before.
func (i *Issuer) IssuerNotAfter() time.Time { return i.current.Load().cert.NotAfter }

// NeverIntercept returns the domains that the issuer excludes now, sorted, without those below another.
func (i *Issuer) NeverIntercept() []string { return i.current.Load().never.list() }

// IsOwn reports whether c is the interception root, certifies its key, is an issuer that it ever signed, in this
// process or in another, or a leaf of the current issuer. The engine asks it about each certificate of a
// chain that an upstream presents, since the root may well be in the trust store of the gateway's own system.
func (i *Issuer) IsOwn(c *x509.Certificate) bool {
	if keyutil.Equal(c.PublicKey, i.root.cert.PublicKey) || signedBy(c, i.root.cert) {
		return true
	}
	return signedBy(c, i.current.Load().cert)
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
