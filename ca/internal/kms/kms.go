package kms

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/kms/tpmkms"
	"go.step.sm/crypto/kms/uri"
)

// A Key signs until it is closed.
type Key struct {
	crypto.Signer
	manager apiv1.KeyManager
}

// Close gives back what the key holds of its device.
func (k *Key) Close() error { return k.manager.Close() }

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
		return fmt.Errorf("this build has no %s: treat the root as an offline one, and let whatever reaches that service sign what \"exitgate ca issuer-request\" writes", scheme)
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
	return s
}

// Open returns the key that is there under the URI. passphrase is of a file (softkms) that is encrypted.
func Open(ctx context.Context, s string, passphrase []byte) (*Key, error) {
	m, err := manager(ctx, s)
	if err != nil {
		return nil, err
	}
	signer, err := m.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: s, Password: password(s, passphrase)})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the key %s: %w", s, err), m.Close())
	}
	return &Key{signer, m}, nil
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
	if k, err := Open(ctx, s, nil); err == nil {
		return k, nil
	}
	m, err := manager(ctx, s)
	if err != nil {
		return nil, err
	}
	made, err := m.CreateKey(&apiv1.CreateKeyRequest{Name: s, SignatureAlgorithm: apiv1.ECDSAWithSHA256})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the key %s: %w", s, err), m.Close())
	}
	signer, err := m.CreateSigner(&made.CreateSignerRequest)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the key %s that was made: %w", s, err), m.Close())
	}
	return &Key{signer, m}, nil
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
	default:
		m, err = softkms.New(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the device of the key %s: %w", s, err)
	}
	return m, nil
}
