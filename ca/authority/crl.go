package authority

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/certificates/db"
	"github.com/smallstep/certificates/errs"
	"golang.org/x/crypto/ocsp"
)

// The life of a list of revocations, and how long one is served again.
const (
	crlLife  = day
	crlFresh = 10 * time.Second
)

// A crlCache is the list that was signed last.
type crlCache struct {
	mu   sync.Mutex // guards what follows; held while a list is made, so that many who ask make one
	der  []byte
	at   time.Time
	from *generation
}

// Revoke revokes the certificate of that decimal serial, for a reason that an auditor will read. One that is revoked
// already is no error. It bites at this gateway at once and at the others within seconds; but a host that had renewed
// the certificate before goes on with the other: to end a host, disable it (Options.Allowed).
func (a *Authority) Revoke(ctx context.Context, serial, reason string) error {
	if serial == "" || strings.Trim(serial, "0123456789") != "" {
		return fmt.Errorf("revoke: %.80q is not a serial: write it in decimal", serial)
	}
	g := a.current.Load()
	info := &db.RevokedCertificateInfo{Serial: serial, Reason: reason, ReasonCode: ocsp.Unspecified, ProvisionerID: hostsName, RevokedAt: a.o.Now().UTC()}
	if c, err := g.db.GetCertificate(serial); err == nil {
		info.ExpiresAt = c.NotAfter
	}
	if err := g.db.Revoke(info); err != nil && !errors.Is(err, db.ErrAlreadyExists) {
		return fmt.Errorf("revoke certificate %s: %w", serial, err)
	}
	a.revoked(serial)
	a.o.Logger.Info("revoked a certificate", "serial", serial, "reason", reason)
	return ctx.Err()
}

// revoked remembers that a certificate is.
func (a *Authority) revoked(serial string) {
	a.known.keepRevocation(serial, true, a.o.Now())
	a.crl.mu.Lock()
	a.crl.der = nil
	a.crl.mu.Unlock()
}

// alreadyRevoked reports whether smallstep says so; it does not pass its sentinel on.
func alreadyRevoked(err error) bool {
	var e *errs.Error
	return errors.As(err, &e) && e.Status == http.StatusBadRequest && strings.Contains(e.Error(), "already revoked")
}

// serveCRL answers with the list of revocations (RFC 5280, section 5) that the issuer in force signs, in DER, or in PEM
// when the query has the key pem.
func (a *Authority) serveCRL(w http.ResponseWriter, r *http.Request) {
	der, err := a.revocationList(inForce(r.Context()))
	if err != nil {
		fail(w, a.bug("list revocations", "anyone", err))
		return
	}
	if _, ok := r.URL.Query()["pem"]; ok {
		w.Header().Set("Content-Type", "application/x-pem-file")
		pem.Encode(w, &pem.Block{Type: "X509 CRL", Bytes: der}) // a client that has gone is no one's concern
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Header().Set("Content-Length", strconv.Itoa(len(der)))
	w.Write(der)
}

// revocationList returns the list, signed by the issuer of g. Its number is the time, which only grows.
func (a *Authority) revocationList(g *generation) ([]byte, error) {
	c := &a.crl
	c.mu.Lock()
	defer c.mu.Unlock()
	now := a.o.Now()
	if age := now.Sub(c.at); c.der != nil && c.from == g && 0 <= age && age < crlFresh {
		return c.der, nil
	}
	list := &x509.RevocationList{Number: big.NewInt(now.UnixMilli()), ThisUpdate: now, NextUpdate: now.Add(crlLife)}
	ctx, cancel := kvContext()
	defer cancel()
	err := a.o.KV.List(ctx, bucketRevoked, func(key, value []byte) error {
		e, ok := revokedEntry(key, value, now)
		if ok {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, g.material.issuer.Cert, g.material.issuer.Key)
	if err != nil {
		return nil, err
	}
	c.der, c.at, c.from = der, now, g
	return der, nil
}

// revokedEntry returns the entry of a certificate that was revoked, unless it has ended well before now. What the store
// garbled is listed as revoked, as it is to Identify.
func revokedEntry(key, value []byte, now time.Time) (e x509.RevocationListEntry, ok bool) {
	serial, ok := new(big.Int).SetString(string(key), 10)
	if !ok || serial.Sign() <= 0 {
		return e, false
	}
	var info db.RevokedCertificateInfo
	if json.Unmarshal(value, &info) != nil || info.RevokedAt.IsZero() {
		info = db.RevokedCertificateInfo{RevokedAt: now}
	}
	if !info.ExpiresAt.IsZero() && now.Sub(info.ExpiresAt) > time.Hour {
		return e, false
	}
	return x509.RevocationListEntry{SerialNumber: serial, RevocationTime: info.RevokedAt, ReasonCode: info.ReasonCode}, true
}
