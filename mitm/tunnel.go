package mitm

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/exitgate/exitgate"
)

// serveTunnel takes the inside of a tunnel to where it belongs. The ladder:
//
//  1. exempt and raw: spliced unseen
//  2. silent, or nonsense: refused
//  3. TLS: the names agree, or refused; ask again with what the hello says; spliced, or intercepted
//  4. HTTP in plain text: read
//  5. anything else: refused, for it cannot be read
func (p *Proxy) serveTunnel(l *leg) {
	t := l.s.tunnel
	if t.verdict.Action == exitgate.Splice && t.verdict.Raw {
		p.splice(l)
		return
	}
	op, err := p.opening(l)
	switch {
	case err != nil:
		p.refuseConn(l, err)
	case op.Proto == exitgate.OpeningTLS:
		t.tls = op.TLS
		p.serveTLS(l)
	case op.Proto == exitgate.OpeningHTTP:
		l.s.side.Proto = "HTTP/1.1"
		p.serveHTTP1(p.screen(l, l))
	default:
		reset(l)
		p.endConn(l, exitgate.Verdict{}, exitgate.NewRefusal(0, exitgate.RuleProtocol,
			"the tunnel to %s opens with %s, which cannot be read; only an exemption that is marked raw lets it through", t.dest, op.Proto))
	}
}

func (p *Proxy) serveTLS(l *leg) {
	t := l.s.tunnel
	if err := agree(t); err != nil {
		p.refuseTLS(l, err)
		return
	}
	if p.isProbe(t.dest) {
		p.handshake(l, p.tlsConfig)
		return
	}
	x := p.newFlow(l.s, exitgate.KindTunnel)
	if err := x.who.still(); err != nil {
		p.refuseTLS(l, err)
		return
	}
	q := x.flow.Question
	v := p.ask(p.base, &q)
	if v.Action == exitgate.Refuse && t.verdict.Action != exitgate.Refuse {
		p.refuseTLS(l, refusalOf(v)) // the hello changed the answer
		return
	}
	t.verdict, t.host = v, q.Host
	if v.Action != exitgate.Splice {
		p.handshake(l, p.tlsConfig)
		return
	}
	_, isIP := t.dest.IP()
	switch {
	case t.tls.ECH:
		p.refuseTLS(l, exitgate.NewRefusal(0, exitgate.RuleProtocol,
			"the ClientHello to %s has an encrypted part (ECH), so that the name it asks for cannot be checked", t.dest))
	case t.tls.SNI == "" && !isIP:
		p.refuseTLS(l, exitgate.NewRefusal(0, exitgate.RuleAuthority, "the ClientHello to %s names no server, so that the exemption cannot be checked", t.dest))
	default:
		p.splice(l)
	}
}

// agree compares the name in the hello with the one that CONNECT gave (law 4).
func agree(t *tunnel) error {
	if t.tls.SNI == "" || t.tls.SNI == t.dest.Host {
		return nil
	}
	return exitgate.NewRefusal(0, exitgate.RuleAuthority, "CONNECT names %s and the TLS hello inside names %.260q", t.dest.Host, t.tls.SNI)
}

// alertAccessDenied is the one alert that every TLS library spells out as "access denied" (RFC 8446, section 6):
// a plain-text record, as nothing was negotiated.
var alertAccessDenied = []byte{0x15, 3, 3, 0, 2, 2, 49}

// refuseTLS answers a ClientHello that may not be intercepted.
func (p *Proxy) refuseTLS(l *leg, err error) {
	l.SetDeadline(time.Now().Add(2 * time.Second))
	l.Write(alertAccessDenied)
	l.CloseWrite()
	p.account(l, exitgate.Verdict{}, err) // before the client is waited for, which may take its time
	discard(l, 1<<20)
	l.Close()
}

// handshakeFailed accounts for a host that would not finish TLS with the gateway, and says why as far as the
// wire tells.
func (p *Proxy) handshakeFailed(l *leg, err error) {
	var r *exitgate.Refusal
	if errors.As(err, &r) {
		p.endConn(l, exitgate.Verdict{}, r)
		return
	}
	if p.plainText(l, err) {
		return
	}
	if l.read.Load() == 0 { // a connection that said nothing, as checks of a port's being open make it
		l.Close()
		return
	}
	v := exitgate.Verdict{}
	if l.s.tunnel != nil {
		v = l.s.tunnel.verdict
	}
	p.endConn(l, v, &exitgate.Fault{Step: "client", Type: "client_tls", Reason: "TLS with the host failed: " + clientTLSReason(err, l.last()), Err: err})
}

// clientTLSReason reads why a client left the handshake. crypto/tls reports an alert that the client sent in
// plain text after it switched to encryption (OpenSSL does with TLS 1.3) as a bad record, so the last bytes on
// the wire are looked at as well.
func clientTLSReason(err error, last []byte) string {
	if n := len(last); n >= 7 && last[n-7] == 0x15 && last[n-6] == 3 && last[n-4] == 0 && last[n-3] == 2 {
		return fmt.Sprintf("it sent alert %d (%s)", last[n-1], alertName(last[n-1]))
	}
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "remote error":
		return "it sent an alert: " + op.Err.Error()
	case isTimeout(err):
		return "it did not finish in time"
	case isGone(err):
		return "it closed in the middle; it may not trust the gateway's CA, or pin another certificate"
	}
	return err.Error()
}

func alertName(a byte) string {
	switch a {
	case 42:
		return "bad certificate"
	case 43:
		return "unsupported certificate"
	case 45:
		return "certificate expired"
	case 46:
		return "certificate unknown"
	case 48:
		return "unknown CA: it does not trust the gateway's CA"
	case 49:
		return "access denied"
	case 112:
		return "unrecognized name"
	}
	return "see RFC 8446, section 6"
}
