package inspect

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/exitgate/exitgate"
)

// A hello is a ClientHello taken apart (RFC 8446, section 4.1.2); what is not kept was only measured.
type hello struct {
	legacy   uint16
	ciphers  []byte // two bytes each
	types    []uint16
	sni      []byte // nil: no extension
	alpn     [][]byte
	versions []byte // two bytes each; nil: no extension
	sigs     []byte // two bytes each
	ech      bool
}

// Extensions that are read.
const (
	extSNI      = 0
	extSigs     = 13
	extALPN     = 16
	extVersions = 43
	extECH      = 0xfe0d
)

// maxExtensions bounds the extensions of a hello; clients send 10 to 20.
const maxExtensions = 256

// A cut hands out the parts of a message; once a part is missing all that follow are empty and ok is false.
type cut struct {
	b   []byte
	bad bool
}

func (c *cut) take(n int) []byte {
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cut) u8() int {
	if p := c.take(1); p != nil {
		return int(p[0])
	}
	return 0
}

func (c *cut) u16() int {
	if p := c.take(2); p != nil {
		return int(p[0])<<8 | int(p[1])
	}
	return 0
}

func (c *cut) vec8() cut  { p := c.take(c.u8()); return cut{p, c.bad} }
func (c *cut) vec16() cut { p := c.take(c.u16()); return cut{p, c.bad} }

// parse reads the body of a ClientHello and says what is wrong with it, or "".
func (h *hello) parse(msg []byte) (why string) {
	c := cut{b: msg}
	h.legacy = uint16(c.u16())
	c.take(32) // random
	session := c.vec8()
	ciphers := c.vec16()
	compression := c.vec8()
	h.ciphers = ciphers.b
	switch {
	case c.bad:
		return "it ends inside its fixed fields"
	case h.legacy>>8 != 3:
		return "its version is no version of TLS"
	case len(session.b) > 32:
		return "its session id has more than 32 bytes"
	case len(h.ciphers) < 2 || len(h.ciphers)%2 != 0:
		return "its cipher suites are no list"
	case len(compression.b) == 0:
		return "it has no compression methods"
	case len(c.b) == 0:
		return "" // no extensions at all: SSL 3.0 and TLS 1.0 clients
	}
	exts := c.vec16()
	if c.bad || len(c.b) != 0 {
		return "the length of its extensions is wrong"
	}
	for len(exts.b) > 0 {
		typ, body := uint16(exts.u16()), exts.vec16()
		if exts.bad {
			return "an extension is cut off"
		}
		if slices.Contains(h.types, typ) {
			return "it has the extension " + strconv.Itoa(int(typ)) + " twice"
		}
		if len(h.types) == maxExtensions {
			return "it has more than " + strconv.Itoa(maxExtensions) + " extensions"
		}
		h.types = append(h.types, typ)
		if why := h.extension(typ, body); why != "" {
			return why
		}
	}
	return ""
}

func (h *hello) extension(typ uint16, c cut) string {
	switch typ {
	case extSNI:
		return h.readSNI(c)
	case extALPN:
		return h.readALPN(c)
	case extVersions:
		v := c.vec8()
		if h.versions = v.b; c.bad || len(c.b) != 0 || len(v.b) == 0 || len(v.b)%2 != 0 {
			return "its supported versions are no list"
		}
	case extSigs:
		v := c.vec16()
		if h.sigs = v.b; c.bad || len(c.b) != 0 || len(v.b) == 0 || len(v.b)%2 != 0 {
			return "its signature algorithms are no list"
		}
	case extECH:
		h.ech = true
	}
	return ""
}

// readSNI reads server_name (RFC 6066, section 3), which may hold one name, of type host_name.
func (h *hello) readSNI(c cut) string {
	list := c.vec16()
	typ := list.u8()
	name := list.vec16()
	switch {
	case c.bad || len(c.b) != 0 || list.bad:
		return "its server name is cut off"
	case typ != 0:
		return "its server name is of an unknown type"
	case len(list.b) != 0:
		return "it has more than one server name"
	}
	host, port, err := splitAuthority(name.b)
	switch {
	case err != nil:
		return "its server name is no host name: " + err.Error()
	case port != 0 || len(host) != len(name.b):
		return "its server name is no host name: " + errAuthByte.Error()
	case isAddress(host):
		return "its server name is an IP address, which RFC 6066 does not permit"
	}
	h.sni = name.b
	return ""
}

// isAddress reports whether a name that passed checkName is an IPv4 address.
func isAddress(name []byte) bool {
	last := name[bytes.LastIndexByte(name, '.')+1:]
	return isNumber(last)
}

