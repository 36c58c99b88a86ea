package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	"github.com/exitgate/exitgate/ca"
	"github.com/exitgate/exitgate/web"
)

// serveAPI serves the API over TLS to those who have a token.
func (g *gateway) serveAPI(ctx context.Context) error {
	l := tls.NewListener(g.listenAPI, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return g.apiCertificate(hello)
		},
	})
	return g.api.ServeRemote(ctx, l)
}

// apiCertificate returns the certificate of the API's listener: the one that the configuration names, or one under the
// identity root.
func (g *gateway) apiCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	switch c := g.settings().loaded.apiCertificate; {
	case c != nil:
		return c, nil
	case g.hostCA != nil:
		return g.ownCertificate(hello)
	}
	return nil, errors.New("listen.api needs a certificate: set api.certificate and api.key")
}

// trust answers what hosts have to trust.
func (g *gateway) trust(context.Context) (web.Trust, error) {
	t := web.Trust{Roots: string(g.issuer.RootsPEM())}
	for _, root := range g.issuer.Roots() {
		t.Fingerprints = append(t.Fingerprints, ca.Fingerprint(root))
	}
	if g.hostCA != nil {
		t.Identity = g.hostCA.Fingerprint()
	}
	if g.listenEnroll != nil {
		t.Enroll = g.enrollURL()
	}
	return t, nil
}

// publicName is how hosts reach this gateway.
func (g *gateway) publicName() string {
	name, _ := os.Hostname()
	return cmp.Or(g.settings().PublicName, name, "localhost")
}

// proxySettings answers what hosts set to use the proxy.
func (g *gateway) proxySettings(context.Context) (p web.ProxySettings, err error) {
	if p.HTTP, err = g.reachable("http", g.listenProxy); err != nil {
		return p, err
	}
	p.HTTPS = p.HTTP
	host := g.publicName()
	p.NoProxy = []string{"localhost", "127.0.0.1", "::1", host}
	if u, err := url.Parse(p.HTTP); err == nil && u.Hostname() != host {
		p.NoProxy = append(p.NoProxy, u.Hostname())
	}
	switch {
	case g.listenPlain != nil:
		p.PACURL, err = g.reachable("http", g.listenPlain)
	case g.listenEnroll != nil:
		p.PACURL = g.enrollURL()
	}
	if p.PACURL != "" {
		p.PACURL += "/proxy.pac"
	}
	return p, err
}

// reachable is the URL at which others reach a listener: that of its own address where it has one, and else of the
// public name.
func (g *gateway) reachable(scheme string, l net.Listener) (string, error) {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", fmt.Errorf("%s is no address with a port", l.Addr())
	}
	if ip := net.ParseIP(host); g.settings().PublicName != "" || ip == nil || ip.IsUnspecified() {
		host = g.publicName()
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}
