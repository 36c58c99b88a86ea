package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"go.step.sm/crypto/x509util"

	"github.com/exitgate/exitgate/ca/internal/kms"
)

// openRoot returns the root in a folder without a rotation, after it made one in a folder that never had one. The
// folder is locked.
func (i *Issuer) openRoot(now time.Time) (pair, error) {
	var p pair
	var err error
	if i.keys.offline {
		p, err = i.readOffline()
	} else {
		p, err = i.readSecret(rootFile, i.keys.rootPhrase)
	}
	if errors.Is(err, fs.ErrNotExist) && !i.keys.offline {
		p, err = i.makeRoot(now)
	} else if err == nil {
		if err = checkRoot(p.cert); err != nil {
			err = fmt.Errorf("the root %w", err)
		}
	}
	if err != nil {
		return p, fmt.Errorf("open the interception root %s: %w", i.rootPath(), err)
	}
	return p, nil
}

// rootPath returns the path of the file that says what the root is.
func (i *Issuer) rootPath() string {
	if i.keys.offline {
		return i.folder.path(rootCertFile)
	}
	return i.folder.path(rootFile)
}

// readOffline returns the root whose key is elsewhere.
func (i *Issuer) readOffline() (pair, error) {
	if i.folder.has(rootFile) {
		return pair{}, fmt.Errorf("the root's key is to be offline, and %s is here: move it to where it shall be", rootFile)
	}
	certs, err := i.folder.readCerts(rootCertFile)
	switch {
	case err != nil:
		return pair{}, err
	case len(certs) == 0:
		return pair{}, errors.New("it is missing: the root's key is to be offline, so bring its certificate here first, as " +
			`"exitgate ca create-root" wrote it`)
	case len(certs) > 1:
		return pair{}, fmt.Errorf("it holds %d certificates, and should hold that of the root alone", len(certs))
	}
	return pair{cert: certs[0]}, nil
}

// readSecret is folder.readPair, which encrypts a key that is there in clear once there is a passphrase.
func (i *Issuer) readSecret(name string, passphrase []byte) (pair, error) {
	b, err := i.folder.read(name, true)
	if err != nil {
		return pair{}, err
	}
	p, err := parsePair(b, passphrase)
	if err != nil || p.key == nil || len(passphrase) == 0 {
		return p, err
	}
	if block, _ := pem.Decode(b); block != nil && bytes.Contains(b, []byte("ENCRYPTED")) {
		return p, nil
	}
	i.log.Info("encrypted a key that was there in clear", "file", i.folder.path(name))
	return p, i.folder.writePair(name, p, passphrase)
}

// clockFloor is before any honest clock: a root that a machine without a clock battery makes in 1970 would have
// ended when its clock is set.
var clockFloor = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (i *Issuer) makeRoot(now time.Time) (pair, error) {
	for _, name := range []string{rootFile, rootCertFile, rootsFile, issuerFile, nextFile} { // rootFile: a link to what is not mounted
		if i.folder.has(name) {
			return pair{}, fmt.Errorf("it is missing, but %s is there: bring it back from a backup, or move the folder away to "+
				"begin with a new root, which every host must then be given; where its key is kept elsewhere, set ca.root_key to offline", name)
		}
	}
	p, err := i.newRoot(now, i.keys.root)
	if err == nil {
		err = i.folder.writePair(rootFile, p, i.keys.rootPhrase)
	}
	if err != nil {
		return p, fmt.Errorf("make it: %w", err)
	}
	i.log.Info("made an interception root", "file", i.folder.path(rootFile), "key", p.where(), "ends", p.cert.NotAfter)
	return p, nil
}

// newRoot makes a root whose key is in memory, or under uri. Its path length leaves room for the bridge to the root
// after it, besides the issuer: with less, only Java accepts a leaf over a bridge (docs/trust.md).
func (i *Issuer) newRoot(now time.Time, uri string) (pair, error) {
	if now.Before(clockFloor) {
		return pair{}, fmt.Errorf("the clock says %s: set it before a root is made that is valid from then", now.UTC().Format(time.DateOnly))
	}
	shape := func(t *x509.Certificate) {
		t.MaxPathLen = 2
		t.NotBefore = now.Add(-day) // whatever time zone the clock was mistaken for
	}
	if uri == "" {
		return i.newPair("root", i.lifetimes.Root, now, nil, shape)
	}
	if err := kms.Check(uri); err != nil {
		return pair{}, err
	}
	key, err := newKey(uri, i.keys.rootPhrase)
	if err != nil {
		return pair{}, err
	}
	defer closeKey(key)
	cert, err := i.certify("root", key.Public(), i.lifetimes.Root, now, &pair{key: key}, shape)
	return pair{cert: cert, uri: uri}, err
}

// bridge returns a certificate of the root next that the root old signed, by which hosts that know only old accept
// what comes from next; nil when old cannot sign one that hosts would accept, or not here.
func (i *Issuer) bridge(old pair, next *x509.Certificate) (*x509.Certificate, error) {
	if old.cert.MaxPathLen == 1 {
		i.log.Warn("hosts that know only the old root will refuse leaves after the switch: its path length leaves no room for a bridge")
		return nil, nil
	}
	signer, done, err := i.keys.rootSigner(old)
	if errors.Is(err, ErrNoRootKey) {
		i.log.Warn(`hosts that know only the old root will refuse leaves after the switch: its key, which would sign a bridge ("exitgate ca sign-bridge"), is not here`)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer done()
	return signBridge(signer, next)
}

// signBridge signs next with the root old, whose key is in memory.
func signBridge(old pair, next *x509.Certificate) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(newSerial()), RawSubject: next.RawSubject, SubjectKeyId: next.SubjectKeyId,
		KeyUsage: next.KeyUsage, BasicConstraintsValid: true, IsCA: true, MaxPathLen: 1,
	}
	t.NotBefore, t.NotAfter = within(old.cert, next.NotBefore, next.NotAfter)
	return x509util.CreateCertificate(t, old.cert, next.PublicKey, old.key)
}
