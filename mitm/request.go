package mitm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/exitgate/exitgate"
)

var errNoExchange = errors.New("the request carries no exchange")

func errNilStep(i int) error { return fmt.Errorf("step %d is nil", i) }

// buffers hold what is being copied, 32 KiB each. They hold plain text of one flow after another, and are
// written before they are read.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// request carries one request, or refuses it, and accounts for it. Whatever happens inside, the flow ends once.
func (p *Proxy) request(w http.ResponseWriter, r *http.Request, cc *connContext) {
	x := p.newFlow(cc.l.s, exitgate.KindRequest)
	x.s.flows.Add(1) // whatever becomes of its connection now, this request accounts for it
	q := &x.flow.Question
	q.Stage, q.HTTP = exitgate.StageRequest, &x.req
	x.req.Scheme, x.req.Proto, x.req.Method = cc.l.s.scheme(), r.Proto, r.Method
	x.flow.Client.Proto = r.Proto
	if x.s.tunnel != nil && x.flow.Begin.Sub(x.s.begin) < 0 {
		x.flow.Begin = x.s.begin
	}
	if r.ProtoMajor == 1 && r.ContentLength < 0 && r.Trailer == nil {
		r.Trailer = http.Header{} // shared with in: the server fills it where the body ends, announced or not
	}
	in := r.WithContext(&exchangeContext{exitgate.WithExchange(cc.context(r), &x.Exchange), x})
	a := &answer{w: w, r: in, x: x}
	defer a.returned()
	err := safely("request", func() error { return p.carry(a) })
	if s := cc.screened; err != nil && s != nil {
		if v := s.violation.Load(); v != nil && !s.told.Swap(true) {
			err = v // whatever else it looked like, this is why
		}
	}
	if err != nil && !a.started {
		p.refuseRequest(a.w, in, x, err)
		return
	}
	x.blame(err)
	p.end(context.WithoutCancel(r.Context()), x)
	if err != nil {
		panic(http.ErrAbortHandler) // the host must not take what it got for the whole
	}
}

// An answer is the way back of one request.
type answer struct {
	w       http.ResponseWriter
	r       *http.Request
	x       *exchange
	ctx     context.Context // of the round trip: the request's, and the limit on its time
	started bool            // the head of the final answer was given to the server: an error can only cut
	taken   bool            // the connection was taken from the server
	up      *upload         // the request's body, where it may still be on its way; nil: none
	sent    *guarded        // the request's body as the upstream's side reads it; nil: none

	mu     sync.Mutex // guards the rest, and w until sealed: informational answers come on other goroutines
	sealed bool       // the final answer is being given
	hints  int        // informational answers that came
	over   bool       // the handler returns: w is not touched again
}

// carry runs the pipeline around the round trip. It returns nil when the exchange was carried to its end, and
// else a Refusal, a Fault or a Bug.
func (p *Proxy) carry(a *answer) error {
	x, r := a.x, a.r
	err := x.who.still()
	if x.s.tunnel == nil {
		err = mayProbe(x, p.identify(x, r))
	}
	if err != nil {
		return err
	}
	x.s.enter(x.who)
	defer x.s.leave()
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		http.NewResponseController(a.w).EnableFullDuplex() // so that an early answer to an upload gets through
	}
	if err := p.stepsIn.ModifyRequest(r); err != nil {
		return flowError("request pipeline", err)
	}
	if !x.begun || !x.asked || x.flow.Verdict.Action != exitgate.Allow {
		return &exitgate.Bug{Step: "pipeline", Err: errors.New("the request passed the pipeline without a verdict that allows and a record")}
	}
	if x.probe {
		return p.answerProbe(a)
	}
	if r.Body != nil && r.Body != http.NoBody {
		a.sent = &guarded{ReadCloser: r.Body}
		r.Body = a.sent
	}
	res, err := p.roundTrip(a)
	if err != nil {
		return err
	}
	if a.up != nil {
		defer a.up.wait(a)
	}
	defer res.Body.Close()
	res.Request = r
	if err := p.stepsOut.ModifyResponse(res); err != nil {
		return flowError("response pipeline", err)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return p.upgrade(a, res)
	}
	return p.respond(a, res)
}

