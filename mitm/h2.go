package mitm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// newTransport returns the way to upstreams that speak HTTP/2, which only TLS leads to. One that turns out to speak
// HTTP/1.1 is left to the engine's own client, with the connection that was made: net/http's takes what a broken
// upstream sends behind one response for the next, if that one's request came in between.
func (p *Proxy) newTransport() *http.Transport {
	conf := p.upstreamTLS("h2", "http/1.1")
	var protos http.Protocols
	protos.SetHTTP1(true)
	protos.SetHTTP2(true)
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errPlain },
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			c, err := p.dialTLS(ctx, addr, conf)
			if err != nil {
				return nil, err
			}
			if upconnOf(c).alpn != "h2" {
				p.transports.h1.adopt(c, addr)
				return nil, errSpeaksHTTP1
			}
			return c, nil
		},
		Protocols:              &protos,
		DisableCompression:     true,
		MaxIdleConns:           8192,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  p.headBound(),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: or(p.Limits.ResponseHeader, 256<<10),
	}
}

var (
	errPlain       = errors.New("HTTP/2 to upstreams is spoken over TLS only")
	errSpeaksHTTP1 = errors.New("the upstream speaks HTTP/1.1")
)

// roundTripH2 goes through http.Transport, or, where the upstream does not speak HTTP/2, through the engine's own
// client.
func (p *Proxy) roundTripH2(ctx context.Context, a *answer) (*http.Response, error) {
	own := p.transports.h1
	if own.old.has(a.r.URL.Host) {
		return own.roundTrip(ctx, a)
	}
	tr := &trace{a: a, start: time.Now()}
	out := a.r.WithContext(httptrace.WithClientTrace(ctx, tr.hooks()))
	out.RequestURI, out.Close = "", false
	if out.ContentLength == 0 {
		out.Body = nil
	} else if out.Body != nil {
		out.Body = &lateBody{out.Body, &tr.connected}
	}
	res, err := p.transports.h2.RoundTrip(out)
	if errors.Is(err, errSpeaksHTTP1) {
		return own.roundTrip(ctx, a)
	}
	tr.settle(a.x)
	return res, err
}

// A lateBody is not closed before there is a connection: http.Transport closes the body of a request that it could
// not connect for, and another client may still want it.
type lateBody struct {
	io.ReadCloser
	connected *atomic.Bool
}

func (b *lateBody) Close() error {
	if !b.connected.Load() {
		return nil
	}
	return b.ReadCloser.Close()
}

// adopt takes over a connection to an upstream that was found to speak HTTP/1.1, and remembers that it does.
func (t *h1) adopt(conn net.Conn, addr string) {
	host, port, _ := net.SplitHostPort(addr) // it was dialled
	key := h1key{tls: true, host: net.JoinHostPort(host, port)}
	if port == "443" {
		key.host = key.host[:len(key.host)-len(":443")]
	}
	t.old.add(key.host)
	c := &h1conn{Conn: conn, u: upconnOf(conn), key: key, fresh: true}
	c.br = bufio.NewReaderSize(c, 4096)
	t.put(c)
}

// oldAge is how long an upstream that did not speak HTTP/2 is not asked again.
const (
	oldAge = 10 * time.Minute
	oldMax = 4096
)

// oldHosts are the authorities that were found to speak HTTP/1.1 only.
type oldHosts struct {
	mu    sync.RWMutex
	found map[string]time.Time
}

func (o *oldHosts) has(host string) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	at, ok := o.found[host]
	return ok && time.Since(at) < oldAge
}

func (o *oldHosts) add(host string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found == nil || len(o.found) >= oldMax {
		o.found = map[string]time.Time{} // they are found again at the price of a handshake that is not lost
	}
	o.found[host] = time.Now()
}
