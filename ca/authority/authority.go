package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.step.sm/crypto/keyutil"
	"golang.org/x/sync/singleflight"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// An Authority signs the identities of hosts and the server certificates of the gateway's own listeners. It is safe
// for concurrent use, starts no goroutine and needs no closing; Run does its regular work.
type Authority struct {
	o        Options
	keys     *keyring
	tokenKey crypto.Signer // signs one-time tokens
	routes   http.Handler

	changing sync.Mutex // held while the folder is changed and what it holds is put in force; guards retryAt
	retryAt  time.Time  // no renewal of the issuer is tried before, while the current one is valid

	current atomic.Pointer[generation]
	known   *verified // chains that were verified, and what is known of revocations
	asks    singleflight.Group
	crl     crlCache
}

// Open returns the authority whose keys are in o.Dir, and makes root, issuer and the key of tokens when the folder
// holds none. It returns an error, one line that names the file and says what to do, when the folder or a key may
// be read by others, or when a file is damaged, expired, foreign, or missing while others are there. A root whose
// key is not there is no error while its issuer is valid: it may be kept elsewhere.
func Open(o Options) (*Authority, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("open the identity authority: %w", err)
	}
	a := &Authority{o: o, keys: &keyring{dir: keydir.Dir(o.Dir), passphrase: o.Passphrase}, known: newVerified()}
	unlock, err := a.keys.dir.Open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx := context.Background()
	m, err := a.load(ctx, a.o.Now())
	if err != nil {
		return nil, err
	}
	if a.tokenKey, err = a.openTokenKey(); err != nil {
		return nil, fmt.Errorf("open the key of one-time tokens %s: %w", a.keys.dir.Path(tokenFile), err)
	}
	if err := a.install(m); err != nil {
		return nil, err
	}
	a.routes = a.newRoutes()
	if m.root.away != nil {
		a.o.Logger.Warn("the key of the identity root is not here: the issuer cannot be replaced without it", "because", m.root.away, "issuer_ends", m.issuer.Cert.NotAfter)
	}
	return a, nil
}

// openTokenKey returns the key that signs one-time tokens, and makes it when there is none.
func (a *Authority) openTokenKey() (crypto.Signer, error) {
	b, err := a.keys.dir.Read(tokenFile, true)
	if err == nil {
		return keydir.ParseKey(b, a.keys.passphrase)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return nil, err
	}
	if b, err = keydir.EncodeKey(key, a.keys.passphrase); err != nil {
		return nil, err
	}
	return key, a.keys.dir.Write(tokenFile, b, 0o600)
}

// install puts m in force.
func (a *Authority) install(m *material) error {
	g, err := a.newGeneration(m)
	if err != nil {
		return fmt.Errorf("put the identity issuer in force: %w", err)
	}
	a.current.Store(g)
	return nil
}

// retryRenewal is how long a renewal of the issuer that failed is not tried again.
const retryRenewal = time.Minute

// generation returns the generation that signs now, and replaces its issuer first when it is due. Who finds another
// at that work goes on with an issuer that is still valid.
func (a *Authority) generation(ctx context.Context) (*generation, error) {
	now := a.o.Now()
	g := a.current.Load()
	if now.Before(g.renewAt) {
		return g, nil
	}
	if !a.changing.TryLock() {
		return g, g.valid(now)
	}
	wait := now.Before(a.retryAt)
	a.retryAt = now.Add(retryRenewal)
	a.changing.Unlock()
	if !wait {
		if err := a.Reload(ctx); err != nil { // which makes an issuer that is due
			a.o.Logger.Error("the identity issuer could not be renewed", "error", err, "ends", g.material.issuer.Cert.NotAfter)
		}
		g = a.current.Load()
	}
	return g, g.valid(now)
}

// Fingerprint returns the SHA-256 of the root in force in lower-case hex: what a host is given, so that it can check
// whom it enrols with. During a rotation that of the old root is as good.
func (a *Authority) Fingerprint() string { return fingerprint(a.current.Load().material.root.Cert) }

// RootsPEM returns the roots that are trusted, that in force first.
func (a *Authority) RootsPEM() []byte {
	var b []byte
	for _, c := range a.current.Load().material.roots() {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

// ClientCAs returns the roots that are trusted, for a listener that wants to hint which certificates it takes. The pool
// is that of now: during a rotation another takes its place. A listener that leaves verification to Identify needs none.
func (a *Authority) ClientCAs() *x509.CertPool { return a.current.Load().pool.Clone() }

// IsOwn reports whether c is a root of this authority, certifies the key of one, or was signed by one or by the
// current issuer. The engine asks it about each certificate of a chain that an upstream presents.
func (a *Authority) IsOwn(c *x509.Certificate) bool {
	m := a.current.Load().material
	for _, r := range m.roots() {
		if keyutil.Equal(c.PublicKey, r.PublicKey) || c.CheckSignatureFrom(r) == nil {
			return true
		}
	}
	return c.CheckSignatureFrom(m.issuer.Cert) == nil
}
