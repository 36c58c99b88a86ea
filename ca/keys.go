package ca

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"go.step.sm/crypto/keyutil"

	"github.com/exitgate/exitgate/ca/internal/kms"
)

// Offline is the RootKey of a root whose key is not here.
const Offline = "offline"

// kmsPatience bounds a call to a KMS: leaves may wait for it.
const kmsPatience = 20 * time.Second

// ErrNoRootKey says that there is work for the root's key, and that it is elsewhere.
var ErrNoRootKey = errors.New(`the key of the root is not here: write a request with "exitgate ca issuer-request", sign it where ` +
	`the key is with "exitgate ca sign-issuer", and bring the certificate back with "exitgate ca install-issuer"`)

// A keyring says where keys are, and what they are encrypted with.
type keyring struct {
	offline                bool   // no root's key is here
	root, issuer           string // the URI of keys made from now on; "" in the folder
	rootPhrase, issuPhrase []byte
	open                   map[string]*kms.Key // of issuers, for as long as the process lives; guarded as renewing says
}

func newKeyring(o Options) (keyring, error) {
	k := keyring{root: o.RootKey, issuer: o.IssuerKey, rootPhrase: o.RootPassphrase, issuPhrase: o.IssuerPassphrase, open: map[string]*kms.Key{}}
	if k.offline = o.RootKey == Offline; k.offline {
		k.root = ""
	}
	for _, uri := range []string{k.root, k.issuer} {
		if uri == "" {
			continue
		}
		if err := kms.Check(uri); err != nil {
			return k, err
		}
	}
	if k.root != "" && k.root == k.issuer {
		return k, errors.New("root and issuer cannot have one key")
	}
	return k, nil
}

// newKey makes a key, in memory or under uri.
func newKey(uri string, passphrase []byte) (crypto.Signer, error) {
	if uri == "" {
		return keyutil.GenerateSigner("EC", "P-256", 0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), kmsPatience)
	defer cancel()
	k, err := kms.Create(ctx, uri, passphrase)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// rootSigner returns the root p with its key, until done is called.
func (k *keyring) rootSigner(p pair) (signer pair, done func(), err error) {
	switch {
	case p.key != nil:
		return p, func() {}, nil
	case p.uri == "":
		return p, nil, ErrNoRootKey
	}
	key, err := openKey(p, k.rootPhrase)
	if err != nil {
		return p, nil, fmt.Errorf("use the key of the root: %w", err)
	}
	return pair{cert: p.cert, key: key, uri: p.uri}, func() { key.Close() }, nil
}

// issuerSigner returns the issuer p with its key, which stays open: leaves are signed with it.
func (k *keyring) issuerSigner(p pair) (pair, error) {
	if p.key != nil {
		return p, nil
	}
	key, ok := k.open[p.uri]
	if !ok {
		var err error
		if key, err = openKey(p, k.issuPhrase); err != nil {
			return p, fmt.Errorf("use the key of the issuer: %w", err)
		}
		k.open[p.uri] = key
	}
	return pair{cert: p.cert, key: key, uri: p.uri}, nil
}

// openKey opens the key of p in its KMS, and checks that it is the one that the certificate certifies.
func openKey(p pair, passphrase []byte) (*kms.Key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), kmsPatience)
	defer cancel()
	key, err := kms.Open(ctx, p.uri, passphrase)
	if err != nil {
		return nil, err
	}
	if !keyutil.Equal(key.Public(), p.cert.PublicKey) {
		return nil, errors.Join(fmt.Errorf("the key %s is not the one that its certificate certifies", p.uri), key.Close())
	}
	return key, nil
}

// closeKey gives back what a key in a KMS holds.
func closeKey(s crypto.Signer) {
	if k, ok := s.(*kms.Key); ok {
		k.Close()
	}
}

// where says in a word where the key of p is.
func (p pair) where() string {
	switch {
	case p.uri != "":
		return p.uri
	case p.key != nil:
		return "file"
	}
	return Offline
}
