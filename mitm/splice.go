package mitm

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// splice carries the bytes of an exempt tunnel unread: begin, dial, copy both ways, end. Half-closes pass
// through. The bytes that were peeked at go first.
func (p *Proxy) splice(l *leg) {
	x := p.newFlow(l.s, exitgate.KindTunnel)
	x.flow.Begin = l.s.begin
	x.flow.Verdict = l.s.tunnel.verdict
	x.flow.Client.Proto = "tcp"
	if l.s.tunnel.tls != nil {
		x.flow.Client.Proto = "tls"
	}
	defer l.Close()
	x.blame(safely("splice", func() error { return p.spliceTo(l, x) }))
	p.end(context.WithoutCancel(p.base), x)
}

// spliceTo is the part of splice that can fail; it has told the client when it returns.
func (p *Proxy) spliceTo(l *leg, x *exchange) error {
	ctx, cancel := context.WithCancel(p.base)
	defer cancel()
	if d := x.flow.Verdict.Limits.Duration; d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if err := x.who.still(); err != nil {
		p.spliceFailed(l, err)
		return err
	}
	l.s.enter(x.who)
	defer l.s.leave()
	if err := p.begin(ctx, x); err != nil {
		reset(l)
		return err
	}
	up, err := p.dial(ctx, l.s.tunnel.dest)
	if err != nil {
		p.spliceFailed(l, err)
		return err
	}
	defer up.Close()
	x.flow.Upstream.Proto = x.flow.Client.Proto
	x.reached(up)
	return p.copyBoth(ctx, x, l, up)
}

// spliceFailed tells the client of a spliced tunnel that its destination could not be reached, after 200 was
// said: by an alert in TLS, by a reset otherwise.
func (p *Proxy) spliceFailed(l *leg, err error) {
	if l.s.tunnel.tls == nil {
		reset(l)
		return
	}
	alert := []byte{0x15, 3, 3, 0, 2, 2, 80} // internal_error: the fault is not the client's
	var r *exitgate.Refusal
	if errors.As(err, &r) {
		alert = alertAccessDenied
	}
	l.SetDeadline(time.Now().Add(2 * time.Second))
	l.Write(alert)
	l.CloseWrite()
	discard(l, 1<<20)
}

// A quota counts what two directions move and bounds their sum. Bytes are taken before they are moved, so the
// bound is never passed.
type quota struct {
	bound int64 // 0: none
	over  atomic.Bool
	last  atomic.Int64 // when something moved; Unix nanoseconds

	mu   sync.Mutex // guards used
	used int64      // 0 where there is no bound
}

