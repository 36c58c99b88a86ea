package inspect

import (
	"strings"
	"unicode/utf8"

	"github.com/exitgate/exitgate"
)

// checkPath refuses a path that a server might take for another path than the policy does, and notes an encoded
// slash. In the common case it is one pass over the bytes.
func checkPath(p string, q *exitgate.Request) error {
	switch {
	case p == "*":
		return nil
	case p == "" || p[0] != '/':
		return malformed("the path does not start with a slash")
	case strings.HasPrefix(p, "//"):
		return malformed("the path starts with two slashes, after which some read a host")
	}
	plain := true
	for i := 0; i < len(p); i++ {
		if c := p[i]; classes[c]&isPath == 0 {
			if c == '\\' {
				return malformed("the path holds a backslash, which some servers take for a slash")
			}
			return malformed("the path holds byte %#02x, which must be percent-encoded", c)
		} else if c == '%' {
			plain = false
		}
	}
	if plain {
		return checkSegments(p)
	}
	return checkEncoded(p, q)
}

// checkSegments refuses "." and "..", also before parameters ("..;x"), which some servers cut off before they
// resolve dots and others after.
func checkSegments[T bytesOrString](p T) error {
	for i := 0; i < len(p); i++ {
		if p[i] != '/' || i+1 == len(p) || p[i+1] != '.' {
			continue
		}
		n := i + 1
		for n < len(p) && p[n] == '.' {
			n++
		}
		if n-i <= 3 && (n == len(p) || p[n] == '/' || p[n] == ';') {
			return malformed("the path holds a dot segment, which servers resolve differently")
		}
	}
	return nil
}

// checkEncoded checks the percent-encodings of p, and then the path as a server sees it which decodes everything,
// and again as long as there is something to decode ("%252f"): what is a dot segment to any of them is refused.
func checkEncoded(p string, q *exitgate.Request) error {
	var buf [512]byte
	seen := buf[:0]
	for i := 0; i < len(p); i++ {
		if p[i] != '%' {
			seen = append(seen, p[i])
			continue
		}
		c, ok := hexPair(p, i)
		if !ok {
			return malformed("the path holds a %% that two hexadecimal digits do not follow")
		}
		if classes[c]&isUnreserved != 0 && c != '~' {
			return malformed("the path holds %s, an encoded %q: written plainly it would be another path to policy, and the same to servers", p[i:i+3], c)
		}
		for i += 2; c == '%'; i += 2 {
			d, ok := hexPair(p, i)
			if !ok {
				break
			}
			c = d
		}
		switch {
		case c < 0x20 || c == 0x7f:
			return malformed("the path holds an encoded control byte %#02x", c)
		case c == '\\':
			return malformed("the path holds an encoded backslash, which some servers take for a slash")
		case c == '/':
			q.EncodedSlash = true
		}
		seen = append(seen, c)
	}
	if !utf8.Valid(seen) {
		return malformed("the path's percent-encoding is not UTF-8")
	}
	return checkSegments(seen)
}
