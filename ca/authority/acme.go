package authority

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	smallacme "github.com/smallstep/certificates/acme"
)

// ACME lets hosts get server certificates for their own names (RFC 8555), by the challenges http-01 and tls-alpn-01. Such
// a certificate proves control of a name. It has no class and is no identity.
type ACME struct {
	// Names are those that certificates may be for: a DNS name, or "*." and one for all names one label below it.
	Names []string
	// Addresses returns the addresses that are registered for the host of that name, and an error or none when it is
	// not registered, or disabled. Only these are ever dialled to validate a challenge.
	Addresses func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial connects to one of those addresses. Nil: a net.Dialer.
	Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
}

// The bounds of one validation.
const (
	challengeTimeout = 10 * time.Second
	maxChallenge     = 4 << 10 // bytes of body; a key authorization has about 90
	maxAddresses     = 4       // that are tried
)

func (o *ACME) check() error {
	if o == nil {
		return nil
	}
	if o.Addresses == nil {
		return errors.New("ACME: nothing was given that says which addresses a host has")
	}
	if len(o.Names) == 0 {
		return errors.New("ACME: no names were given that certificates may be for")
	}
	for _, n := range o.Names {
		if err := checkName(strings.TrimPrefix(n, "*.")); err != nil {
			return fmt.Errorf("ACME: certificates cannot be for %.80q: %w", n, err)
		}
	}
	return nil
}

// A challenger reaches hosts to validate challenges. The names it is asked for come from strangers.
type challenger struct {
	o    *ACME
	http *http.Client
}

var _ smallacme.Client = (*challenger)(nil)

func (o *ACME) client() *challenger {
	c := &challenger{o: o}
	c.http = &http.Client{
		Timeout:       challengeTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // without Proxy: no variable sends a challenge elsewhere
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			DialContext:            func(ctx context.Context, _, addr string) (net.Conn, error) { return c.dial(ctx, addr, 80) },
		},
	}
	return c
}

// Get implements smallacme.Client for http-01, over plain HTTP to port 80 of a registered address.
func (c *challenger) Get(url string) (*http.Response, error) {
	if !strings.HasPrefix(url, "http://") {
		return nil, fmt.Errorf("fetch a challenge from %.80q: only http is used", url)
	}
	res, err := c.http.Get(url)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxChallenge), res.Body}
	return res, nil
}

// LookupTxt implements smallacme.Client: dns-01 is off, since a name looked up for a stranger carries what he likes.
func (c *challenger) LookupTxt(name string) ([]string, error) {
	return nil, fmt.Errorf("look up %.80q: challenges by DNS are not used here", name)
}

// TLSDial implements smallacme.Client for tls-alpn-01, to port 443 of a registered address.
func (c *challenger) TLSDial(_, addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), challengeTimeout)
	defer cancel()
	raw, err := c.dial(ctx, addr, 443)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// dial connects to a registered address of the host that addr names, at the port that the challenge is for.
func (c *challenger) dial(ctx context.Context, addr string, port uint16) (net.Conn, error) {
	name, p, err := net.SplitHostPort(addr)
	if err != nil || p != fmt.Sprint(port) {
		return nil, fmt.Errorf("validate a challenge at %.80q: only port %d is used", addr, port)
	}
	name = strings.ToLower(name)
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("validate a challenge: %.80q is not the name of a host", name)
	}
	addrs, err := c.o.Addresses(ctx, name)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address is registered for it")
	}
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		var conn net.Conn
		if conn, err = c.connect(ctx, netip.AddrPortFrom(a, port)); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("validate a challenge of %s: %w", name, err)
}

func (c *challenger) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if c.o.Dial != nil {
		return c.o.Dial(ctx, "tcp", to)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
}
