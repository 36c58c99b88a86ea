package inspect

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// Reasons why an authority is not one.
var (
	errAuthEmpty    = errors.New("it is empty")
	errAuthUser     = errors.New("it holds user information (\"@\")")
	errAuthByte     = errors.New("it holds a byte that no host name may hold (international names go as punycode)")
	errAuthDot      = errors.New("it ends in a dot")
	errAuthLabel    = errors.New("it has an empty label, one of more than 63 bytes, or more than 253 bytes in all")
	errAuthNumber   = errors.New("it ends in a number and is not an IPv4 address of four decimal parts")
	errAuthBrackets = errors.New("what is in brackets is not an IPv6 address without a zone")
	errAuthPort     = errors.New("its port is not a number from 1 to 65535")
)

// splitAuthority takes host[:port] apart (RFC 3986, section 3.2, without user information). Port is 0 when there
// is none; an IPv6 host loses its brackets. It allocates only for IP addresses in brackets.
func splitAuthority[T bytesOrString](s T) (host T, port uint16, err error) {
	var zero T
	if len(s) == 0 {
		return zero, 0, errAuthEmpty
	}
	var end int
	if s[0] == '[' {
		for end = 1; end < len(s) && s[end] != ']'; end++ {
		}
		if end == len(s) || !validIPv6(s[1:end]) {
			return zero, 0, errAuthBrackets
		}
		host, end = s[1:end], end+1
	} else {
		for end = 0; end < len(s) && s[end] != ':'; end++ {
		}
		if host = s[:end]; end == 0 {
			return zero, 0, errAuthEmpty
		}
		if err = checkName(host); err != nil {
			return zero, 0, err
		}
	}
	if end == len(s) {
		return host, 0, nil
	}
	if s[end] != ':' {
		return zero, 0, errAuthBrackets
	}
	if port, err = parsePort(s[end+1:]); err != nil && contains(s[end:], '@') {
		err = errAuthUser
	}
	return host, port, err
}

func contains[T bytesOrString](s T, c byte) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == c {
			return true
		}
	}
	return false
}

func validIPv6[T bytesOrString](s T) bool {
	a, err := netip.ParseAddr(string(s))
	return err == nil && a.Is6() && a.Zone() == ""
}

func parsePort[T bytesOrString](s T) (uint16, error) {
	n := 0
	if len(s) == 0 || len(s) > 5 || s[0] == '0' {
		return 0, errAuthPort
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, errAuthPort
		}
		n = n*10 + int(s[i]-'0')
	}
	if n > 65535 {
		return 0, errAuthPort
	}
	return uint16(n), nil
}

// checkName says why s is neither a host name nor an IPv4 address. Underscores are let through, because names in
// use have them. A name whose last label is a number is an address to some resolvers ("127.1", "0x7f.1", "017.0.0.1"), so
// that only the four decimal parts which every reader takes alike may pass.
func checkName[T bytesOrString](s T) error {
	if len(s) > 253 {
		return errAuthLabel
	}
	last := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if classes[c]&isName == 0 {
			if c == '@' {
				return errAuthUser
			}
			return errAuthByte
		}
		if c == '.' {
			if i == len(s)-1 && i > 0 {
				return errAuthDot
			}
			if i == last || i-last > 63 {
				return errAuthLabel
			}
			last = i + 1
		}
	}
	if len(s) == last || len(s)-last > 63 {
		return errAuthLabel
	}
	if c := s[last]; c < '0' || c > '9' || !isNumber(s[last:]) {
		return nil
	}
	if a, err := netip.ParseAddr(string(s)); err != nil || !a.Is4() {
		return errAuthNumber
	}
	return nil
}

// isNumber reports whether an inet_aton would read label as a number: decimal, octal or 0x hexadecimal.
func isNumber[T bytesOrString](label T) bool {
	if len(label) >= 2 && label[0] == '0' && lower(label[1]) == 'x' {
		return firstNot(label[2:], isHex) < 0
	}
	for i := 0; i < len(label); i++ {
		if label[i] < '0' || label[i] > '9' {
			return false
		}
	}
	return true
}

// canonicalHost returns host, as splitAuthority gave it, in its one form: lower case, IPv6 as RFC 5952 writes it.
func canonicalHost(host string) string {
	if strings.IndexByte(host, ':') >= 0 {
		if a, err := netip.ParseAddr(host); err == nil {
			return a.String()
		}
	}
	return strings.ToLower(host) // ASCII only: splitAuthority saw to it
}

func defaultPort(scheme string) uint16 {
	if scheme == "http" {
		return 80
	}
	return 443
}

// joinAuthority writes host and port as they stand in a canonical URL: the scheme's default port is left out.
func joinAuthority(scheme, host string, port uint16) string {
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	if port == defaultPort(scheme) {
		return host
	}
	return host + ":" + strconv.Itoa(int(port))
}
