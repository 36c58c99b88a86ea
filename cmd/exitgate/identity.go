package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/ca/authority"
	"github.com/exitgate/exitgate/mitm"
	"github.com/exitgate/exitgate/storage"
	"github.com/exitgate/exitgate/web"
)

// openIdentity opens the authority of hosts' identities, where a listener needs it.
func (g *gateway) openIdentity(context.Context) (err error) {
	c := g.settings()
	if g.listenEnroll == nil && g.listenTLSProxy == nil && (g.listenAPI == nil || c.loaded.apiCertificate != nil) {
		return nil
	}
	o := authority.Options{
		Dir: inData(c, "identity"), URL: g.enrollURL(), Names: g.ownNames(),
		Gateway: c.Gateway, TrustDomain: c.Identity.TrustDomain,
		KV: caKV{g.store.KV()}, Allowed: g.allowed, Issued: g.issued,
		RootKey: string(c.Identity.RootKey), IssuerKey: string(c.Identity.IssuerKey),
		Lifetimes: authority.Lifetimes{Identity: c.Identity.Lifetime.value()},
		Logger:    g.log,
	}
	if o.Passphrase, err = c.Identity.Passphrase.value(); err != nil {
		return fmt.Errorf("identity.passphrase: %w", err)
	}
	if len(c.Identity.ACME) > 0 {
		o.ACME = &authority.ACME{Names: c.Identity.ACME, Addresses: g.addressesOf}
	}
	if g.hostCA, err = authority.Open(o); err != nil {
		return err
	}
	g.hosts.Certificate = g.identify
	g.api.IdentityCA = identityAPI{g.hostCA, g.hosts.Changed}
	return nil
}

// caKV is the store as the authority knows it.
type caKV struct{ storage.KV }

// Get implements authority.KV.
func (k caKV) Get(ctx context.Context, bucket string, key []byte) ([]byte, bool, error) {
	v, err := k.KV.Get(ctx, bucket, key)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

// allowed says why a host may not have an identity of that class.
func (g *gateway) allowed(_ context.Context, name string, class exitgate.Class) error {
	_, err := g.api.Standing(name, class)
	return err
}

// issued notes that a host got an identity. A note that cannot be taken does not keep the host from it.
func (g *gateway) issued(i authority.Issued) {
	g.uses.Seen(web.KindHost, i.Name, time.Now().UTC())
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := g.identities.Issued(ctx, i.Name, web.Identity{Serial: i.Serial, NotAfter: i.NotAfter}); err != nil {
		g.log.Warn("an identity was given and is not noted", "err", err)
	}
	g.log.Info("an identity was given", "host", i.Name, "class", string(i.Class), "serial", i.Serial, "until", i.NotAfter, "to", i.Remote, "renewed", i.Renewed)
}

// identify says who shows a certificate to the proxy.
func (g *gateway) identify(chain []*x509.Certificate) (string, exitgate.Class, error) {
	name, class, err := g.hostCA.Identify(chain, time.Now())
	if err != nil {
		err = exitgate.NewRefusal(0, exitgate.RuleHost, "%s", err)
	}
	return name, class, err
}

// recheckEvery is how soon a certificate that was revoked, through any gateway, is refused on connections that are open.
const recheckEvery = 5 * time.Second

// recheck has the engine ask again who the hosts of open connections are, before their next request, until ctx ends.
func (g *gateway) recheck(ctx context.Context) {
	t := time.NewTicker(recheckEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			g.hosts.Changed()
		}
	}
}

// addressesOf returns the addresses of a host that is in good standing: ACME asks at these and no others.
func (g *gateway) addressesOf(_ context.Context, name string) (list []netip.Addr, err error) {
	h, ok := g.api.HostNamed(name)
	if !ok || h.Disabled {
		return nil, fmt.Errorf("host %.80q is not registered, or disabled", name)
	}
	for _, r := range h.Addresses {
		if r.IsSingleIP() {
			list = append(list, r.Addr())
		}
	}
	return list, nil
}

// ownCertificate returns the certificate of the gateway's own listeners, under the identity root.
func (g *gateway) ownCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	get, err := g.hostCA.ServerCertificate()
	if err != nil {
		return nil, err
	}
	return get(hello)
}

// tlsProxy is how hosts are met on the proxy that asks for their identity.
func (g *gateway) tlsProxy() (p mitm.TLSProxy, err error) {
	p.Require = g.settings().Identity.Required
	if g.hostCA != nil {
		p.Certificate, err = g.hostCA.ServerCertificate()
	}
	return p, err
}

// enrollURL is where hosts reach the enrolment listener.
func (g *gateway) enrollURL() string {
	if u := g.settings().Identity.URL; u != "" {
		return strings.TrimSuffix(u, "/")
	}
	if g.listenEnroll != nil {
		if u, err := g.reachable("https", g.listenEnroll); err == nil {
			return u
		}
	}
	return "https://" + g.publicName() + ":3130"
}

// ownNames are the names and addresses under which the gateway's own listeners are reached.
func (g *gateway) ownNames() []string {
	names := append([]string{}, g.settings().Identity.Names...)
	add := func(name string) {
		for _, n := range names {
			if n == name {
				return
			}
		}
		names = append(names, name)
	}
	if u, err := url.Parse(g.enrollURL()); err == nil {
		add(u.Hostname())
	}
	add(g.publicName())
	for _, u := range []string{"localhost", "127.0.0.1", "::1"} {
		add(u)
	}
	return names
}
