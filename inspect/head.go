package inspect

import (
	"bytes"

	"github.com/exitgate/exitgate"
)

// head is what a Screen remembers of the head that it is in.
type head struct {
	old     bool   // HTTP/1.0
	connect bool   // the method is CONNECT
	auth    []byte // authority of an absolute-form or authority-form target, else empty; the buffer is reused
	fields  int
	host    bool
	chunked bool
	length  int64 // of Content-Length; -1 absent
	expect  bool
	upgrade bool
}

func (h *head) reset() { *h = head{auth: h.auth[:0], length: -1} }

// requestLine reads method SP request-target SP HTTP-version (RFC 9112, section 3).
func (s *Screen) requestLine(line []byte) *exitgate.Refusal {
	s.head.reset()
	sp := firstBad(line, isToken)
	if sp <= 0 || line[sp] != ' ' {
		if len(line) == 0 {
			return s.refuse(400, "there is an empty line where a request line belongs")
		}
		return s.refuse(400, "the request line does not start with a method and one space")
	}
	method, rest := line[:sp], line[sp+1:]
	sp = bytes.IndexByte(rest, ' ')
	if sp <= 0 {
		return s.refuse(400, "the request line is not a method, a target and a version with one space between")
	}
	target := rest[:sp]
	switch string(rest[sp+1:]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		s.head.old = true
	default:
		return s.refuse(400, "the request line does not end in HTTP/1.1 or HTTP/1.0")
	}
	if i := firstBad(target, isTarget); i >= 0 {
		return s.refuse(400, "the request target holds byte %#02x, which must be percent-encoded", target[i])
	}
	return s.target(string(method) == "CONNECT", string(method) == "OPTIONS", target)
}

// target checks the four forms of RFC 9112, section 3.2.
func (s *Screen) target(connect, options bool, t []byte) *exitgate.Refusal {
	s.head.connect = connect
	switch {
	case connect:
		_, port, err := splitAuthority(t)
		if err != nil {
			return s.refuse(400, "the target of CONNECT is not host:port: %v", err)
		}
		if port == 0 {
			return s.refuse(400, "the target of CONNECT is not host:port: it has no port")
		}
		s.head.auth = append(s.head.auth, t...)
		return nil
	case t[0] == '/':
		return s.encoding(t)
	case t[0] == '*' && len(t) == 1 && options:
		return nil
	case len(t) > 8 && fold(t[:8], "https://"):
		return s.refuse(400, "an https URL was sent to the proxy in plain text; use CONNECT")
	case !bytes.HasPrefix(t, []byte("http://")):
		return s.refuse(400, "the request target is neither a path nor an http URL")
	}
	t = t[len("http://"):]
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	if _, _, err := splitAuthority(t[:end]); err != nil {
		return s.refuse(400, "the authority of the request target is not host[:port]: %v", err)
	}
	s.head.auth = append(s.head.auth, t[:end]...)
	return s.encoding(t[end:])
}

// encoding refuses a percent sign in the path that two hexadecimal digits do not follow.
func (s *Screen) encoding(t []byte) *exitgate.Refusal {
	for i, c := range t {
		if c == '?' {
			return nil
		}
		if c == '%' && (i+2 >= len(t) || classes[t[i+1]]&classes[t[i+2]]&isHex == 0) {
			return s.refuse(400, "the request target holds a %% that two hexadecimal digits do not follow")
		}
	}
	return nil
}

