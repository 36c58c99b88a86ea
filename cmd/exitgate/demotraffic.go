package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A demoRequest is one request of one host.
type demoRequest struct {
	from        string // the host's address
	method, url string
	body        int  // bytes
	pinned      bool // the client trusts the origin's CA only, as a pinned application does
}

// The hosts of the demo's configuration, and one that it does not name.
const (
	demoApp      = "127.0.0.11"
	demoBuild    = "127.0.0.12"
	demoCI       = "127.0.0.13"
	demoStranger = "127.0.0.99"
)

// demoRound is a few seconds in the life of the demo's network: one of everything, and more of what is usual.
func demoRound() []demoRequest {
	return []demoRequest{
		{demoBuild, "GET", "https://packages.example.com/simple/", 0, false},
		{demoApp, "POST", "https://api.example.com/v1/orders", 900, false},
		{demoApp, "GET", "https://api.example.com/v1/status", 0, false},
		{demoBuild, "GET", "https://packages.example.com/simple/sample/", 0, false},
		{demoCI, "GET", "https://git.example.org/team/tool.git/info/refs?service=git-upload-pack", 0, false},
		{demoApp, "POST", "https://paste.example.net/api/create", 48000, false},            // no grant: data on its way out
		{demoApp, "POST", "https://api.example.com/v1/orders", 200_000, false},             // over the request limit
		{demoBuild, "GET", "https://packages.example.com/simple/big-1.0.tar.gz", 0, false}, // over the response limit
		{demoApp, "GET", "https://updates.example.net/feed", 0, true},                      // exempt
		{demoCI, "GET", "http://mirror.example.org/debian/dists/stable/InRelease", 0, false},
		{demoBuild, "PUT", "https://packages.example.com/simple/sample/", 30, false}, // the wrong method
		{demoCI, "GET", "https://git.example.org/teammate/secrets.git", 0, false},    // not below /team
		{demoCI, "GET", "https://down.partners.example.net/", 0, false},              // nothing listens there
		{demoCI, "GET", "https://other.partners.example.net/", 0, false},             // a certificate of another name
		{demoCI, "GET", "https://slow.partners.example.net/report", 0, false},        // never answers
		{demoStranger, "GET", "https://packages.example.com/simple/", 0, false},      // a host that nobody knows
	}
}

// traffic makes the demo's requests and returns how many flows they make. A minute has five rounds.
func (d *demo) traffic(ctx context.Context) (int, error) {
	rounds, gap := 5, 600*time.Millisecond
	if d.fast {
		rounds, gap = 1, 0
	}
	clients := map[string]*http.Client{}
	defer func() {
		for _, c := range clients {
			c.CloseIdleConnections()
		}
	}()
	made := 0
	for range rounds {
		for _, r := range demoRound() {
			if err := d.send(ctx, clients, r); err != nil {
				return made, err
			}
			made++
			if !pause(ctx, gap) {
				return made, ctx.Err()
			}
		}
	}
	return made, nil
}

// send makes one request. That it is refused or fails is what the demo shows; an error is only what stops the demo.
func (d *demo) send(ctx context.Context, clients map[string]*http.Client, r demoRequest) error {
	key := fmt.Sprint(r.from, r.pinned)
	if clients[key] == nil {
		c, err := d.client(r)
		if err != nil {
			return err
		}
		clients[key] = c
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(make([]byte, r.body)))
	if err != nil {
		return fmt.Errorf("make the demo's request: %w", err)
	}
	req.Header.Set("User-Agent", "exitgate-demo")
	res, err := clients[key].Do(req)
	if err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return nil
}

// client returns a client that connects from the host's address and trusts what that host would.
func (d *demo) client(r demoRequest) (*http.Client, error) {
	pool := x509.NewCertPool()
	pool.AddCert(d.gateway.issuer.RootCertificate())
	if r.pinned {
		pool = d.origins.pool
	}
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.from)}}
	proxy, err := url.Parse("http://" + d.gateway.listenProxy.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("make the demo's client: %w", err)
	}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), DialContext: from.DialContext,
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: !r.pinned, DisableKeepAlives: r.pinned,
	}}, nil
}
