package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/exitgate/exitgate"
)

// The bounds of a DNS name (RFC 1035, section 2.3.4, less the dots and lengths that text does not show).
const (
	maxName  = 253
	maxLabel = 63
)

// maxExcluded bounds the excluded domains together, in bytes: they travel in every handshake, and some clients
// bound what they read of it (Java at 32 KiB).
const maxExcluded = 8 << 10

// checkName returns an error when s is not a DNS name of a host: labels of letters, digits and hyphens, the last
// of which is no number (a client may take such a name for an IPv4 address).
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > maxName:
		return fmt.Errorf("it is longer than %d characters", maxName)
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return errors.New("its last label is a number")
	}
	return nil
}

func checkLabel(s string) error {
	switch {
	case s == "":
		return errors.New("it has an empty label")
	case len(s) > maxLabel:
		return fmt.Errorf("it has a label longer than %d characters", maxLabel)
	case s == "*":
		return errors.New("it has a wildcard")
	case s[0] == '-' || s[len(s)-1] == '-':
		return errors.New("it has a label that begins or ends with a hyphen")
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return errors.New("it has a character other than letters, digits and hyphens")
		}
	}
	return nil
}

// lower folds the case of ASCII alone. Unicode's folding makes an ASCII name of one that is not: U+212A is a k.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// leafName returns the name that a leaf for name carries, and its address when it is one. The error is a refusal.
func leafName(name string) (string, net.IP, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		if a.Zone() != "" {
			return "", nil, malformed(name, errors.New("an address with a zone means something on one link only"))
		}
		a = a.Unmap()
		return a.String(), a.AsSlice(), nil
	}
	name = lower(name)
	if err := checkName(name); err != nil {
		return "", nil, malformed(name, err)
	}
	return name, nil, nil
}

func malformed(name string, err error) error {
	return exitgate.NewRefusal(http.StatusBadRequest, exitgate.RuleMalformed, "%.80q cannot be the name of a server: %v", name, err)
}

// constraints are what an issuer lets hosts accept leaves for.
type constraints struct {
	never domains // no leaf
	only  domains // no other leaf, and none for an address; empty: any
}

// parseConstraints reads both lists from a configuration.
func parseConstraints(never, only []string) (c constraints, err error) {
	if c.never, err = parseDomains("never-intercept", never); err != nil {
		return c, err
	}
	if c.only, err = parseDomains("only-intercept", only); err != nil {
		return c, err
	}
	if n := c.never.size() + c.only.size(); n > maxExcluded {
		return c, tooLong("never-intercept and only-intercept", n)
	}
	return c, nil
}

// constraintsOf returns what c, an issuer, says.
func constraintsOf(c *x509.Certificate) constraints {
	return constraints{newDomains(c.ExcludedDNSDomains), newDomains(c.PermittedDNSDomains)}
}

// write puts the constraints into the template of an issuer.
func (c constraints) write(t *x509.Certificate) {
	t.ExcludedDNSDomains, t.PermittedDNSDomains = c.never.list(), c.only.list()
	if len(c.only) > 0 { // else an issuer for a few names would be one for every address
		t.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	}
	t.PermittedDNSDomainsCritical = len(c.never)+len(c.only) > 0
}

func (c constraints) equal(d constraints) bool { return c.never.equal(d.never) && c.only.equal(d.only) }

// and returns constraints that exclude what either does. Of two lists of what alone is intercepted it keeps those
// domains that both cover.
func (c constraints) and(d constraints) constraints {
	both := constraints{never: newDomains(slices.Concat(c.never.list(), d.never.list())), only: c.only}
	if len(d.only) > 0 {
		both.only = c.only.within(d.only)
	}
	return both
}

// refuses returns the domain for which name is never intercepted, or "" and whether it is in no domain that is.
func (c constraints) refuses(name string, address bool) (domain string, outside bool) {
	if d := c.never.covers(name); d != "" {
		return d, false
	}
	return "", len(c.only) > 0 && (address || c.only.covers(name) == "")
}

// domains is a set of domains; each stands for itself and for every name below it.
type domains map[string]struct{}

// parseDomains reads a list from a configuration, whose name stands in errors.
func parseDomains(what string, list []string) (domains, error) {
	size := 0
	for i, s := range list {
		s = lower(s)
		_, addrErr := netip.ParseAddr(s)
		err := checkName(s)
		switch {
		case addrErr == nil:
			err = errors.New("it is an address, and only domains can be excluded")
		case strings.HasPrefix(s, "*.") || strings.HasPrefix(s, "."):
			err = fmt.Errorf("write %q, which covers every name below it too", strings.TrimLeft(s, "*."))
		case strings.Trim(s, ascii) != "":
			err = errors.New("write it in ASCII, as xn--")
		}
		if err != nil {
			return nil, fmt.Errorf("%s domain %.80q (entry %d): %w", what, list[i], i+1, err)
		}
		size += len(s)
	}
	if size > maxExcluded {
		return nil, tooLong(what, size)
	}
	return newDomains(list), nil
}

func tooLong(what string, size int) error {
	return fmt.Errorf("the %s domains have %d bytes together, more than %d, which would travel in every handshake: list parent domains", what, size, maxExcluded)
}

// ascii holds what a domain's text may hold at all.
const ascii = "abcdefghijklmnopqrstuvwxyz0123456789-._*"

// newDomains returns the set without the domains that another in it covers.
func newDomains(list []string) domains {
	d := make(domains, len(list))
	for _, s := range list {
		d[lower(s)] = struct{}{}
	}
	for s := range d {
		if _, parent, ok := strings.Cut(s, "."); ok && d.covers(parent) != "" {
			delete(d, s)
		}
	}
	return d
}

// covers returns the domain in d that name is, or is below; "" if there is none.
func (d domains) covers(name string) string {
	for len(d) > 0 && name != "" {
		if _, ok := d[name]; ok {
			return name
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return ""
}

// within returns the domains that both d and e cover; without any in d, those of e.
func (d domains) within(e domains) domains {
	if len(d) == 0 {
		return e
	}
	both := domains{}
	for _, pair := range [][2]domains{{d, e}, {e, d}} {
		for s := range pair[0] {
			if pair[1].covers(s) != "" {
				both[s] = struct{}{}
			}
		}
	}
	if len(both) == 0 { // nothing at all, which an empty set does not say
		both["invalid"] = struct{}{}
	}
	return newDomains(both.list())
}

func (d domains) size() (n int) {
	for s := range d {
		n += len(s)
	}
	return n
}

func (d domains) equal(e domains) bool { return slices.Equal(d.list(), e.list()) }

// list returns the domains, sorted.
func (d domains) list() []string {
	l := make([]string, 0, len(d))
	for s := range d {
		l = append(l, s)
	}
	slices.Sort(l)
	return l
}
