package kms

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/kms/tpmkms"
	"go.step.sm/crypto/kms/uri"
)

// A Key signs until it is closed. It is safe for concurrent use. When its device fails, it is opened again, once for
// each signature: an HSM may have been restarted, and the PKCS #11 driver gives up every key of a module when it fails
// to reach another of its tokens.
type Key struct {
	uri        string
	passphrase []byte
	public     crypto.PublicKey

	mu      sync.Mutex // guards what follows
	signer  crypto.Signer
	manager apiv1.KeyManager
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs as the key's own signer does.
func (k *Key) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.mu.Lock()
	signer := k.signer
	k.mu.Unlock()
	sig, err := signer.Sign(r, digest, o)
	if err == nil {
		return sig, nil
	}
	if signer, again := k.reopen(signer); again == nil {
		return signer.Sign(r, digest, o)
	}
	return nil, fmt.Errorf("sign with the key %s: %w", k.uri, err)
}

// reopen returns the signer that takes the place of the one that failed, unless another did that already.
func (k *Key) reopen(failed crypto.Signer) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != failed {
		return k.signer, nil
	}
	k.manager.Close() // first: while a context is open, the driver does not initialize its module again
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	next, err := Open(ctx, k.uri, k.passphrase)
	if err != nil {
		return nil, err
	}
	if !keyutil.Equal(next.public, k.public) {
		return nil, errors.Join(errors.New("there is another key now"), next.Close())
	}
	k.signer, k.manager = next.signer, next.manager
	return k.signer, nil
}

// patience bounds how long a device is waited for that failed.
const patience = 10 * time.Second

// Close gives back what the key holds of its device.
func (k *Key) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.manager.Close()
}

// Check returns an error when uri cannot name a key, holds a secret, or is of a kind that this build does not have.
func Check(s string) error {
	scheme, _, found := strings.Cut(s, ":")
	if !found {
		return fmt.Errorf("%.80q is not the URI of a key, such as %s", s, "pkcs11:token=exitgate;object=root?pin-source=FILE")
	}
	u, err := uri.Parse(s)
	if err != nil {
		return errors.New("the URI of the key cannot be parsed") // which says no more of it: it may hold a secret
	}
	if holdsSecret(u) {
		return fmt.Errorf("the URI of the key (%s) holds a PIN in pin-value, which others would see: put it into a file that only the gateway reads, and name that as pin-source", scheme)
	}
	if path := u.Get("pin-source"); path != "" {
		if _, err := os.Stat(strings.TrimPrefix(path, "file:")); err != nil {
			return fmt.Errorf("the PIN of the key: %w", err)
		}
	}
	switch apiv1.Type(strings.ToLower(scheme)) {
	case apiv1.SoftKMS, apiv1.TPMKMS:
		return nil
	case apiv1.PKCS11:
		return havePKCS11()
	case apiv1.CloudKMS, apiv1.AmazonKMS, apiv1.AzureKMS:
		return haveCloud(scheme)
	}
	return fmt.Errorf("keys of kind %.20q are not known; this build has %s", scheme, strings.Join(schemes(), ", "))
}

// holdsSecret looks in both places where a URI can have parameters, and does not care for case.
func holdsSecret(u *uri.URI) bool {
	for _, values := range []url.Values{u.Values, u.Query()} {
		for key := range values {
			switch strings.ToLower(key) {
			case "pin-value", "pin", "password", "owner-password":
				return true
			}
		}
	}
	return false
}

// schemes lists the kinds of keys that this build can use.
func schemes() []string {
	s := []string{"softkms", "tpmkms"}
	if havePKCS11() == nil {
		s = append(s, "pkcs11")
	}
	if haveCloud("") == nil {
		s = append(s, "awskms", "azurekms", "cloudkms")
	}
	return s
}

// Open returns the key that is there under the URI. passphrase is of a file (softkms) that is encrypted.
func Open(ctx context.Context, s string, passphrase []byte) (*Key, error) {
	m, err := manager(ctx, s)
	if err != nil {
		return nil, err
	}
	k, err := find(m, s, passphrase)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return k, nil
}

func find(m apiv1.KeyManager, s string, passphrase []byte) (*Key, error) {
	signer, err := m.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: s, Password: password(s, passphrase)})
	if err != nil {
		return nil, fmt.Errorf("open the key %s: %w", s, err)
	}
	return &Key{uri: s, passphrase: passphrase, public: signer.Public(), signer: signer, manager: m}, nil
}

// password keeps a file's missing passphrase from becoming an empty one, with which a key in clear is not read.
func password(s string, passphrase []byte) []byte {
	if len(passphrase) == 0 || !uri.HasScheme(softkms.Scheme, s) {
		return nil
	}
	return passphrase
}

// Create makes a P-256 key under the URI, or returns the one that is there: its owner may have made it, or an attempt
// that was cut off. A file (softkms) is never made: the folder of an authority is where keys in files belong.
func Create(ctx context.Context, s string, passphrase []byte) (*Key, error) {
	if uri.HasScheme(softkms.Scheme, s) {
		return Open(ctx, s, passphrase)
	}
	m, err := manager(ctx, s)
	if err != nil {
		return nil, err
	}
	k, missing := find(m, s, nil)
	if missing == nil {
		return k, nil
	}
	if _, err = m.CreateKey(&apiv1.CreateKeyRequest{Name: s, SignatureAlgorithm: apiv1.ECDSAWithSHA256}); err == nil {
		k, err = find(m, s, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the key %s, which could not be opened (%w): %w", s, missing, err), m.Close())
	}
	return k, nil
}

func manager(ctx context.Context, s string) (apiv1.KeyManager, error) {
	if err := Check(s); err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(strings.ToLower(s), ":")
	o := apiv1.Options{Type: apiv1.Type(scheme), URI: s}
	var m apiv1.KeyManager
	var err error
	switch o.Type {
	case apiv1.PKCS11:
		m, err = newPKCS11(ctx, o)
	case apiv1.TPMKMS:
		m, err = tpmkms.New(ctx, o)
	case apiv1.CloudKMS, apiv1.AmazonKMS, apiv1.AzureKMS:
		m, err = newCloud(ctx, o)
	default:
		m, err = softkms.New(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the device of the key %s: %w", s, err)
	}
	return m, nil
}
