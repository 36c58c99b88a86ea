package policy

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// A site is what a revision knows of one class, or host, at one destination. Apart from what it is specialised to, it is not
// changed once it is made.
type site struct {
	number     uint64 // never used twice in a revision
	host, dest string // of the questions; a host that no grant names is ""
	special    [len(stages)]specialised
	keysTerm   *ast.Term
	classTerm  *ast.Term
	candidates []*entry // grants and exemptions of the class and of the host at the destination
	audit      bool     // the class is in audit mode

	// The conditions of the candidates, each once. What the base policy answers depends on a question's path,
	// headers and time only through them.
	literal map[string]uint64 // paths without "*": prefixes as they stand, exact paths behind "="
	longest int               // bytes of the longest key of literal
	stars   []pattern         // paths with "*"
	headers []string          // names, sorted
	untils  []time.Time       // sorted
}

// siteOf finds or makes the site of q. A host that no grant names is not told from others of its class.
func (s *snapshot) siteOf(q *exitgate.Question) *site {
	name := q.Host.Name
	if _, ok := s.table.found[subject{kindHost, name}]; !ok {
		name = ""
	}
	var buf [160]byte
	key := appendText(appendText(appendText(buf[:0], string(q.Host.Class)), name), q.Dest.Host)
	if found, ok := s.sites.get(key); ok {
		return found
	}
	made := s.newSite(q.Host.Class, name, q.Dest.Host)
	s.sites.put(string(key), made)
	return made
}

func (s *snapshot) newSite(class exitgate.Class, host, dest string) *site {
	keys := s.table.keysOf(dest)
	n := &site{
		number: s.numbers.Add(1), host: host, dest: dest, keysTerm: stringsTerm(keys), classTerm: ast.StringTerm(string(class)), audit: slices.Contains(s.audit, class),
		literal: map[string]uint64{},
	}
	if class != "" {
		n.candidates = s.table.candidates(subject{kindClass, string(class)}, keys)
	}
	if host != "" {
		n.candidates = append(n.candidates, s.table.candidates(subject{kindHost, host}, keys)...)
	}
	for _, e := range n.candidates {
		n.learn(e)
	}
	slices.Sort(n.headers)
	n.headers = slices.Compact(n.headers)
	slices.SortFunc(n.untils, time.Time.Compare)
	n.untils = slices.CompactFunc(n.untils, time.Time.Equal)
	return n
}

func (n *site) learn(e *entry) {
	if e.until != endOfTime {
		n.untils = append(n.untils, e.until)
	}
	for _, p := range e.patterns {
		if p.stars > 0 {
			if !slices.ContainsFunc(n.stars, func(o pattern) bool { return o.text == p.text }) {
				n.stars = append(n.stars, p)
			}
			continue
		}
		key := p.text
		if p.end == endExact {
			key = "=" + key[:len(key)-1]
		}
		if _, ok := n.literal[key]; !ok {
			n.literal[key] = uint64(len(n.literal))
		}
		n.longest = max(n.longest, len(key))
	}
	if e.grant != nil {
		for name := range e.grant.Headers {
			n.headers = append(n.headers, name)
		}
	}
}

// appendKey appends which conditions of the site's candidates q meets; of header conditions the values that they
// look at.
func (n *site) appendKey(b []byte, q *asked) []byte {
	b = binary.AppendUvarint(b, n.number)
	epoch := 0
	for epoch < len(n.untils) && !q.at.Before(n.untils[epoch]) {
		epoch++
	}
	b = binary.AppendUvarint(b, uint64(epoch))
	if q.HTTP == nil {
		return b
	}
	b = appendHeaders(b, q.HTTP.Headers, n.headers)
	if len(n.literal) > 0 {
		b = n.appendLiteral(b, q.path)
	}
	if len(n.stars) > 0 {
		b = n.appendStars(b, q.path)
	}
	return b
}

// appendLiteral appends the numbers of the literal paths that p meets, shortest first.
func (n *site) appendLiteral(b []byte, p string) []byte {
	if p == "" || p[0] != '/' {
		return b
	}
	note := func(s string) {
		if i, ok := n.literal[s]; ok {
			b = binary.AppendUvarint(b, i+1)
		}
	}
	for i := 0; i < len(p) && i <= n.longest; i++ {
		if p[i] != '/' {
			continue
		}
		if i > 0 && p[i-1] != '/' {
			note(p[:i])
		}
		note(p[:i+1])
	}
	if len(p) > n.longest {
		return append(b, 0)
	}
	if p[len(p)-1] != '/' {
		note(p)
	}
	var buf [128]byte
	if i, ok := n.literal[string(append(append(buf[:0], '='), p...))]; ok {
		b = binary.AppendUvarint(b, i+1)
	}
	return append(b, 0)
}

// prefixes returns those prefixes of a path that some candidate names, and the whole path.
func (n *site) prefixes(path string) []string {
	all := prefixesOf(path)
	if len(all) == 0 {
		return nil
	}
	whole := all[len(all)-1]
	met := slices.DeleteFunc(all[:len(all)-1], func(p string) bool { _, ok := n.literal[p]; return !ok })
	return append(met, whole)
}

func (n *site) appendStars(b []byte, path string) []byte {
	segments := segmentsOf(path)
	for _, p := range n.stars {
		if p.meets(segments) {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// meets says of a path's segments what the functions fits and takes_path of the base policy say.
func (p *pattern) meets(segments []string) bool {
	have, want := len(segments), len(p.segments)
	switch {
	case have == 0 || have < want:
		return false
	case p.end == endBelow && have <= want, p.end == endExact && have != want:
		return false
	}
	for i, s := range p.segments {
		if s != segments[i] && (s != "*" || segments[i] == "") {
			return false
		}
	}
	return true
}