// readALPN reads the protocol names (RFC 7301, section 3.1).
func (h *hello) readALPN(c cut) string {
	list := c.vec16()
	if c.bad || len(c.b) != 0 || len(list.b) == 0 {
		return "its ALPN is no list"
	}
	for len(list.b) > 0 {
		p := list.vec8()
		if list.bad || len(p.b) == 0 {
			return "its ALPN holds an empty or cut name"
		}
		h.alpn = append(h.alpn, p.b)
	}
	return ""
}

// grease reports whether v is one of the values that clients send to keep servers tolerant (RFC 8701).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// values returns the two-byte values of b without GREASE.
func values(b []byte) []uint16 {
	out := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		if v := uint16(b[0])<<8 | uint16(b[1]); !grease(v) {
			out = append(out, v)
		}
	}
	return out
}

func (h *hello) facts() (*exitgate.TLS, error) {
	t := &exitgate.TLS{SNI: strings.ToLower(string(h.sni)), ECH: h.ech, ALPN: []string{}, Versions: []string{}}
	for _, p := range h.alpn {
		if len(p) == 2 && grease(uint16(p[0])<<8|uint16(p[1])) {
			continue
		}
		t.ALPN = append(t.ALPN, protocolName(p))
	}
	versions := []uint16{h.legacy}
	if h.versions != nil {
		versions = values(h.versions)
	}
	for _, v := range versions {
		t.Versions = append(t.Versions, versionName(v))
	}
	if len(versions) == 0 {
		return nil, badHello("it offers no version of TLS")
	}
	t.JA4 = h.ja4(slices.Max(versions))
	return t, nil
}

// protocolName writes an ALPN name with percent and all that is not visible ASCII percent-encoded, so that every name is text and
// two names are never one.
func protocolName(p []byte) string {
	var b strings.Builder
	for _, c := range p {
		if c > ' ' && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func versionName(v uint16) string {
	switch v {
	case 0x0304:
		return "1.3"
	case 0x0303:
		return "1.2"
	case 0x0302:
		return "1.1"
	case 0x0301:
		return "1.0"
	case 0x0300:
		return "ssl3"
	}
	return fmt.Sprintf("0x%04x", v)
}

// ja4 returns the JA4 fingerprint of a hello over TCP: what it offers, sorted, so that clients which shuffle their
// extensions keep one fingerprint.
func (h *hello) ja4(version uint16) string {
	ciphers, exts := values(h.ciphers), make([]uint16, 0, len(h.types))
	count, names := 0, byte('i')
	for _, t := range h.types {
		if grease(t) {
			continue
		}
		count++
		if t == extSNI {
			names = 'd'
		} else if t != extALPN {
			exts = append(exts, t)
		}
	}
	slices.Sort(ciphers)
	slices.Sort(exts)
	list := hexList(nil, exts)
	if len(h.sigs) > 0 {
		list = hexList(append(list, '_'), values(h.sigs))
	}
	first, last := h.alpnEnds()
	return fmt.Sprintf("t%s%c%02d%02d%c%c_%s_%s", ja4Version(version), names, min(len(ciphers), 99), min(count, 99),
		first, last, ja4Hash(len(ciphers) > 0, hexList(nil, ciphers)), ja4Hash(len(exts) > 0, list))
}

func ja4Version(v uint16) string {
	switch {
	case v == 0x0300:
		return "s3"
	case v > 0x0300 && v <= 0x0304:
		return "1" + strconv.Itoa(int(v-0x0301))
	}
	return "00"
}

// alpnEnds returns the first and last character of the first ALPN name, or of its hexadecimal form.
func (h *hello) alpnEnds() (first, last byte) {
	if len(h.alpn) == 0 {
		return '0', '0'
	}
	p := h.alpn[0]
	first, last = p[0], p[len(p)-1]
	if !alphanumeric(first) || !alphanumeric(last) {
		x := hex.EncodeToString(p)
		return x[0], x[len(x)-1]
	}
	return first, last
}

func alphanumeric(c byte) bool { return c >= '0' && c <= '9' || lower(c) >= 'a' && lower(c) <= 'z' }

func ja4Hash(any bool, list []byte) string {
	if !any {
		return "000000000000"
	}
	sum := sha256.Sum256(list)
	return hex.EncodeToString(sum[:6])
}

// hexList appends the values as four lower-case hexadecimal digits each, with commas between.
func hexList(to []byte, v []uint16) []byte {
	const digits = "0123456789abcdef"
	for i, x := range v {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(to, digits[x>>12], digits[x>>8&15], digits[x>>4&15], digits[x&15])
	}
	return to
}
