package authority

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/exitgate/exitgate"
)

// Why a certificate is no identity. Each error of Identify and Verify is exactly one of these, and its text says what
// a person can do.
var (
	ErrNone     = errors.New("no client certificate")        // the host presented none
	ErrForeign  = errors.New("foreign client certificate")   // not signed under a root of this gateway
	ErrKind     = errors.New("not an identity certificate")  // signed here, for something else
	ErrExpired  = errors.New("expired identity")             // ended, by the gateway's clock
	ErrNotYet   = errors.New("identity not valid yet")       // begins later, by the gateway's clock
	ErrRevoked  = errors.New("revoked identity")             // by its serial
	ErrDisabled = errors.New("identity not allowed")         // by Options.Allowed
	ErrUnknown  = errors.New("identity cannot be looked up") // the store did not answer
)

// An Identity is what a valid certificate says.
type Identity struct {
	Name      string
	Class     exitgate.Class
	Serial    string // decimal
	NotBefore time.Time
	NotAfter  time.Time
}

// maxChain bounds how many certificates of a chain are looked at: leaf, issuer, two roots.
const maxChain = 4

// lookupTimeout bounds a look-up for one connection.
const lookupTimeout = 2 * time.Second

// Identify returns the name and class of the host that presented the chain, as r.TLS.PeerCertificates has it, or an
// error that is one of the errors above, ready to be shown to the host. It is made for each connection and each
// request: a chain that was verified before costs a look-up in memory.
func (a *Authority) Identify(chain []*x509.Certificate, now time.Time) (name string, class exitgate.Class, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	id, err := a.verify(ctx, chain, now)
	return id.Name, id.Class, err
}

// Verify is Identify at the time of the authority's clock, with all that the certificate says.
func (a *Authority) Verify(ctx context.Context, chain []*x509.Certificate) (Identity, error) {
	return a.verify(ctx, chain, a.o.Now())
}

func (a *Authority) verify(ctx context.Context, chain []*x509.Certificate, now time.Time) (Identity, error) {
	id, err := a.authenticate(chain, now)
	if err == nil {
		err = a.checkRevoked(ctx, id, now)
	}
	if err == nil {
		err = a.checkAllowed(ctx, id.Name, id.Class)
	}
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// authenticate returns what the certificate says, if it is valid at now. That it was not revoked and that its host is
// allowed is not known then.
func (a *Authority) authenticate(chain []*x509.Certificate, now time.Time) (Identity, error) {
	if len(chain) == 0 || chain[0] == nil {
		return Identity{}, fmt.Errorf("%w was presented: this host must enrol, or its client must be given the certificate and its key", ErrNone)
	}
	g := a.current.Load()
	sum := sha256.Sum256(chain[0].Raw)
	id, ok := a.known.identity(sum, g)
	if !ok {
		var err error
		if id, err = a.read(g, chain); err != nil {
			return Identity{}, err
		}
		a.known.keep(sum, g, id)
	}
	switch {
	case !now.Before(id.NotAfter):
		return Identity{}, fmt.Errorf("%w: the certificate of %s ended at %s, and the gateway's clock says %s: renew it before it ends, or enrol again",
			ErrExpired, id.Name, stamp(id.NotAfter), stamp(now))
	case now.Before(id.NotBefore):
		return Identity{}, fmt.Errorf("%w: the certificate of %s begins at %s, and the gateway's clock says %s: the gateways' clocks differ",
			ErrNotYet, id.Name, stamp(id.NotBefore), stamp(now))
	}
	return id, nil
}

// read verifies the chain and returns what its certificate says, whether or not that is valid now.
func (a *Authority) read(g *generation, chain []*x509.Certificate) (Identity, error) {
	c := chain[0]
	pool := x509.NewCertPool()
	pool.AddCert(g.material.issuer.Cert)
	for _, other := range chain[1:min(len(chain), maxChain)] {
		if other != nil {
			pool.AddCert(other)
		}
	}
	// The time that is asked about is the last at which the certificate is valid, so that one which has ended since is
	// told from one that was never good. Its issuer is then valid for as long as it is.
	opts := x509.VerifyOptions{Roots: g.pool, Intermediates: pool, CurrentTime: c.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	_, err := c.Verify(opts)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
		return Identity{}, fmt.Errorf("%w: it was issued for servers", ErrKind)
	}
	if err != nil && len(chain) == 1 {
		return Identity{}, fmt.Errorf("%w: no root of this gateway signed it, or its issuer was not presented with it: enrol with this gateway, "+
			"and give the client the whole chain", ErrForeign)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: no root of this gateway signed it: enrol with this gateway", ErrForeign)
	}
	id, err := a.said(c)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrKind, err)
	}
	return id, nil
}

