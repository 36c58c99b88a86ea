package mitm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// An exchange is one flow on its way through the engine.
type exchange struct {
	exitgate.Exchange
	flow  exitgate.Flow
	req   exitgate.Request // what flow.Question.HTTP points at
	s     *session
	who   *standing // of the host
	begun bool      // Recorder.Begin returned nil
	ended bool
	asked bool          // the request stage was put to the policy
	probe bool          // the engine answers it
	owed  error         // why it goes nowhere but to the probe; nil nothing
	body  io.ReadCloser // of the response
	quiet time.Duration // for which nothing of it may come
	sent  atomic.Bool   // something of the request was written upstream
}

// begin makes the record; nothing may leave before it returned nil. It does so once.
func (p *Proxy) begin(ctx context.Context, x *exchange) error {
	if x.begun {
		return nil
	}
	if !p.flows.enter() {
		return exitgate.NewRefusal(503, exitgate.RuleRecord, "the gateway has stopped, so nothing may leave")
	}
	err := safely("record", func() error { return p.Recorder.Begin(ctx, &x.flow) })
	if err == nil {
		x.begun = true
		x.s.flows.Add(1)
		return nil
	}
	p.flows.leave()
	p.log().Error("the record of a flow could not be begun; the flow was refused", "flow", x.flow.ID.String(), "err", err)
	return exitgate.NewRefusal(503, exitgate.RuleRecord, "the record could not be begun, so nothing may leave: %v", err)
}

// end closes the record, once. A flow that never had one, because it ended before it was carried, gets it here.
func (p *Proxy) end(ctx context.Context, x *exchange) {
	if x.ended {
		return
	}
	x.ended = true
	x.settled()
	if !x.begun {
		if p.begin(ctx, x) != nil {
			x.s.flows.Add(1) // logged by begin; the connection needs no further account
			return
		}
	}
	defer p.flows.leave()
	x.flow.End = p.now()
	if !x.flow.End.After(x.flow.Begin) {
		x.flow.End = x.flow.Begin
	}
	if err := safely("record", func() error { return p.Recorder.End(ctx, &x.flow) }); err != nil {
		p.log().Error("the end of a flow could not be recorded", "flow", x.flow.ID.String(), "err", err)
	}
}

// settled settles the exchange. A meter that panics is a bug of the gateway, and the flow still ends.
func (x *exchange) settled() {
	if err := safely("settle", func() error { x.Settle(); return nil }); err != nil {
		x.blame(err)
	}
	if x.flow.Kind == exitgate.KindRequest && !x.sent.Load() {
		x.flow.Sent, x.flow.RequestSHA256, x.flow.Forwarded = exitgate.Bytes{}, "", nil // what was ready to go has not left
	}
}

// blame writes into the flow why it ended as it did.
func (x *exchange) blame(err error) {
	var r *exitgate.Refusal
	var f *exitgate.Fault
	var b *exitgate.Bug
	switch {
	case err == nil:
	case errors.As(err, &r):
		rev := x.flow.Verdict.Revision
		x.flow.Verdict = r.Verdict
		x.flow.Verdict.Action = exitgate.Refuse
		if x.flow.Verdict.Revision == "" {
			x.flow.Verdict.Revision = rev
		}
	case errors.As(err, &f):
		x.flow.Fault = f
	case errors.As(err, &b):
		x.flow.Fault = &exitgate.Fault{Step: b.Step, Type: "proxy_internal_error", Reason: b.Err.Error(), Err: b}
	default:
		x.flow.Fault = &exitgate.Fault{Step: "gateway", Type: "proxy_internal_error", Reason: err.Error(), Err: err}
	}
}

// endConn accounts for a connection, or a tunnel, that ends without a request, and closes it.
func (p *Proxy) endConn(l *leg, v exitgate.Verdict, why error) {
	p.account(l, v, why)
	l.Close()
}

func (p *Proxy) account(l *leg, v exitgate.Verdict, why error) {
	kind := exitgate.KindConnection
	if l.s.tunnel != nil {
		kind = exitgate.KindTunnel
	}
	x := p.newFlow(l.s, kind)
	x.flow.Begin, x.flow.Question.At = l.s.begin, l.s.begin
	x.flow.Verdict = v
	x.blame(why)
	p.end(context.WithoutCancel(p.base), x)
}

