package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.step.sm/crypto/keyutil"
	"go.step.sm/crypto/pemutil"
)

// The files of a folder, see the package comment.
const (
	rootFile     = "root.pem"
	rootCertFile = "root.crt"
	issuerFile   = "issuer.pem"
	tempPrefix   = ".new-" // of a file that is being written
)

// maxFile bounds what is read of a file that should hold one key and one certificate.
const maxFile = 1 << 20

// A pair is a certificate and the key that it certifies.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// A folder is the path of a folder that holds keys.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// has reports whether something is there under name; what cannot be told is there.
func (f folder) has(name string) bool {
	_, err := os.Lstat(f.path(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// open makes the folder if it is missing, refuses one that others may enter, and locks it against other processes
// until unlock is called. What a process that died left half-written is removed.
func (f folder) open() (unlock func(), err error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the certificate authority: %w", err)
	}
	d, err := os.Open(string(f))
	if err != nil {
		return nil, fmt.Errorf("open the folder of the certificate authority: %w", err)
	}
	if err = private(d); err == nil {
		err = flock(d)
	}
	if err == nil {
		err = f.clean()
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("open the folder of the certificate authority: %w", err)
	}
	return func() { d.Close() }, nil // closing gives the lock back
}

// flock waits for the lock of d, which a process holds for milliseconds.
func flock(d *os.File) error {
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// private returns an error when others than the owner may use f, a folder or a file with a key.
func private(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	want := "0600"
	if fi.IsDir() {
		want = "0700"
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %#o, so others than its owner may use the keys: run chmod %s %s, and consider whether they were read",
			f.Name(), fi.Mode().Perm(), want, f.Name())
	}
	return nil
}

// clean removes what a process left that died while it wrote. The folder is locked, so no one is writing.
func (f folder) clean() error {
	entries, err := os.ReadDir(string(f))
	for _, e := range entries {
		if err == nil && strings.HasPrefix(e.Name(), tempPrefix) {
			err = os.Remove(f.path(e.Name()))
		}
	}
	return err
}

// read returns the bytes of a regular file, which only its owner may use if it is secret.
func (f folder) read(name string, secret bool) ([]byte, error) {
	file, err := os.OpenFile(f.path(name), os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hang the start
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil && secret {
		err = private(file)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if len(b) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	return b, err
}

// write puts data under name: whenever the process or the machine dies, the file is as it was or as it shall be.
func (f folder) write(name string, data []byte, perm fs.FileMode) (err error) {
	temp, err := os.CreateTemp(string(f), tempPrefix+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(data); err != nil {
		return err
	}
	if err = temp.Chmod(perm); err != nil {
		return err
	}
	if err = temp.Sync(); err != nil {
		return err
	}
	if err = temp.Close(); err != nil {
		return err
	}
	if err = os.Rename(temp.Name(), f.path(name)); err != nil {
		return err
	}
	return f.sync()
}

// sync makes renames in the folder durable.
func (f folder) sync() error {
	d, err := os.Open(string(f))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writePair writes key and certificate into one file, so that they can never be of two minds.
func (f folder) writePair(name string, p pair) error {
	block, err := pemutil.Serialize(p.key, pemutil.WithPKCS8(true))
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(block)
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})...)
	return f.write(name, b, 0o600)
}

// readPair reads what writePair wrote. It returns fs.ErrNotExist when there is no such file.
func (f folder) readPair(name string) (pair, error) {
	b, err := f.read(name, true)
	if err != nil {
		return pair{}, err
	}
	return parsePair(b)
}

// parsePair reads PEM with exactly one private key and one certificate, which belong together.
func parsePair(b []byte) (pair, error) {
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
		return pair{}, fmt.Errorf("it is damaged: it holds %d keys and %d certificates, and should hold one of each and nothing else", len(keys), len(certs))
	}
	key, err := pemutil.ParseKey(keys[0])
	if err != nil {
		return pair{}, fmt.Errorf("its key cannot be read: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return pair{}, errors.New("its key is not a private key that can sign")
	}
	cert, err := x509.ParseCertificate(certs[0])
	if err != nil {
		return pair{}, fmt.Errorf("its certificate cannot be read: %w", err)
	}
	if err := keyutil.VerifyPair(cert.PublicKey, signer); err != nil {
		return pair{}, errors.New("its key is not the one that its certificate certifies")
	}
	return pair{cert: cert, key: signer}, nil
}

// publish puts the root's certificate under its public name when it is missing there. Something else under that
// name is an error, since hosts may have been given it.
func (f folder) publish(root *x509.Certificate) error {
	want := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
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
