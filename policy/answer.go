package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// An answer is a verdict as it is kept: complete but for what differs between questions with one key.
type answer struct {
	v     exitgate.Verdict
	asked bool   // the reason names what was asked for, and is made anew each time
	hint  string // what follows in such a reason
}

func (w *answer) verdict(s *snapshot, q *asked) exitgate.Verdict {
	v := w.v
	if w.asked {
		v.Reason = q.subject() + " has no grant for " + q.what() + w.hint
	}
	return v
}

// subject names whom a grant would be for.
func (q *asked) subject() string {
	if q.Host.Class == "" {
		return "a host without a class"
	}
	return "class " + visible(string(q.Host.Class), maxID)
}

// what names what is asked for, as a person would.
func (q *asked) what() string {
	if q.HTTP != nil {
		return visible(q.HTTP.Method, 40) + " " + visible(q.HTTP.URL, 200)
	}
	return visible(q.Dest.String(), 270)
}

// visible returns s cut to n bytes, with what is not printable ASCII replaced: it was written by a host.
func visible(s string, n int) string {
	cut := len(s) > n
	if cut {
		s = s[:n]
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			b := []byte(s)
			for j := range b {
				if b[j] < ' ' || b[j] >= 0x7f {
					b[j] = '?'
				}
			}
			s = string(b)
			break
		}
	}
	if cut {
		return s + "..."
	}
	return s
}

// failed is the verdict of a policy that did not answer.
func (s *snapshot) failed(why string) exitgate.Verdict {
	return exitgate.Verdict{Rule: exitgate.RulePolicy, Reason: "the policy did not answer: " + why, Revision: s.revision}
}

func (s *snapshot) evaluate(ctx context.Context, q *asked) (exitgate.Verdict, error) {
	w, err := s.answer(ctx, q)
	if err != nil {
		return s.failed(err.Error()), err
	}
	return w.verdict(s, q), nil
}

func (s *snapshot) evaluateAndKeep(ctx context.Context, q *asked, key string) (exitgate.Verdict, error) {
	w, err := s.answer(ctx, q)
	if err != nil {
		return s.failed(err.Error()), err // never kept: the next may be answered
	}
	s.kept.put(key, w)
	return w.verdict(s, q), nil
}

