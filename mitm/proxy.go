package mitm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/martian/v3"

	"github.com/exitgate/exitgate"
)

// A Proxy is the engine. The fields are set before Start and not changed afterwards; those that a reload may
// change are behind seams (Decider, Identify) that swap inside themselves. The fields up to the blank line are
// required; the zero value of the others is good.
type Proxy struct {
	Gateway  string // name of this gateway: in records, Proxy-Status and Via; a token
	Decider  Decider
	Issuer   Issuer
	Recorder Recorder
	Identify Identifier
	// Sniff says what a connection opens with; see exitgate.ErrShort.
	Sniff func(b []byte) (exitgate.Opening, error)
	// NewScreen returns a screen for one connection that speaks HTTP/1.x.
	NewScreen func() Screen
	// Request and Response are the pipelines, in order. Request must hold the steps that Ask and Begin
	// return: a request that passes it without a verdict that allows, or without a record, is refused.
	Request  []martian.RequestModifier
	Response []martian.ResponseModifier

	Resolver Resolver         // nil: the system's resolver
	Guard    Guard            // which addresses may be dialled
	Upstream Upstream         // how upstreams are reached and verified
	Limits   Limits           // bounds on memory and time
	Timeouts Timeouts         // for each step
	Logger   *slog.Logger     // nil: slog.Default
	Now      func() time.Time // nil: time.Now; the only clock of questions and records
	Refusals RefusalText      // what refused clients are told to do
	Pages    http.Handler     // answers requests for the gateway itself (its CA certificate); nil: refused
	Probe    string           // the name that the engine answers itself, in lower case; "": ProbeName
	TLSProxy TLSProxy         // the way in that asks for a certificate

	server     *http.Server
	handoff    handoff
	tlsConfig  *tls.Config // of tunnels, and of TLS to the proxy that was not announced
	tlsProxy   *tls.Config // of WayTLSProxy
	transports transports
	open       openConns
	serving    serving
	flows      openFlows
	sessions   sessions
	watching   sync.WaitGroup // watchHosts
	closing    atomic.Bool
	stop       context.CancelFunc // ends tunnels that outlive the drain
	base       context.Context
	stepsIn    martian.RequestModifier
	stepsOut   martian.ResponseModifier
}

// A TLSProxy says how hosts are met on listeners that are served as exitgate.WayTLSProxy: TLS at once, and the host's
// identity certificate asked for.
type TLSProxy struct {
	// Certificate is the server's; nil: a leaf of the Issuer for the name that the host asks for.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Require refuses hosts that show no certificate; else they are known by address or token.
	Require bool
}

// Limits bound what hosts can make the gateway hold. A zero field has the default that its comment names.
type Limits struct {
	Connections        int   // accepted at one time; 20,000
	ConnectionsPerHost int   // accepted at one time from one source address; 2,000
	Streams            int   // open on one HTTP/2 connection; 250
	HeaderBytes        int   // of one request's head on HTTP/2 (HTTP/1.x is bounded by the Screen); 64 KiB
	ResponseHeader     int64 // bytes of a response's head; 256 KiB
	SpliceBytes        int64 // both directions of a spliced flow, where the exemption names none; 0: no bound
}

// Timeouts bound each step. A zero field has the default that its comment names.
type Timeouts struct {
	FirstBytes     time.Duration // from accept, or from the answer to CONNECT, to a whole opening; 10 s
	Handshake      time.Duration // TLS with the host; 10 s
	RequestHeader  time.Duration // from a request's first byte to the end of its head; 20 s
	Idle           time.Duration // a connection between requests; 2 min
	Resolve        time.Duration // 5 s
	Connect        time.Duration // all addresses of a name together; 10 s
	UpstreamTLS    time.Duration // 10 s
	ResponseHeader time.Duration // from the request sent to the response's head; 5 min
	BodyIdle       time.Duration // a body of which nothing moves; 5 min
	StreamIdle     time.Duration // an upgraded connection, or a response of events (SSE, gRPC), on which nothing moves; 1 h
	SpliceIdle     time.Duration // a spliced flow on which nothing moves; 1 h
}

