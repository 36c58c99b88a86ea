package mitm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
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
			u, authority := upconnOf(c), authorityOf(addr)
			if u.alpn != "h2" {
				p.transports.h1.adopt(c, authority)
				return nil, errSpeaksHTTP1
			}
			p.transports.firsts.opened(authority)
			u.closed = func() { p.transports.firsts.closed(authority) }
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
	made, err := p.transports.firsts.enter(ctx, a.r.URL.Host)
	if err != nil {
		return nil, err
	}
	defer made()                   // whatever happens: others wait for it
	if own.old.has(a.r.URL.Host) { // as the first one found
		made()
		return own.roundTrip(ctx, a)
	}
	tr := &trace{a: a, start: time.Now(), made: made}
	out := a.r.WithContext(httptrace.WithClientTrace(ctx, tr.hooks()))
	out.RequestURI, out.Close = "", false
	if out.ContentLength == 0 {
		out.Body = nil
	} else if out.Body != nil {
		out.Body = &lateBody{out.Body, &tr.connected}
	}
	res, err := p.transports.h2.RoundTrip(out)
	made()
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

// authorityOf returns the authority of an https URL whose upstream was dialled at addr, as URL.Host has it.
func authorityOf(addr string) string { return strings.TrimSuffix(addr, ":443") }

// firsts let one request make the first connection to an upstream, while the others of a burst wait for it:
// http.Transport would make one for each, as it does not know yet that all of them fit on one.
type firsts struct {
	mu     sync.Mutex
	open   map[string]int           // connections that speak HTTP/2, by authority
	making map[string]chan struct{} // closed when the first one was made, or could not be
}

// enter returns at once when there is a connection to the authority, or nobody makes one; made is then to be called
// when there is one to share, and may be called again. Else it waits for who does. The error is that of ctx.
func (f *firsts) enter(ctx context.Context, authority string) (made func(), err error) {
	f.mu.Lock()
	first := f.making[authority]
	switch {
	case f.open[authority] > 0:
		f.mu.Unlock()
		return func() {}, nil
	case first == nil:
		if f.making == nil {
			f.making = map[string]chan struct{}{}
		}
		first = make(chan struct{})
		f.making[authority] = first
		f.mu.Unlock()
		return sync.OnceFunc(func() {
			f.mu.Lock()
			delete(f.making, authority)
			f.mu.Unlock()
			close(first)
		}), nil
	}
	f.mu.Unlock()
	select {
	case <-first:
		return func() {}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *firsts) opened(authority string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[string]int{}
	}
	f.open[authority]++
}

func (f *firsts) closed(authority string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[authority]--; f.open[authority] <= 0 {
		delete(f.open, authority)
	}
}

// adopt takes over a connection to an upstream that was found to speak HTTP/1.1, and remembers that it does.
func (t *h1) adopt(conn net.Conn, authority string) {
	key := h1key{tls: true, host: authority}
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
