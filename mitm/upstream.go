package mitm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// transports is the family of connections to upstreams: one that speaks HTTP/1.1, for hosts that do, and one
// that prefers HTTP/2, for hosts that speak that. Mirroring is what keeps gRPC whole, and uploads cheap.
type transports struct{ h1, h2 *http.Transport }

func (t *transports) start(p *Proxy) {
	t.h1 = p.newTransport(false)
	t.h2 = t.h1
	if !p.Upstream.DisableHTTP2 {
		t.h2 = p.newTransport(true)
	}
}

func (t *transports) close() {
	t.h1.CloseIdleConnections()
	t.h2.CloseIdleConnections()
}

func (p *Proxy) newTransport(h2 bool) *http.Transport {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            p.Upstream.Roots,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(4096),
		VerifyConnection:   p.verifyMore,
	}
	if p.Upstream.DisableMLKEM {
		conf.CurvePreferences = classicCurves
	}
	var protos http.Protocols
	protos.SetHTTP1(true)
	if h2 {
		protos.SetHTTP2(true)
		conf.NextProtos = []string{"h2", "http/1.1"}
	}
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) { // https goes through dialTLS, which knows the parent
			if r.URL.Scheme == "http" {
				return p.parentFor(r.URL.Hostname()), nil
			}
			return nil, nil
		},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			if parent := p.Upstream.Proxy; parent != nil && addr == hostPort(parent) {
				return wrapDialError(p.dialParent(ctx, parent))
			}
			d, err := splitAddr(addr)
			if err != nil {
				return nil, err
			}
			return wrapDialError(p.dial(ctx, d))
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return p.dialTLS(ctx, addr, conf)
		},
		Protocols:              &protos,
		DisableCompression:     true,
		MaxIdleConns:           8192,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  or(p.Timeouts.ResponseHeader, 5*time.Minute),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: or(p.Limits.ResponseHeader, 256<<10),
	}
}

// wrapDialError keeps a nil *upconn from becoming a net.Conn that is not nil.
func wrapDialError(u *upconn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return u, nil
}

// clientCertificate returns the certificate that host gets when it asks, or nil.
func (p *Proxy) clientCertificate(host string) *tls.Certificate {
	certs := p.Upstream.ClientCertificates
	if c := certs[host]; c != nil {
		return c
	}
	for i := strings.IndexByte(host, '.'); i >= 0 && len(certs) > 0; {
		if c := certs["*"+host[i:]]; c != nil {
			return c
		}
		n := strings.IndexByte(host[i+1:], '.')
		if n < 0 {
			break
		}
		i += 1 + n
	}
	return nil
}

// privateTransport is the transport of one host connection whose upstream connection is authenticated itself.
type privateTransport struct {
	mu sync.Mutex
	t  *http.Transport
}

func (t *privateTransport) get(p *Proxy, make bool) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t == nil && make {
		t.t = p.newTransport(false)
		t.t.MaxConnsPerHost = 1
	}
	return t.t
}

func (t *privateTransport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.t.CloseIdleConnections()
		t.t.MaxIdleConnsPerHost = -1
	}
}

// pick chooses the transport for a request. Once a host's connection has authenticated an upstream connection
// (RFC 4559), it keeps that one to itself.
func (p *Proxy) pick(x *exchange, r *http.Request) *http.Transport {
	if t := x.s.private.get(p, authenticatesConnection(r.Header["Authorization"])); t != nil {
		return t
	}
	if r.ProtoMajor == 2 {
		return p.transports.h2
	}
	return p.transports.h1
}

func authenticatesConnection(authorization []string) bool {
	for _, a := range authorization {
		scheme, _, _ := strings.Cut(a, " ")
		if strings.EqualFold(scheme, "ntlm") || strings.EqualFold(scheme, "negotiate") {
			return true
		}
	}
	return false
}

// roundTrip sends the request and waits for the head of its response.
func (p *Proxy) roundTrip(a *answer) (*http.Response, error) {
	x := a.x
	ctx := a.r.Context()
	cancel := context.CancelFunc(func() {})
	if d := x.flow.Verdict.Limits.Duration; d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
		x.OnSettle(func(*exitgate.Flow) { cancel() })
	}
	tr := &trace{a: a, start: time.Now()}
	x.OnSettle(func(*exitgate.Flow) { tr.seal() })
	out := a.r.WithContext(httptrace.WithClientTrace(ctx, tr.hooks()))
	out.RequestURI, out.Close = "", false
	if out.ContentLength == 0 {
		out.Body = nil
	}
	res, err := p.pick(x, out).RoundTrip(out)
	tr.settle(x)
	if err != nil {
		return nil, p.roundTripFault(a, ctx, err)
	}
	x.body = res.Body
	if tr.conn == nil && res.TLS != nil { // a connection that the transport did not tell of
		x.flow.UpstreamCert = fingerprint(res.TLS.PeerCertificates[0])
	}
	x.flow.Upstream.Proto = res.Proto
	return res, nil
}