// split takes a field line apart: name, colon, value between optional blanks (RFC 9112, section 5).
func (s *Screen) split(line []byte) (name, value []byte, r *exitgate.Refusal) {
	i := firstBad(line, isToken)
	switch {
	case i == 0 && (line[0] == ' ' || line[0] == '\t'):
		return nil, nil, s.refuse(400, "a field goes on in the next line (obsolete folding)")
	case i == 0:
		return nil, nil, s.refuse(400, "a field's name is empty or starts with byte %#02x", line[0])
	case i < 0:
		return nil, nil, s.refuse(400, "a field has no colon")
	case line[i] == ' ' || line[i] == '\t':
		return nil, nil, s.refuse(400, "there is a blank between the name of field %.64q and its colon", line[:i])
	case line[i] != ':':
		return nil, nil, s.refuse(400, "the name of field %.64q holds byte %#02x", line[:i], line[i])
	}
	name, value = line[:i], trimBlanks(line[i+1:])
	if j := firstBad(value, isValue); j >= 0 {
		return nil, nil, s.refuse(400, "the value of field %.64q holds byte %#02x", name, value[j])
	}
	return name, value, nil
}

func trimBlanks[T bytesOrString](b T) T {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// field checks one header field.
func (s *Screen) field(line []byte) *exitgate.Refusal {
	if s.head.fields++; s.head.fields > s.lim.Headers {
		return s.refuse(431, "there are more than %d header fields", s.lim.Headers)
	}
	name, value, r := s.split(line)
	if r != nil {
		return r
	}
	switch len(name) {
	case 4:
		if fold(name, "host") {
			return s.hostField(value)
		}
	case 6:
		if fold(name, "expect") {
			return s.expectField(value)
		}
	case 7:
		if fold(name, "upgrade") {
			return s.upgradeField(value)
		}
		if fold(name, "trailer") {
			return s.trailerNames(value)
		}
	case 10:
		if fold(name, "connection") {
			return s.connectionField(value)
		}
	case 14:
		if fold(name, "content-length") {
			return s.lengthField(value)
		}
	case 17:
		if fold(name, "transfer-encoding") {
			return s.codingField(value)
		}
	}
	return nil
}

// hostField checks Host, and that it names what the target names: net/http's parser drops a Host next to an
// absolute target unread (RFC 9112, section 3.2.2), so that nobody after the Screen could compare the two.
func (s *Screen) hostField(v []byte) *exitgate.Refusal {
	if s.head.host {
		return s.refuse(400, "there is more than one Host field")
	}
	s.head.host = true
	host, port, err := splitAuthority(v)
	if err != nil {
		return s.refuse(400, "the Host field is not host[:port]: %v", err)
	}
	if len(s.head.auth) == 0 {
		return nil
	}
	host2, port2, _ := splitAuthority(s.head.auth)
	if port == 0 && s.head.connect {
		port = port2 // many clients leave it out here
	}
	if !foldEqual(host, host2) || orPort(port) != orPort(port2) {
		return s.refuse(400, "the Host field %.80q names another host than the request target %.80q", v, s.head.auth)
	}
	return nil
}

func orPort(p uint16) uint16 {
	if p == 0 {
		return 80
	}
	return p
}

func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func (s *Screen) expectField(v []byte) *exitgate.Refusal {
	if s.head.expect || !fold(v, "100-continue") {
		return s.refuse(400, "an Expect field is not a single 100-continue")
	}
	s.head.expect = true
	return nil
}

func (s *Screen) upgradeField(v []byte) *exitgate.Refusal {
	if s.head.upgrade || len(v) == 0 {
		return s.refuse(400, "there is more than one Upgrade field, or an empty one")
	}
	s.head.upgrade = true
	return nil
}

// connectionField keeps a host from having fields removed that decide about framing, authority or identity.
func (s *Screen) connectionField(v []byte) *exitgate.Refusal {
	var r *exitgate.Refusal
	eachToken(v, func(tok []byte) bool {
		switch {
		case len(tok) == 0:
		case firstBad(tok, isToken) >= 0:
			r = s.refuse(400, "the Connection field holds %.64q, which is no field name", tok)
		case notNominable(tok):
			r = s.refuse(400, "the Connection field names %s, which concerns more than the connection", tok)
		}
		return r == nil
	})
	return r
}

// notNominable names the fields that Connection may not declare hop-by-hop.
func notNominable(tok []byte) bool {
	for _, n := range [...]string{"host", "content-length", "transfer-encoding", "authorization", "cookie", "expect", "via",
		"content-type", "content-encoding", "content-range", "range", "trailer", "date", "max-forwards", "proxy-authorization"} {
		if fold(tok, n) {
			return true
		}
	}
	return false
}

func (s *Screen) lengthField(v []byte) *exitgate.Refusal {
	if s.head.length >= 0 {
		return s.refuse(400, "there is more than one Content-Length field")
	}
	if len(v) == 0 || len(v) > 18 || v[0] == '0' && len(v) > 1 {
		return s.refuse(400, "the Content-Length field %.64q is not a number of 1 to 18 digits without leading zeros", v)
	}
	n := int64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return s.refuse(400, "the Content-Length field %.64q is not a number of 1 to 18 digits without leading zeros", v)
		}
		n = n*10 + int64(c-'0')
	}
	s.head.length = n
	return nil
}