// flowError leaves the three types as they are and takes every other error of a step for a bug.
func flowError(step string, err error) error {
	var r *exitgate.Refusal
	var f *exitgate.Fault
	var b *exitgate.Bug
	if errors.As(err, &r) || errors.As(err, &f) || errors.As(err, &b) {
		return err
	}
	return &exitgate.Bug{Step: step, Err: err}
}

// respond streams the response to the host.
func (p *Proxy) respond(a *answer, res *http.Response) error {
	h := a.w.Header()
	maps.Copy(h, res.Header)
	for _, k := range [...]string{"Date", "Content-Type"} {
		if _, ok := h[k]; !ok {
			h[k] = nil // the server shall not invent one
		}
	}
	if res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified {
		// A length here is that of a body which is not sent (RFC 9110, section 8.6); clients of HTTP/2, and
		// net/http as one, wait for it or call its absence an error.
		delete(h, "Content-Length")
		res.Body = http.NoBody
	}
	announced := announceTrailers(h, res)
	a.x.flow.Status = res.StatusCode
	a.started = true
	a.w.WriteHeader(res.StatusCode)
	if err := p.copyBody(a, res); err != nil {
		a.x.OnSettle(func(f *exitgate.Flow) { // behind the meter, which may have seen an end that the host did not
			if f.ResponseBody == exitgate.BodyComplete {
				f.ResponseBody = exitgate.BodyCut
			}
		})
		return err
	}
	sendTrailers(h, res, announced)
	return nil
}

// announceTrailers names the trailers that are known before the body (RFC 9110, section 6.6.2).
func announceTrailers(h http.Header, res *http.Response) int {
	for k := range res.Trailer {
		h.Add("Trailer", k)
	}
	return len(res.Trailer)
}

func sendTrailers(h http.Header, res *http.Response, announced int) {
	for k, vs := range res.Trailer {
		if len(vs) == 0 { // announced and not sent: with the key there, net/http's HTTP/2 would never end the stream
			delete(h, k)
			continue
		}
		if len(res.Trailer) != announced {
			k = http.TrailerPrefix + k
		}
		h[k] = vs
	}
}

// copyBody copies the response body. What comes in pieces (events, long polls, gRPC) is flushed as it comes: the
// host may wait for one before the upstream goes on. A head and a small body that come together leave together.
func (p *Proxy) copyBody(a *answer, res *http.Response) error {
	if res.Body == http.NoBody || res.ContentLength == 0 && res.ProtoMajor < 2 { // HTTP/2 has trailers behind no body, too
		return nil
	}
	rc := http.NewResponseController(a.w)
	left := res.ContentLength // below 0: unknown
	first := headFlush(rc, a.x.body, left)
	defer first()
	var idle *idleCut // nil: the connections bound each read and write themselves
	if a.r.ProtoMajor == 2 {
		idle = newIdleCut(a.x.quiet, func() {
			a.x.cut()
			a.control(func(rc *http.ResponseController) { rc.SetWriteDeadline(time.Unix(1, 0)) })
		})
		defer idle.stop()
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := res.Body.Read(*buf)
		first()
		idle.touch()
		if n > 0 {
			left -= int64(n)
			if _, werr := a.w.Write((*buf)[:n]); werr != nil {
				return p.hostStopped(a, werr, idle.hasFired())
			}
			if left < 0 || left > 0 && n < len(*buf) {
				rc.Flush()
			}
			idle.touch()
		}
		// A body that is closed under its reader can end as if it were whole: upstreams finish what they were at.
		if err == io.EOF && (left == 0 || !idle.hasFired() && a.ctx.Err() == nil) {
			return nil
		}
		if err != nil {
			return p.bodyFault(a, err, idle.hasFired() || isTimeout(err) && a.r.Context().Err() == nil)
		}
	}
}

