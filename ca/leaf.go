package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/smallstep/certificates/cas/apiv1"

	"github.com/exitgate/exitgate"
)

// maxCommonName is the bound of a subject's common name (RFC 5280, appendix A.1, ub-common-name). A longer name
// stands in the subject alternative name alone, which is then critical, and that is where clients look anyway.
const maxCommonName = 64

// Leaf returns a certificate for name, a DNS name or an IP address, with the issuer behind it; the root is not
// sent, since a host has it or does not trust it. While the root before it is still trusted, the bridge follows by
// which hosts that know only that one accept the leaf (see Rotate). It is valid for at least half of Lifetimes.Leaf, shared, and
// must not be changed. Concurrent calls for one name sign once.
//
// A name that cannot be a server's is an *exitgate.Refusal by exitgate.RuleMalformed, one that is never
// intercepted by exitgate.RuleNeverIntercept. Any other error is a bug or an issuer that ended and could not be
// renewed, but for the cause of a ctx that was done before there was anything to sign.
func (i *Issuer) Leaf(ctx context.Context, name string) (*tls.Certificate, error) {
	now := i.now()
	if cert := i.leaves.get(name, i.current.Load(), now); cert != nil {
		i.hits.Add(1) // only what passed all that follows, under this generation, is kept
		return cert, nil
	}
	name, ip, err := leafName(name)
	if err != nil {
		return nil, err
	}
	g, err := i.generation(now)
	if err != nil {
		return nil, err
	}
	if d, outside := g.bars.refuses(name, ip != nil); d != "" || outside {
		return nil, neverIntercept(name, d)
	}
	if cert := i.leaves.get(name, g, now); cert != nil {
		i.hits.Add(1)
		return cert, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("sign a leaf for %s: %w", name, context.Cause(ctx))
	}
	// Whoever comes first signs, and no longer asks its ctx: it works for the others too, for microseconds.
	v, err, _ := i.flights.Do(g.flight+" "+name, func() (any, error) { return i.mint(g, name, ip, now) })
	if err != nil {
		return nil, fmt.Errorf("sign a leaf for %s: %w", name, err)
	}
	return v.(*tls.Certificate), nil
}

// neverIntercept refuses name for domain, or, when that is "", for not being in any domain that is intercepted.
func neverIntercept(name, domain string) error {
	what := name
	if domain == "" {
		what += ", which is in none of the domains that are intercepted,"
	} else if name != domain {
		what += ", below " + domain + ","
	}
	return exitgate.NewRefusal(0, exitgate.RuleNeverIntercept,
		"%s is never intercepted, so it can be reached only unread: it needs an exemption for this class of host", what)
}

// mint signs a leaf and keeps it, unless one was kept since the caller looked.
func (i *Issuer) mint(g *generation, name string, ip net.IP, now time.Time) (*tls.Certificate, error) {
	if cert := i.leaves.get(name, g, now); cert != nil {
		return cert, nil
	}
	cert, err := g.sign(name, ip, now, i.lifetimes)
	if err != nil {
		return nil, err
	}
	i.minted.Add(1)
	half := now.Add(cert.Leaf.NotAfter.Sub(now) / 2)
	if at := g.trust.switchAt(); !at.IsZero() && at.Before(half) { // so that the switch comes in time
		half = at
	}
	i.leaves.put(name, leaf{cert: cert, from: g, replaceAt: half})
	return cert, nil
}

// sign makes a leaf. It asks nothing: not whether name is one, and not whether it may be intercepted.
func (g *generation) sign(name string, ip net.IP, now time.Time, l Lifetimes) (*tls.Certificate, error) {
	t := &x509.Certificate{
		PublicKey:             g.leafKey.Public(),
		SubjectKeyId:          g.leafSKI,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	t.NotBefore, t.NotAfter = within(g.cert, now.Add(-l.Backdate), now.Add(l.Leaf))
	if len(name) <= maxCommonName {
		t.Subject = pkix.Name{CommonName: name}
	}
	if ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{name}
	}
	res, err := g.cas.CreateCertificate(&apiv1.CreateCertificateRequest{Template: t, Lifetime: l.Leaf}) // with a random serial
	if err != nil {
		return nil, err
	}
	if res.Certificate == nil {
		return nil, errors.New("the signer returned no certificate")
	}
	return &tls.Certificate{
		Certificate: append([][]byte{res.Certificate.Raw}, g.chain...),
		PrivateKey:  g.leafKey,
		Leaf:        res.Certificate,
	}, nil
}
