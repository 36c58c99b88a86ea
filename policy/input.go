package policy

import (
	"net/url"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// ask works out of q what the key and the input need. It keeps q in a.
func (s *snapshot) ask(a *asked, q *exitgate.Question) {
	a.Question, a.at, a.path = q, clamp(q.At), ""
	if q.HTTP != nil {
		a.path = canonicalPath(q.HTTP.Path)
	}
	a.site = s.siteOf(q)
}

// clamp brings t into the years 0 to 9999, in which the order of text is the order of time.
func clamp(t time.Time) time.Time {
	t = t.UTC()
	switch y := t.Year(); {
	case y > lastYear:
		return endOfTime
	case y < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// input makes what a policy sees of q, as far as it can look at it: the fields that are needed. Nil makes everything.
func (s *snapshot) input(q *asked, needed *[numFields]bool) ast.Value {
	var top, group [16][2]*ast.Term
	root, now, in := top[:0], "", group[:0]
	flush := func() {
		if now != "" {
			root = append(root, item(now, ast.ObjectTerm(in...)))
		}
		in = group[:0]
	}
	for i := range fields {
		f := &fields[i]
		if f.group != now {
			flush()
			now = f.group
		}
		if needed != nil && !needed[i] || !q.has(f.group) {
			if !q.has(f.group) {
				now = ""
			}
			continue
		}
		t := s.fieldTerm(i, q, needed == nil)
		switch {
		case t == nil:
		case f.group == "":
			root = append(root, item(f.name, t))
		default:
			in = append(in, item(f.name, t))
		}
	}
	flush()
	return ast.NewObject(root...)
}

// fieldTerm leaves out the headers, and the forms of the path, that no rule and no grant of the site can look at.
func (s *snapshot) fieldTerm(i int, q *asked, all bool) *ast.Term {
	if all || s.reads.keyed[i] {
		return fields[i].term(q)
	}
	switch {
	case i == httpPrefixes && len(q.site.literal) == 0, i == httpSegments && len(q.site.stars) == 0:
		return nil
	case i == httpPrefixes:
		return stringsTerm(q.site.prefixes(q.path))
	case i == httpHeaders:
		var items [][2]*ast.Term
		for _, names := range [][]string{s.reads.requestHeaders, q.site.headers} {
			for _, name := range names {
				if v, ok := q.HTTP.Headers[name]; ok {
					items = append(items, item(name, stringsTerm(v)))
				}
			}
		}
		return ast.ObjectTerm(items...)
	}
	return fields[i].term(q)
}

// has reports whether the question has the part of input that is called group.
func (q *asked) has(group string) bool {
	switch group {
	case "tls":
		return q.TLS != nil
	case "http":
		return q.HTTP != nil
	case "response":
		return q.Response != nil
	}
	return true
}

// appendKey appends all that the answer to q can depend on in this revision.
func (s *snapshot) appendKey(b []byte, q *asked) []byte {
	var parts byte
	for i, p := range [...]bool{q.TLS != nil, q.HTTP != nil, q.Response != nil} {
		if p {
			parts |= 1 << i
		}
	}
	b = append(b, parts)
	for _, i := range s.keyed {
		if f := &fields[i]; q.has(f.group) {
			b = f.key(b, q)
		}
	}
	if q.HTTP != nil && !s.reads.keyed[httpHeaders] {
		b = appendHeaders(b, q.HTTP.Headers, s.reads.requestHeaders)
	}
	if q.Response != nil && !s.reads.keyed[responseHeaders] {
		b = appendHeaders(b, q.Response.Headers, s.reads.responseHeaders)
	}
	return q.site.appendKey(b, q)
}

// appendHeaders appends the values of the named headers; one that is absent differs from one that is there without
// a value.
func appendHeaders(b []byte, h map[string][]string, names []string) []byte {
	for _, n := range names {
		if v, ok := h[n]; ok {
			b = appendList(append(b, 1), v)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// parseQuery takes a query apart at "&". What cannot be decoded stays as it is, and nothing is left out, however
// much there is.
func parseQuery(raw string) map[string][]string {
	m := map[string][]string{}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name = unescapeQuery(name)
		m[name] = append(m[name], unescapeQuery(value))
	}
	return m
}

func unescapeQuery(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
