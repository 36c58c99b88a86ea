package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// An Explanation says why a question is answered as it is.
type Explanation struct {
	Who     string           `json:"who"`  // "host web01 of class app"
	What    string           `json:"what"` // "POST https://api.example.com/v1/x", or host:port
	Stage   exitgate.Stage   `json:"stage"`
	Verdict exitgate.Verdict `json:"verdict"`
	// Place is the file:line of the rule, grant or exemption that decided, or "the store"; "" where nothing did.
	Place string `json:"place"`
	// Denials are all reasons to deny, in the order of their places.
	Denials []Denial `json:"denials"`
	// Candidates are the grants and exemptions of the host and its class: those that apply, then the others, the
	// nearest first.
	Candidates []Candidate     `json:"candidates"`
	More       int             `json:"more"`    // how many candidates were left out
	Suggest    string          `json:"suggest"` // what would have to be granted, or why nothing can be
	Input      json.RawMessage `json:"input"`   // what rules see of the question
}

// A Denial is one reason to deny.
type Denial struct {
	Place  string `json:"place"` // file:line
	Reason string `json:"reason"`
}

// A Candidate is a grant or an exemption that could apply, and what keeps it from doing so.
type Candidate struct {
	Kind    string `json:"kind"` // grant or exemption
	ID      string `json:"id"`
	To      string `json:"to"`
	Source  string `json:"source"`
	Applies bool   `json:"applies"`
	Audit   bool   `json:"audit"`
	Misses  []Miss `json:"misses"`
}

const maxCandidates = 50

// Explain answers q without what is kept, and says how the answer came about. Where the policy does not answer, the
// explanation has the verdict that Decide gives, with the error.
func (e *Engine) Explain(ctx context.Context, q *exitgate.Question) (x Explanation, err error) {
	s := e.current.Load()
	defer func() {
		if p := recover(); p != nil {
			err = &exitgate.Bug{Step: "explain", Err: fmt.Errorf("panic: %v", p), Stack: debug.Stack()}
			x.Verdict = s.failed("it panicked")
		}
	}()
	x = Explanation{Stage: q.Stage}
	if x.Verdict, err = e.decideAnew(ctx, s, q, &x); err != nil {
		x.Verdict = s.failed(err.Error())
	}
	return x, err
}

func (e *Engine) decideAnew(ctx context.Context, s *snapshot, q *exitgate.Question, x *Explanation) (exitgate.Verdict, error) {
	if v, refused := s.tooDeep(q); refused {
		x.Who, x.What = q.Host.Name, visible(q.HTTP.URL, 200)
		return v, nil
	}
	var a asked
	s.ask(&a, q)
	x.Who, x.What = a.who(), a.what()
	in := s.input(&a, nil)
	if v, err := ast.JSON(in); err == nil {
		x.Input, _ = json.Marshal(v)
	}
	out, err := s.eval(ctx, in)
	if err != nil {
		return exitgate.Verdict{}, err
	}
	w, err := s.combine(&a, out)
	if err != nil {
		return exitgate.Verdict{}, err
	}
	v := w.verdict(s, &a)
	x.denials(out.denials)
	x.candidates(s, &a)
	x.Place = s.place(v)
	x.Suggest = s.suggest(&a, v)
	return v, nil
}

// who names the host that asks.
func (q *asked) who() string {
	if q.Host.Name == "" {
		return "a host of " + q.subject()
	}
	return "host " + visible(q.Host.Name, 253) + " of " + q.subject()
}

func (x *Explanation) denials(set ast.Set) {
	x.Denials = []Denial{}
	for _, t := range set.Slice() {
		if a, ok := t.Value.(*ast.Array); ok && a.Len() == 2 {
			place, _ := a.Elem(0).Value.(ast.String)
			x.Denials = append(x.Denials, Denial{string(place), reasonText(a.Elem(1))})
		}
	}
}

