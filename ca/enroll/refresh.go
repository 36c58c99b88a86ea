package enroll

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/exitgate/exitgate/ca/trust"
)

// Renew is what the timer runs: it renews the identity when half of its life is over, takes up the roots and proxy
// settings that are in force, and drops those that are not.
func (h *Host) Renew(ctx context.Context) (*Report, error) {
	s, err := h.ReadState()
	if err != nil {
		return nil, err
	}
	return h.refresh(ctx, s, false)
}

func (h *Host) refresh(ctx context.Context, s State, dry bool) (*Report, error) {
	own, identity, err := h.readIdentity()
	if err != nil {
		return nil, err
	}
	now := h.now()
	if !now.Before(identity.Leaf.NotAfter) {
		return nil, fmt.Errorf("the identity of this host ended at %s: run exitgate enroll again, with a new token", identity.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	base, err := gatewayURL(s.Gateway)
	if err != nil {
		return nil, err
	}
	l := h.connect(base, own, identity)
	if err := l.learn(ctx); err != nil {
		return nil, err
	}
	roots, err := l.interception(ctx)
	if err != nil {
		return nil, err
	}
	if !dry {
		if err := h.ask(ctx, l, &s); err != nil {
			return nil, err
		}
	}
	renewed := !dry && (due(identity.Leaf, now) || isBehind(identity, l.roots, now))
	if renewed {
		if identity, err = h.renewal(ctx, l, s, identity, now); err != nil {
			return nil, err
		}
	}
	key, err := keyPEM(identity.PrivateKey.(crypto.Signer)) // tls.X509KeyPair reads no other
	if err != nil {
		return nil, err
	}
	changes, err := h.Trust.Install(ctx, trust.Want{Roots: roots, Proxy: s.Proxy, Files: h.files(s, l.roots, key, identity), Units: h.units()}, dry)
	if err != nil {
		return nil, err
	}
	return h.report(s, identity, renewed, changes), nil
}

// isBehind reports whether the identity does not lead to the newest of the roots: the end of a rotation would make it
// invalid, however long it lasts.
func isBehind(identity *tls.Certificate, roots []*x509.Certificate, now time.Time) bool {
	if len(roots) < 2 {
		return false
	}
	newest := slices.MaxFunc(roots, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	o.Roots.AddCert(newest)
	for _, der := range identity.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			o.Intermediates.AddCert(c)
		}
	}
	_, err := identity.Leaf.Verify(o)
	return err != nil
}

// ask registers the host again, and takes up what the gateway says that changed.
func (h *Host) ask(ctx context.Context, l *link, s *State) error {
	stores, err := h.Trust.Stores()
	if err != nil {
		return err
	}
	var a answer
	if err := l.register(ctx, h.addresses(l), stores, &a); err != nil {
		return err
	}
	if a.Mode == "" {
		return nil
	}
	return s.take(a.Mode, a.Proxy)
}

func (h *Host) renewal(ctx context.Context, l *link, s State, identity *tls.Certificate, now time.Time) (*tls.Certificate, error) {
	at, err := caURL(l.base, s.CA)
	if err != nil {
		return nil, err
	}
	return l.at(at).renew(ctx, identity.PrivateKey.(crypto.Signer), now)
}

// Leave undoes the enrolment. The gateway is told when it answers; when it does not, a note says so.
func (h *Host) Leave(ctx context.Context, dry bool) (*Report, error) {
	s, err := h.ReadState()
	if err != nil && !errors.Is(err, ErrNotEnrolled) {
		return nil, err
	}
	r := &Report{State: s}
	if err == nil && !dry {
		if err := h.tell(ctx, s); err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("the gateway was not told: %v; \"exitgate host disable\" there forgets this host", err))
		}
	}
	r.Changes, err = h.Trust.Remove(ctx, dry)
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w: run this with sudo", err)
	}
	return r, err
}

// tell tells the gateway that this host leaves.
func (h *Host) tell(ctx context.Context, s State) error {
	own, identity, err := h.readIdentity()
	if err != nil {
		return err
	}
	base, err := url.Parse(s.Gateway)
	if err != nil {
		return err
	}
	return h.connect(base, own, identity).leave(ctx)
}
