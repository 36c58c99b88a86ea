package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/smallstep/certificates/acme"
	acmenosql "github.com/smallstep/certificates/acme/db/nosql"
	step "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	casapi "github.com/smallstep/certificates/cas/apiv1"
	"github.com/smallstep/certificates/cas/softcas"
	"github.com/smallstep/certificates/db"
)

// A generation is smallstep's authority over one material. It is never changed; another takes its place.
type generation struct {
	material *material
	pool     *x509.CertPool // of the roots
	renewAt  time.Time      // of the issuer
	step     *step.Authority
	db       authDB
	acme     acme.DB
	client   acme.Client
	linker   acme.Linker
}

func (a *Authority) newGeneration(m *material) (*generation, error) {
	g := &generation{material: m, pool: x509.NewCertPool(), renewAt: renewIssuerAt(m.issuer.Cert, m.root.Cert)}
	for _, c := range m.roots() {
		g.pool.AddCert(c)
	}
	store := nosqlKV{a.o.KV}
	g.db = authDB{DB: &db.DB{DB: store}, now: a.o.Now}
	var err error
	g.step, err = step.NewEmbedded(
		step.WithConfig(a.config()),
		step.WithDatabase(g.db),
		step.WithX509RootCerts(m.roots()...),
		step.WithX509IntermediateCerts(m.issuer.Cert), // else name constraints would not be checked
		step.WithX509CAService(newSigner(m, a.o.Lifetimes)),
		step.WithQuietInit(),
	)
	if err == nil {
		err = initialized(g.step)
	}
	if err == nil && a.o.ACME != nil {
		g.client = a.o.ACME.client()
		g.linker = acme.NewLinker(a.host(), "acme")
		g.acme, err = acmenosql.New(store)
	}
	return g, err
}

// initialized returns an error when smallstep would go on without a provisioner that it could not initialize.
func initialized(s *step.Authority) error {
	for _, p := range s.GetConfig().AuthorityConfig.Provisioners {
		loaded, err := s.LoadProvisionerByName(p.GetName())
		if err != nil {
			return fmt.Errorf("provisioner %s: %w", p.GetName(), err)
		}
		if off, ok := loaded.(provisioner.Uninitialized); ok {
			return fmt.Errorf("provisioner %s: %w", p.GetName(), off.Reason)
		}
	}
	return nil
}

// config returns what smallstep's authority is told. Its own lists of revocations, which it makes in a goroutine of its
// own, are off: crl.go makes them.
func (a *Authority) config() *config.Config {
	backdate := provisioner.Duration{Duration: identityBackdate}
	return &config.Config{
		DNSNames:   a.o.Names,
		CommonName: "exitgate",
		AuthorityConfig: &config.AuthConfig{
			Provisioners: a.provisioners(),
			// A token is good for minutes whether or not the gateway was started meanwhile.
			DisableIssuedAtCheck: true,
			Backdate:             &backdate,
			Claims:               claims(a.o.Lifetimes.Server),
		},
	}
}

// identityBackdate is for gateways whose clocks differ: hosts do not verify their own identity.
const identityBackdate = time.Minute

// claims returns the validities that may be asked for.
func claims(top time.Duration) *provisioner.Claims {
	return &provisioner.Claims{
		MinTLSDur:     &provisioner.Duration{Duration: minIdentity},
		MaxTLSDur:     &provisioner.Duration{Duration: top},
		DefaultTLSDur: &provisioner.Duration{Duration: top},
	}
}

// host returns the host and port of the URL.
func (a *Authority) host() string {
	u, _ := url.Parse(a.o.URL) // complete checked it
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443")
	}
	return u.Host
}

// context returns ctx with all that smallstep's handlers look for in it.
func (g *generation) context(ctx context.Context) context.Context {
	ctx = step.NewContext(ctx, g.step)
	ctx = db.NewContext(ctx, g.db)
	if g.acme != nil {
		ctx = acme.NewContext(ctx, g.acme, g.client, g.linker, nil)
	}
	return ctx
}

// valid returns an error when the issuer cannot sign at now.
func (g *generation) valid(now time.Time) error {
	c := g.material.issuer.Cert
	if now.Before(c.NotBefore) || !now.Before(c.NotAfter) {
		return fmt.Errorf("the identity issuer is valid from %s to %s, and the clock says %s: bring back the key of the root, or set the clock",
			stamp(c.NotBefore), stamp(c.NotAfter), stamp(now))
	}
	return nil
}

// A signer is smallstep's signer that never signs past the end of the issuer, nor for longer than is configured now,
// whatever a certificate that is renewed was valid for.
type signer struct {
	*softcas.SoftCAS
	issuer *x509.Certificate
	top    time.Duration
}

func newSigner(m *material, l Lifetimes) *signer {
	return &signer{
		SoftCAS: &softcas.SoftCAS{CertificateSigner: func() ([]*x509.Certificate, crypto.Signer, error) { return m.chain(), m.issuer.Key, nil }},
		issuer:  m.issuer.Cert,
		top:     l.Identity,
	}
}

// CreateCertificate implements casapi.CertificateAuthorityService.
func (s *signer) CreateCertificate(r *casapi.CreateCertificateRequest) (*casapi.CreateCertificateResponse, error) {
	r.Template.NotBefore, r.Template.NotAfter = within(s.issuer, r.Template.NotBefore, r.Template.NotAfter)
	return s.SoftCAS.CreateCertificate(r)
}

// RenewCertificate implements casapi.CertificateAuthorityService. Only identities are renewed.
func (s *signer) RenewCertificate(r *casapi.RenewCertificateRequest) (*casapi.RenewCertificateResponse, error) {
	r.Lifetime = min(r.Lifetime, s.top)
	if left := time.Until(s.issuer.NotAfter); r.Lifetime > left {
		r.Lifetime = left
	}
	return s.SoftCAS.RenewCertificate(r)
}