func (s *snapshot) answer(ctx context.Context, q *asked) (*answer, error) {
	out, err := s.setsFor(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.combine(q, out)
}

// setsFor asks the policy, or what is left of it for the site.
func (s *snapshot) setsFor(ctx context.Context, q *asked) (sets, error) {
	switch p := s.special(ctx, q); {
	case p == nil:
		return s.eval(ctx, s.input(q, &s.reads.needed))
	case p.always != nil:
		return *p.always, nil
	default:
		return s.evalQuery(ctx, &p.query, s.input(q, &p.needed))
	}
}

// combine makes one verdict of what the policy says. The ladder:
//
//  1. a reason to deny refuses
//  2. at connect, an exemption splices
//  3. a grant allows; one in audit mode says what would have been
//  4. a response, and a body that was held, need no grant of their own
//  5. else it is refused; carried instead where the class is in audit mode, as in 1
func (s *snapshot) combine(q *asked, out sets) (*answer, error) {
	w := &answer{v: exitgate.Verdict{Revision: s.revision}}
	grants, err := texts(out.grants)
	if err != nil {
		return nil, err
	}
	exempt, err := texts(out.exemptions)
	if err != nil {
		return nil, err
	}
	s.grant(w, q, grants)
	switch later := q.Stage == exitgate.StageResponse || q.Stage == exitgate.StageBody; {
	case out.denials.Len() > 0:
		w.v.Rule, w.v.Reason = firstDenial(out.denials)
		w.v.Audit, w.asked = false, false
		s.refuse(w, q)
	case len(exempt) > 0 && q.Stage == exitgate.StageConnect:
		w = s.exempt(q, exempt)
	case len(grants) > 0:
		w.v.Action, w.v.Rule = exitgate.Allow, "grant:"+w.v.Grant
	case later:
		w.v.Action, w.v.Rule = exitgate.Allow, "no-deny"
	default:
		w.v.Rule, w.asked, w.hint = "no-grant", true, s.nearest(q)
		s.refuse(w, q)
	}
	if w.v.Action == exitgate.Allow && q.Stage == exitgate.StageRequest {
		w.v.Rewrite, err = rewriteOf(out.rewrites)
	}
	return w, err
}

// rewriteOf makes one rewrite of the elements that the policy's rules contribute, in the order of their text, so that
// equal sets make equal rewrites. The engine checks what is in them.
func rewriteOf(set ast.Set) (json.RawMessage, error) {
	if set.Len() == 0 {
		return nil, nil
	}
	var list []any
	for _, t := range set.Slice() {
		if _, ok := t.Value.(ast.Object); !ok {
			return nil, fmt.Errorf("the policy rewrites by %.80s, which is no object", t)
		}
		v, err := ast.JSON(t.Value)
		if err != nil {
			return nil, fmt.Errorf("the policy rewrites by %.80s: %w", t, err)
		}
		list = append(list, v)
	}
	if len(list) == 1 {
		return json.Marshal(list[0])
	}
	return json.Marshal(map[string]any{"fifo.Group": map[string]any{"scope": []string{"request"}, "modifiers": list}})
}

// refuse refuses, unless the class is in audit mode.
func (s *snapshot) refuse(w *answer, q *asked) {
	if q.site.audit {
		w.v.Action, w.v.Audit = exitgate.Allow, true
		return
	}
	w.v.Grant, w.v.Limits = "", exitgate.Limits{}
}

// grant takes the limits of the grant that stands for all that allow.
func (s *snapshot) grant(w *answer, q *asked, ids []string) {
	if len(ids) == 0 {
		return
	}
	ids = slices.SortedStableFunc(slices.Values(ids), func(a, b string) int { return s.rank(q, b).compare(s.rank(q, a)) })
	w.v.Grant = ids[0]
	e := s.table.grants[ids[0]]
	if e == nil {
		return // a rule of the policy directory grants by itself, with the gateway's limits
	}
	w.v.Limits.RequestBody, w.v.Limits.ResponseBody = e.grant.MaxRequest, e.grant.MaxResponse
	if e.grant.Audit {
		w.v.Audit, w.asked, w.hint = true, true, " but grant "+e.grant.ID+", which is in audit mode"
	}
}

// A rank says how well a grant fits; more is better.
type rank struct {
	known, enforced, host bool
	dest, path            int
}

func (r rank) compare(o rank) int {
	return cmp.Or(order(r.known, o.known), order(r.enforced, o.enforced), order(r.host, o.host), cmp.Compare(r.dest, o.dest), cmp.Compare(r.path, o.path))
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// rank looks at nothing of the question that is not in its key.
func (s *snapshot) rank(q *asked, id string) rank {
	e := s.table.grants[id]
	if e == nil {
		return rank{enforced: true}
	}
	r := rank{known: true, enforced: !e.grant.Audit, host: e.subject.kind == kindHost, dest: specific(e.key)}
	if q.HTTP != nil && slices.Contains(q.site.candidates, e) {
		r.path = e.bestPath(segmentsOf(q.path))
	}
	return r
}

// specific orders destination keys: a name or address before a wildcard or range, a long one of these before a
// short one.
func specific(key string) int {
	switch {
	case strings.HasPrefix(key, "*."):
		return len(key)
	case strings.IndexByte(key, '/') >= 0:
		var bits int
		fmt.Sscanf(key[strings.IndexByte(key, '/')+1:], "%d", &bits)
		return bits
	}
	return 1000
}

// bestPath returns how specific the most specific path of e is that the segments meet; 0 where e has none.
func (e *entry) bestPath(segments []string) (best int) {
	for i := range e.patterns {
		p := &e.patterns[i]
		if !p.meets(segments) {
			continue
		}
		n := 3*len(p.segments) + 1
		switch p.end {
		case endBelow:
			n++
		case endExact:
			n += 2
		}
		best = max(best, n)
	}
	return best
}

// exempt makes the verdict of the most specific exemption.
func (s *snapshot) exempt(q *asked, ids []string) *answer {
	w := &answer{v: exitgate.Verdict{Action: exitgate.Splice, Revision: s.revision}}
	best := -1
	for _, id := range ids {
		score := 0
		if x := s.table.exemptions[id]; x != nil {
			score = 2*specific(x.key) + 1
			if x.subject.kind == kindHost {
				score += 10_000
			}
		}
		if score > best {
			best, w.v.Exemption = score, id
		}
	}
	w.v.Rule = "exemption:" + w.v.Exemption
	if x := s.table.exemptions[w.v.Exemption]; x != nil {
		w.v.Raw, w.v.Limits.Bytes = x.exempt.Raw, x.exempt.MaxBytes
	}
	return w
}

// firstDenial returns the rule and the reason of the first denial by file and line. Any denial denies, also one
// whose reason is no text.
func firstDenial(set ast.Set) (rule, reason string) {
	first := set.Slice()[0]
	if a, ok := first.Value.(*ast.Array); ok && a.Len() == 2 {
		place, _ := a.Elem(0).Value.(ast.String)
		return "deny:" + string(place), reasonText(a.Elem(1))
	}
	return "deny", reasonText(first)
}

func reasonText(t *ast.Term) string {
	if s, ok := t.Value.(ast.String); ok {
		return visibleText(string(s), maxText)
	}
	return visibleText(t.String(), maxText)
}

// visibleText keeps letters of all scripts, and drops what could change how a line is shown.
func visibleText(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.Map(func(r rune) rune {
		if !isText(string(r)) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
