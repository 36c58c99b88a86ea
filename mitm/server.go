package mitm

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"log"

	"github.com/exitgate/exitgate"
)

// startServer readies the server that reads what comes over HTTP/2, to the proxy itself and inside tunnels. What
// comes over HTTP/1.x is read by an h1server.
func (p *Proxy) startServer() {
	var protos http.Protocols
	protos.SetHTTP2(true)
	protos.SetUnencryptedHTTP2(true)
	p.handoff.start()
	p.server = &http.Server{
		Handler:           http.HandlerFunc(p.serveHTTP),
		Protocols:         &protos,
		ReadHeaderTimeout: or(p.Timeouts.RequestHeader, 20*time.Second),
		IdleTimeout:       or(p.Timeouts.Idle, 2*time.Minute),
		MaxHeaderBytes:    or(p.Limits.HeaderBytes, 64<<10),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: or(p.Limits.Streams, 250),
			SendPingTimeout:      30 * time.Second,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     p.bodyBound(),
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &connContext{l: legOf(c)})
		},
		ErrorLog:                     log.New(serverLog{p.log()}, "", 0),
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a request like any other
	}
	go p.server.Serve(&p.handoff)
}

// connContext is what a handler knows of the connection that its request came on.
type connContext struct {
	l        *leg
	screened *screened       // nil for HTTP/2
	h1       *h1server       // nil for HTTP/2
	ctx      context.Context // of each request; nil: the request's own
}

// context returns the context that a request runs under.
func (cc *connContext) context(r *http.Request) context.Context {
	if cc.ctx != nil {
		return cc.ctx
	}
	return r.Context()
}

type connKey struct{}

// serveHTTP takes each request to the room where it belongs.
func (p *Proxy) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.flows.enter() {
		panic(http.ErrAbortHandler) // the engine has stopped
	}
	defer p.flows.leave()
	cc := r.Context().Value(connKey{}).(*connContext)
	if w := cc.l.s.h2.Load(); w != nil {
		w.request()
	}
	if r.Method == http.MethodConnect && cc.l.s.tunnel == nil {
		p.connect(w, r, cc)
		return
	}
	p.request(w, r, cc)
}

// serverTLS is the one configuration with which hosts are met, so that their session tickets work on each
// connection.
func (p *Proxy) serverTLS() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			ctx, cancel := context.WithTimeout(p.base, or(p.Timeouts.Handshake, 10*time.Second))
			defer cancel()
			return p.Issuer.Leaf(ctx, leafName(h))
		},
	}
	if p.Upstream.DisableMLKEM {
		c.CurvePreferences = classicCurves
	}
	return c
}

var classicCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// leafName is the destination of the tunnel, with which the SNI was compared before; for the proxy itself it is
// the name under which the host knows it, or the address that it dialled.
func leafName(h *tls.ClientHelloInfo) string {
	if l := legOf(h.Conn); l != nil && l.s.tunnel != nil {
		return l.s.tunnel.dest.Host
	}
	if h.ServerName != "" {
		return h.ServerName
	}
	return addrOf(h.Conn.LocalAddr()).Addr().String()
}

// serverLog takes what net/http says about connections that it closed.
type serverLog struct{ l *slog.Logger }

func (s serverLog) Write(b []byte) (int, error) {
	s.l.Debug("http server", "msg", string(bytes.TrimSpace(b)))
	return len(b), nil
}

// newFlow begins the account of a crossing on s.
func (p *Proxy) newFlow(s *session, kind exitgate.Kind) *exchange {
	now := p.now()
	x := &exchange{s: s}
	x.Flow = &x.flow
	f := &x.flow
	f.ID, f.Conn, f.Gateway, f.Kind, f.Begin = exitgate.NewID(now), s.conn, p.Gateway, kind, now
	x.who = p.standing(s.id, now)
	f.Question.Stage, f.Question.At, f.Question.Way, f.Question.Host = exitgate.StageConnect, now, s.way, x.who.host
	f.Client = s.side
	if t := s.tunnel; t != nil {
		f.Question.Dest, f.Question.TLS = t.dest, t.tls
		f.Authority.Connect = t.connect
		if t.tls != nil {
			f.Authority.SNI = t.tls.SNI
		}
	}
	return x
}