// take returns how many of want bytes may be moved now; 0 when the bound is reached.
func (q *quota) take(want int64) int64 {
	q.last.Store(time.Now().UnixNano())
	if q.bound <= 0 {
		return want
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(want, q.bound-q.used)
	if n <= 0 {
		q.over.Store(true)
		return 0
	}
	q.used += n
	return n
}

// fill lets f take what is there, at most want bytes and what the bound leaves, and counts what it took. It reports
// full, and does not call f, when the bound leaves nothing. f must not wait, as the other direction then does.
func (q *quota) fill(want int64, f func(room int64) (int64, error)) (n int64, full bool, err error) {
	q.last.Store(time.Now().UnixNano())
	if q.bound <= 0 {
		n, err = f(want)
		return n, false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if want = min(want, q.bound-q.used); want <= 0 {
		return 0, true, nil
	}
	n, err = f(want)
	q.used += n
	return n, false, err
}

// state is how the direction that q bounded ended.
func (q *quota) state() exitgate.BodyState {
	if q.over.Load() {
		return exitgate.BodyOverLimit
	}
	return exitgate.BodyComplete
}

// copyBoth moves bytes both ways until both sides ended, the bound is reached, or nothing moved for the idle
// time. It fills the flow's counts.
func (p *Proxy) copyBoth(ctx context.Context, x *exchange, l *leg, up *upconn) error {
	q := &quota{bound: or(x.flow.Verdict.Limits.Bytes, p.Limits.SpliceBytes)}
	q.last.Store(time.Now().UnixNano())
	cut := func() { l.Conn.Close(); up.Close() }
	defer context.AfterFunc(ctx, cut)()
	watch, done := context.WithCancel(ctx)
	var idle bool
	var watcher, copies sync.WaitGroup
	watcher.Go(func() { idle = p.watchIdle(watch, &q.last, cut) })
	var out, in int64
	var errOut, errIn error
	copies.Go(func() { out, errOut = copyHalf(up, l, q) })
	copies.Go(func() { in, errIn = copyHalf(l, up, q) })
	copies.Wait()
	done()
	watcher.Wait()
	x.flow.Sent.Body, x.flow.Received.Body = out, in
	x.flow.RequestBody, x.flow.ResponseBody = exitgate.BodyComplete, exitgate.BodyComplete
	dismissed := l.s.dismissed.Load()
	switch {
	case dismissed != nil:
		x.flow.RequestBody, x.flow.ResponseBody = exitgate.BodyCut, exitgate.BodyCut
		return dismissed
	case q.over.Load():
		x.flow.RequestBody, x.flow.ResponseBody = exitgate.BodyOverLimit, exitgate.BodyOverLimit
		r := exitgate.NewRefusal(0, exitgate.RuleLimit, "the spliced flow to %s reached its bound of %d bytes", l.s.tunnel.dest, q.bound)
		r.Verdict.Exemption = x.flow.Verdict.Exemption
		return r
	case idle:
		return &exitgate.Fault{Step: "receive", Type: "connection_read_timeout", Reason: "nothing moved on the spliced flow for " + or(p.Timeouts.SpliceIdle, time.Hour).String()}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r := exitgate.NewRefusal(0, exitgate.RuleLimit, "the spliced flow to %s took longer than its limit of %v", l.s.tunnel.dest, x.flow.Verdict.Limits.Duration)
		r.Verdict.Exemption = x.flow.Verdict.Exemption
		return r
	case ctx.Err() != nil:
		return &exitgate.Fault{Step: "gateway", Type: "connection_terminated", Reason: "the gateway was stopped"}
	case !endedWell(errOut, errIn):
		x.flow.RequestBody, x.flow.ResponseBody = exitgate.BodyCut, exitgate.BodyCut
		return &exitgate.Fault{Step: "receive", Type: "connection_terminated", Reason: "a peer of the spliced flow broke it off: " + errors.Join(errOut, errIn).Error()}
	}
	return nil
}

// copyHalf moves one direction and passes its end on: a half-close after the source's end, a close of both
// sockets after anything else.
func copyHalf(dst, src net.Conn, q *quota) (int64, error) {
	n, err := copyStream(dst, src, q)
	if err != nil || q.over.Load() {
		socket(dst).Close()
		socket(src).Close()
		return n, err
	}
	if w, ok := dst.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
	return n, nil
}

// watchIdle calls cut and returns true when nothing moved for the idle time.
func (p *Proxy) watchIdle(ctx context.Context, last *atomic.Int64, cut func()) bool {
	bound := or(p.Timeouts.SpliceIdle, time.Hour)
	for {
		rest := bound - time.Since(time.Unix(0, last.Load()))
		if rest <= 0 {
			cut()
			return true
		}
		if !pause(ctx, rest) {
			return false
		}
	}
}

// copyStream copies until the end of src, or until q is used up; it returns how many bytes dst took. What was
// peeked at goes first. Between two TCP sockets the bytes stay in the kernel.
func copyStream(dst, src net.Conn, q *quota) (total int64, err error) {
	if l, ok := src.(*leg); ok {
		for len(l.pre) > 0 { // Read hands out what was peeked, and touches the socket only after
			n, err := copyOnce(dst, l, q, make([]byte, len(l.pre)))
			if total += n; err != nil || q.over.Load() {
				return total, err
			}
		}
	}
	var n int64
	d, s := socket(dst), bare(src)
	ts, ok := s.(*net.TCPConn)
	td, ok2 := d.(*net.TCPConn)
	if ok && ok2 {
		n, err = copyKernel(td, ts, q)
	} else {
		n, err = copyPlain(d, s, q)
	}
	return total + n, err
}

// A writeError is the receiver's side of a copy that failed.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

// endedWell reports whether a spliced flow ended as clients end connections: one direction came to its end, and
// what the other still had (a farewell of TLS, mostly) met a peer that had left.
func endedWell(errOut, errIn error) bool {
	var unread writeError
	switch {
	case errOut == nil && errIn == nil:
		return true
	case errOut == nil: // the host ended first: it left unread what the upstream still sent
		return errors.As(errIn, &unread) && isGone(errIn)
	case errIn == nil: // the upstream ended first: what the host does then concerns nobody
		return isGone(errOut)
	}
	return false
}

// socket takes off every layer: what is written has nothing to do with what a layer holds back for its reader.
func socket(c net.Conn) net.Conn {
	for {
		switch v := c.(type) {
		case *screened:
			c = v.Conn
		case *upconn:
			c = v.Conn
		case *leg:
			c = v.Conn
		default:
			return c
		}
	}
}

// bare takes off the layers that add nothing once the screening ended and nothing is held back.
func bare(c net.Conn) net.Conn {
	for {
		switch v := c.(type) {
		case *screened:
			c = v.Conn
		case *upconn:
			c = v.Conn
		case *leg:
			if len(v.pre) > 0 {
				return c
			}
			c = v.Conn
		default:
			return c
		}
	}
}

func copyPlain(dst io.Writer, src io.Reader, q *quota) (total int64, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := copyOnce(dst, src, q, *buf)
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil || q.over.Load() {
			return total, err
		}
	}
}

// copyOnce reads once and writes what the quota lets through.
func copyOnce(dst io.Writer, src io.Reader, q *quota, buf []byte) (int64, error) {
	n, rerr := src.Read(buf)
	if n == 0 {
		return 0, rerr
	}
	ok := q.take(int64(n))
	w, werr := dst.Write(buf[:ok])
	if werr != nil {
		return int64(w), writeError{werr}
	}
	if ok < int64(n) {
		q.over.Store(true)
	}
	return int64(w), rerr
}
