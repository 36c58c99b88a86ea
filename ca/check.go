package ca

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"
)

// checkRoot returns an error when c cannot be a root over an issuer, whoever made it.
func checkRoot(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("is foreign: it is not the certificate of a certificate authority")
	case c.MaxPathLenZero || c.MaxPathLen == 0:
		return errors.New("is foreign: its path length leaves no room for an issuer")
	case c.CheckSignatureFrom(c) != nil:
		return errors.New("is foreign: it is not signed by itself")
	}
	return nil
}

// checkValidity returns an error when c is not valid at now.
func checkValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("is valid from %s, and the clock says %s: set the clock", stamp(c.NotBefore), stamp(now))
	case !now.Before(c.NotAfter):
		return fmt.Errorf("ended at %s, and the clock says %s: move the folder away to begin with a new root, which every host must then be given",
			stamp(c.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkIssuer returns an error when c is not an issuer that root signed, within the bounds that makeIssuer
// sets. That it may be due is no error.
func checkIssuer(c, root *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("it is foreign: not the certificate of a certificate authority")
	case keyutil.Equal(c.PublicKey, root.PublicKey):
		return errors.New("it is foreign: it certifies the key of the root")
	case !signedBy(c, root):
		return errors.New("it is foreign: another root signed it")
	case !c.MaxPathLenZero || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}):
		return errors.New("it is foreign: it may sign more than leaves of servers")
	}
	return nil
}

// checkBridge returns an error when c is not a bridge from the root old to the root next that clients follow.
func checkBridge(c, old, next *x509.Certificate) error {
	switch {
	case !signedBy(c, old) || !keyutil.Equal(c.PublicKey, next.PublicKey) || !bytes.Equal(c.RawSubject, next.RawSubject):
		return errors.New("its bridge is foreign: it does not lead from one of its roots to the other")
	case !c.BasicConstraintsValid || !c.IsCA || c.MaxPathLen == 0 || c.KeyUsage&x509.KeyUsageCertSign == 0 || !bytes.Equal(c.SubjectKeyId, next.SubjectKeyId):
		return errors.New("its bridge is foreign: clients would not follow it to an issuer")
	case old.MaxPathLen == 1:
		return errors.New("its bridge leads nowhere: the path length of the old root leaves no room for it")
	}
	return nil
}
