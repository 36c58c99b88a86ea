package inspect

// A class is a set of byte properties, so that one table look-up per byte answers every question of the parsers.
type class uint8

const (
	isToken  class = 1 << iota // RFC 9110, section 5.6.2: methods and field names
	isValue                    // RFC 9110, section 5.5: visible, obs-text, space and tab
	isTarget                   // visible ASCII but "#": all that a request target may hold
	isPath                     // RFC 3986 pchar and "/", and the brackets that browsers leave as they are
	isHex
	isName // letters, digits, hyphen, underscore, dot: all that a host name may hold
	isUnreserved
)

// classes is never written after it was made.
var classes = makeClasses()

func makeClasses() (t [256]class) {
	mark := func(c class, s string) {
		for i := range len(s) {
			t[s[i]] |= c
		}
	}
	const alnum = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mark(isToken, alnum+"!#$%&'*+-.^_`|~")
	mark(isPath, alnum+"-._~!$&'()*+,;=:@/%[]")
	mark(isHex, "0123456789abcdefABCDEF")
	mark(isName, alnum+"-_.")
	mark(isUnreserved, alnum+"-._~")
	for c := 0x21; c < 0x7f; c++ {
		if c != '#' {
			t[c] |= isTarget
		}
	}
	for c := 0x20; c < 0x100; c++ {
		if c != 0x7f {
			t[c] |= isValue
		}
	}
	t['\t'] |= isValue
	return t
}

type bytesOrString interface{ ~string | ~[]byte }

// firstNot returns the index of the first byte of s that is not of class c, or -1.
func firstNot[T bytesOrString](s T, c class) int {
	for i := 0; i < len(s); i++ {
		if classes[s[i]]&c == 0 {
			return i
		}
	}
	return -1
}

func lower(c byte) byte {
	if c-'A' <= 'Z'-'A' {
		return c | 0x20
	}
	return c
}

// firstBad is firstNot for the hot loops over bytes.
func firstBad(b []byte, c class) int {
	for i, x := range b {
		if classes[x]&c == 0 {
			return i
		}
	}
	return -1
}

// fold reports whether s is want in any case; want is in lower-case ASCII.
func fold[T bytesOrString](s T, want string) bool {
	if len(s) != len(want) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if lower(s[i]) != want[i] {
			return false
		}
	}
	return true
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

// hexPair returns the byte that s[i+1:i+3] spells after a percent sign at i.
func hexPair(s string, i int) (byte, bool) {
	if i+2 >= len(s) || classes[s[i+1]]&classes[s[i+2]]&isHex == 0 {
		return 0, false
	}
	return unhex(s[i+1])<<4 | unhex(s[i+2]), true
}
