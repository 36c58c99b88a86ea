package authority

import (
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/uri"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// referenceType is the PEM type of what stands in the place of a key that is not in the file: the URI of the key.
const referenceType = "KMS KEY URI"

// softScheme is the scheme of keys in files of their own, which this package reads itself.
const softScheme = "softkms"

// errKeyAway says that a key cannot be used now, though its certificate is known: its module is unplugged, its
// service cannot be reached, its file is on a disk that is not mounted.
var errKeyAway = errors.New("its key cannot be reached")

// A keyring reads and makes keys, in the folder or behind a KMS URI.
type keyring struct {
	dir        keydir.Dir
	passphrase []byte
}

// makeKey returns the key at the URI, which it makes when nothing is there; without a URI a new key in memory.
func (k keyring) makeKey(ctx context.Context, at string) (crypto.Signer, error) {
	if at == "" {
		return keyutil.GenerateSigner("EC", "P-256", 0)
	}
	key, err := k.openKey(ctx, at)
	if err == nil {
		return key, nil
	}
	if path, ok := softPath(at); ok {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return k.makeFile(path)
	}
	m, merr := manager(ctx, at)
	if merr != nil {
		return nil, merr
	}
	made, merr := m.CreateKey(&apiv1.CreateKeyRequest{Name: at, SignatureAlgorithm: apiv1.ECDSAWithSHA256})
	if merr != nil {
		return nil, fmt.Errorf("there is no key that can be used at %s (%w), and none can be made: %w", redact(at), err, merr)
	}
	return m.CreateSigner(&made.CreateSignerRequest)
}

// makeFile makes a key in a file of its own.
func (k keyring) makeFile(path string) (crypto.Signer, error) {
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return nil, err
	}
	b, err := keydir.EncodeKey(key, k.passphrase)
	if err != nil {
		return nil, err
	}
	dir := keydir.Dir(filepath.Dir(path))
	unlock, err := dir.Open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return key, dir.Write(filepath.Base(path), b, 0o600)
}

// openKey returns the key at the URI.
func (k keyring) openKey(ctx context.Context, at string) (crypto.Signer, error) {
	if path, ok := softPath(at); ok {
		b, err := keydir.Dir(filepath.Dir(path)).Read(filepath.Base(path), true)
		if err != nil {
			return nil, err
		}
		return keydir.ParseKey(b, k.passphrase)
	}
	m, err := manager(ctx, at)
	if err != nil {
		return nil, err
	}
	key, err := m.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: at})
	if err != nil {
		return nil, fmt.Errorf("open the key at %s: %w", redact(at), err)
	}
	return key, nil
}

// softPath returns the path of a key that is in a file of its own.
func softPath(at string) (string, bool) {
	u, err := uri.ParseWithScheme(softScheme, at)
	if err != nil {
		return "", false
	}
	for _, path := range []string{u.Get("path"), u.Path, u.Opaque} {
		if path != "" {
			return path, true
		}
	}
	return "", false
}

// manager returns the key manager of a URI's scheme.
func manager(ctx context.Context, at string) (apiv1.KeyManager, error) {
	scheme, _, ok := strings.Cut(at, ":")
	if !ok || scheme == softScheme {
		return nil, fmt.Errorf("%.20q is not the URI of a key: write it as softkms:path=/PATH, for one", redact(at))
	}
	open, ok := managers()[scheme]
	if !ok {
		have := []string{softScheme}
		for s := range managers() {
			have = append(have, s)
		}
		slices.Sort(have)
		return nil, fmt.Errorf("this build cannot use keys of %.20q, only of %s: %s", scheme, strings.Join(have, ", "), moreManagers)
	}
	m, err := open(ctx, apiv1.Options{Type: apiv1.Type(scheme), URI: at})
	if err != nil {
		return nil, fmt.Errorf("reach the keys of %s: %w", redact(at), err)
	}
	return m, nil
}

// redact returns a URI without its query, where a PIN may stand.
func redact(at string) string {
	before, _, cut := strings.Cut(at, "?")
	if i := strings.Index(before, "pin-value="); i >= 0 {
		before, cut = before[:i], true
	}
	if cut {
		before += "?..."
	}
	return before
}

// write writes the certificate with its key, or with the URI where the key is.
func (k keyring) write(name string, p keydir.Pair, at string) error {
	if at == "" {
		return k.dir.WritePair(name, p, k.passphrase)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: referenceType, Bytes: []byte(at)})
	return k.dir.Write(name, append(b, keydir.EncodeCert(p.Cert)...), 0o600)
}

// read reads what write wrote. It returns fs.ErrNotExist when there is no such file, and the certificate alone with
// errKeyAway when the key is elsewhere and cannot be reached.
func (k keyring) read(ctx context.Context, name string) (keydir.Pair, error) {
	b, err := k.dir.Read(name, true)
	if err != nil {
		return keydir.Pair{}, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != referenceType {
		return keydir.ParsePair(b, k.passphrase)
	}
	cert, err := keydir.ParseCert(rest)
	if err != nil {
		return keydir.Pair{}, err
	}
	key, err := k.openKey(ctx, string(block.Bytes))
	if err != nil {
		// Not wrapped: that the key's file does not exist must not look as if this one did not.
		return keydir.Pair{Cert: cert}, fmt.Errorf("%w: %v", errKeyAway, err)
	}
	if keyutil.VerifyPair(cert.PublicKey, key) != nil {
		return keydir.Pair{}, fmt.Errorf("the key at %s is not the one that its certificate certifies", redact(string(block.Bytes)))
	}
	return keydir.Pair{Cert: cert, Key: key}, nil
}
