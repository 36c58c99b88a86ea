package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

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
	case g.controlCertificate != nil:
		return g.controlCertificate(hello)
	}
	return nil, errors.New("listen.api needs a certificate: set api.certificate and api.key")
}

// trust answers what hosts have to trust.
func (g *gateway) trust(context.Context) (t web.Trust, err error) {
	pem, err := os.ReadFile(g.issuer.RootFile())
	if err != nil {
		return t, fmt.Errorf("read the interception root: %w", err)
	}
	return web.Trust{Roots: string(pem), Fingerprints: []string{g.issuer.Fingerprint()}}, nil
}

// publicName is how hosts reach this gateway.
func (g *gateway) publicName() string {
	name, _ := os.Hostname()
	return cmp.Or(g.settings().PublicName, name, "localhost")
}

// proxySettings answers what hosts set to use the proxy.
func (g *gateway) proxySettings(context.Context) (p web.ProxySettings, err error) {
	host, port, err := net.SplitHostPort(g.listenProxy.Addr().String())
	if err != nil {
		return p, errors.New("the proxy listens on no address with a port")
	}
	if ip := net.ParseIP(host); g.settings().PublicName != "" || ip == nil || ip.IsUnspecified() {
		host = g.publicName()
	}
	url := "http://" + net.JoinHostPort(host, port)
	return web.ProxySettings{HTTP: url, HTTPS: url, NoProxy: []string{"localhost", "127.0.0.1", "::1", host}}, nil
}
