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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// transports are the two ways to upstreams: HTTP/1.1 for hosts that speak HTTP/1.x, and HTTP/2 for hosts that speak
// that, where the upstream does. Mirroring is what keeps gRPC whole, and uploads cheap.
type transports struct {
	h1     *h1
	h2     *http.Transport
	firsts firsts
}

func (t *transports) start(p *Proxy) {
	t.h1 = &h1{p: p, tls: p.upstreamTLS("http/1.1"), keep: 1024}
	t.h2 = p.newTransport()
}

func (t *transports) close() {
	t.h1.close()
	t.h2.CloseIdleConnections()
}

// upstreamTLS returns the configuration with which upstreams are met. Each has its own sessions, as a session is
// only good for the protocols that it was made with.
func (p *Proxy) upstreamTLS(protos ...string) *tls.Config {
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		RootCAs:            p.Upstream.Roots,
		NextProtos:         protos,
		ClientSessionCache: tls.NewLRUClientSessionCache(4096),
		VerifyConnection:   p.verifyMore,
	}
	if p.Upstream.DisableMLKEM {
		conf.CurvePreferences = classicCurves
	}
	return conf
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

// privateTransport is the way to upstreams of one host connection whose upstream connection is authenticated
// itself.
type privateTransport struct {
	mu sync.Mutex
	t  *h1
}

func (t *privateTransport) get(p *Proxy, make bool) *h1 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t == nil && make {
		t.t = &h1{p: p, tls: p.upstreamTLS("http/1.1"), keep: 1}
	}
	return t.t
}

func (t *privateTransport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.t.close()
	}
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

// roundTrip sends the request and waits for the head of its response. Once a host's connection has authenticated
// an upstream connection (RFC 4559), it keeps that one to itself.
func (p *Proxy) roundTrip(a *answer) (res *http.Response, err error) {
	x := a.x
	ctx := a.r.Context()
	if d := x.flow.Verdict.Limits.Duration; d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		x.OnSettle(func(*exitgate.Flow) { cancel() })
	}
	if a.sent != nil {
		var stop func()
		ctx, stop = p.watchUpload(ctx, a)
		defer stop()
	}
	a.ctx = ctx
	private := x.s.private.get(p, authenticatesConnection(a.r.Header["Authorization"]))
	switch {
	case private != nil:
		res, err = private.roundTrip(ctx, a)
	case a.r.ProtoMajor == 2 && a.r.URL.Scheme == "https" && !p.Upstream.DisableHTTP2:
		res, err = p.roundTripH2(ctx, a)
	default:
		res, err = p.transports.h1.roundTrip(ctx, a)
	}
	a.seal()
	if err != nil {
		return nil, p.roundTripFault(a, err)
	}
	if stopped := p.stopped(a); stopped != nil { // upstreams finish what they were at when their peer goes
		res.Body.Close()
		return nil, stopped
	}
	x.body, x.quiet = res.Body, p.responseBound(res)
	x.flow.Upstream.Proto = res.Proto
	return res, nil
}

// watchUpload returns a context that ends, with a Fault as its cause, when nothing of the request's body moves for
// its bound before the response comes. stop ends the watch, not the context.
func (p *Proxy) watchUpload(ctx context.Context, a *answer) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	a.x.OnSettle(func(*exitgate.Flow) { cancel(nil) })
	g, dest, bound := a.sent, a.x.flow.Question.Dest, p.bodyBound()
	g.idle = newIdleCut(bound, func() {
		if g.reading.Load() {
			cancel(&exitgate.Fault{Step: "client", Type: "connection_read_timeout", Reason: fmt.Sprintf("the host sent nothing of its request's body for %v", bound)})
			return
		}
		if err := g.failed(); err != nil { // this clock and the host's own ran out together
			cancel(err)
			return
		}
		cancel(&exitgate.Fault{Step: "send", Type: "connection_write_timeout", Reason: fmt.Sprintf("%s took nothing of the request's body for %v", dest, bound)})
	})
	// http.Transport does not return before its read of the body did.
	free := context.AfterFunc(ctx, func() { a.control(func(rc *http.ResponseController) { rc.SetReadDeadline(time.Unix(1, 0)) }) })
	return ctx, func() { g.idle.stop(); free() }
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

// A trace listens to http.Transport. Its hooks run on the transport's goroutines, so what they leave is read
// under the lock.
type trace struct {
	a     *answer
	start time.Time
	made  func() // is called when there is a connection that others can share

	mu     sync.Mutex // guards conn and reused
	conn   *upconn
	reused bool

	connected atomic.Bool
	wrote     atomic.Int64
	first     atomic.Int64
}

