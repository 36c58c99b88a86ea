package mitm

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/exitgate/exitgate"
)

// An h1 is the engine's own HTTP/1.1 client: the way to upstreams for hosts that speak HTTP/1.x. It reads and
// writes on the goroutine of the request, where http.Transport hops between three, and that is a fourth of
// what a small request costs the gateway. It is also exact: a request is written as it was judged, in the order
// of nothing but its own framing, and a connection serves one request at a time, so that what is counted on it
// belongs to that request.
//
// http.ReadResponse parses responses; they are written anew for the host, so nothing that is ambiguous in them
// reaches it.
type h1 struct {
	p    *Proxy
	tls  *tls.Config
	keep int // idle connections for one destination

	mu     sync.Mutex // guards what follows
	idle   map[h1key][]*h1conn
	n      int // idle connections in all
	closed bool
	old    oldHosts    // guards itself
	sweep  *time.Timer // closes what has been idle too long; set while there is any
}

type h1key struct {
	tls  bool
	host string // canonical authority, default port left out
}

const (
	h1Idle    = 90 * time.Second // how long a connection waits for its next request
	h1MaxIdle = 8192             // idle connections in all
)

// An h1conn is a connection to an upstream. One goroutine at a time uses it, but for what says otherwise.
type h1conn struct {
	net.Conn // a *tls.Conn on u, or u
	u        *upconn
	key      h1key
	br       *bufio.Reader
	room     int64 // bytes that may be read before the head of the response must have ended
	broke    error // of the last read
	reused   bool
	fresh    bool // no request was sent on it yet
	parent   bool // plain HTTP through the parent proxy, which wants the absolute form
	since    time.Time

	mu       sync.Mutex // guards what follows: a request's body may be sent on another goroutine
	headed   bool       // the final head came: what it was waited for with does not apply
	deadline time.Time  // of reads; zero: none
}

// arm bounds the next read, exact to an eighth of the bound: a deadline that is still about right is left alone, as
// setting one costs as much as a small write.
func (c *h1conn) arm(bound time.Duration) {
	now := time.Now()
	if left := c.deadline.Sub(now); left <= bound && left >= bound-bound/8 {
		return
	}
	c.deadline = now.Add(bound)
	c.Conn.SetReadDeadline(c.deadline)
}

// disarm takes the bound off.
func (c *h1conn) disarm() {
	if !c.deadline.IsZero() {
		c.deadline = time.Time{}
		c.Conn.SetReadDeadline(c.deadline)
	}
}

// Read implements io.Reader for br.
func (c *h1conn) Read(b []byte) (int, error) {
	if c.room <= 0 {
		return 0, errHeadTooLarge
	}
	if int64(len(b)) > c.room {
		b = b[:c.room]
	}
	n, err := c.Conn.Read(b)
	c.room -= int64(n)
	c.broke = err
	return n, err
}

var (
	errHeadTooLarge = errors.New("headers exceeded the limit")
	// errStale is the end of a connection that was idle, before a byte of the response.
	errStale = errors.New("the server closed the connection while it was idle")
)

// cut ends the connection under whoever uses it.
func (c *h1conn) cut() { c.u.Close() }

// alive reports whether an idle connection has nothing to say. What has (an end, a stray response) is not used.
func (c *h1conn) alive() bool {
	if c.br.Buffered() > 0 {
		return false
	}
	sc, ok := c.u.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	return isQuiet(raw)
}

// get returns an idle connection for the request, or a new one.
func (t *h1) get(ctx context.Context, r *http.Request) (*h1conn, error) {
	key := h1key{r.URL.Scheme == "https", r.URL.Host}
	for {
		c := t.take(key)
		if c == nil {
			return t.dial(ctx, key, r)
		}
		if c.alive() {
			c.reused, c.fresh = !c.fresh, false
			return c, nil
		}
		c.cut()
	}
}

func (t *h1) take(key h1key) *h1conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.idle[key]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	list[len(list)-1] = nil
	t.idle[key] = list[:len(list)-1]
	t.n--
	return c
}

