package inspect

import (
	"net/http"
	"strings"

	"github.com/exitgate/exitgate"
)

// Canonical brings the request's URL into the one form that is judged, stored and sent, or refuses it. It fills
// Method, URL, Path, Query, Length, Upgrade and EncodedSlash of the question's request, and for a request in
// absolute form the destination. What goes upstream is byte for byte the path and query that came in: nothing is
// repaired. The package's essay has the table of what is refused.
type Canonical struct {
	Redact *Redactor
}

// ModifyRequest implements martian's RequestModifier.
func (c *Canonical) ModifyRequest(req *http.Request) error {
	x, q, err := exchange("Canonical", req)
	if err != nil {
		return err
	}
	q.Method, q.Length = req.Method, req.ContentLength
	target := req.RequestURI
	absolute := target != "" && target[0] != '/' && target != "*"
	if absolute {
		target = originForm(target)
	}
	path, query, hasQuery := strings.Cut(target, "?")
	if absolute && !strings.HasPrefix(path, "/") { // not http: it is refused, and what it holds before a host may be a password
		path = asSent(path)
	}
	q.Path, q.Query = strings.ToValidUTF8(path, "\uFFFD"), c.Redact.Query(strings.ToValidUTF8(query, "\uFFFD"))
	if err = c.check(x, req, path, query, absolute); err != nil {
		q.URL = canonicalURL(q, asSent(req.Host), hasQuery) // so that the flow tells what was refused
		return err
	}
	q.URL = canonicalURL(q, req.URL.Host, hasQuery)
	return nil
}

// check refuses what is ambiguous, and settles req.URL and the destination.
func (c *Canonical) check(x *exitgate.Exchange, req *http.Request, path, query string, absolute bool) (err error) {
	q := x.Flow.Question.HTTP
	if err = checkMethod(req.Method, path); err != nil {
		return err
	}
	if err = checkForm(x, req, absolute); err != nil {
		return err
	}
	if err = checkPath(path, q); err != nil {
		return err
	}
	if err = checkQuery(query); err != nil {
		return err
	}
	if q.Upgrade, err = upgradeOf(req); err != nil {
		return err
	}
	if err = place(&x.Flow.Question, req); err != nil {
		return err
	}
	if u := req.URL; u.EscapedPath() != path || u.RawQuery != query {
		return malformed("the path %.200q would be forwarded as %.200q", path, u.EscapedPath())
	}
	return nil
}

// originForm returns the path and query of a target in absolute form. An empty path is "/" (RFC 9110, section
// 4.2.3). A target that is no http URL is returned as it is, and fails as a path.
func originForm(target string) string {
	rest, ok := strings.CutPrefix(target, "http://")
	if !ok {
		return target
	}
	end := strings.IndexAny(rest, "/?")
	switch {
	case end < 0:
		return "/"
	case rest[end] == '?':
		return "/" + rest[end:]
	}
	return rest[end:]
}

// checkForm wants the form of target that belongs to the way in (RFC 9112, section 3.2): whole URLs where the proxy
// is addressed in HTTP/1, and paths in tunnels, in HTTP/2 and where the host does not know of the gateway.
func checkForm(x *exitgate.Exchange, req *http.Request, absolute bool) error {
	q := &x.Flow.Question
	placed := q.Dest.Host != "" || q.Way == exitgate.WayTransparent || req.ProtoMajor >= 2
	switch {
	case absolute && placed:
		return malformed("the request target is a whole URL where only a path can stand")
	case absolute && q.HTTP.Scheme != "http":
		return malformed("the request target is an http URL in a connection for %.20q", q.HTTP.Scheme)
	case !absolute && !placed:
		return malformed("a request to the proxy itself names only a path; a proxy takes whole http URLs, or CONNECT")
	}
	return nil
}

// place gives the URL its scheme and authority, and the question its destination where no tunnel did.
func place(q *exitgate.Question, req *http.Request) error {
	host, port, err := splitAuthority(req.Host)
	if err != nil {
		return malformed("the host %.80q is not host[:port]: %v", asSent(req.Host), err)
	}
	host = canonicalHost(host)
	if port == 0 {
		port = defaultPort(q.HTTP.Scheme)
	}
	if q.Dest.Host == "" {
		q.Dest.Host = host
		if q.Dest.Port == 0 {
			q.Dest.Port = port
		}
	}
	u := req.URL
	u.Scheme, u.Host = q.HTTP.Scheme, joinAuthority(q.HTTP.Scheme, host, port)
	u.User, u.Opaque, u.Fragment, u.RawFragment = nil, "", "", ""
	if u.Path == "" {
		u.Path = "/"
	}
	return nil
}

func canonicalURL(q *exitgate.Request, host string, hasQuery bool) string {
	path := q.Path
	if path == "*" {
		path = "" // RFC 9110, section 7.1: the URI of "OPTIONS *" has an empty path
	}
	if !hasQuery {
		return q.Scheme + "://" + host + path
	}
	return q.Scheme + "://" + host + path + "?" + q.Query
}

// checkMethod lets through methods in capitals: methods are case-sensitive (RFC 9110, section 9.1), so that "get" is
// another method to one server and the same to the next.
func checkMethod(m, path string) error {
	for i := range len(m) {
		if c := m[i]; (c < 'A' || c > 'Z') && c != '-' && c != '_' && (c < '0' || c > '9') {
			return malformed("the method %.40q is not in capitals", m)
		}
	}
	switch {
	case m == "" || len(m) > 32:
		return malformed("the method has %d bytes, not 1 to 32", len(m))
	case m == http.MethodConnect:
		return malformed("CONNECT inside a tunnel")
	case m == http.MethodTrace:
		return malformed("TRACE sends credentials back in the answer's body, and is not carried")
	case path == "*" && m != http.MethodOptions:
		return malformed("the request target \"*\" belongs to OPTIONS")
	}
	return nil
}

// checkQuery lets through what may stand in a target, with whole percent-encodings. Browsers leave brackets, braces and bars
// unencoded in queries; they are carried as they came.
func checkQuery(s string) error {
	for i := 0; i < len(s); i++ {
		if classes[s[i]]&isTarget == 0 {
			return malformed("the query holds byte %#02x, which must be percent-encoded", s[i])
		}
		if s[i] == '%' {
			if _, ok := hexPair(s, i); !ok {
				return malformed("the query holds a %% that two hexadecimal digits do not follow")
			}
		}
	}
	return nil
}

// upgradeOf returns the lower-case protocol that the request asks to change to, or "". One protocol can be judged; a list cannot.
func upgradeOf(req *http.Request) (string, error) {
	v := req.Header["Upgrade"]
	if len(v) == 0 {
		return "", nil
	}
	if len(v) > 1 || len(v[0]) > 64 || strings.IndexByte(v[0], ',') >= 0 {
		return "", malformed("the Upgrade field names more than one protocol")
	}
	named := false
	for _, c := range req.Header["Connection"] {
		eachToken(c, func(tok string) bool {
			named = named || fold(tok, "upgrade")
			return !named
		})
	}
	if !named {
		return "", nil // RFC 9110, section 7.8: without the option the field means nothing
	}
	if fold(v[0], "h2c") || fold(v[0], "h2") {
		return "", nil // as some clients ask with each request in plain text; see HopByHop, which takes it away
	}
	return strings.ToLower(v[0]), nil
}
