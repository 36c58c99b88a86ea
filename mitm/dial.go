package mitm

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/exitgate/exitgate"
)

// This is the one file of the engine that reaches the outside. Every caller has a verdict that allows.

// An upconn is a connection to an upstream, with what was learnt when it was made.
type upconn struct {
	net.Conn
	addr                  netip.AddrPort // that was dialled, after it was checked; of the parent, if one is used
	resolve, connect, tls time.Duration
	cert                  string // SHA-256 of the upstream's leaf, lower-case hex; "" plain text
	version, alpn         string
	closed                func() // is called by the first Close; nil: nobody asks
	once                  sync.Once
}

// Close implements net.Conn.
func (c *upconn) Close() error {
	err := c.Conn.Close()
	if c.closed != nil {
		c.once.Do(c.closed)
	}
	return err
}

// CloseWrite sends the end of this direction.
func (c *upconn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// upconnOf returns what is known of a transport's connection.
func upconnOf(c net.Conn) *upconn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	u, _ := c.(*upconn)
	return u
}

// dial opens a TCP connection to d, through the parent proxy where one is set. The error is a Fault, a Refusal
// when no address of d may be dialled, or a Bug: it may run on a goroutine of http.Transport, where a panic would
// end the process.
func (p *Proxy) dial(ctx context.Context, d exitgate.Destination) (u *upconn, err error) {
	err = safely("dial", func() (err error) { u, err = p.dialChecked(ctx, d); return err })
	if l := looking(ctx); l != nil && err == nil {
		l.Dialled = u.addr
	}
	return u, err
}

func (p *Proxy) dialChecked(ctx context.Context, d exitgate.Destination) (*upconn, error) {
	l := looking(ctx)
	if parent := p.parentFor(d.Host); parent != nil {
		if l != nil {
			l.Parent = hostPort(parent)
		}
		return p.dialThrough(ctx, parent, d)
	}
	start := time.Now()
	addrs, err := p.resolve(ctx, d)
	if err != nil {
		return nil, err
	}
	if l != nil {
		l.Answers = addrs
	}
	u := &upconn{resolve: time.Since(start)}
	if _, literal := d.IP(); literal {
		u.resolve = 0
	}
	if addrs, err = p.checked(d, addrs); err != nil {
		return nil, err
	}
	start = time.Now()
	if u.Conn, u.addr, err = p.race(ctx, d, addrs); err != nil {
		return nil, err
	}
	u.connect = time.Since(start)
	return u, nil
}

// resolve asks once; what it returns is checked and then dialled, so that no second answer can differ.
func (p *Proxy) resolve(ctx context.Context, d exitgate.Destination) ([]netip.AddrPort, error) {
	if a, ok := d.IP(); ok && p.Resolver == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, d.Port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, or(p.Timeouts.Resolve, 5*time.Second))
	defer cancel()
	r := p.Resolver
	if r == nil {
		r = SystemResolver{}
	}
	addrs, err := r.Resolve(ctx, d.Host, d.Port)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: d.Host, IsNotFound: true}
	}
	if err != nil {
		return nil, resolveFault(d, err)
	}
	return addrs, nil
}

// SystemResolver resolves as the machine does: its hosts file and its name servers.
type SystemResolver struct{}

// Resolve implements Resolver.
func (SystemResolver) Resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, port)}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip.Unmap(), port)
	}
	return out, err
}

func resolveFault(d exitgate.Destination, err error) error {
	f := &exitgate.Fault{Step: "resolve", Type: "dns_error", Err: err}
	var de *net.DNSError
	switch {
	case errors.As(err, &de) && de.IsNotFound:
		f.Reason = fmt.Sprintf("the name %s does not exist, says the gateway's resolver", d.Host)
	case isTimeout(err) || errors.As(err, &de) && de.IsTimeout:
		f.Type, f.Reason = "dns_timeout", fmt.Sprintf("the gateway's resolver did not answer for %s in time", d.Host)
	default:
		f.Reason = fmt.Sprintf("the gateway could not resolve %s: %v", d.Host, err)
	}
	return f
}

