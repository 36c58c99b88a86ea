package authority

import (
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.step.sm/crypto/keyutil"

	"github.com/exitgate/exitgate/ca/internal/keydir"
	"github.com/exitgate/exitgate/ca/internal/kms"
)

// referenceType is the PEM type of what stands in the place of a key that is in a KMS: the URI of the key.
const referenceType = "EXITGATE KEY URI"

// kmsPatience bounds a call to a KMS.
const kmsPatience = 20 * time.Second

// errKeyAway says that a key cannot be used now, though its certificate is known: its module is unplugged, its
// file is on a disk that is not mounted.
var errKeyAway = errors.New("its key cannot be reached")

// A keyring reads and makes keys, in the folder or behind a KMS URI.
type keyring struct {
	dir        keydir.Dir
	passphrase []byte

	mu   sync.Mutex // guards what follows
	open map[string]*kms.Key
}

// makeKey returns the key at the URI, which it makes when nothing is there; without a URI a new key in memory.
func (k *keyring) makeKey(ctx context.Context, at string) (crypto.Signer, error) {
	if at == "" {
		return keyutil.GenerateSigner("EC", "P-256", 0)
	}
	return k.reach(ctx, at, kms.Create)
}

// reach returns the key at the URI, which stays open for as long as the process lives.
func (k *keyring) reach(ctx context.Context, at string, how func(context.Context, string, []byte) (*kms.Key, error)) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.open[at]; key != nil {
		return key, nil
	}
	ctx, cancel := context.WithTimeout(ctx, kmsPatience)
	defer cancel()
	key, err := how(ctx, at, k.passphrase)
	if err != nil {
		return nil, err
	}
	if k.open == nil {
		k.open = map[string]*kms.Key{}
	}
	k.open[at] = key
	return key, nil
}

// write writes the certificate with its key, or with the URI where the key is.
func (k *keyring) write(name string, p keydir.Pair, at string) error {
	if at == "" {
		return k.dir.WritePair(name, p, k.passphrase)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: referenceType, Bytes: []byte(at)})
	return k.dir.Write(name, append(b, keydir.EncodeCert(p.Cert)...), 0o600)
}

// read reads what write wrote. It returns fs.ErrNotExist when there is no such file, and the certificate alone with
// errKeyAway when the key is elsewhere and cannot be reached.
func (k *keyring) read(ctx context.Context, name string) (keydir.Pair, error) {
	b, err := k.dir.Read(name, true)
	if err != nil {
		return keydir.Pair{}, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != referenceType {
		return keydir.ParsePair(b, k.passphrase)
	}
	at := string(block.Bytes)
	cert, err := keydir.ParseCert(rest)
	if err != nil {
		return keydir.Pair{}, err
	}
	key, err := k.reach(ctx, at, kms.Open)
	if err != nil {
		// Not wrapped: that the key's file does not exist must not look as if this one did not.
		return keydir.Pair{Cert: cert}, fmt.Errorf("%w: %v", errKeyAway, err)
	}
	if !keyutil.Equal(cert.PublicKey, key.Public()) {
		return keydir.Pair{}, fmt.Errorf("the key at %s is not the one that its certificate certifies", at)
	}
	return keydir.Pair{Cert: cert, Key: key}, nil
}
