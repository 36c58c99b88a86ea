package mitm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// An h1server serves a connection of a host that speaks HTTP/1.x, on the goroutine that accepted it. Between
// requests it holds a reader and nothing else. http.ReadRequest parses what the Screen let through; the rest is
// what net/http's server does for every handler and the engine needs only now and then: that server starts a
// goroutine for each request to learn whether the client has gone, and sets six deadlines. This one starts it for
// requests that take a while, and moves a deadline when it is off by an eighth.
type h1server struct {
	p      *Proxy
	cc     *connContext
	c      *screened
	ctx    context.Context // of every request; ends when the host has gone
	gone   context.CancelFunc
	br     *bufio.Reader
	ahead  lookahead
	next   func() // what the connection becomes after a CONNECT
	idle   atomic.Bool
	readBy time.Time // the deadline of reads that is set; zero: none
}

// serveHTTP1 serves c until it ends or becomes something else, and then serves that.
func (p *Proxy) serveHTTP1(c *screened) {
	s := &h1server{p: p, c: c, cc: &connContext{l: c.l, screened: c}}
	s.ctx, s.gone = context.WithCancel(context.Background())
	s.cc.ctx, s.cc.h1 = s.ctx, s
	s.ahead.s, s.ahead.cond.L = s, &s.ahead.mu
	s.br = bufio.NewReaderSize(&s.ahead, 4096)
	if !p.serving.add(s) {
		c.Close()
		return
	}
	for s.serveOne() {
	}
	p.serving.remove(s)
	s.gone()
	next := s.next
	if next == nil {
		if c.violation.Load() != nil {
			c.stopped() // what came behind the last request is accounted for
		}
		c.Close()
		return
	}
	s.br, s.ahead.timer, s.cc = nil, nil, nil // they need no memory while the tunnel lives
	next()
}

// serveOne serves one request; false says that the connection is at its end, or no longer the server's.
func (s *h1server) serveOne() bool {
	if !s.await() {
		return false
	}
	r, err := http.ReadRequest(s.br)
	if err != nil {
		// The Screen has answered and recorded what is malformed; what is left is a host that went, or was
		// slow. What only ReadRequest objects to is accounted for when the connection closes without a flow.
		return false
	}
	w := &h1answer{s: s, r: r, h: make(http.Header, 8), length: -1, close: r.Close || s.p.closing.Load()}
	w.prepareBody()
	return s.handle(w) && !s.p.closing.Load()
}

// await waits for the first byte of a request, and bounds the time of its head.
func (s *h1server) await() bool {
	s.idle.Store(true)
	s.arm(or(s.p.Timeouts.Idle, 2*time.Minute))
	if s.p.closing.Load() { // after idle was set, so that Shutdown or this sees it
		return false
	}
	_, err := s.br.Peek(1)
	s.idle.Store(false)
	if err != nil {
		return false
	}
	if !s.wholeHead() {
		s.readBy = time.Time{}
		s.arm(or(s.p.Timeouts.RequestHeader, 20*time.Second))
		s.readBy = time.Time{} // exact for this head, and set anew for what follows
	}
	return true
}

// wholeHead reports whether the head of the next request is in memory: then no clock is needed for it.
func (s *h1server) wholeHead() bool {
	b, _ := s.br.Peek(s.br.Buffered())
	return bytes.Contains(b, []byte("\r\n\r\n"))
}

// arm bounds the next reads, exact to an eighth.
func (s *h1server) arm(bound time.Duration) {
	now := time.Now()
	if left := s.readBy.Sub(now); left <= bound && left >= bound-bound/8 {
		return
	}
	s.readBy = now.Add(bound)
	s.c.SetReadDeadline(s.readBy)
}

// handle gives the request to the engine, and finishes the response.
func (s *h1server) handle(w *h1answer) (keep bool) {
	if !s.p.flows.enter() {
		return false // the engine has stopped
	}
	defer s.p.flows.leave()
	s.c.busy.Store(true)
	defer s.c.busy.Store(false)
	if w.body == nil {
		s.ahead.soon()
	}
	whole := s.run(w)
	if w.hijacked {
		return false
	}
	s.ahead.end()
	if w.body != nil {
		s.readBy = time.Time{} // the engine may have freed the body's reader by a deadline of its own
	}
	if !whole || w.finish() != nil {
		w.drop()
		s.c.l.Close() // without TLS's farewell: the host must not take what it got for the whole
		return false
	}
	if w.close || !w.drained() {
		s.linger()
		return false
	}
	return s.ahead.err == nil
}

