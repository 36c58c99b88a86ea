package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/exitgate/exitgate"
)

// A Miss is a condition of a grant that a question does not meet.
type Miss struct {
	Condition string `json:"condition"` // destination, until, port, scheme, method, encoded_slash, path, header:NAME
	Why       string `json:"why"`       // "path /b is not below /a"
	grant     string // the same, without a word of the question that is not in its key
}

// misses says what of e the question does not meet. It says of each condition what the base policy says.
func (e *entry) misses(q *asked) (out []Miss) {
	add := func(condition, grant, why string) { out = append(out, Miss{condition, why, grant}) }
	if !q.at.Before(e.until) {
		add("until", "ended "+e.until.Format("2006-01-02"), "it ended "+e.until.Format("2006-01-02 15:04:05 MST"))
	}
	if q.Stage != exitgate.StageResolve && !slices.Contains(e.ports, q.Dest.Port) {
		only := portList(e.ports)
		add("port", "is for port "+only, fmt.Sprintf("port %d is not %s", q.Dest.Port, only))
	}
	if e.grant == nil || q.HTTP == nil {
		return out
	}
	return append(out, e.httpMisses(q)...)
}

func (e *entry) httpMisses(q *asked) (out []Miss) {
	g := e.grant
	add := func(condition, grant, why string) { out = append(out, Miss{condition, why, grant}) }
	if s := grantSchemes(g); !slices.Contains(s, q.HTTP.Scheme) {
		add("scheme", "is for "+s[0], fmt.Sprintf("scheme %s is not %s", visible(q.HTTP.Scheme, 20), s[0]))
	}
	if m := grantMethods(g); !slices.Contains(m, q.HTTP.Method) && m[0] != "*" {
		any := strings.Join(m, ", ")
		add("method", "allows "+any, fmt.Sprintf("method %s is not among %s", visible(q.HTTP.Method, 40), any))
	}
	if q.HTTP.EncodedSlash && !g.EncodedSlash {
		add("encoded_slash", "takes no encoded slash (%2F)", "the path holds an encoded slash (%2F), and the grant has no encoded_slash: true")
	}
	if segments := segmentsOf(q.path); len(e.patterns) > 0 && !slices.ContainsFunc(e.patterns, func(p pattern) bool { return p.meets(segments) }) {
		few := pathList(e.patterns)
		add("path", "allows only "+few, fmt.Sprintf("path %s is not %s", visible(q.HTTP.Path, 200), few))
	}
	return append(out, e.headerMisses(q)...)
}

func portList(ports []uint16) string {
	return strings.Join(strings.Fields(strings.Trim(fmt.Sprint(ports), "[]")), ", ")
}

// pathList says in words what patterns cover; of many it names three.
func pathList(patterns []pattern) string {
	var words []string
	for i, p := range patterns {
		if i == 3 {
			words = append(words, fmt.Sprintf("%d more", len(patterns)-i))
			break
		}
		path := "/" + strings.Join(p.segments, "/")
		switch p.end {
		case endAny:
			words = append(words, path+" or below it")
		case endBelow:
			words = append(words, "below "+path)
		case endExact:
			words = append(words, "exactly "+path)
		}
	}
	return strings.Join(words, ", ")
}

func (e *entry) headerMisses(q *asked) (out []Miss) {
	for name, glob := range e.grant.Headers {
		if slices.ContainsFunc(q.HTTP.Headers[name], func(v string) bool { return globMatch(glob, validText(v)) }) {
			continue
		}
		why := fmt.Sprintf("header %s is absent, and has to be like %q", name, glob)
		if v, ok := q.HTTP.Headers[name]; ok && len(v) > 0 {
			why = fmt.Sprintf("header %s is %q and not like %q", name, visible(v[0], 100), glob)
		}
		out = append(out, Miss{"header:" + name, why, "wants header " + name + " like " + glob})
	}
	slices.SortFunc(out, func(a, b Miss) int { return strings.Compare(a.Condition, b.Condition) })
	return out
}

// globMatch matches a glob in which "*" stands for any text and everything else for itself.
func globMatch(glob, s string) bool {
	parts := strings.Split(glob, "*")
	if len(parts) == 1 {
		return glob == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if !strings.HasPrefix(s, first) || len(s) < len(first)+len(last) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

// nearest ends the reason of a refusal with the grant that comes closest: it has the fewest conditions that are not
// met. It looks at nothing of the question that is not in its key, and at no more than a few grants.
func (s *snapshot) nearest(q *asked) string {
	const look = 50
	var best *entry
	var missed []Miss
	seen := 0
	for _, e := range q.site.candidates {
		if e.grant == nil {
			continue
		}
		if seen++; seen > look {
			break
		}
		if m := e.misses(q); len(m) > 0 && (best == nil || len(m) < len(missed)) {
			best, missed = e, m
		}
	}
	if best == nil {
		return ""
	}
	return "; nearest: grant " + best.id() + " " + missed[0].grant
}