// connClosed accounts for a connection that sent bytes and yielded no flow.
func (p *Proxy) connClosed(l *leg) {
	s := l.s
	s.private.close()
	quiet := s.flows.Load() == 0 && s.spawned.Load() == 0
	if w := s.h2.Load(); w != nil {
		if err := w.violation(quiet); err != nil {
			p.endConn(l, exitgate.Verdict{}, err)
			return
		}
	}
	if l.read.Load() == 0 || !quiet {
		return
	}
	v := exitgate.Verdict{}
	if s.tunnel != nil {
		v = s.tunnel.verdict
	}
	who := p.standing(s.id, p.now())
	switch {
	case who.err != nil && s.id.chain != nil: // it was let in to be told
		p.endConn(l, v, who.err)
		return
	case s.side.TLS != "" && !s.spoke.Load():
		p.endConn(l, v, &exitgate.Fault{Step: "client", Type: "client_tls",
			Reason: "the client closed after the TLS handshake without a request; it may not trust the gateway's CA, or pin another certificate"})
		return
	case s.tunnel == nil:
		p.endConn(l, v, exitgate.NewRefusal(400, exitgate.RuleMalformed, "%d bytes came and no whole request", l.read.Load()))
		return
	}
	p.endConn(l, v, &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the tunnel was closed before a request was made"})
}

// refuseConn ends a connection that cannot be spoken to: garbage, silence, a protocol that is not spoken here.
func (p *Proxy) refuseConn(l *leg, err error) {
	var r *exitgate.Refusal
	if !errors.As(err, &r) { // the peer went before its first byte, or the socket broke
		if l.s.tunnel != nil {
			reason := "the tunnel was closed before its first byte"
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				reason = fmt.Sprintf("no byte came through the tunnel within %v", or(p.Timeouts.FirstBytes, 10*time.Second))
			}
			p.endConn(l, l.s.tunnel.verdict, &exitgate.Fault{Step: "client", Type: "client_gone", Reason: reason, Err: err})
			return
		}
		l.Close()
		return
	}
	reset(l)
	p.endConn(l, exitgate.Verdict{}, r)
}

// overloaded answers a connection over a bound, whatever it speaks, and closes it. What came is read first, as
// closing would else be a reset that overtakes the answer.
func (p *Proxy) overloaded(l *leg, err error) {
	l.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	l.Read(make([]byte, 4096))
	l.SetWriteDeadline(time.Now().Add(time.Second))
	x := p.newFlow(l.s, exitgate.KindConnection)
	x.blame(err)
	n := p.noticeFor(x, err)
	x.flow.Status = n.Status
	fmt.Fprintf(l, "HTTP/1.1 503 Service Unavailable\r\nProxy-Status: %s\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", p.proxyStatus(n))
	p.end(context.WithoutCancel(p.base), x)
	l.Close()
}

// reset makes the close of l a TCP reset, where there is a TCP socket below: the peer learns at once.
func reset(l *leg) {
	if c, ok := l.Conn.(interface{ SetLinger(int) error }); ok {
		c.SetLinger(0)
	}
}

// A guarded body is a request's body as the upstream's side reads it, on a goroutine where a panic of what reads
// it (a meter, a modifier) would end the process: there it becomes a Bug. It keeps why it did not come to its end.
type guarded struct {
	io.ReadCloser
	idle    *idleCut    // set before the body is read
	reading atomic.Bool // the host is waited for, not the upstream

	mu     sync.Mutex // guards the rest
	err    error      // a Refusal, a Bug, or a Fault of the client
	closed bool       // nobody reads any more: an error now tells nothing
}

func (g *guarded) Read(b []byte) (n int, err error) {
	g.idle.touch()
	g.reading.Store(true)
	defer g.reading.Store(false)
	if perr := safely("request body", func() error { n, err = g.ReadCloser.Read(b); return nil }); perr != nil {
		n, err = 0, perr
	}
	g.idle.touch()
	if err != nil {
		g.idle.stop() // from here on, the response is waited for, or nothing is
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	var r *exitgate.Refusal
	var bug *exitgate.Bug
	switch {
	case errors.As(err, &r), errors.As(err, &bug):
	case strings.Contains(err.Error(), "declare"): // net/http, of HTTP/2; see Screen for HTTP/1
		err = exitgate.NewRefusal(400, exitgate.RuleMalformed, "the body has not the length that Content-Length declares: %v", err)
	case isTimeout(err):
		err = &exitgate.Fault{Step: "client", Type: "connection_read_timeout", Reason: "the host stopped in the middle of its request's body", Err: err}
	default:
		err = &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host broke the body of its request off: " + err.Error(), Err: err}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil && !g.closed {
		g.err = err
	}
	return n, err
}

func (g *guarded) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	return g.ReadCloser.Close()
}

// failed returns why the body did not come to its end, if it did not.
func (g *guarded) failed() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// safely runs f and turns its panic into a Bug.
func safely(step string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = bugOf(step, v)
		}
	}()
	return f()
}

func bugOf(step string, v any) *exitgate.Bug {
	err, ok := v.(error)
	if !ok {
		err = fmt.Errorf("%v", v)
	}
	return &exitgate.Bug{Step: step, Err: fmt.Errorf("panic: %w", err), Stack: debug.Stack()}
}