// said returns what the certificate says of a host. What it says twice must be the same.
func (a *Authority) said(c *x509.Certificate) (Identity, error) {
	class, err := classOf(c)
	id := Identity{Name: c.Subject.CommonName, Class: class, Serial: c.SerialNumber.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	switch {
	case err != nil:
		return id, err
	case c.IsCA:
		return id, errors.New("it may sign others")
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(c.UnknownExtKeyUsage) > 0:
		return id, errors.New("it was issued for more than clients")
	case !fromHosts(c):
		return id, errors.New("it does not say that a host enrolled for it")
	case checkHost(id.Name) != nil || !slices.Contains(c.DNSNames, id.Name):
		return id, errors.New("it does not name a host")
	case len(c.URIs) != 1 || c.URIs[0].String() != a.spiffe(id.Name, id.Class):
		return id, fmt.Errorf("its class is not that of a host of %s", a.o.TrustDomain)
	}
	return id, nil
}

// classOf returns what the class extension of c says.
func classOf(c *x509.Certificate) (exitgate.Class, error) {
	var class exitgate.Class
	found := 0
	for _, e := range c.Extensions {
		if !e.Id.Equal(classOID()) {
			continue
		}
		var s string
		rest, err := asn1.UnmarshalWithParams(e.Value, &s, "utf8")
		if err != nil || len(rest) > 0 {
			return "", errors.New("its class cannot be read")
		}
		class = exitgate.Class(s)
		found++
	}
	if found != 1 {
		return "", errors.New("it has no class")
	}
	return class, checkClass(class)
}

// checkAllowed asks whether the host may have an identity of the class.
func (a *Authority) checkAllowed(ctx context.Context, name string, class exitgate.Class) error {
	if err := a.o.Allowed(ctx, name, class); err != nil {
		return fmt.Errorf("%w: host %s, class %s: %w", ErrDisabled, name, class, err)
	}
	return nil
}

// How long an answer about a revocation is believed: fresh without asking again, so that a revocation at another
// gateway bites within seconds; stale only while the store does not answer, so that hosts which were good when it went
// away are not cut off with it. A host that was not seen before is refused then.
const (
	freshRevocation = 2 * time.Second
	staleRevocation = 5 * time.Minute
)

// checkRevoked returns an error when the certificate was revoked, or when that cannot be known.
func (a *Authority) checkRevoked(ctx context.Context, id Identity, now time.Time) error {
	known, revoked, age := a.known.revocation(id.Serial, now)
	if known && !revoked && age >= freshRevocation || !known {
		var err error
		if revoked, err = a.lookup(ctx, id.Serial, now); err != nil {
			if !known || age >= staleRevocation {
				return fmt.Errorf("%w: whether that of %s was revoked: %w: try again", ErrUnknown, id.Name, err)
			}
			a.o.Logger.Warn("revocations cannot be looked up: going on with what was known", "host", id.Name, "age", age, "error", err)
		}
	}
	if revoked {
		return fmt.Errorf("%w: certificate %s of %s was revoked: enrol again", ErrRevoked, id.Serial, id.Name)
	}
	return nil
}

// lookup asks the store, once for all who ask about the same serial at the same time.
func (a *Authority) lookup(ctx context.Context, serial string, now time.Time) (bool, error) {
	ch := a.asks.DoChan(serial, func() (any, error) {
		ctx, cancel := kvContext()
		defer cancel()
		_, revoked, err := a.o.KV.Get(ctx, bucketRevoked, []byte(serial))
		if err == nil {
			a.known.keepRevocation(serial, revoked, now)
		}
		return revoked, err
	})
	select {
	case r := <-ch:
		revoked, _ := r.Val.(bool)
		return revoked, r.Err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
