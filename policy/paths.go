package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A path is matched in one form, in which percent-encodings have capitals and an encoded "~" is plain (the only
// unreserved character that inspect lets through encoded, as old clients do encode it). RFC 3986, section 6.2.2.

func checkPaths(paths []string) ([]string, error) {
	if len(paths) > maxPaths {
		return paths, fmt.Errorf("%d paths; at most %d", len(paths), maxPaths)
	}
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		p, err := checkPath(p)
		if err != nil {
			return paths, err
		}
		out = append(out, p)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// checkPath brings the path of a grant into the form in which it is matched.
func checkPath(p string) (string, error) {
	wrong := func(why string) (string, error) { return p, fmt.Errorf("%.80q: %s", p, why) }
	switch {
	case p == "" || p[0] != '/':
		return wrong(`a path starts with "/"`)
	case len(p) > maxPath:
		return wrong(fmt.Sprintf("a path has at most %d bytes", maxPath))
	}
	for i := range len(p) {
		switch c := p[i]; {
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return wrong(fmt.Sprintf("byte %#02x is percent-encoded in a path", c))
		case c == '?' || c == '#':
			return wrong("a path has no query and no fragment")
		case c == '%' && (i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2])):
			return wrong(`"%" is followed by two hexadecimal digits`)
		}
	}
	c := canonicalPath(p)
	if err := checkGrantSegments(c); err != nil {
		return wrong(err.Error())
	}
	return c, nil
}

func checkGrantSegments(p string) error {
	segments, end := splitPattern(p)
	for i, s := range segments {
		switch {
		case s == "." || s == "..":
			return errors.New("a dot segment never gets past the gateway")
		case s == "" && (end != endExact || i < len(segments)-1):
			return errors.New(`two slashes in a row name nothing`)
		case strings.Contains(s, "*") && s != "*":
			return errors.New(`a "*" stands for one whole segment; for all below a path end it with "/"`)
		}
	}
	if len(segments) > maxSegments {
		return fmt.Errorf("it has more than %d segments", maxSegments)
	}
	return nil
}

// canonicalPath returns p in the form in which paths are matched. It allocates only where p holds a "%".
func canonicalPath(p string) string {
	if strings.IndexByte(p, '%') < 0 {
		return p
	}
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] != '%' || i+2 >= len(p) || !isHex(p[i+1]) || !isHex(p[i+2]) {
			b = append(b, p[i])
			continue
		}
		c := unhex(p[i+1])<<4 | unhex(p[i+2])
		if isLetterOrDigit(c) || strings.IndexByte("-._~", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
		i += 2
	}
	return string(b)
}

const upperHex = "0123456789ABCDEF"

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}

// How a pattern of a grant ends: what may follow the segments that it names.
const (
	endAny   = ""  // nothing, or more segments
	endBelow = "/" // at least one more segment
	endExact = "$" // nothing
)

// splitPattern takes the path of a grant apart: "/a/*" is [a *] and endAny, "/a/" is [a] and endBelow, "/a$" is [a]
// and endExact, "/" is no segment and endBelow. Only the last "$" is a mark; others belong to their segment.
func splitPattern(p string) (segments []string, end string) {
	switch {
	case strings.HasSuffix(p, "$"):
		p, end = p[:len(p)-1], endExact
	case strings.HasSuffix(p, "/"):
		p, end = p[:len(p)-1], endBelow
	}
	if p == "" {
		return nil, end
	}
	return strings.Split(p[1:], "/"), end
}

// maxSegments bounds the paths that are matched: work on one path grows with the square of it. A longer path is
// refused.
const maxSegments = 200

// prefixesOf returns the segment-boundary prefixes of a canonical path, the whole path last: of "/a/b" they are
// "/", "/a", "/a/", "/a/b". A path that does not start with a slash ("*") has none.
func prefixesOf(p string) []string {
	if p == "" || p[0] != '/' {
		return nil
	}
	out := make([]string, 0, 2*strings.Count(p, "/")+1)
	for i := range len(p) {
		if p[i] != '/' {
			continue
		}
		if i > 0 && p[i-1] != '/' {
			out = append(out, p[:i])
		}
		out = append(out, p[:i+1])
	}
	if p[len(p)-1] != '/' {
		out = append(out, p)
	}
	return out
}

// segmentsOf returns what stands between the slashes of a canonical path: of "/a/b" a and b, of "/" one that is
// empty, of "*" nothing.
func segmentsOf(p string) []string {
	if p == "" || p[0] != '/' {
		return nil
	}
	return strings.Split(p[1:], "/")
}
