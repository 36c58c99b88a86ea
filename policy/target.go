package policy

import (
	_ "embed" // for suffixParents
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

var (
	errToEmpty = errors.New(`name the destination: "api.example.com", "*.example.com", "192.0.2.7" or "192.0.2.0/24"`)
	errToAll   = errors.New(`"*" would grant every destination; name each one, or "*.example.com" for all below a name`)
	errToURL   = errors.New("it is a destination without scheme, port and path, which stand in fields of their own")
)

// The widest ranges of addresses that can be granted at once. Wider ones are the internet with another name.
const (
	minBits4 = 8
	minBits6 = 16
)

// checkTo brings a destination into its one form: a lower-case name in ASCII, "*." and such a name, an address, or
// a range.
func checkTo(to string) (string, error) {
	switch {
	case to == "":
		return to, errToEmpty
	case to == "*" || to == "*." || to == "*.*":
		return to, errToAll
	case strings.Contains(to, "://"):
		return to, errToURL
	}
	if _, bits, ok := strings.Cut(to, "/"); ok {
		if _, err := strconv.Atoi(bits); err != nil {
			return to, errToURL
		}
		return checkRange(to)
	}
	if a, err := netip.ParseAddr(strings.Trim(to, "[]")); err == nil {
		if a.Zone() != "" {
			return to, fmt.Errorf("%q: an address with a zone means nothing off its link", to)
		}
		return a.Unmap().String(), nil
	}
	if parent, ok := strings.CutPrefix(to, "*."); ok {
		parent, err := checkDomain(parent)
		if err == nil {
			err = checkWildcard(parent)
		}
		return "*." + parent, err
	}
	return checkDomain(to)
}

func checkRange(to string) (string, error) {
	p, err := netip.ParsePrefix(to)
	if err != nil {
		return to, fmt.Errorf("%.80q is no range of addresses like 192.0.2.0/24", to)
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	min := minBits6
	if p.Addr().Is4() {
		min = minBits4
	}
	switch {
	case p.Masked() != p:
		return to, fmt.Errorf("%s has bits set behind its length; it is written %s", p, p.Masked())
	case p.Bits() < min:
		return to, fmt.Errorf("%s is wider than /%d, the widest range that can be granted at once", p, min)
	}
	return p.String(), nil
}

// checkDomain returns name in lower case and ASCII.
func checkDomain(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil {
		if ascii = strings.ToLower(name); !isASCII(name) {
			return name, fmt.Errorf("%.80q is no name: %w", name, err)
		}
	}
	if err := checkLabels(ascii); err != nil {
		return name, fmt.Errorf("%.80q is no name: %w", name, err)
	}
	return ascii, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func checkLabels(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("it has 1 to 253 characters")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		switch {
		case l == "*" || strings.Contains(l, "*"):
			return errors.New(`a "*" stands only in front, for whole labels: "*.example.com"`)
		case l == "" || len(l) > 63:
			return errors.New("each label between dots has 1 to 63 characters")
		case !onlyWord(l):
			return errors.New("labels have letters, digits, dashes and underscores")
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		if _, err := strconv.ParseUint(last, 0, 64); err == nil {
			return errors.New("it ends in a number, which some resolvers read as an address")
		}
	}
	return nil
}

// checkWildcard refuses a wildcard over a public suffix: below it, anyone can register a name, or open a bucket.
func checkWildcard(parent string) error {
	if suffix, _ := publicsuffix.PublicSuffix(parent); suffix == parent {
		return fmt.Errorf("*.%s covers a public suffix, below which anyone can have a name; grant the names that are meant", parent)
	}
	for line := range strings.Lines(suffixParents) {
		if strings.TrimSuffix(line, "\n") == parent {
			return fmt.Errorf("*.%s covers names below which anyone can have a name; grant the names that are meant", parent)
		}
	}
	return nil
}

// suffixParents lists the names that are no public suffix and have one below them: "s3.amazonaws.com" is a suffix, so
// "*.amazonaws.com" covers everybody's buckets. It is worked out of the list that golang.org/x/net/publicsuffix
// is built from; TestSuffixParents says when it is stale, and makes it anew with -update.
//
//go:embed suffixparents.txt
var suffixParents string

// A Target is what a person writes to say what is granted, taken apart.
type Target struct {
	To     string // as in Grant
	Scheme string // "" none was written, which means https
	Port   uint16 // 0 none was written
	Path   string // "" none was written
}

// ParseGrantTarget takes a target as it is written on a command line: a URL ("https://api.example.com/v1/"), a
// destination with or without a port ("*.example.com", "192.0.2.7:8443"), or a range ("192.0.2.0/24").
func ParseGrantTarget(s string) (Target, error) {
	var t Target
	authority, path := s, ""
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		t.Scheme, authority = strings.ToLower(scheme), rest
		if t.Scheme != "http" && t.Scheme != "https" {
			return t, fmt.Errorf("read target %.80q: the scheme is http or https", s)
		}
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority, path = rest[:i], rest[i:]
		}
	} else if _, err := netip.ParsePrefix(s); err != nil {
		if i := strings.IndexAny(s, "/?#"); i >= 0 {
			authority, path = s[:i], s[i:]
		}
	}
	if strings.ContainsAny(path, "?#") || strings.Contains(authority, "@") {
		return t, fmt.Errorf("read target %.80q: a grant names a destination and a path, without user, query and fragment", s)
	}
	if err := t.parseAuthority(authority); err != nil {
		return t, fmt.Errorf("read target %.80q: %w", s, err)
	}
	if path == "" || path == "/" {
		return t, nil
	}
	var err error
	if t.Path, err = checkPath(path); err != nil {
		return t, fmt.Errorf("read target %.80q: %w", s, err)
	}
	return t, nil
}

func (t *Target) parseAuthority(s string) (err error) {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && (strings.Count(s, ":") == 1 || strings.HasSuffix(s[:i], "]")) {
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%.20q is no port", s[i+1:])
		}
		host, t.Port = s[:i], uint16(n)
	}
	if u, err := url.PathUnescape(host); err != nil || u != host {
		return errors.New("a destination has no percent-encodings")
	}
	t.To, err = checkTo(host)
	return err
}
