package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// The files of a folder, see the package comment.
const (
	rootFile       = "root.pem"
	rootCertFile   = "root.crt"
	rootsFile      = "roots.crt"
	issuerFile     = "issuer.pem"
	nextFile       = "next.pem"
	nextIssuerFile = "next-issuer.pem"
	rotationFile   = "rotation.json"
	requestFile    = "request.pem"
	pastFile       = "past.crt"
	tempPrefix     = keydir.TempPrefix
)

// maxFile bounds what is read of a file that should hold one key and one certificate.
const maxFile = keydir.MaxFile

// A pair is a certificate and the key that it certifies. The key is in memory, in a KMS, or, of a root that is kept
// offline, not here at all.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer // nil when it is not in memory
	uri  string        // of the key in a KMS; "" when it is in none
}

// A folder holds keys; package keydir says how they are kept.
type folder struct {
	dir  keydir.Dir
	step func(string) // called before each change of the file named; nil but in tests, which die there
}

func (f folder) path(name string) string { return f.dir.Path(name) }
func (f folder) has(name string) bool    { return f.dir.Has(name) }
func (f folder) open() (func(), error)   { return f.dir.Open() }

func (f folder) read(name string, secret bool) ([]byte, error) { return f.dir.Read(name, secret) }

func (f folder) write(name string, data []byte, perm fs.FileMode) error {
	f.before(name)
	return f.dir.Write(name, data, perm)
}

// rename puts one file in the place of another.
func (f folder) rename(from, to string) error {
	f.before(to)
	return f.dir.Rename(from, to)
}

func (f folder) remove(name string) error {
	f.before(name)
	return f.dir.Remove(name)
}

func (f folder) before(name string) {
	if f.step != nil {
		f.step(name)
	}
}

// keyURI is the type of the PEM block that names a key in a KMS in the place of the key.
const keyURI = "EXITGATE KEY URI"

// writePair writes key and certificate into one file, so that they can never be of two minds.
func (f folder) writePair(name string, p pair, passphrase []byte) error {
	if p.uri != "" {
		b := pem.EncodeToMemory(&pem.Block{Type: keyURI, Bytes: []byte(p.uri)})
		return f.write(name, append(b, keydir.EncodeCert(p.cert)...), 0o600)
	}
	b, err := keydir.EncodePair(keydir.Pair{Cert: p.cert, Key: p.key}, passphrase)
	if err != nil {
		return err
	}
	return f.write(name, b, 0o600)
}

// parsePair reads PEM with exactly one private key, or the URI of one, and one certificate, which belong together.
// Whether the key behind a URI is the certificate's is seen when it is used.
func parsePair(b, passphrase []byte) (pair, error) {
	if block, rest := pem.Decode(b); block != nil && block.Type == keyURI {
		certs, err := parseCerts(rest)
		if err != nil || len(certs) != 1 {
			return pair{}, errors.New("it is damaged: it names a key, and should hold one certificate beside it and nothing else")
		}
		return pair{cert: certs[0], uri: string(block.Bytes)}, nil
	}
	p, err := keydir.ParsePair(b, passphrase)
	return pair{cert: p.Cert, key: p.Key}, err
}

// parseCerts reads PEM that holds certificates and nothing else.
func parseCerts(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it is damaged: it holds a block of type %.40q, and should hold certificates only", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate in it cannot be read: %w", err)
		}
		certs = append(certs, c)
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return nil, errors.New("it is damaged: it should hold certificates and nothing else")
	}
	return certs, nil
}

func encodeCerts(certs []*x509.Certificate) (b []byte) {
	for _, c := range certs {
		b = append(b, keydir.EncodeCert(c)...)
	}
	return b
}

// readCerts reads a file of certificates; one that is missing holds none.
func (f folder) readCerts(name string) ([]*x509.Certificate, error) {
	b, err := f.read(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var certs []*x509.Certificate
	if err == nil {
		certs, err = parseCerts(b)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path(name), err)
	}
	return certs, nil
}

// publish puts certificates under a public name. What stands there already is replaced when it was ours to publish,
// that is among known; anything else there is an error, since hosts may have been given it.
func (f folder) publish(name string, want, known []*x509.Certificate) error {
	have, err := f.read(name, false)
	if err == nil && bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(encodeCerts(want))) {
		return nil
	}
	if err == nil {
		err = onlyKnown(have, known)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = f.write(name, encodeCerts(want), 0o644)
	}
	if err != nil {
		return fmt.Errorf("publish the interception root as %s: %w", f.path(name), err)
	}
	return nil
}

// onlyKnown returns an error when b holds anything but known certificates.
func onlyKnown(b []byte, known []*x509.Certificate) error {
	certs, err := parseCerts(b)
	if err == nil && len(certs) == 0 {
		err = errors.New("it holds no certificate")
	}
	for _, c := range certs {
		if !slices.ContainsFunc(known, c.Equal) {
			err = fmt.Errorf("it is not the certificate in %s", rootFile)
		}
	}
	if err != nil {
		return fmt.Errorf("%w; remove it to have it written again, and consider which of the two hosts were given", err)
	}
	return nil
}