func (t *h1) dial(ctx context.Context, key h1key, r *http.Request) (*h1conn, error) {
	port := r.URL.Port()
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[key.tls]
	}
	addr := net.JoinHostPort(r.URL.Hostname(), port)
	c := &h1conn{key: key}
	switch parent := t.p.parentFor(r.URL.Hostname()); {
	case key.tls:
		conn, err := t.p.dialTLS(ctx, addr, t.tls)
		if err != nil {
			return nil, err
		}
		c.Conn, c.u = conn, upconnOf(conn)
	case parent != nil:
		u, err := t.p.dialParent(ctx, parent)
		if err != nil {
			return nil, err
		}
		c.Conn, c.u, c.parent = u, u, true
	default:
		d, err := splitAddr(addr)
		if err != nil {
			return nil, err
		}
		u, err := t.p.dial(ctx, d)
		if err != nil {
			return nil, err
		}
		c.Conn, c.u = u, u
	}
	c.br = bufio.NewReaderSize(c, 4096)
	return c, nil
}

// put keeps c for its next request, or closes it.
func (t *h1) put(c *h1conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle[c.key]) >= t.keep || t.n >= h1MaxIdle {
		c.cut()
		return
	}
	if t.idle == nil {
		t.idle = map[h1key][]*h1conn{}
	}
	c.since, c.headed = time.Now(), false
	t.idle[c.key] = append(t.idle[c.key], c)
	t.n++
	if t.sweep == nil {
		t.sweep = time.AfterFunc(h1Idle/2, t.sweepIdle)
	}
}

// sweepIdle closes what has been idle too long, or was closed by the upstream.
func (t *h1) sweepIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := time.Now().Add(-h1Idle)
	for key, list := range t.idle {
		kept := list[:0]
		for _, c := range list {
			if c.since.Before(old) || !c.alive() {
				c.cut()
				t.n--
				continue
			}
			kept = append(kept, c)
		}
		clear(list[len(kept):])
		if t.idle[key] = kept; len(kept) == 0 {
			delete(t.idle, key)
		}
	}
	if t.n > 0 && !t.closed {
		t.sweep.Reset(h1Idle / 2)
		return
	}
	t.sweep = nil
}

// close closes the idle connections; those in use are closed when they are done.
func (t *h1) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.sweep != nil {
		t.sweep.Stop()
	}
	for _, list := range t.idle {
		for _, c := range list {
			c.cut()
		}
	}
	t.idle, t.n = nil, 0
}

// roundTrip sends the request of a and returns its response, whose body gives the connection back.
func (t *h1) roundTrip(ctx context.Context, a *answer) (*http.Response, error) {
	for try := 0; ; try++ {
		c, err := t.get(ctx, a.r)
		if err != nil {
			return nil, err
		}
		e := &h1exchange{t: t, c: c, a: a, start: time.Now()}
		res, err := e.run(ctx)
		if err == nil {
			return res, nil
		}
		e.stop()
		c.cut()
		e.wait()
		if errors.Is(err, errStale) && try == 0 && ctx.Err() == nil && replayable(a.r) {
			continue
		}
		return nil, err
	}
}

// replayable reports whether a request may be sent again when its connection ended before the response began
// (RFC 9110, section 9.2.2).
func replayable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// An h1exchange is one request and its response on a connection.
type h1exchange struct {
	t     *h1
	c     *h1conn
	a     *answer
	start time.Time
	stop  func() bool // ends the watch over the request's context
	up    *upload     // nil: no body
}

// run sends and receives.
func (e *h1exchange) run(ctx context.Context) (*http.Response, error) {
	e.stop = context.AfterFunc(ctx, e.c.cut)
	e.a.x.reached(e.c.u)
	if e.c.reused {
		e.a.x.flow.Phases = exitgate.Phases{}
	}
	if e.hasBody() {
		e.c.disarm() // the clock of the response starts when the request is sent
	} else {
		e.c.arm(e.t.p.headBound())
	}
	if err := e.send(); err != nil {
		if e.c.reused && isGone(err) {
			err = errStale
		}
		return nil, err
	}
	sent := time.Now()
	res, err := e.receive()
	if err != nil {
		if e.up != nil {
			if uerr := e.up.failed(); uerr != nil {
				return nil, uerr // why there is no response: the body was refused, or broke off
			}
		}
		return nil, err
	}
	if e.up != nil {
		e.a.up = e.up
		sent = e.up.sentAt(sent)
	}
	e.a.x.flow.Phases.Wait = max(time.Since(sent), 1)
	return res, nil
}

func (e *h1exchange) hasBody() bool { return e.a.r.Body != nil && e.a.r.Body != http.NoBody }