// Upstream says how the outside is reached.
type Upstream struct {
	Roots *x509.CertPool // nil: the system's
	// IsOwn reports whether a certificate is one of the gateway's own, which prove nothing upstream although
	// provisioning put their root into the system's store. nil: none.
	IsOwn func(*x509.Certificate) bool
	// ClientCertificates are presented to upstreams that ask for one, by destination name ("*.example.com"
	// for all names below it).
	ClientCertificates map[string]*tls.Certificate
	Proxy              *url.URL // parent proxy (http), nil none
	// NoProxy are the destinations reached without the parent: names, ".example.com" for all below, CIDRs.
	NoProxy []string
	// DisableHTTP2 speaks HTTP/1.1 to every upstream.
	DisableHTTP2 bool
	// DisableMLKEM offers no post-quantum key share, on either side; it costs about a third of a handshake.
	DisableMLKEM bool
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (p *Proxy) now() time.Time {
	if p.Now != nil {
		return p.Now().UTC()
	}
	return time.Now().UTC()
}

func (p *Proxy) log() *slog.Logger {
	if p.Logger != nil {
		return p.Logger
	}
	return slog.Default()
}

// Start checks the whole wiring and readies the engine. It must be called once, before Serve.
func (p *Proxy) Start() error {
	for _, part := range []struct {
		name    string
		missing bool
	}{
		{"Gateway", p.Gateway == ""}, {"Decider", p.Decider == nil}, {"Issuer", p.Issuer == nil},
		{"Recorder", p.Recorder == nil}, {"Identify", p.Identify == nil}, {"Sniff", p.Sniff == nil},
		{"NewScreen", p.NewScreen == nil}, {"Request", len(p.Request) == 0}, {"Response", len(p.Response) == 0},
	} {
		if part.missing {
			return fmt.Errorf("start the engine: %s is not wired", part.name)
		}
	}
	if err := p.checkSteps(); err != nil {
		return fmt.Errorf("start the engine: %w", err)
	}
	p.base, p.stop = context.WithCancel(context.Background())
	p.buildSteps()
	p.startServer()
	p.tlsConfig, p.tlsProxy = p.serverTLS(), p.proxyTLS()
	p.transports.start(p)
	p.watching.Go(p.watchHosts)
	return nil
}

// Serve accepts connections from l, which are to be read as coming in by way, until ctx ends or Shutdown is
// called; it then returns nil. Any other end is an error. Serve may run for several listeners at once.
func (p *Proxy) Serve(ctx context.Context, l net.Listener, way exitgate.Way) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	p.Guard.addListener(l.Addr())
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			go p.serveConn(c, way)
		case p.closing.Load() || ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		default:
			// Out of descriptors, or a connection that was aborted before it was accepted: neither is the
			// listener's end.
			p.log().Warn("accept failed", "listener", l.Addr().String(), "err", err)
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
		}
	}
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Shutdown stops accepting, waits for the flows that are open, and cuts those that still are when ctx ends; each
// has its end recorded either way. The caller closes the listeners first.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.closing.Store(true)
	p.open.closeIdle()
	p.serving.closeIdle()
	err := p.server.Shutdown(ctx)
	if werr := p.open.wait(ctx); err == nil {
		err = werr
	}
	p.stop()
	p.watching.Wait()
	p.server.Close()
	p.serving.closeAll()
	p.open.closeAll()
	p.open.wait(context.Background())
	p.flows.close()
	p.transports.close()
	return err
}

// openConns counts the accepted connections, in all and by source.
type openConns struct {
	mu    sync.Mutex
	conns map[*leg]struct{}
	bySrc map[netip.Addr]int
	empty chan struct{} // closed when the last connection went, while someone waits
}

// add admits l, or says why not.
func (o *openConns) add(l *leg, src netip.Addr, lim Limits) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.conns == nil {
		o.conns, o.bySrc = map[*leg]struct{}{}, map[netip.Addr]int{}
	}
	if n := or(lim.Connections, 20000); len(o.conns) >= n {
		return exitgate.NewRefusal(503, exitgate.RuleOverload, "the gateway has %d connections open, its limit (limits.connections)", n)
	}
	if n := or(lim.ConnectionsPerHost, 2000); o.bySrc[src] >= n {
		return exitgate.NewRefusal(503, exitgate.RuleOverload, "%s has %d connections open, the limit for one host (limits.connections_per_host)", src, n)
	}
	o.conns[l] = struct{}{}
	o.bySrc[src]++
	return nil
}

func (o *openConns) remove(l *leg, src netip.Addr) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.conns[l]; !ok {
		return
	}
	delete(o.conns, l)
	if o.bySrc[src]--; o.bySrc[src] <= 0 {
		delete(o.bySrc, src)
	}
	if len(o.conns) == 0 && o.empty != nil {
		close(o.empty)
		o.empty = nil
	}
}

// Connections returns how many accepted connections are open.
func (p *Proxy) Connections() int {
	p.open.mu.Lock()
	defer p.open.mu.Unlock()
	return len(p.open.conns)
}

func (o *openConns) each(f func(*leg)) {
	o.mu.Lock()
	legs := make([]*leg, 0, len(o.conns))
	for l := range o.conns {
		legs = append(legs, l)
	}
	o.mu.Unlock()
	for _, l := range legs {
		f(l)
	}
}

// closeIdle closes the connections that have not shown what they open with.
func (o *openConns) closeIdle() {
	o.each(func(l *leg) {
		if l.read.Load() == 0 {
			l.Conn.Close()
		}
	})
}

// closeAll cuts every connection. Who serves it meets the end, and accounts for it.
func (o *openConns) closeAll() { o.each(func(l *leg) { l.Conn.Close() }) }

// wait returns when no connection is open, or when ctx ends, with its error.
func (o *openConns) wait(ctx context.Context) error {
	o.mu.Lock()
	if len(o.conns) == 0 {
		o.mu.Unlock()
		return nil
	}
	if o.empty == nil {
		o.empty = make(chan struct{})
	}
	ch := o.empty
	o.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// openFlows counts the flows that are begun and not ended, and the tunnels that have yet to account for
// themselves, so that Shutdown returns after the last end, and nothing is given to the recorder after it.
type openFlows struct {
	mu     sync.Mutex
	n      int
	closed bool
	cond   *sync.Cond
}

// enter counts one more. It reports false when the engine has stopped.
func (o *openFlows) enter() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.n++
	return true
}

func (o *openFlows) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n--; o.n == 0 && o.cond != nil {
		o.cond.Broadcast()
	}
}

// close returns when no flow is open; from then on enter says no.
func (o *openFlows) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cond == nil {
		o.cond = sync.NewCond(&o.mu)
	}
	for o.n > 0 {
		o.cond.Wait()
	}
	o.closed = true
}
