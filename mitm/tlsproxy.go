package mitm

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// serveTLSProxy takes a connection of a listener that speaks TLS at once. A certificate that is expired, revoked or
// foreign does not fail the handshake, where a host would learn nothing but the number of an alert: each request on
// the connection is refused with the reason.
func (p *Proxy) serveTLSProxy(l *leg) { p.handshake(l, p.tlsProxy) }

// The certificates that a host may show. An identity's chain is two or three of 1 KiB.
const (
	maxChain      = 8
	maxChainBytes = 32 << 10
)

// meet takes the certificates that the host of s showed for what it is. The error refuses the connection: what is not
// an identity's chain by its size is not kept for as long as a connection lives.
func (p *Proxy) meet(s *session, chain []*x509.Certificate) error {
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
	}
	switch {
	case len(chain) > maxChain || size > maxChainBytes:
		return exitgate.NewRefusal(0, exitgate.RuleHost, "%s shows %d certificates of %d bytes, where an identity is at most %d of %d bytes",
			s.id.addr, len(chain), size, maxChain, maxChainBytes)
	case len(chain) > 0:
		s.id = &identity{addr: s.id.addr, chain: chain}
	case p.TLSProxy.Require:
		s.id = &identity{addr: s.id.addr, lacks: exitgate.NewRefusal(0, exitgate.RuleHost,
			"%s shows no identity certificate, and this way in asks for one", s.id.addr)}
	}
	return nil
}

// withCertificate marks the tickets of hosts that showed a certificate.
const withCertificate = "exitgate: certificate"

// proxyTLS is the configuration of the TLS proxy. It has tickets of its own, so that a session of a tunnel is none
// here. A session that was made without a certificate is not resumed: the host may have one by now, and TLS 1.3 asks
// for none on resumption. One that was made with a certificate brings it along, and it is judged anew.
func (p *Proxy) proxyTLS() *tls.Config {
	c := p.serverTLS()
	c.ClientAuth = tls.RequestClientCert
	if p.TLSProxy.Certificate != nil {
		c.GetCertificate = func(h *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
			err = safely("server certificate", func() (err error) { cert, err = p.TLSProxy.Certificate(h); return err })
			return cert, err
		}
	}
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		if len(cs.PeerCertificates) > 0 {
			ss.Extra = append(ss.Extra, []byte(withCertificate))
		}
		return c.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := c.DecryptTicket(ticket, cs)
		if err != nil || ss == nil {
			return nil, nil // a full handshake
		}
		for _, e := range ss.Extra {
			if string(e) == withCertificate {
				return ss, nil
			}
		}
		return nil, nil
	}
	return c
}

// plainText answers a host that speaks HTTP where TLS is spoken, and reports whether that is what it does.
func (p *Proxy) plainText(l *leg, err error) bool {
	var rec tls.RecordHeaderError
	if l.s.tunnel != nil || !errors.As(err, &rec) || rec.Conn == nil || !isMethod(rec.RecordHeader[:]) {
		return false
	}
	r := exitgate.NewRefusal(400, exitgate.RuleProtocol, "plain HTTP came where TLS is spoken: the proxy on this port is named https://, not http://")
	x := p.newFlow(l.s, exitgate.KindConnection)
	x.blame(r)
	n := p.noticeFor(x, r)
	x.flow.Status = n.Status
	body := n.text()
	l.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(rec.Conn, "HTTP/1.1 400 %s\r\nProxy-Status: %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		http.StatusText(400), p.proxyStatus(n), len(body), body)
	l.CloseWrite()
	p.end(p.base, x)
	discard(l, 1<<20)
	l.Close()
	return true
}

// isMethod reports whether b, the first bytes of a connection, begin a request of HTTP/1.x.
func isMethod(b []byte) bool {
	for _, m := range [...]string{"CONNECT ", "GET ", "HEAD ", "POST ", "PUT ", "OPTIONS ", "DELETE ", "PATCH "} {
		if strings.HasPrefix(m, string(b)) || strings.HasPrefix(string(b), m) {
			return true
		}
	}
	return false
}