// linger lets the host read the answer: what it still sends would turn the close into a reset that overtakes it. It
// reads on for a second, as a host that sends fast may have the answer behind megabytes of its own.
func (s *h1server) linger() {
	s.c.SetDeadline(time.Now().Add(time.Second))
	s.c.CloseWrite()
	discard(s.c.Conn, math.MaxInt64)
}

// run calls the engine; false says that the response must not be taken for whole.
func (s *h1server) run(w *h1answer) (whole bool) {
	defer func() {
		if v := recover(); v != nil {
			whole = false
			if v != http.ErrAbortHandler {
				s.p.log().Error("a request ended in a panic", "err", bugOf("server", v))
			}
		}
	}()
	if w.r.Method == http.MethodConnect && s.cc.l.s.tunnel == nil {
		s.p.connect(w, w.r.WithContext(s.ctx), s.cc)
	} else {
		s.p.request(w, w.r, s.cc)
	}
	return true
}

// patience is how long a request may take before the connection is watched for its host's leaving.
const patience = 30 * time.Millisecond

// A lookahead reads the connection for the server. While a request is answered, and its body has been read, it
// can read one byte ahead: the connection's end tells that the host has gone. One goroutine at a time reads.
type lookahead struct {
	s     *h1server
	timer *time.Timer // starts the watch; nil until the first one

	mu       sync.Mutex // guards what follows
	cond     sync.Cond
	wanted   bool // a request is being answered, and its body is at its end
	reading  bool // the watch is in Read
	stopping bool // and is being freed from it
	has      bool // one byte is here
	one      [1]byte
	err      error // what the watch met
}

// Read implements io.Reader for the server, which calls it only while no watch is reading.
func (a *lookahead) Read(b []byte) (int, error) {
	if a.has {
		a.has = false
		b[0] = a.one[0]
		return 1, nil
	}
	if a.err != nil {
		return 0, a.err
	}
	return a.s.c.Read(b)
}

// soon starts the watch after a while. It is called when the request's body is at its end.
func (a *lookahead) soon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = true
	if a.timer == nil {
		a.timer = time.AfterFunc(patience, a.watch)
		return
	}
	a.timer.Reset(patience)
}

// watch reads one byte, while the request is being answered.
func (a *lookahead) watch() {
	a.mu.Lock()
	if !a.wanted || a.has || a.reading || a.err != nil || a.s.br.Buffered() > 0 {
		a.mu.Unlock()
		return
	}
	a.reading = true
	a.s.readBy = time.Time{}
	a.s.c.SetReadDeadline(time.Time{})
	a.mu.Unlock()
	n, err := a.s.c.Read(a.one[:])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.has = n == 1
	a.reading = false
	if err != nil && !(a.stopping && errors.Is(err, os.ErrDeadlineExceeded)) {
		a.err = err
		a.s.gone()
	}
	a.cond.Broadcast()
}

// end is called when the request was answered; no watch is reading when it returns.
func (a *lookahead) end() {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = false
	if !a.reading {
		return
	}
	a.stopping = true
	a.s.c.SetReadDeadline(time.Unix(1, 0))
	for a.reading {
		a.cond.Wait()
	}
	a.stopping = false
	a.s.readBy = time.Time{}
	a.s.c.SetReadDeadline(time.Time{})
}

// serving is the set of connections that speak HTTP/1.x, so that a shutdown finds the idle ones.
type serving struct {
	mu     sync.Mutex
	all    map[*h1server]struct{}
	closed bool
}

func (s *serving) add(h *h1server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all = map[*h1server]struct{}{}
	}
	s.all[h] = struct{}{}
	return true
}

func (s *serving) remove(h *h1server) {
	s.mu.Lock()
	delete(s.all, h)
	s.mu.Unlock()
}

// closeIdle closes the connections on which no request is under way; those that come later are not served.
func (s *serving) closeIdle() {
	s.mu.Lock()
	s.closed = true
	var idle []net.Conn
	for h := range s.all {
		if h.idle.Load() {
			idle = append(idle, h.c)
		}
	}
	s.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// closeAll cuts the connections that are left. Who serves them meets the end, and accounts for it.
func (s *serving) closeAll() {
	s.mu.Lock()
	var all []net.Conn
	for h := range s.all {
		all = append(all, h.c.l.Conn)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// errNoHijack is not met: only the engine's own code takes connections over.
var errNoHijack = errors.New("the connection was taken over already, or its answer has begun")