// candidates lists what could apply at the destination, then what the host and its class have elsewhere.
func (x *Explanation) candidates(s *snapshot, q *asked) {
	type scored struct {
		Candidate
		near int
	}
	var all []scored
	for _, who := range []subject{{kindClass, string(q.Host.Class)}, {kindHost, q.Host.Name}} {
		for key, list := range s.table.found[who] {
			for _, e := range list {
				c := e.candidate(q, key)
				all = append(all, scored{c, nearness(key, q.Dest.Host)})
			}
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(-order(a.Applies, b.Applies), cmp.Compare(b.near, a.near), cmp.Compare(len(a.Misses), len(b.Misses)), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	x.Candidates = []Candidate{}
	for i := range all {
		if i == maxCandidates {
			x.More = len(all) - i
			break
		}
		x.Candidates = append(x.Candidates, all[i].Candidate)
	}
}

func (e *entry) candidate(q *asked, key string) Candidate {
	c := Candidate{Kind: "exemption", ID: e.id(), To: key, Misses: []Miss{}}
	if e.grant != nil {
		c.Kind, c.Source, c.Audit = "grant", source(e.grant.Source), e.grant.Audit
	} else {
		c.Source = source(e.exempt.Source)
		if q.Stage != exitgate.StageConnect {
			c.Misses = append(c.Misses, Miss{Condition: "stage", Why: "what is read is not carried unread"})
		}
	}
	if !slices.Contains(q.site.candidates, e) {
		c.Misses = append(c.Misses, Miss{Condition: "destination", Why: visible(q.Dest.Host, 253) + " is not " + keyText(key)})
	}
	c.Misses = append(c.Misses, e.misses(q)...)
	c.Applies = len(c.Misses) == 0
	return c
}

func keyText(key string) string {
	switch {
	case strings.HasPrefix(key, "*."):
		return "below " + key[2:]
	case strings.IndexByte(key, '/') >= 0:
		return "an address in " + key
	}
	return key
}

// nearness says how many labels the end of a destination key has in common with a host: many for the same name.
func nearness(key, host string) (n int) {
	a, b := strings.Split(key, "."), strings.Split(host, ".")
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

// place says where what decided stands.
func (s *snapshot) place(v exitgate.Verdict) string {
	kind, rest, _ := strings.Cut(v.Rule, ":")
	switch kind {
	case "deny":
		return rest
	case "grant":
		if e := s.table.grants[rest]; e != nil {
			return source(e.grant.Source)
		}
	case "exemption":
		if e := s.table.exemptions[rest]; e != nil {
			return source(e.exempt.Source)
		}
	}
	return ""
}

// suggest names the command that would grant what was asked for, as narrowly as a command can say it. It is
// offered only if the grant that it makes would allow.
func (s *snapshot) suggest(q *asked, v exitgate.Verdict) string {
	switch {
	case v.Action != exitgate.Refuse && !v.Audit:
		return ""
	case strings.HasPrefix(v.Rule, "deny:"):
		return "no grant allows this: the rule at " + strings.TrimPrefix(v.Rule, "deny:") + " denies it"
	case q.Host.Class == "" || q.Host.Class == exitgate.ClassUnknown:
		return ""
	}
	g := exitgate.Grant{ID: "new", Class: q.Host.Class, To: q.Dest.Host, Ports: []uint16{q.Dest.Port}, Scheme: "https", Reason: "new"}
	if q.Dest.Port == 80 {
		g.Scheme = "http"
	}
	command := "exitgate grant add --class " + string(g.Class)
	url := g.Scheme + "://" + authority(q.Dest, g.Scheme)
	if q.HTTP != nil {
		g.Scheme, g.Methods = q.HTTP.Scheme, []string{q.HTTP.Method}
		command += " --method " + q.HTTP.Method
		url = g.Scheme + "://" + authority(q.Dest, g.Scheme)
		if q.path != "" && q.path[0] == '/' && q.path != "/" {
			g.Paths = []string{exactly(q.path)}
			url += exactly(q.path)
		}
		if g.EncodedSlash = q.HTTP.EncodedSlash; g.EncodedSlash {
			command += " --encoded-slash"
		}
	}
	command += " --reason WHY '" + strings.ReplaceAll(url, "'", `'\''`) + "'"
	if CheckGrant(&g) != nil || len(grantEntry(&g).misses(q)) > 0 {
		return ""
	}
	return command
}

// exactly doubles a "$" at the end, where one alone would be a mark.
func exactly(path string) string {
	if strings.HasSuffix(path, "$") {
		return path + "$"
	}
	return path
}

func authority(d exitgate.Destination, scheme string) string {
	if scheme == "https" && d.Port == 443 || scheme == "http" && d.Port == 80 {
		return strings.TrimSuffix(d.String(), ":"+strconv.Itoa(int(d.Port)))
	}
	return d.String()
}

// WriteText writes x for a person: at most about a hundred lines.
func (x Explanation) WriteText(w io.Writer) error {
	var b strings.Builder
	verb := map[exitgate.Action]string{exitgate.Allow: "is allowed", exitgate.Splice: "is carried unread", exitgate.Refuse: "is refused"}[x.Verdict.Action]
	if x.Verdict.Audit {
		verb = "is carried in audit mode, and would be refused"
	}
	fmt.Fprintf(&b, "%s: %s %s\n", x.Who, x.What, verb)
	fmt.Fprintf(&b, "  rule      %s\n", x.Verdict.Rule)
	for _, l := range [][2]string{{"at", x.Place}, {"reason", x.Verdict.Reason}, {"revision", x.Verdict.Revision}} {
		if l[1] != "" {
			fmt.Fprintf(&b, "  %-9s %s\n", l[0], l[1])
		}
	}
	for _, d := range x.Denials {
		fmt.Fprintf(&b, "  denied at %s: %s\n", d.Place, d.Reason)
	}
	x.writeCandidates(&b)
	if x.Suggest != "" {
		fmt.Fprintf(&b, "to grant it:\n  %s\n", x.Suggest)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (x *Explanation) writeCandidates(b *strings.Builder) {
	if len(x.Candidates) == 0 {
		b.WriteString("no grant and no exemption names the host or its class\n")
		return
	}
	b.WriteString("what the host and its class have:\n")
	for _, c := range x.Candidates {
		what := "applies"
		if !c.Applies {
			whys := make([]string, len(c.Misses))
			for i, m := range c.Misses {
				whys[i] = m.Why
			}
			what = strings.Join(whys, "; ")
		}
		fmt.Fprintf(b, "  %s %s (%s, %s): %s\n", c.Kind, c.ID, c.To, c.Source, what)
	}
	if x.More > 0 {
		fmt.Fprintf(b, "  and %d more\n", x.More)
	}
}