// hostStopped says why the response could not be written.
func (p *Proxy) hostStopped(a *answer, err error, idle bool) error {
	if stopped := p.stopped(a); stopped != nil {
		return stopped
	}
	if idle || isTimeout(err) {
		return &exitgate.Fault{Step: "client", Type: "connection_write_timeout", Reason: fmt.Sprintf("the host took nothing of the response for %v", p.bodyBound()), Err: err}
	}
	return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host stopped reading the response: " + err.Error(), Err: err}
}

// headFlush sees to it that the head does not wait for the first piece of the body, where that is not here yet. What
// it returns is called when the piece came.
func headFlush(rc *http.ResponseController, body io.Reader, length int64) (came func()) {
	nothing := func() {}
	b, h1 := body.(*h1body)
	switch {
	case length < 0, h1 && b.e.c.br.Buffered() == 0:
		rc.Flush()
		return nothing
	case h1:
		return nothing
	}
	var mu sync.Mutex // guards the response writer, and late
	var late bool
	t := time.AfterFunc(20*time.Millisecond, func() {
		mu.Lock()
		defer mu.Unlock()
		if !late {
			rc.Flush()
		}
	})
	return func() {
		if late {
			return
		}
		if t.Stop() {
			late = true // alone: the timer will not run
			return
		}
		mu.Lock()
		defer mu.Unlock()
		late = true
	}
}

// bodyFault says why reading a response's body failed.
func (p *Proxy) bodyFault(a *answer, err error, idle bool) error {
	var r *exitgate.Refusal
	dest := a.x.flow.Question.Dest
	stopped := p.stopped(a)
	switch {
	case errors.As(err, &r):
		return r
	case stopped != nil:
		return stopped
	case a.sent.failed() != nil:
		return a.sent.failed()
	case idle:
		return &exitgate.Fault{Step: "receive", Type: "connection_read_timeout", Err: err,
			Reason: fmt.Sprintf("nothing of the response of %s came for %v", dest, a.x.quiet)}
	case a.r.Context().Err() != nil:
		return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the host went before the response was whole", Err: err}
	}
	return &exitgate.Fault{Step: "receive", Type: "http_response_incomplete", Reason: fmt.Sprintf("%s broke its response off: %v", dest, err), Err: err}
}

// An idleCut calls cut when it was not touched for its bound.
type idleCut struct {
	t     *time.Timer
	bound time.Duration
	next  atomic.Int64 // Unix nanoseconds: when touch moves the timer again
	fired atomic.Bool
}

func newIdleCut(bound time.Duration, cut func()) *idleCut {
	c := &idleCut{bound: bound}
	c.next.Store(time.Now().Add(bound / 8).UnixNano())
	c.t = time.AfterFunc(bound, func() { c.fired.Store(true); cut() })
	return c
}

// touch is called on each sign of life; it moves the timer only now and then, so the bound is exact to an
// eighth.
func (c *idleCut) touch() {
	if c == nil {
		return
	}
	if now := time.Now(); now.UnixNano() > c.next.Load() {
		c.t.Reset(c.bound)
		c.next.Store(now.Add(c.bound / 8).UnixNano())
	}
}

func (c *idleCut) stop() {
	if c != nil {
		c.t.Stop()
	}
}

func (c *idleCut) hasFired() bool { return c != nil && c.fired.Load() }

