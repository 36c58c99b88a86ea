package mitm

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/exitgate/exitgate"
)

// A Look is what the gateway sees on the way to a destination, as far as it came. What was not reached is zero.
type Look struct {
	Dest    exitgate.Destination
	Own     bool             // the engine answers this name itself, and dials nobody
	Answers []netip.AddrPort // that the name has, in the order of the resolver; nil: a parent proxy looks it up
	Barred  []Barred         // those of Answers that the guard does not let the gateway dial
	Parent  string           // host and port of the parent proxy; "" none
	Dialled netip.AddrPort   // the address that took the connection; of the parent, if one is used
	TLS     string           // version
	ALPN    string           // protocol that the upstream chose of those that hosts are offered
	Chain   []*x509.Certificate
	// Err is a *exitgate.Fault that names the step, a *exitgate.Refusal or a *exitgate.Bug; nil: all went well.
	Err error
}

// A Barred address is one that may not be dialled.
type Barred struct {
	Addr netip.AddrPort
	Why  string
}

// Look resolves, checks, dials and, for https, shakes hands as for a request to u, on a connection of its own, and closes
// it again without having sent a request. It asks no policy: f has the question, and the verdict that allows it. A
// handshake leaves the gateway, so that f is recorded as any flow, a connection without a request. It takes as long as
// Timeouts allow, or until ctx ends.
func (p *Proxy) Look(ctx context.Context, u *url.URL, f exitgate.Flow) (l Look) {
	now := p.now()
	f.ID, f.Gateway, f.Kind, f.Begin = exitgate.NewID(now), p.Gateway, exitgate.KindConnection, now
	f.Conn = f.ID
	if err := safely("record", func() error { return p.Recorder.Begin(ctx, &f) }); err != nil {
		l.Err = exitgate.NewRefusal(503, exitgate.RuleRecord, "the record could not be begun, so nothing may leave: %v", err)
		return l
	}
	l.Err = safely("look", func() error { return p.look(ctx, u, &l) })
	p.looked(ctx, &f, &l)
	for _, a := range l.Answers {
		if err := p.Guard.Check(a); err != nil {
			l.Barred = append(l.Barred, Barred{a, err.Error()})
		}
	}
	return l
}

// looked ends the record of a look.
func (p *Proxy) looked(ctx context.Context, f *exitgate.Flow, l *Look) {
	f.End = p.now()
	f.Authority.Host, f.Authority.Dialled, f.Question.Dest.Addr = l.Dest.Host, l.Dialled, l.Dialled
	f.Upstream = exitgate.Side{ALPN: l.ALPN, TLS: l.TLS}
	if len(l.Chain) > 0 {
		sum := sha256.Sum256(l.Chain[0].Raw)
		f.UpstreamCert = hex.EncodeToString(sum[:])
	}
	var refusal *exitgate.Refusal
	var fault *exitgate.Fault
	switch {
	case errors.As(l.Err, &refusal):
		refusal.Verdict.Revision = f.Verdict.Revision
		f.Verdict = refusal.Verdict
	case errors.As(l.Err, &fault):
		f.Fault = fault
	case l.Err != nil:
		f.Fault = &exitgate.Fault{Step: "look", Type: "proxy_internal_error", Reason: l.Err.Error()}
	}
	if err := safely("record", func() error { return p.Recorder.End(context.WithoutCancel(ctx), f) }); err != nil {
		p.log().Error("the end of a look could not be recorded", "flow", f.ID.String(), "err", err)
	}
}

func (p *Proxy) look(ctx context.Context, u *url.URL, l *Look) (err error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if l.Dest, err = parseAuthority(net.JoinHostPort(u.Hostname(), port)); err != nil {
		return exitgate.NewRefusal(400, exitgate.RuleMalformed, "%.300q: %v", u.Host, err)
	}
	if l.Own = p.isProbe(l.Dest); l.Own {
		return nil
	}
	ctx = context.WithValue(ctx, lookKey{}, l)
	if u.Scheme != "https" {
		c, err := p.dial(ctx, l.Dest)
		if err == nil {
			c.Close()
		}
		return err
	}
	c, err := p.dialTLS(ctx, l.Dest.String(), p.lookTLS(l))
	if cert := new(tls.CertificateVerificationError); errors.As(err, &cert) {
		l.Chain = cert.UnverifiedCertificates
	}
	if err != nil {
		return err
	}
	up := upconnOf(c)
	l.TLS, l.ALPN = up.version, up.alpn
	return c.Close()
}

// Answers returns the verdict for URLs that the engine answers itself, which no policy is asked about.
func (p *Proxy) Answers(u *url.URL) (v exitgate.Verdict, ok bool) {
	if !p.isProbe(exitgate.Destination{Host: strings.ToLower(u.Hostname())}) {
		return v, false
	}
	return p.probeVerdict(), true
}

// lookTLS is the configuration with which upstreams are met, with the protocols of hosts that speak HTTP/2, and with no
// session to resume: the chain is shown in a whole handshake only.
func (p *Proxy) lookTLS(l *Look) *tls.Config {
	protos := []string{"h2", "http/1.1"}
	if p.Upstream.DisableHTTP2 {
		protos = protos[1:]
	}
	c := p.upstreamTLS(protos...)
	c.ClientSessionCache = nil
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		l.Chain = cs.PeerCertificates
		return p.verifyMore(cs)
	}
	return c
}

type lookKey struct{}

// looking returns the look that a dial is made for, or nil. What it notes comes from the dial itself, so that a look
// cannot see anything but what a request would meet.
func looking(ctx context.Context) *Look {
	l, _ := ctx.Value(lookKey{}).(*Look)
	return l
}