func (p *Proxy) headBound() time.Duration { return or(p.Timeouts.ResponseHeader, 5*time.Minute) }
func (p *Proxy) bodyBound() time.Duration { return or(p.Timeouts.BodyIdle, 5*time.Minute) }

// responseBound is how long nothing of a response's body may come. Streams of events are silent for as long as there are
// none, and upgraded connections likewise.
func (p *Proxy) responseBound(res *http.Response) time.Duration {
	kind, _, _ := strings.Cut(strings.ToLower(res.Header.Get("Content-Type")), ";")
	switch kind = strings.TrimSpace(kind); {
	case res.StatusCode == http.StatusSwitchingProtocols, kind == "text/event-stream", kind == "application/x-ndjson",
		kind == "multipart/x-mixed-replace", strings.HasPrefix(kind, "application/grpc"):
		return or(p.Timeouts.StreamIdle, time.Hour)
	}
	return p.bodyBound()
}

// expectHead starts the clock of the response's head, if that has not come.
func (c *h1conn) expectHead(p *Proxy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.headed {
		c.arm(p.headBound())
	}
}

// expectBody starts the clock of the next piece of the body.
func (c *h1conn) expectBody(bound time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headed = true
	c.arm(bound)
}

// receive reads heads until the final one.
func (e *h1exchange) receive() (*http.Response, error) {
	c := e.c
	for first := true; ; first = false {
		c.room = or(e.t.p.Limits.ResponseHeader, 256<<10)
		if _, err := c.br.Peek(1); err != nil {
			if first && c.reused && isGone(err) {
				err = errStale
			}
			return nil, err
		}
		res, err := http.ReadResponse(c.br, e.a.r)
		if err != nil {
			if c.broke != nil { // the parser speaks of the line that it made unreadable
				err = c.broke
			}
			return nil, err
		}
		switch {
		case res.StatusCode == http.StatusSwitchingProtocols:
			c.disarm()
			c.room = math.MaxInt64
			res.Body = &h1upgraded{e}
			return res, nil
		case res.StatusCode == http.StatusContinue:
			if e.up != nil {
				e.up.proceed()
			}
			if err := e.a.informational(res.StatusCode, nil); err != nil {
				return nil, err
			}
		case res.StatusCode/100 == 1:
			if err := e.a.informational(res.StatusCode, res.Header); err != nil {
				return nil, err
			}
		default:
			c.room = math.MaxInt64
			return e.final(res), nil
		}
	}
}

// final prepares the response's body to give the connection back at its end.
func (e *h1exchange) final(res *http.Response) *http.Response {
	if e.up != nil {
		e.up.answered()
	}
	if res.Body == http.NoBody || e.a.r.Method == http.MethodHead {
		res.Body = http.NoBody
		e.done(res, true)
		return res
	}
	res.Body = &h1body{body: res.Body, e: e, res: res, bound: e.t.p.responseBound(res)}
	return res
}

// done ends the exchange. The connection is kept when both directions are known to be at their end.
func (e *h1exchange) done(res *http.Response, whole bool) {
	watched := e.stop()
	sent := e.up == nil || e.up.sentWhole()
	if whole && watched && sent && !res.Close && e.c.br.Buffered() == 0 {
		e.t.put(e.c)
		return
	}
	e.c.cut()
}

// wait returns when no goroutine of the exchange is left.
func (e *h1exchange) wait() {
	if e.up != nil {
		e.up.wait(e.a)
	}
}

// An h1body reads a response's body and ends the exchange once: whole at io.EOF, cut otherwise. Close may come
// from another goroutine, and frees a Read.
type h1body struct {
	body  io.Reader
	e     *h1exchange
	res   *http.Response
	bound time.Duration // of silence
	once  sync.Once
}

func (b *h1body) Read(p []byte) (int, error) {
	b.e.c.expectBody(b.bound)
	n, err := b.body.Read(p)
	if err != nil {
		b.once.Do(func() { b.e.done(b.res, err == io.EOF) })
	}
	return n, err
}

func (b *h1body) Close() error {
	b.once.Do(func() { b.e.done(b.res, false) })
	return nil
}

// An h1upgraded is the connection after 101.
type h1upgraded struct{ e *h1exchange }

func (u *h1upgraded) Read(p []byte) (int, error)  { return u.e.c.br.Read(p) }
func (u *h1upgraded) Write(p []byte) (int, error) { return u.e.c.Conn.Write(p) }

func (u *h1upgraded) Close() error {
	u.e.stop()
	u.e.c.cut()
	return nil
}
