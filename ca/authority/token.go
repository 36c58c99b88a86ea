package authority

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/exitgate/exitgate"
)

// The life of a one-time token, and how far the clocks of two gateways may be apart.
const (
	tokenLife = 5 * time.Minute
	leeway    = time.Minute
)

// maxToken bounds a token, in bytes; one with a few alternative names has about 700.
const maxToken = 8 << 10

// maxSANs bounds the further names of a host.
const maxSANs = 32

// tokenClaims are what a one-time token says.
type tokenClaims struct {
	jose.Claims
	SANs  []string       `json:"sans,omitempty"`
	SHA   string         `json:"sha,omitempty"` // the fingerprint of the root, for clients that begin with a token alone
	Class exitgate.Class `json:"class,omitempty"`
}

// Token returns a one-time token, good for five minutes, with which a host gets its first identity by POST /1.0/sign.
// Its certificate will carry name, class, and the further DNS names and IP addresses given, whatever the host asks for.
func (a *Authority) Token(ctx context.Context, name string, class exitgate.Class, sans ...string) (string, error) {
	if ctx.Err() != nil {
		return "", fmt.Errorf("make a token for %.80q: %w", name, context.Cause(ctx))
	}
	if err := checkHost(name); err != nil {
		return "", fmt.Errorf("make a token: %.80q cannot be the name of a host: %w", name, err)
	}
	if err := checkClass(class); err != nil {
		return "", fmt.Errorf("make a token for %s: %.80q cannot be its class: %w", name, class, err)
	}
	if len(sans) > maxSANs {
		return "", fmt.Errorf("make a token for %s: it has %d further names, more than %d", name, len(sans), maxSANs)
	}
	all := []string{name}
	for _, s := range sans {
		if err := checkServerName(s); err != nil {
			return "", fmt.Errorf("make a token for %s: %.80q cannot be a further name: %w", name, s, err)
		}
		if ip := net.ParseIP(s); ip != nil {
			s = ip.String()
		}
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	c := tokenClaims{SANs: append(all, a.spiffe(name, class)), SHA: a.Fingerprint(), Class: class}
	return a.mint(c, name, "sign")
}

// RevokeToken returns a one-time token, good for five minutes, with which anyone may revoke the certificate of that
// decimal serial by POST /1.0/revoke.
func (a *Authority) RevokeToken(_ context.Context, serial string) (string, error) {
	if serial == "" || strings.Trim(serial, "0123456789") != "" {
		return "", fmt.Errorf("make a token: %.80q is not a serial: write it in decimal", serial)
	}
	return a.mint(tokenClaims{SHA: a.Fingerprint()}, serial, "revoke")
}

// mint signs c for one use at a path.
func (a *Authority) mint(c tokenClaims, subject, path string) (string, error) {
	now := a.o.Now()
	id := make([]byte, 16)
	rand.Read(id) // never fails: crypto/rand.Read aborts the process instead
	c.Claims = jose.Claims{
		ID:        hex.EncodeToString(id),
		Issuer:    hostsName,
		Subject:   subject,
		Audience:  jose.Audience{a.audience(path)},
		IssuedAt:  jose.NewNumericDate(now),
		NotBefore: jose.NewNumericDate(now),
		Expiry:    jose.NewNumericDate(now.Add(tokenLife)),
	}
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader("kid", hostsKey)
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: a.tokenKey}, opts)
	if err != nil {
		return "", fmt.Errorf("make a token for %s: %w", subject, err)
	}
	token, err := jose.Signed(s).Claims(c).CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("make a token for %s: %w", subject, err)
	}
	return token, nil
}

// audience returns what a token names that is good at a path.
func (a *Authority) audience(path string) string { return a.o.URL + "/1.0/" + path }

// checkToken returns what the token says, or an error that tells its holder what is wrong with it. That it was not
// used before is not known then.
func (a *Authority) checkToken(token, path string) (tokenClaims, error) {
	var c tokenClaims
	switch {
	case token == "":
		return c, errors.New("there is no one-time token")
	case len(token) > maxToken:
		return c, fmt.Errorf("the token is longer than %d bytes", maxToken)
	}
	t, err := jose.ParseSigned(token)
	if err != nil || len(t.Headers) != 1 {
		return c, errors.New("the token is not one: it is damaged, or cut off")
	}
	if t.Headers[0].Algorithm != jose.ES256 || t.Claims(a.tokenKey.Public(), &c) != nil {
		return c, errors.New("the token is not from this gateway: ask for one here, with the same fingerprint")
	}
	return c, a.checkClaims(c, path)
}

func (a *Authority) checkClaims(c tokenClaims, path string) error {
	now := a.o.Now()
	switch {
	case !slices.Contains(c.Audience, a.audience(path)):
		return fmt.Errorf("the token is for %.200q, and this is %s", strings.Join(c.Audience, ", "), a.audience(path))
	case c.Issuer != hostsName || c.ID == "" || c.Subject == "" || c.Expiry == nil || c.NotBefore == nil:
		return errors.New("the token says less than one of this gateway does")
	case now.After(c.Expiry.Time().Add(leeway)):
		return fmt.Errorf("the token ended at %s, and the gateway's clock says %s: ask for another", stamp(c.Expiry.Time()), stamp(now))
	case now.Before(c.NotBefore.Time().Add(-leeway)):
		return fmt.Errorf("the token begins at %s, and the gateway's clock says %s: set the clocks", stamp(c.NotBefore.Time()), stamp(now))
	}
	return nil
}