// isGone reports whether err says that the peer closed or reset the connection.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// upgrade carries a connection that switched protocols (WebSocket) until both sides ended. The flow goes on:
// its bytes count, and its limits hold.
func (p *Proxy) upgrade(a *answer, res *http.Response) error {
	up, ok := res.Body.(io.ReadWriteCloser)
	if !ok || a.x.req.Upgrade == "" || !strings.EqualFold(res.Header.Get("Upgrade"), a.x.req.Upgrade) {
		return &exitgate.Fault{Step: "receive", Type: "http_upgrade_failed",
			Reason: fmt.Sprintf("%s switched to %.60q, which the request did not ask for", a.x.flow.Question.Dest, res.Header.Get("Upgrade"))}
	}
	conn, rw, err := http.NewResponseController(a.w).Hijack()
	if err != nil {
		return &exitgate.Fault{Step: "client", Type: "http_upgrade_failed", Reason: "HTTP/2 has no upgrade: " + err.Error(), Err: err}
	}
	a.started, a.taken = true, true
	defer conn.Close()
	defer up.Close()
	if s, ok := conn.(*screened); ok {
		s.pass()
	}
	conn.SetDeadline(time.Time{})
	a.x.flow.Status = res.StatusCode
	res.Body = nil
	err = res.Write(rw)
	if err == nil {
		err = rw.Flush()
	}
	if err != nil {
		return &exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the answer to the upgrade could not be written: " + err.Error(), Err: err}
	}
	return p.copyUpgraded(a, conn, rw.Reader, up)
}

// copyUpgraded moves both directions of an upgraded connection until one ends, a limit is reached, or nothing
// moved for the idle time. It fills the flow's counts.
func (p *Proxy) copyUpgraded(a *answer, conn net.Conn, buffered io.Reader, up io.ReadWriteCloser) error {
	f := &a.x.flow
	cut := func() { conn.Close(); up.Close() }
	idle := newIdleCut(a.x.quiet, cut)
	defer idle.stop()
	defer context.AfterFunc(p.base, cut)()
	defer context.AfterFunc(a.ctx, cut)()
	out, in := &quota{bound: f.Verdict.Limits.RequestBody}, &quota{bound: f.Verdict.Limits.ResponseBody}
	var outgoing sync.WaitGroup
	outgoing.Go(func() {
		f.Sent.Body, _ = copyPlain(up, touching{buffered, idle}, out)
		cut() // what ended one direction of an upgraded connection ended it
	})
	n, _ := copyPlain(conn, touching{up, idle}, in)
	cut()
	outgoing.Wait()
	f.Received.Body = n
	f.RequestBody, f.ResponseBody = out.state(), in.state()
	switch {
	case out.over.Load():
		return exitgate.NewRefusal(0, exitgate.RuleLimit, "the host sent more than the %d bytes that the upgraded connection to %s may carry", out.bound, f.Question.Dest)
	case in.over.Load():
		return exitgate.NewRefusal(0, exitgate.RuleLimit, "%s sent more than the %d bytes that the upgraded connection may carry", f.Question.Dest, in.bound)
	case idle.fired.Load():
		return &exitgate.Fault{Step: "receive", Type: "connection_read_timeout", Reason: "nothing moved on the upgraded connection for " + idle.bound.String()}
	}
	return p.stopped(a)
}

// stopped says whether the gateway itself ended a request's connection: by its limit on time, because its upload
// stood still, or because it was stopped. Else it returns nil.
func (p *Proxy) stopped(a *answer) error {
	var stalled *exitgate.Fault
	switch {
	case a.x.s.dismissed.Load() != nil:
		return a.x.s.dismissed.Load()
	case p.base.Err() != nil:
		return &exitgate.Fault{Step: "gateway", Type: "connection_terminated", Reason: "the gateway was stopped"}
	case a.ctx.Err() != nil && errors.As(context.Cause(a.ctx), &stalled):
		return stalled
	case errors.Is(a.ctx.Err(), context.DeadlineExceeded):
		return exitgate.NewRefusal(http.StatusGatewayTimeout, exitgate.RuleLimit, "the request took longer than its limit of %v", a.x.flow.Verdict.Limits.Duration)
	}
	return nil
}

type touching struct {
	io.Reader
	idle *idleCut
}

func (t touching) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.idle.touch()
	return n, err
}
