package mitm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// connect answers CONNECT, over HTTP/1.x and HTTP/2 alike: it asks whether this host may reach the destination
// at all, and then takes over the bytes.
//
// A refusal is given where the client will show it. Most clients hide the body of an answer to CONNECT, so a
// host that is known, and so trusts the gateway's CA, gets the tunnel, and each request inside is refused with
// its reason; nothing is dialled. A host that is not known gets the refusal as the answer to CONNECT.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request, cc *connContext) {
	s := cc.l.s
	x := p.newFlow(s, exitgate.KindTunnel)
	x.flow.Authority.Connect = r.RequestURI
	if r.ProtoMajor == 2 {
		x.flow.Authority.Connect = r.Host
		if i := strings.LastIndexByte(r.Host, '@'); i >= 0 {
			x.flow.Authority.Connect = "..." + r.Host[i:] // it may be a password; connectTarget refuses it
		}
	}
	err := safely("connect", func() error { return p.admit(x, r) })
	if err != nil {
		inside, err := p.answerInside(x, err)
		if !inside {
			p.refuseRequest(w, r, x, err)
			return
		}
	}
	inner := &session{conn: s.conn, way: s.way, id: x.who.of, begin: x.flow.Begin, tunnel: &tunnel{
		dest: x.flow.Question.Dest, connect: x.flow.Authority.Connect, host: x.flow.Question.Host, verdict: x.flow.Verdict,
	}}
	s.spawned.Add(1)
	conn, wait, err := p.takeOver(w, r, cc)
	if err != nil {
		x.blame(&exitgate.Fault{Step: "client", Type: "client_gone", Reason: "the answer to CONNECT could not be written: " + err.Error(), Err: err})
		p.end(r.Context(), x)
		return
	}
	l := &leg{Conn: conn, s: inner, onClose: func(l *leg) { p.connClosed(l); p.sessions.remove(inner) }}
	if p.flows.enter() {
		l.onClose = func(l *leg) { p.connClosed(l); p.sessions.remove(inner); p.flows.leave() }
	}
	inner.cut = func() { conn.Close() }
	p.sessions.add(inner)
	l.read.Store(int64(len(x.flow.Authority.Connect))) // the host spoke: the tunnel owes a flow, come what may
	serve := func() {
		defer p.recovered(l, "tunnel")
		p.serveTunnel(l)
	}
	if cc.h1 != nil {
		cc.h1.next = serve
		return
	}
	serve()
	wait()
}

// admit identifies the host, reads the target and asks. The error is a refusal.
func (p *Proxy) admit(x *exchange, r *http.Request) error {
	q := &x.flow.Question
	err := mayProbe(x, p.identify(x, r))
	if err != nil {
		return err
	}
	if q.Dest, err = connectTarget(x, r); err != nil {
		return or(x.owed, err)
	}
	switch {
	case p.isProbe(q.Dest):
		x.flow.Verdict = p.probeVerdict()
		return p.leafFor(r.Context(), q.Dest.Host)
	case x.owed != nil:
		return x.owed
	}
	x.flow.Verdict = p.ask(r.Context(), q)
	switch x.flow.Verdict.Action {
	case exitgate.Splice:
		return nil
	case exitgate.Allow:
		return p.leafFor(r.Context(), q.Dest.Host) // a name that may not be read is refused before anything is promised
	}
	return refusalOf(x.flow.Verdict)
}

// connectTarget reads what CONNECT names. Over HTTP/1.x the Screen has seen to most of it; over HTTP/2 nobody has.
func connectTarget(x *exchange, r *http.Request) (exitgate.Destination, error) {
	none, names := exitgate.Destination{}, &x.flow.Authority
	if strings.IndexByte(names.Connect, '@') >= 0 {
		return none, exitgate.NewRefusal(400, exitgate.RuleMalformed, "the target of CONNECT holds user information (\"@\")")
	}
	d, err := parseAuthority(names.Connect)
	if err != nil {
		return none, exitgate.NewRefusal(400, exitgate.RuleMalformed, "CONNECT %.300q: %v", names.Connect, err)
	}
	for _, h := range r.Header["Host"] { // HTTP/2 only: net/http takes it out of HTTP/1 requests
		hd, err := parseAuthority(h)
		if err != nil { // without a port, or no authority at all
			hd, err = parseAuthority(net.JoinHostPort(strings.Trim(h, "[]"), strconv.Itoa(int(d.Port))))
		}
		if err != nil || hd != d {
			return none, exitgate.NewRefusal(http.StatusMisdirectedRequest, exitgate.RuleAuthority, "CONNECT is for %s, and its Host field says another", d)
		}
	}
	return d, nil
}

// answerInside reports whether the refusal err should be given inside the tunnel, and else what should be given
// in its place.
func (p *Proxy) answerInside(x *exchange, err error) (bool, error) {
	var r *exitgate.Refusal
	q := &x.flow.Question
	if p.Refusals.Connect == RefuseOutside || !errors.As(err, &r) || r.Status != 0 || q.Dest.Port == 0 {
		return false, err
	}
	if p.Refusals.Connect != RefuseInside && q.Host.Class == exitgate.ClassUnknown {
		return false, err
	}
	lerr := p.leafFor(p.base, q.Dest.Host)
	if b := new(exitgate.Bug); errors.As(lerr, &b) {
		return false, b
	}
	return lerr == nil, err
}

// leafFor asks for the leaf of a destination, to learn whether there can be one. The error is a Refusal where the
// name may not be read, and else a Bug.
func (p *Proxy) leafFor(ctx context.Context, name string) error {
	err := safely("issuer", func() error { _, err := p.Issuer.Leaf(ctx, name); return err })
	if err == nil {
		return nil
	}
	return flowError("issuer", err)
}

// parseAuthority reads host:port as CONNECT names it (RFC 9112, section 3.2.3): a name of letters, digits, dash
// and underscore, or an IP address, and a port, both required. It lower-cases; it repairs nothing.
func parseAuthority(s string) (d exitgate.Destination, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return d, errors.New("the target has no port; it must be host:port")
	}
	host, portText := s[:i], s[i+1:]
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || portText[0] == '0' || portText[0] == '+' {
		return d, errors.New("the port must be a number from 1 to 65535")
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return d, errors.New("the address in brackets is not an IPv6 address")
		}
		return exitgate.Destination{Host: a.Unmap().String(), Port: uint16(port)}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return exitgate.Destination{Host: a.String(), Port: uint16(port)}, nil
	}
	if host, err = lowerName(host); err != nil {
		return exitgate.Destination{}, err
	}
	return exitgate.Destination{Host: host, Port: uint16(port)}, nil
}

// lowerName checks a DNS name and puts it in lower case. A last label of digits only is refused, as some
// resolvers read such a name as an IPv4 address in another notation (WHATWG URL, "ends in a number").
func lowerName(s string) (string, error) {
	if s == "" || len(s) > 253 {
		return "", errors.New("the name must have 1 to 253 characters")
	}
	b := []byte(s)
	label, digits := 0, true
	for i, c := range b {
		switch {
		case c >= 'A' && c <= 'Z':
			b[i] = c + 'a' - 'A'
			digits = false
		case c >= 'a' && c <= 'z', c == '_', c == '-' && label > 0:
			digits = false
		case c >= '0' && c <= '9':
		case c == '.' && label > 0 && b[i-1] != '-':
			label, digits = 0, true
			continue
		default:
			return "", fmt.Errorf("the name has %q at %d, where only letters, digits, dash, underscore and single dots may stand", string(rune(c)), i)
		}
		if label++; label > 63 {
			return "", errors.New("the name has a label of more than 63 characters")
		}
	}
	switch {
	case label == 0:
		return "", errors.New("the name ends with a dot; write it without")
	case b[len(b)-1] == '-':
		return "", errors.New("the name ends with a dash")
	case digits, isHexNumber(b[len(b)-label:]):
		return "", errors.New("the name ends in a number and is not an IPv4 address of four parts")
	}
	return string(b), nil
}

// isHexNumber reports whether an inet_aton would read label, in lower case, as a hexadecimal number.
func isHexNumber(label []byte) bool {
	return len(label) >= 2 && label[0] == '0' && label[1] == 'x' && len(bytes.Trim(label[2:], "0123456789abcdef")) == 0
}

// takeOver answers 200 and returns the connection that the tunnel runs on. wait returns when the handler may
// return: at once over HTTP/1.x, where the connection was taken from the server, and when the stream's end is
// reached over HTTP/2.
func (p *Proxy) takeOver(w http.ResponseWriter, r *http.Request, cc *connContext) (conn net.Conn, wait func(), err error) {
	if r.ProtoMajor == 2 {
		return takeStream(w, r, cc)
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	conn.SetDeadline(time.Time{})
	cc.screened.pass()
	if n := rw.Reader.Buffered(); n > 0 { // the screen lets nothing through behind a CONNECT
		conn.Close()
		return nil, nil, fmt.Errorf("%d bytes came before the answer", n)
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, func() {}, nil
}
