package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"

	"github.com/exitgate/exitgate/ca/internal/keydir"
)

// The files of a folder, see the package comment.
const (
	rootFile     = "root.pem"
	rootCertFile = "root.crt"
	issuerFile   = "issuer.pem"
	tempPrefix   = keydir.TempPrefix
)

// maxFile bounds what is read of a file that should hold one key and one certificate.
const maxFile = keydir.MaxFile

// A pair is a certificate and the key that it certifies.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// A folder is the path of a folder that holds keys; package keydir says how they are kept.
type folder string

func (f folder) dir() keydir.Dir         { return keydir.Dir(f) }
func (f folder) path(name string) string { return f.dir().Path(name) }
func (f folder) has(name string) bool    { return f.dir().Has(name) }
func (f folder) open() (func(), error)   { return f.dir().Open() }
func (f folder) writePair(name string, p pair) error {
	return f.dir().WritePair(name, keydir.Pair{Cert: p.cert, Key: p.key}, nil)
}
func (f folder) read(name string, secret bool) ([]byte, error) { return f.dir().Read(name, secret) }
func (f folder) write(name string, data []byte, perm fs.FileMode) error {
	return f.dir().Write(name, data, perm)
}

// readPair reads what writePair wrote. It returns fs.ErrNotExist when there is no such file.
func (f folder) readPair(name string) (pair, error) {
	p, err := f.dir().ReadPair(name, nil)
	return pair{cert: p.Cert, key: p.Key}, err
}

// parsePair reads PEM with exactly one private key and one certificate, which belong together.
func parsePair(b []byte) (pair, error) {
	p, err := keydir.ParsePair(b, nil)
	return pair{cert: p.Cert, key: p.Key}, err
}

// publish puts the root's certificate under its public name when it is missing there. Something else under that
// name is an error, since hosts may have been given it.
func (f folder) publish(root *x509.Certificate) error {
	want := keydir.EncodeCert(root)
	have, err := f.read(rootCertFile, false)
	if errors.Is(err, fs.ErrNotExist) {
		err = f.write(rootCertFile, want, 0o644)
	} else if err == nil && !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(want)) {
		err = fmt.Errorf("it is not the certificate in %s; remove it to have it written again, and consider which of the two hosts were given", rootFile)
	}
	if err != nil {
		return fmt.Errorf("publish the interception root as %s: %w", f.path(rootCertFile), err)
	}
	return nil
}