// cut ends the response body under its reader.
func (x *exchange) cut() {
	if x.body != nil {
		x.body.Close()
	}
}

// reached writes into the flow where it went.
func (x *exchange) reached(u *upconn) {
	x.flow.Authority.Dialled, x.flow.Question.Dest.Addr = u.addr, u.addr
	x.flow.UpstreamCert, x.flow.Upstream.TLS, x.flow.Upstream.ALPN = u.cert, u.version, u.alpn
	x.flow.Phases.Resolve, x.flow.Phases.Connect, x.flow.Phases.TLS = u.resolve, u.connect, u.tls
}

// A trace listens to the transport. Its hooks run on the transport's goroutines, so what they leave is read
// under the lock.
type trace struct {
	a     *answer
	start time.Time

	mu     sync.Mutex // guards the rest, and the answer's ResponseWriter until sealed
	conn   *upconn
	reused bool
	sealed bool // the final answer is being written
	wrote  atomic.Int64
	first  atomic.Int64
}

func (t *trace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			t.mu.Lock()
			t.conn, t.reused = upconnOf(i.Conn), i.Reused
			t.mu.Unlock()
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { t.wrote.Store(int64(time.Since(t.start))) },
		GotFirstResponseByte: func() { t.first.Store(int64(time.Since(t.start))) },
		Got1xxResponse:       t.informational,
	}
}

// informational passes 103 and the like on (RFC 8297). The server answers 100 itself, once the body is read.
func (t *trace) informational(code int, h textproto.MIMEHeader) error {
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed || t.a.r.ProtoAtLeast(1, 1) == false {
		return nil
	}
	to := t.a.w.Header()
	for k, v := range h {
		to[k] = v
	}
	t.a.w.WriteHeader(code)
	for k := range h {
		delete(to, k)
	}
	return nil
}

func (t *trace) seal() {
	t.mu.Lock()
	t.sealed = true
	t.mu.Unlock()
}

// settle writes what the trace learnt into the flow.
func (t *trace) settle(x *exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sealed = true
	if t.conn != nil {
		x.reached(t.conn)
		if t.reused {
			x.flow.Phases = exitgate.Phases{}
		}
	}
	if first, wrote := t.first.Load(), t.wrote.Load(); first > 0 {
		x.flow.Phases.Wait = max(time.Duration(first-wrote), 1)
	}
}

// roundTripFault says what an error of the transport means.
func (p *Proxy) roundTripFault(a *answer, ctx context.Context, err error) error {
	var r *exitgate.Refusal
	var f *exitgate.Fault
	var b *exitgate.Bug
	dest := a.x.flow.Question.Dest
	switch {
	case errors.As(err, &r), errors.As(err, &f), errors.As(err, &b):
		return err
	case a.r.Context().Err() != nil:
		return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host went before the response came", Err: err}
	case ctx.Err() != nil:
		return exitgate.NewRefusal(http.StatusGatewayTimeout, exitgate.RuleLimit, "the request took longer than its limit of %v", a.x.flow.Verdict.Limits.Duration)
	case isTimeout(err):
		return &exitgate.Fault{Step: "wait", Type: "http_response_timeout", Err: err,
			Reason: fmt.Sprintf("%s did not answer within %v", dest, or(p.Timeouts.ResponseHeader, 5*time.Minute))}
	case isGone(err), strings.Contains(err.Error(), "server closed"):
		return &exitgate.Fault{Step: "wait", Type: "connection_terminated", Reason: fmt.Sprintf("%s closed the connection before it answered", dest), Err: err}
	case strings.Contains(err.Error(), "headers exceeded"):
		return &exitgate.Fault{Step: "receive", Type: "http_response_header_section_size", Reason: fmt.Sprintf("the head of the response of %s is larger than the gateway takes", dest), Err: err}
	}
	return &exitgate.Fault{Step: "receive", Type: "http_protocol_error", Reason: fmt.Sprintf("the answer of %s: %v", dest, err), Err: err}
}
