package authority

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"time"

	"github.com/smallstep/certificates/db"
)

// How often Run works, and how long things are kept after they have ended.
const (
	pruneEvery = time.Hour
	keepEnded  = day
)

// Run does the regular work of an authority until ctx is done: it replaces an issuer that is due, although no one asks
// for a certificate, and removes from the store what has ended. What fails is logged and tried again in an hour.
func (a *Authority) Run(ctx context.Context) {
	t := time.NewTicker(pruneEvery)
	defer t.Stop()
	for {
		if _, err := a.generation(ctx); err != nil {
			a.o.Logger.Error("the identity authority cannot sign", "error", err)
		}
		if n, err := a.Prune(ctx); err != nil && ctx.Err() == nil {
			a.o.Logger.Error("the store of the identity authority could not be cleaned", "removed", n, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Prune removes what ended a day ago or earlier, and returns how many entries it removed: tokens that were used,
// certificates, revocations of certificates that have ended anyway, and what ACME leaves behind. Several gateways may
// do it at once.
func (a *Authority) Prune(ctx context.Context) (int, error) {
	n := 0
	for _, b := range []struct {
		bucket string
		ended  func(value []byte) time.Time // zero: it is kept
	}{
		{bucketUsed, usedEnded},
		{bucketCerts, certEnded},
		{bucketRevoked, revokedEnded},
		{"nonces", acmeEnded(day)},
		{"acme_orders", acmeEnded(maxIdentity)},
		{"acme_authzs", acmeEnded(maxIdentity)},
		{"acme_challenges", acmeEnded(maxIdentity)},
		{"acme_certs", acmeEnded(90 * day)},
	} {
		removed, err := a.pruneBucket(ctx, b.bucket, b.ended)
		n += removed
		if err != nil {
			return n, fmt.Errorf("clean bucket %s: %w", b.bucket, err)
		}
	}
	return n, nil
}

// pruneBucket removes the entries that ended before. An entry that another changed meanwhile is left to it.
func (a *Authority) pruneBucket(ctx context.Context, bucket string, ended func([]byte) time.Time) (n int, err error) {
	type entry struct{ key, value []byte }
	var old []entry
	before := a.o.Now().Add(-keepEnded)
	err = a.o.KV.List(ctx, bucket, func(key, value []byte) error {
		if at := ended(value); !at.IsZero() && at.Before(before) {
			old = append(old, entry{key, value})
		}
		return ctx.Err()
	})
	for _, e := range old {
		if err != nil {
			break
		}
		var swapped bool
		if _, swapped, err = a.o.KV.CompareAndSwap(ctx, bucket, e.key, e.value, nil); swapped {
			n++
		}
	}
	return n, err
}

// usedEnded returns when a token was used: it was good for minutes more.
func usedEnded(value []byte) time.Time {
	t, _ := time.Parse(time.RFC3339, string(value))
	return t
}

func certEnded(value []byte) time.Time {
	c, err := x509.ParseCertificate(value)
	if err != nil {
		return time.Time{}
	}
	return c.NotAfter
}

// revokedEnded returns when a revoked certificate ended, or when it must have if that is not known.
func revokedEnded(value []byte) time.Time {
	var info db.RevokedCertificateInfo
	if json.Unmarshal(value, &info) != nil {
		return time.Time{}
	}
	if info.ExpiresAt.IsZero() && !info.RevokedAt.IsZero() {
		return info.RevokedAt.Add(90 * day)
	}
	return info.ExpiresAt
}

// acmeEnded returns a function that says when a document of smallstep's ACME ended: at its end, or a while after it
// was made.
func acmeEnded(life time.Duration) func([]byte) time.Time {
	return func(value []byte) time.Time {
		var d struct {
			CreatedAt time.Time `json:"createdAt"` // in any case: smallstep writes both
			ExpiresAt time.Time `json:"expiresAt"`
		}
		switch err := json.Unmarshal(value, &d); {
		case err != nil || d.CreatedAt.IsZero() && d.ExpiresAt.IsZero():
			return time.Time{}
		case d.ExpiresAt.IsZero():
			return d.CreatedAt.Add(life)
		}
		return d.ExpiresAt
	}
}