func (t *trace) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			t.mu.Lock()
			t.conn, t.reused = upconnOf(i.Conn), i.Reused
			t.connected.Store(true)
			t.mu.Unlock()
		},
		WroteHeaders:         func() { t.a.x.sent.Store(true); t.made() },
		WroteRequest:         func(httptrace.WroteRequestInfo) { t.wrote.Store(int64(time.Since(t.start))) },
		GotFirstResponseByte: func() { t.first.Store(int64(time.Since(t.start))) },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusSwitchingProtocols {
				return nil
			}
			return t.a.informational(code, http.Header(h))
		},
	}
}

// settle writes what the trace learnt into the flow.
func (t *trace) settle(x *exchange) {
	t.mu.Lock()
	defer t.mu.Unlock()
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

// maxInformational is how many informational answers may stand before one final answer.
const maxInformational = 32

// informational passes 103 and the like on (RFC 8297), without what concerns only the upstream's connection and
// without what could imitate the gateway. The server itself answers 100, once the body is read. The error ends
// the exchange with an upstream that never comes to its final answer.
func (a *answer) informational(code int, h http.Header) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hints++; a.hints > maxInformational {
		return fmt.Errorf("more than %d informational answers came, and no final one", maxInformational)
	}
	if a.sealed || code == http.StatusContinue || !a.r.ProtoAtLeast(1, 1) {
		return nil
	}
	to := a.w.Header()
	for k, v := range h {
		if !ofConnection(k) {
			to[k] = v
		}
	}
	a.w.WriteHeader(code)
	if a.r.Context().Err() != nil {
		// net/http's HTTP/2 returns before it has read the header of an informational answer when the stream
		// was closed meanwhile. The map must not be touched again.
		a.w, a.sealed = &nowhere{}, true
		return nil
	}
	clear(to)
	return nil
}

// ofConnection reports whether a field of an informational answer goes no further than its connection.
func ofConnection(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Alt-Svc":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// nowhere is what remains of a ResponseWriter whose host went.
type nowhere struct{ h http.Header }

func (n *nowhere) Header() http.Header {
	if n.h == nil {
		n.h = http.Header{}
	}
	return n.h
}

func (n *nowhere) Write([]byte) (int, error) { return 0, net.ErrClosed }
func (n *nowhere) WriteHeader(int)           {}

// control calls f with the means to free what a connection's reader or writer is held by, unless the handler has
// returned, after which they must not be touched.
func (a *answer) control(f func(*http.ResponseController)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		f(http.NewResponseController(a.w))
	}
}

// returned says that the handler is about to.
func (a *answer) returned() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
}

// seal ends the time of informational answers.
func (a *answer) seal() {
	a.mu.Lock()
	a.sealed = true
	a.mu.Unlock()
}

// roundTripFault says what an error of the transport means.
func (p *Proxy) roundTripFault(a *answer, err error) error {
	var r *exitgate.Refusal
	var f *exitgate.Fault
	var b *exitgate.Bug
	dest := a.x.flow.Question.Dest
	stopped := p.stopped(a)
	faulted := errors.As(err, &f)
	switch {
	case errors.As(err, &r), errors.As(err, &b):
		return err
	case stopped != nil:
		return stopped
	case faulted && (f.Step != "client" || a.r.Context().Err() == nil):
		return err
	case a.r.Context().Err() != nil: // whatever its going looked like from where its body was read
		return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host went before the response came", Err: err}
	case isTimeout(err):
		return &exitgate.Fault{Step: "wait", Type: "http_response_timeout", Err: err,
			Reason: fmt.Sprintf("%s did not answer within %v", dest, p.headBound())}
	case isGone(err), strings.Contains(err.Error(), "server closed"):
		return &exitgate.Fault{Step: "wait", Type: "connection_terminated", Reason: fmt.Sprintf("%s closed the connection before it answered", dest), Err: err}
	case strings.Contains(err.Error(), "headers exceeded"):
		return &exitgate.Fault{Step: "receive", Type: "http_response_header_section_size", Reason: fmt.Sprintf("the head of the response of %s is larger than the gateway takes", dest), Err: err}
	}
	return &exitgate.Fault{Step: "receive", Type: "http_protocol_error", Reason: fmt.Sprintf("the answer of %s: %v", dest, err), Err: err}
}
