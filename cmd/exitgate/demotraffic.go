package main

import (
	"bufio"
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
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(make([]byte, r.body)))
	if err != nil {
		return fmt.Errorf("make the demo's request: %w", err)
	}
	req.Header.Set("User-Agent", "exitgate-demo")
	if r.pinned {
		return d.sendPinned(ctx, r, req)
	}
	if clients[r.from] == nil {
		clients[r.from] = d.client(r)
	}
	if res, err := clients[r.from].Do(req); err == nil {
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return nil
}

func (r demoRequest) dialer() *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(r.from)}}
}

// client returns a client that connects from the host's address and trusts the gateway.
func (d *demo) client(r demoRequest) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(d.gateway.issuer.RootCertificate())
	return &http.Client{Transport: &http.Transport{
		Proxy:       http.ProxyURL(&url.URL{Scheme: "http", Host: d.gateway.listenProxy.Addr().String()}),
		DialContext: r.dialer().DialContext, TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
	}}
}

// sendPinned is an application that accepts only the origin's own CA and closes after one answer.
func (d *demo) sendPinned(ctx context.Context, r demoRequest, req *http.Request) error {
	c, err := r.dialer().DialContext(ctx, "tcp", d.gateway.listenProxy.Addr().String())
	if err != nil {
		return fmt.Errorf("reach the demo's own gateway: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(15 * time.Second))
	fmt.Fprintf(c, "CONNECT %[1]s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", req.URL.Host)
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil || res.StatusCode != http.StatusOK {
		return nil
	}
	t := tls.Client(c, &tls.Config{RootCAs: d.origins.pool, ServerName: req.URL.Host})
	req.Close = true
	if req.Write(t) == nil {
		io.Copy(io.Discard, t)
	}
	return nil
}
