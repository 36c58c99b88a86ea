package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca/internal/kms"
)

// Options say where an Authority keeps its keys, how it is reached, and whom it asks. Dir, URL, KV and Allowed are
// needed.
type Options struct {
	// Dir is the folder that holds the keys, which must not be that of the interception root. It is made with mode
	// 0700 when it is missing, and refused when others than its owner may enter it.
	Dir string
	// URL is where hosts reach the enrolment listener: https, a name or an address, a port, no path.
	URL string
	// Names are further names and addresses under which hosts reach it.
	Names []string
	// Gateway is the organization in the subjects of certificates that sign; at most 64 characters. Empty: "exitgate".
	Gateway string
	// TrustDomain begins the SPIFFE identifiers of hosts; a DNS name. Empty: the host of URL, or "exitgate.internal"
	// when that is an address. Identities of another trust domain are foreign, so it is not changed lightly.
	TrustDomain string

	// KV keeps what was redeemed, issued and revoked.
	KV KV
	// Allowed is asked whenever a certificate is signed or renewed and for each connection that presents one. Its error
	// says why the host may not have an identity of that class (disabled, not registered, registered as another
	// class) and is shown to the host. It must answer from memory.
	Allowed func(ctx context.Context, name string, class exitgate.Class) error
	// Issued is told of each identity that was signed, before the host gets it. Nil: no one is.
	Issued func(Issued)
	// ACME, when it is set, lets hosts get server certificates by ACME.
	ACME *ACME

	// RootKey and IssuerKey say by smallstep's KMS URI (package kms) where the keys of roots and issuers that are made
	// from now on are, and where they are made when nothing is there; a URI holds no secret. Empty: in the folder,
	// beside their certificate.
	RootKey, IssuerKey string
	// Passphrase encrypts the key files that are written, and opens those that are encrypted. Empty: they are plain.
	Passphrase []byte

	Lifetimes Lifetimes
	Now       func() time.Time // nil: time.Now
	Logger    *slog.Logger     // nil: nothing is logged
}

// Lifetimes say how long certificates are valid. A zero field takes its default.
type Lifetimes struct {
	Root     time.Duration // from when it is made; default ten years
	Issuer   time.Duration // default 90 days, never past the root's end; renewed when a third is left
	Identity time.Duration // of a host; default 8 h, at least 5 minutes, at most 7 days; a host may ask for less
	Server   time.Duration // of the gateway's own listeners and of ACME; default 24 h; replaced when half is left
	Backdate time.Duration // of what hosts verify, for those whose clock is behind; default 1 h
}

// An Issued tells of one identity certificate.
type Issued struct {
	Name     string
	Class    exitgate.Class
	Serial   string // decimal, as step prints it
	NotAfter time.Time
	Remote   netip.Addr // who asked; the zero Addr when it is not known
	Renewed  bool
}

// The bounds within which lifetimes make sense.
const (
	day         = 24 * time.Hour
	minIdentity = 5 * time.Minute
	maxIdentity = 7 * day
)

// clockFloor is before any honest clock: what a machine without a clock battery makes in 1970 would have ended when
// its clock is set.
func clockFloor() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// complete checks o and fills in what it leaves out.
func (o *Options) complete() error {
	switch {
	case o.Dir == "":
		return errors.New("no folder was given for its keys")
	case o.KV == nil:
		return errors.New("no store was given for what it must remember")
	case o.Allowed == nil:
		return errors.New("nothing was given that says which hosts may have an identity")
	}
	if o.Gateway == "" {
		o.Gateway = "exitgate"
	}
	if len([]rune(o.Gateway)) > 64 || strings.ContainsFunc(o.Gateway, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("the gateway's name %.80q cannot stand in a certificate: at most 64 printable characters", o.Gateway)
	}
	if err := o.completeNames(); err != nil {
		return err
	}
	if err := o.Lifetimes.complete(); err != nil {
		return err
	}
	if err := o.ACME.check(); err != nil {
		return err
	}
	for _, at := range []string{o.RootKey, o.IssuerKey} {
		if at == "" {
			continue
		}
		if err := kms.Check(at); err != nil {
			return err
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Issued == nil {
		o.Issued = func(Issued) {}
	}
	return nil
}

// completeNames makes Names begin with the host of URL.
func (o *Options) completeNames() error {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("the URL %.80q is not where hosts could reach it: write https://NAME:PORT", o.URL)
	}
	o.URL = "https://" + u.Host
	names := []string{strings.ToLower(u.Hostname())}
	for _, n := range o.Names {
		if n = strings.ToLower(n); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, n := range names {
		if err := checkServerName(n); err != nil {
			return fmt.Errorf("%.80q is not a name of the listener: %w", n, err)
		}
	}
	o.Names = names
	if o.TrustDomain == "" {
		o.TrustDomain = names[0]
		if net.ParseIP(names[0]) != nil {
			o.TrustDomain = "exitgate.internal"
		}
	}
	if err := checkName(o.TrustDomain); err != nil {
		return fmt.Errorf("the trust domain %.80q is not a domain: %w", o.TrustDomain, err)
	}
	return nil
}

// complete checks l and fills in what it leaves out.
func (l *Lifetimes) complete() error {
	for _, f := range []struct {
		name              string
		d                 *time.Duration
		usual, least, top time.Duration
	}{
		{"root", &l.Root, 3650 * day, time.Hour, 36500 * day},
		{"issuer", &l.Issuer, 90 * day, time.Hour, 36500 * day},
		{"identity", &l.Identity, 8 * time.Hour, minIdentity, maxIdentity},
		{"server", &l.Server, day, minIdentity, 90 * day},
		{"backdate", &l.Backdate, time.Hour, time.Second, day},
	} {
		if *f.d == 0 {
			*f.d = f.usual
		}
		if *f.d < f.least || *f.d > f.top {
			return fmt.Errorf("the lifetime %q is %v: it must be between %v and %v", f.name, *f.d, f.least, f.top)
		}
	}
	if l.Issuer < 3*l.Identity || l.Issuer < 3*l.Server {
		return fmt.Errorf("the lifetime \"issuer\" is %v: it must be three times that of what an issuer signs, or more", l.Issuer)
	}
	return nil
}
