package ca

import (
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

// domains is a set of domains; each stands for itself and for every name below it.
type domains map[string]struct{}

// parseDomains reads a list from a configuration.
func parseDomains(list []string) (domains, error) {
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
			return nil, fmt.Errorf("never-intercept domain %.80q (entry %d): %w", list[i], i+1, err)
		}
		size += len(s)
	}
	if size > maxExcluded {
		return nil, fmt.Errorf("the never-intercept domains have %d bytes together, more than %d, which would travel in every handshake: list parent domains", size, maxExcluded)
	}
	return newDomains(list), nil
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
