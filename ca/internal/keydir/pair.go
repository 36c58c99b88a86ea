package keydir

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/pemutil"
)

// A Pair is a certificate and the key that it certifies.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// WritePair writes key and certificate into one file of mode 0600. The key is encrypted when there is a passphrase.
func (d Dir) WritePair(name string, p Pair, passphrase []byte) error {
	b, err := EncodePair(p, passphrase)
	if err != nil {
		return err
	}
	return d.Write(name, b, 0o600)
}

// ReadPair reads what WritePair wrote. It returns fs.ErrNotExist when there is no such file. A key that is not
// encrypted is read with a passphrase too, so that one can be set later.
func (d Dir) ReadPair(name string, passphrase []byte) (Pair, error) {
	b, err := d.Read(name, true)
	if err != nil {
		return Pair{}, err
	}
	return ParsePair(b, passphrase)
}

// EncodePair returns p as PEM, the key as PKCS #8.
func EncodePair(p Pair, passphrase []byte) ([]byte, error) {
	b, err := EncodeKey(p.Key, passphrase)
	if err != nil {
		return nil, err
	}
	return append(b, EncodeCert(p.Cert)...), nil
}

// EncodeKey returns the key as PEM, in PKCS #8, encrypted when there is a passphrase.
func EncodeKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	opts := []pemutil.Options{pemutil.WithPKCS8(true)}
	if len(passphrase) > 0 {
		opts = append(opts, pemutil.WithPassword(passphrase))
	}
	block, err := pemutil.Serialize(key, opts...)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// EncodeCert returns c as PEM.
func EncodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// ParseCert reads PEM with exactly one certificate.
func ParseCert(b []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is damaged: it should hold one certificate and nothing else")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("its certificate cannot be read: %w", err)
	}
	return c, nil
}

// ParsePair reads PEM with exactly one private key and one certificate, which belong together.
func ParsePair(b, passphrase []byte) (Pair, error) {
	var keys, certs [][]byte
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type == "CERTIFICATE" {
			certs = append(certs, block.Bytes)
		} else {
			keys = append(keys, pem.EncodeToMemory(block))
		}
	}
	if len(keys) != 1 || len(certs) != 1 || len(bytes.TrimSpace(b)) > 0 {
		return Pair{}, fmt.Errorf("it is damaged: it holds %d keys and %d certificates, and should hold one of each and nothing else", len(keys), len(certs))
	}
	key, err := ParseKey(keys[0], passphrase)
	if err != nil {
		return Pair{}, err
	}
	cert, err := x509.ParseCertificate(certs[0])
	if err != nil {
		return Pair{}, fmt.Errorf("its certificate cannot be read: %w", err)
	}
	if err := keyutil.VerifyPair(cert.PublicKey, key); err != nil {
		return Pair{}, errors.New("its key is not the one that its certificate certifies")
	}
	return Pair{Cert: cert, Key: key}, nil
}

// ParseKey reads PEM with a private key that can sign. It never prompts.
func ParseKey(b, passphrase []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	encrypted := block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "")
	if encrypted && len(passphrase) == 0 {
		return nil, errors.New("its key is encrypted, and no passphrase was given")
	}
	var opts []pemutil.Options
	if encrypted {
		opts = append(opts, pemutil.WithPassword(passphrase))
	}
	key, err := pemutil.ParseKey(b, opts...)
	switch {
	case err != nil && encrypted:
		return nil, errors.New("its key cannot be read with the passphrase given")
	case err != nil:
		return nil, fmt.Errorf("its key cannot be read: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key is not a private key that can sign")
	}
	return signer, nil
}