func (s *Screen) codingField(v []byte) *exitgate.Refusal {
	switch {
	case s.head.chunked:
		return s.refuse(400, "there is more than one Transfer-Encoding field")
	case s.head.old:
		return s.refuse(400, "HTTP/1.0 has no Transfer-Encoding")
	case !fold(v, "chunked"):
		return s.refuse(501, "the Transfer-Encoding field %.64q is not \"chunked\"", v)
	}
	s.head.chunked = true
	return nil
}

// trailerNames checks the fields that a Trailer field announces.
func (s *Screen) trailerNames(v []byte) *exitgate.Refusal {
	var r *exitgate.Refusal
	eachToken(v, func(tok []byte) bool {
		switch {
		case len(tok) == 0:
		case firstBad(tok, isToken) >= 0:
			r = s.refuse(400, "the Trailer field holds %.64q, which is no field name", tok)
		case notTrailer(tok):
			r = s.refuse(400, "the Trailer field announces %s, which is no trailer", tok)
		}
		return r == nil
	})
	return r
}

// notTrailer names the fields that may not come after the body: they decide about framing, routing, authority,
// identity or the meaning of what was already judged (RFC 9110, section 6.5.1).
func notTrailer(tok []byte) bool {
	for _, n := range [...]string{"host", "content-length", "transfer-encoding", "trailer", "connection", "te", "upgrade", "expect",
		"authorization", "proxy-authorization", "cookie", "set-cookie", "content-type", "content-encoding", "content-range", "range",
		"keep-alive", "proxy-connection", "max-forwards", "via", "cache-control"} {
		if fold(tok, n) {
			return true
		}
	}
	return false
}

func (s *Screen) trailerField(line []byte) *exitgate.Refusal {
	if s.head.fields++; s.head.fields > s.lim.Headers {
		return s.refuse(431, "there are more than %d header and trailer fields", s.lim.Headers)
	}
	name, _, r := s.split(line)
	if r == nil && notTrailer(name) {
		r = s.refuse(400, "field %s stands in the trailer", name)
	}
	return r
}

// endHead decides the framing (RFC 9112, section 6.3) from fields that were found to be single and plain.
func (s *Screen) endHead() *exitgate.Refusal {
	h := &s.head
	switch {
	case !h.host && (!h.old || len(h.auth) == 0):
		return s.refuse(400, "there is no Host field")
	case h.chunked && h.length >= 0:
		return s.refuse(400, "there are both a Transfer-Encoding and a Content-Length field")
	case h.connect && (h.chunked || h.length > 0):
		return s.refuse(400, "a CONNECT request has a body")
	case h.chunked:
		s.at, s.extra = atChunk, 0
	case h.length > 0:
		s.at, s.left = atBody, h.length
	default:
		s.reset()
	}
	return nil
}

// eachToken calls f with each element of a comma-separated list, blanks trimmed, until f returns false.
func eachToken[T bytesOrString](v T, f func(T) bool) {
	for i := 0; i <= len(v); i++ {
		j := i
		for j < len(v) && v[j] != ',' {
			j++
		}
		if !f(trimBlanks(v[i:j])) {
			return
		}
		i = j
	}
}