// checked keeps the addresses that may be dialled, IPv6 and IPv4 in turn (RFC 8305, section 4).
func (p *Proxy) checked(d exitgate.Destination, addrs []netip.AddrPort) ([]netip.AddrPort, error) {
	var six, four []netip.AddrPort
	var why error
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if err := p.Guard.Check(a); err != nil {
			why = err
			continue
		}
		if a.Addr().Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(six)+len(four) == 0 {
		return nil, exitgate.NewRefusal(http.StatusForbidden, exitgate.RuleAddress,
			"%s leads to an address that the gateway does not dial: %v (upstream.allow lists exceptions)", d, why)
	}
	var out []netip.AddrPort
	for i := 0; i < len(six) || i < len(four); i++ {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out, nil
}

// eyeballDelay is how long one address may be silent before the next is tried beside it (RFC 8305, section 5).
const eyeballDelay = 250 * time.Millisecond

type dialled struct {
	c    net.Conn
	addr netip.AddrPort
	err  error
}

// race dials addrs, each a while after the one before it or as soon as that one failed, and keeps the first
// connection.
func (p *Proxy) race(ctx context.Context, d exitgate.Destination, addrs []netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, or(p.Timeouts.Connect, 10*time.Second))
	defer cancel()
	results := make(chan dialled, len(addrs))
	next, pending := 0, 0
	start := func() {
		if next < len(addrs) {
			go dialOne(ctx, addrs[next], results)
			next, pending = next+1, pending+1
		}
	}
	start()
	timer := time.NewTimer(eyeballDelay)
	defer timer.Stop()
	var last dialled
	for pending > 0 {
		select {
		case <-timer.C:
			start()
			timer.Reset(eyeballDelay)
		case r := <-results:
			pending--
			if r.err == nil {
				go closeRest(results, pending)
				return r.c, r.addr, nil
			}
			last = r
			start()
		}
	}
	return nil, netip.AddrPort{}, connectFault(d, last, len(addrs))
}

// dialOne dials one address that was checked.
func dialOne(ctx context.Context, addr netip.AddrPort, results chan<- dialled) {
	nd := net.Dialer{KeepAlive: 30 * time.Second}
	nd.SetMultipathTCP(false)
	c, err := nd.DialContext(ctx, "tcp", addr.String())
	results <- dialled{c, addr, err}
}

// closeRest closes the connections that lost the race. The context of the dials ends with race.
func closeRest(results <-chan dialled, n int) {
	for range n {
		if r := <-results; r.c != nil {
			r.c.Close()
		}
	}
}

func connectFault(d exitgate.Destination, last dialled, n int) error {
	f := &exitgate.Fault{Step: "connect", Type: "destination_unavailable", Err: last.err}
	at := last.addr.String()
	if n > 1 {
		at = fmt.Sprintf("any of its %d addresses, the last %s", n, at)
	}
	switch {
	case errors.Is(last.err, syscall.ECONNREFUSED):
		f.Type, f.Reason = "connection_refused", fmt.Sprintf("%s refused the connection at %s", d, at)
	case isTimeout(last.err):
		f.Type, f.Reason = "connection_timeout", fmt.Sprintf("%s did not answer at %s in time", d, at)
	case errors.Is(last.err, context.Canceled):
		f.Step, f.Type, f.Reason = "client", "client_gone", "the host went before the connection to the destination was made"
	case errors.Is(last.err, syscall.EHOSTUNREACH), errors.Is(last.err, syscall.ENETUNREACH):
		f.Type, f.Reason = "destination_ip_unroutable", fmt.Sprintf("no route from the gateway to %s at %s", d, at)
	default:
		f.Reason = fmt.Sprintf("connect to %s at %s: %v", d, at, last.err)
	}
	return f
}

// dialTLS opens a verified TLS connection for a transport that speaks protos. The result is a *tls.Conn on an
// *upconn.
func (p *Proxy) dialTLS(ctx context.Context, addr string, base *tls.Config) (net.Conn, error) {
	d, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	u, err := p.dial(ctx, d)
	if err != nil {
		return nil, err
	}
	c := base.Clone()
	c.ServerName = d.Host
	if cert := p.clientCertificate(d.Host); cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		c.ClientSessionCache = nil // a session is bound to the certificate that it was made with
	}
	t := tls.Client(u, c)
	start := time.Now()
	hctx, cancel := context.WithTimeout(ctx, or(p.Timeouts.UpstreamTLS, 10*time.Second))
	defer cancel()
	if err := safely("verify", func() error { return t.HandshakeContext(hctx) }); err != nil {
		u.Close()
		return nil, tlsFault(d, u.addr, err)
	}
	st := t.ConnectionState()
	u.tls, u.version, u.alpn = time.Since(start), tlsVersion(st.Version), st.NegotiatedProtocol
	u.cert = fingerprint(st.PeerCertificates[0])
	return t, nil
}

