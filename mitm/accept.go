package mitm

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"time"

	"github.com/exitgate/exitgate"
)

// maxOpening bounds the bytes that are read before it is known what a connection opens with: a ClientHello of
// 64 KiB in records of a few bytes each stays below it.
const maxOpening = 512 << 10

// serveConn takes an accepted connection to the point where it is a connection of the HTTP server, or to its
// end.
func (p *Proxy) serveConn(c net.Conn, way exitgate.Way) {
	if !p.flows.enter() { // whoever owns a connection accounts for it, and Shutdown waits for that
		c.Close()
		return
	}
	defer p.flows.leave()
	now := p.now()
	src := addrOf(c.RemoteAddr()).Addr()
	s := &session{conn: exitgate.NewID(now), way: way, begin: now, id: &identity{addr: src}, cut: func() { c.Close() }}
	l := &leg{Conn: c, s: s}
	l.onClose = func(l *leg) {
		p.connClosed(l) // before it is gone from the count: Shutdown waits for its record
		p.open.remove(l, src)
		p.sessions.remove(s)
	}
	if err := p.open.add(l, src, p.Limits); err != nil {
		p.overloaded(l, err)
		return
	}
	defer p.recovered(l, "accept")
	p.sessions.add(s)
	if way == exitgate.WayTLSProxy {
		p.serveTLSProxy(l)
		return
	}
	op, err := p.opening(l)
	switch {
	case err != nil:
		p.refuseConn(l, err)
	case op.Proto == exitgate.OpeningHTTP:
		s.side.Proto = "HTTP/1.1"
		p.serveHTTP1(p.screen(l, l))
	case op.Proto == exitgate.OpeningH2C:
		s.side.Proto = "HTTP/2.0"
		p.handoff.put(watch(l, l))
	case op.Proto == exitgate.OpeningTLS:
		s.way = exitgate.WayTLSProxy
		p.handshake(l, p.tlsConfig)
	default:
		p.refuseConn(l, exitgate.NewRefusal(400, exitgate.RuleProtocol,
			"the connection opens with %s; this port speaks HTTP proxying (CONNECT, absolute-form), plain or over TLS", op.Proto))
	}
}

// opening reads until it is clear what l opens with. Silence with no byte at all is an io error; a byte and then
// silence, or nonsense, is an *exitgate.Refusal.
func (p *Proxy) opening(l *leg) (exitgate.Opening, error) {
	l.SetReadDeadline(time.Now().Add(or(p.Timeouts.FirstBytes, 10*time.Second)))
	defer l.SetReadDeadline(time.Time{})
	for {
		b, rerr := l.peek(maxOpening)
		if len(b) > 0 {
			op, err := p.Sniff(b)
			if err == nil {
				return op, nil
			}
			if !errors.Is(err, exitgate.ErrShort) {
				return op, err
			}
		}
		switch {
		case rerr != nil && len(b) == 0:
			return exitgate.Opening{}, rerr
		case errors.Is(rerr, os.ErrDeadlineExceeded):
			return exitgate.Opening{}, exitgate.NewRefusal(408, exitgate.RuleMalformed,
				"%d bytes came within %v and do not tell what they open", len(b), or(p.Timeouts.FirstBytes, 10*time.Second))
		case rerr != nil:
			return exitgate.Opening{}, exitgate.NewRefusal(400, exitgate.RuleMalformed, "the connection ended after %d bytes that do not tell what they open", len(b))
		case len(b) >= maxOpening:
			return exitgate.Opening{}, exitgate.NewRefusal(400, exitgate.RuleMalformed, "%d bytes do not tell what they open", len(b))
		}
	}
}

// screen puts a Screen in front of c, which is l or stands on it.
func (p *Proxy) screen(c net.Conn, l *leg) *screened {
	return &screened{Conn: c, l: l, screen: p.NewScreen(), refused: p.refuseScreened,
		broke: func(l *leg, err error) { p.endConn(l, exitgate.Verdict{}, err) }}
}

// handshake speaks TLS with the host, as the proxy itself or as the destination of the tunnel, and hands the
// connection to the HTTP server.
func (p *Proxy) handshake(l *leg, conf *tls.Config) {
	t := tls.Server(l, conf)
	// A deadline, as a context that ends would close the connection under its owner.
	l.SetDeadline(time.Now().Add(or(p.Timeouts.Handshake, 10*time.Second)))
	if err := t.Handshake(); err != nil {
		p.handshakeFailed(l, err)
		return
	}
	l.SetDeadline(time.Time{})
	st := t.ConnectionState()
	l.s.side = exitgate.Side{Proto: "HTTP/1.1", ALPN: st.NegotiatedProtocol, TLS: tlsVersion(st.Version)}
	if conf == p.tlsProxy {
		if err := p.meet(l.s, st.PeerCertificates); err != nil {
			p.endConn(l, exitgate.Verdict{}, err)
			return
		}
	}
	if st.NegotiatedProtocol == "h2" {
		l.s.side.Proto = "HTTP/2.0"
		p.handoff.put(watch(t, l))
		return
	}
	p.serveHTTP1(p.screen(t, l))
}

func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS13:
		return "1.3"
	case tls.VersionTLS12:
		return "1.2"
	}
	return ""
}

// recovered ends a connection whose goroutine panicked, and records it; the process lives.
func (p *Proxy) recovered(l *leg, step string) {
	if v := recover(); v != nil {
		p.endConn(l, exitgate.Verdict{}, bugOf(step, v))
	}
}

// handoff is the listener from which the HTTP server accepts connections that the engine has opened.
type handoff struct {
	ch   chan net.Conn
	done chan struct{}
}

func (h *handoff) start() { h.ch, h.done = make(chan net.Conn), make(chan struct{}) }

// put gives c to the server, or closes it when the server has stopped.
func (h *handoff) put(c net.Conn) {
	select {
	case h.ch <- c:
	case <-h.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.ch:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Only the server calls it.
func (h *handoff) Close() error {
	select {
	case <-h.done:
	default:
		close(h.done)
	}
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }
