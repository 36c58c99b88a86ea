package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// probeURL is answered by every gateway itself.
const probeURL = "https://probe.exitgate.internal/"

// The bounds on what a proxy answers.
const (
	maxHead = 32 << 10
	maxSaid = 64 << 10
)

// reach opens a connection as a program would, as far as it comes, and asks for nothing over it.
func (m machine) reach(ctx context.Context, way Way) (r Reached, err error) {
	c, err := m.open(ctx, way, &r)
	if err != nil {
		return r, err
	}
	defer c.Close()
	if way.To.Scheme != "https" {
		return r, nil
	}
	r.Step = "tls"
	t, err := m.handshake(ctx, c, way.To.Hostname(), &r)
	if err != nil {
		return r, err
	}
	st := t.ConnectionState()
	r.TLS, r.ALPN, r.Step = tlsVersion(st.Version), st.NegotiatedProtocol, ""
	return r, nil
}

// open connects to the destination or to the proxy, and through the proxy by CONNECT when TLS is to follow.
func (m machine) open(ctx context.Context, way Way, r *Reached) (net.Conn, error) {
	to := way.To
	if way.Proxy != nil {
		to = way.Proxy
	}
	r.Step = "connect"
	c, err := dialAny(ctx, way.Addresses, portOf(hostPort(to)))
	if err != nil {
		return nil, err
	}
	r.Peer, _ = netip.ParseAddrPort(c.RemoteAddr().String())
	context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	r.Step = ""
	if way.Proxy == nil {
		return c, nil
	}
	if way.Proxy.Scheme == "https" {
		r.Step = "proxy-tls"
		t := tls.Client(c, proxyTLS(way))
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, tlsError("the proxy "+way.Proxy.Host, err)
		}
		c, r.Step = t, ""
	}
	if way.To.Scheme == "https" {
		r.Step = "proxy"
		if err := connectTo(c, hostPort(way.To), r); err != nil {
			c.Close()
			return nil, err
		}
		r.Step = ""
	}
	return c, nil
}

// proxyTLS shows an https proxy the host's identity, and does not check the proxy: what is asked is how far one comes, and
// the way in is not a secret.
func proxyTLS(way Way) *tls.Config {
	c := &tls.Config{ServerName: way.Proxy.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	if way.Enrolment.pair != nil {
		c.Certificates = []tls.Certificate{*way.Enrolment.pair}
	}
	return c
}

// dialAny tries the addresses in turn, each for its part of the time that there is.
func dialAny(ctx context.Context, list []netip.Addr, port uint16) (net.Conn, error) {
	var last error
	for i, a := range list[:min(len(list), 4)] {
		d := net.Dialer{}
		if end, ok := ctx.Deadline(); ok {
			left := time.Until(end) - time.Second/2 // for what is to come
			d.Timeout = max(left/time.Duration(min(len(list), 4)-i), time.Millisecond)
		}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return c, nil
		}
		last = err
	}
	var op *net.OpError
	if errors.As(last, &op) && op.Timeout() {
		return nil, failed(KindTimeout, "%s did not answer in time", op.Addr)
	}
	return nil, last
}

// connectTo asks the proxy for a tunnel. The answer is read byte by byte: what follows it belongs to TLS.
func connectTo(c net.Conn, target string, r *Reached) error {
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: exitgate-doctor\r\nAccept: application/json\r\n\r\n", target, target)
	res, err := http.ReadResponse(bufio.NewReaderSize(&headReader{c: c}, 16), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return connectionError("the proxy's answer", err)
	}
	r.Status = res.StatusCode
	if res.StatusCode == http.StatusOK {
		return nil
	}
	var body []byte
	if n := res.ContentLength; n > 0 { // the body is behind what headReader gave
		body, _ = io.ReadAll(io.LimitReader(c, min(n, maxSaid)))
	}
	r.Said = reasonOf(res, body)
	return failed(KindProxySaid, "the proxy answered %d: %s", res.StatusCode, r.Said)
}

// A headReader hands out a head and not one byte more.
type headReader struct {
	c    io.Reader
	tail [4]byte
	n    int
}

// Read implements io.Reader.
func (h *headReader) Read(b []byte) (int, error) {
	if string(h.tail[:]) == "\r\n\r\n" {
		return 0, io.EOF
	}
	if h.n++; h.n > maxHead {
		return 0, errors.New("its head does not end")
	}
	n, err := h.c.Read(b[:1])
	if n == 1 {
		copy(h.tail[:], h.tail[1:])
		h.tail[3] = b[0]
	}
	return n, err
}

// reasonOf finds the sentence in an answer that is no success.
func reasonOf(res *http.Response, body []byte) string {
	var p struct{ Detail, Title string }
	if json.Unmarshal(body, &p) == nil && p.Detail+p.Title != "" {
		return clip(cmp.Or(p.Detail, p.Title))
	}
	if d := details(res.Header.Get("Proxy-Status")); d != "" {
		return clip(d)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return clip(cmp.Or(line, res.Status))
}

// details returns the parameter of that name of a Proxy-Status field (RFC 9209; its strings are those of RFC 8941).
func details(field string) string {
	_, rest, ok := strings.Cut(field, `details="`)
	if !ok {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] == '\\' && i+1 < len(rest) {
			i++
		}
		b.WriteByte(rest[i])
	}
	return b.String()
}

// clip bounds what is told of somebody else's words.
func clip(s string) string {
	if len(s) > 400 {
		return s[:400] + "..."
	}
	return s
}

// handshake speaks TLS and takes whatever is shown; who accepts it is looked at afterwards.
func (m machine) handshake(ctx context.Context, c net.Conn, name string, r *Reached) (*tls.Conn, error) {
	t := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(cs tls.ConnectionState) error { r.Chain = cs.PeerCertificates; return nil }})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, tlsError(name, err)
	}
	return t, nil
}

func tlsError(who string, err error) error {
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &record):
		return failed(KindNotTLS, "%s does not speak TLS there", who)
	case errors.As(err, &op) && op.Op == "remote error":
		return failed(KindNotTLS, "%s ended TLS: %v", who, op.Err)
	}
	return connectionError("TLS with "+who, err)
}

func connectionError(what string, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return failed(KindTimeout, "%s did not come in time", what)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(KindInterrupt, "%s did not come: the connection was closed", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// probe asks the proxy what it takes this host for. What it says is shown and decides nothing, so its certificate is not
// checked.
func (m machine) probe(ctx context.Context, way Way) (p Probed, err error) {
	way.To, err = url.Parse(probeURL)
	if err != nil {
		return p, err
	}
	var r Reached
	c, err := m.open(ctx, way, &r)
	if err != nil {
		return p, err
	}
	defer c.Close()
	t := tls.Client(c, &tls.Config{ServerName: way.To.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		return p, tlsError("the proxy", err)
	}
	fmt.Fprintf(t, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: exitgate-doctor\r\nAccept: application/json\r\nConnection: close\r\n\r\n", way.To.Host)
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(t, maxHead+maxSaid)), nil)
	if err != nil {
		return p, connectionError("the proxy's answer", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSaid))
	if err != nil {
		return p, connectionError("the proxy's answer", err)
	}
	if res.StatusCode != http.StatusOK {
		return p, failed(KindProxySaid, "the proxy answered %d: %s", res.StatusCode, reasonOf(res, body))
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Class == "" {
		return Probed{}, failed(KindOther, "the proxy is no exitgate, or an old one: it answered something else")
	}
	p.Problem, p.Heard, p.Chain = nil, m.Now(), t.ConnectionState().PeerCertificates
	return p, nil
}

func tlsVersion(v uint16) string { return strings.TrimPrefix(tls.VersionName(v), "TLS ") }

// hostPort returns host:port of u, with the port of its scheme where it has none.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func portOf(hostport string) uint16 {
	_, port, _ := net.SplitHostPort(hostport)
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// verify checks a chain against roots at a time, and for a name where one is given.
func verify(chain []*x509.Certificate, roots *x509.CertPool, name string, at time.Time) ([][]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("nothing was shown")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:min(len(chain), maxRoots)] {
		between.AddCert(c)
	}
	return chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: at})
}