func splitAddr(addr string) (exitgate.Destination, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return exitgate.Destination{}, &exitgate.Bug{Step: "dial", Err: err}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return exitgate.Destination{}, &exitgate.Bug{Step: "dial", Err: err}
	}
	return exitgate.Destination{Host: host, Port: uint16(n)}, nil
}

// parentFor returns the parent proxy that host is reached through, or nil.
func (p *Proxy) parentFor(host string) *url.URL {
	if p.Upstream.Proxy == nil {
		return nil
	}
	ip, ipErr := netip.ParseAddr(host)
	for _, no := range p.Upstream.NoProxy {
		if no == "*" || strings.EqualFold(no, host) || strings.HasPrefix(no, ".") && strings.HasSuffix(host, strings.ToLower(no)) {
			return nil
		}
		if pre, err := netip.ParsePrefix(no); err == nil && ipErr == nil && pre.Contains(ip) {
			return nil
		}
	}
	return p.Upstream.Proxy
}

// dialParent connects to the parent proxy itself. Its address is the operator's choice, so the guard does not
// speak.
func (p *Proxy) dialParent(ctx context.Context, parent *url.URL) (*upconn, error) {
	d, err := splitAddr(hostPort(parent))
	if err != nil {
		return nil, err
	}
	start := time.Now()
	ips, err := SystemResolver{}.Resolve(ctx, d.Host, d.Port)
	if err != nil {
		return nil, resolveFault(d, fmt.Errorf("resolve the parent proxy: %w", err))
	}
	u := &upconn{resolve: time.Since(start)}
	start = time.Now()
	u.Conn, u.addr, err = p.race(ctx, d, ips)
	u.connect = time.Since(start)
	return u, err
}

func hostPort(u *url.URL) string { return net.JoinHostPort(u.Hostname(), or(u.Port(), "3128")) }

// dialThrough opens a tunnel to d through the parent proxy.
func (p *Proxy) dialThrough(ctx context.Context, parent *url.URL, d exitgate.Destination) (*upconn, error) {
	u, err := p.dialParent(ctx, parent)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { u.Close() })
	defer stop()
	u.SetDeadline(time.Now().Add(or(p.Timeouts.Connect, 10*time.Second)))
	req := "CONNECT " + d.String() + " HTTP/1.1\r\nHost: " + d.String() + "\r\n" + parentCredentials(parent) + "\r\n"
	if _, err := u.Write([]byte(req)); err != nil {
		u.Close()
		return nil, parentFault(parent, d, err.Error(), err)
	}
	// One byte at a time would be exact and slow; the parent has nothing to say after its head before the
	// destination does, and what came with the head is replayed.
	br := bufio.NewReaderSize(u.Conn, 4096)
	res, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		u.Close()
		return nil, parentFault(parent, d, err.Error(), err)
	}
	if res.StatusCode != http.StatusOK {
		u.Close()
		return nil, parentFault(parent, d, res.Status, nil)
	}
	u.SetDeadline(time.Time{})
	if n := br.Buffered(); n > 0 {
		pre, _ := br.Peek(n)
		u.Conn = &leg{Conn: u.Conn, s: &session{}, pre: append([]byte(nil), pre...)}
	}
	return u, nil
}

func parentCredentials(parent *url.URL) string {
	if parent.User == nil {
		return ""
	}
	pw, _ := parent.User.Password()
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(parent.User.Username()+":"+pw)) + "\r\n"
}

func parentFault(parent *url.URL, d exitgate.Destination, why string, err error) error {
	return &exitgate.Fault{Step: "connect", Type: "destination_unavailable", Err: err,
		Reason: fmt.Sprintf("the parent proxy %s did not open a tunnel to %s: %s", parent.Host, d, why)}
}
