package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/exitgate/exitgate"
)

// A special is the policy as far as it matters for one site and one stage: what is left of it when OPA has worked out,
// from the class, the destination and the stage, all that depends on nothing else. It says the same as the whole policy,
// about questions of that site and stage; what cannot be shown to is not specialised.
type special struct {
	query  rego.PreparedEvalQuery
	needed [numFields]bool // of input
	always *sets           // not nil: the answer is the same whatever else is asked
}

// stages are those for which the policy is specialised, in the order in which a site holds them.
var stages = [...]exitgate.Stage{exitgate.StageConnect, exitgate.StageRequest, exitgate.StageResponse, exitgate.StageResolve, exitgate.StageBody}

// A specialist makes specials of one revision, one at a time.
type specialist struct {
	partial  rego.PreparedPartialQuery
	unknowns []*ast.Term
	after    int64 // evaluations at a site and stage before it is specialised

	mu   sync.Mutex // held while a special is made
	left int        // how many may still be made
}

// What specialising may cost. It takes about as long as thirty evaluations, so that it is done when about as many
// were made at a site, and a host that asks for ever new destinations makes the gateway work twice at most.
const (
	specialAfter = 32
	maxSpecials  = 4096 // of a revision
	maxLeftRules = 300  // of a special: a rule that goes through all grants would leave one for each
	// maxSpecialise bounds the time in which one is worked out.
	maxSpecialise = 100 * time.Millisecond
)

// partialNamespace is where what is left of the policy is found below data.
const partialNamespace = "exitgate_partial"

// known are the fields of input whose values a site and a stage determine.
var known = [numFields]bool{fieldStage: true, hostClass: true, hostName: true, destHost: true, destKeys: true}

// newSpecialist returns nil where the policy cannot be specialised: it looks at input as a whole, replaces parts of it, or
// reads the host's name, which does not belong to a site.
func newSpecialist(ctx context.Context, s *snapshot, o Options) (*specialist, error) {
	if o.Specialise < 0 || s.reads.whole || s.reads.keyed[hostName] {
		return nil, nil
	}
	p := &specialist{after: int64(o.Specialise), left: maxSpecials}
	for i, f := range fields {
		if known[i] {
			continue
		}
		ref := ast.Ref{ast.InputRootDocument}
		if f.group != "" {
			ref = append(ref, ast.StringTerm(f.group))
		}
		p.unknowns = append(p.unknowns, ast.NewTerm(append(ref, ast.StringTerm(f.name))))
	}
	for _, group := range []string{"tls", "http", "response"} { // whether they are there at all is not known either
		p.unknowns = append(p.unknowns, ast.NewTerm(ast.Ref{ast.InputRootDocument, ast.StringTerm(group)}))
	}
	var err error
	p.partial, err = rego.New(
		rego.Query(wholeQuery), rego.Compiler(s.compiler), rego.Store(s.store), rego.Transaction(s.txn), rego.StrictBuiltinErrors(true),
		rego.PartialNamespace(partialNamespace),
	).PrepareForPartial(ctx)
	if err != nil {
		return nil, regoError(err)
	}
	return p, nil
}

// A specialised site holds, for each stage, how often it was evaluated, and what came of specialising.
type specialised struct {
	asked   atomic.Int64
	special atomic.Pointer[special]
	tried   atomic.Bool
}

// special returns the policy for the site and stage of q; nil when the whole policy has to be asked.
func (s *snapshot) special(ctx context.Context, q *asked) *special {
	i := slices.Index(stages[:], q.Stage)
	if s.specialist == nil || i < 0 {
		return nil
	}
	at := &q.site.special[i]
	if made := at.special.Load(); made != nil {
		return made
	}
	p := s.specialist
	if at.tried.Load() || at.asked.Add(1) < p.after || !p.mu.TryLock() {
		return nil
	}
	defer p.mu.Unlock()
	if at.tried.Swap(true) || p.left == 0 {
		return at.special.Load()
	}
	p.left--
	made, err := p.specialise(ctx, s, q)
	if err != nil {
		return nil // asked in full from here on
	}
	at.special.Store(made)
	return made
}

var errNotSpecial = errors.New("what is left of the policy is not complete by itself")

func (p *specialist) specialise(ctx context.Context, s *snapshot, q *asked) (*special, error) {
	stop := topdown.NewCancel()
	timer := time.AfterFunc(maxSpecialise, stop.Cancel)
	defer timer.Stop()
	left, err := p.partial.Partial(context.WithoutCancel(ctx), rego.EvalParsedInput(q.site.known(q.Stage)), rego.EvalTransaction(s.txn),
		rego.EvalParsedUnknowns(p.unknowns), rego.EvalExternalCancel(stop))
	if err == nil {
		err = isSmall(left.Support)
	}
	if err != nil {
		return nil, err
	}
	body, err := leftQuery(left)
	if err != nil {
		return nil, err
	}
	c, err := compileLeft(left.Support)
	if err != nil {
		return nil, err
	}
	if err := isComplete(c, body, left.Support); err != nil {
		return nil, err
	}
	made := &special{}
	r := &reads{}
	r.walk(body, false)
	for _, m := range left.Support {
		r.walk(m, false)
	}
	made.needed = r.needed
	if made.always, err = always(body[0].Terms.(*ast.Term)); err == nil {
		return made, nil
	}
	made.query, err = rego.New(
		rego.ParsedQuery(body), rego.Compiler(c), rego.Store(s.store), rego.Transaction(s.txn), rego.StrictBuiltinErrors(true), rego.GenerateJSON(valueOf),
	).PrepareForEval(ctx)
	return made, err
}

func isSmall(support []*ast.Module) error {
	n := 0
	for _, m := range support {
		n += len(m.Rules)
	}
	if n > maxLeftRules {
		return fmt.Errorf("%d rules are left of the policy, and at most %d are worth it", n, maxLeftRules)
	}
	return nil
}

// known is what a site and a stage say of input.
func (n *site) known(stage exitgate.Stage) ast.Value {
	return ast.NewObject(
		item("stage", textTerm(string(stage))),
		item("host", ast.ObjectTerm(item("class", n.classTerm), item("name", ast.StringTerm(n.host)))),
		item("dest", ast.ObjectTerm(item("host", ast.StringTerm(n.dest)), item("keys", n.keysTerm))),
	)
}

// leftQuery returns the four sets that are asked for. Anything but one query that is a list of four is something that
// nobody has thought of.
func leftQuery(left *rego.PartialQueries) (ast.Body, error) {
	if len(left.Queries) != 1 || len(left.Queries[0]) != 1 {
		return nil, errNotSpecial
	}
	e := left.Queries[0][0]
	t, ok := e.Terms.(*ast.Term)
	if terms, call := e.Terms.([]*ast.Term); call && len(terms) == 3 && e.IsEquality() {
		t, ok = terms[2], true
		if _, list := t.Value.(*ast.Array); !list {
			t = terms[1]
		}
	}
	if a, list := (*ast.Array)(nil), false; ok && !e.Negated && len(e.With) == 0 {
		if a, list = t.Value.(*ast.Array); list && a.Len() == 4 {
			return ast.NewBody(ast.NewExpr(t)), nil
		}
	}
	return nil, errNotSpecial
}

func compileLeft(support []*ast.Module) (*ast.Compiler, error) {
	modules := make(map[string]*ast.Module, len(support))
	for i, m := range support {
		modules[fmt.Sprint(i)] = dedupe(m)
	}
	c := ast.NewCompiler().WithCapabilities(Capabilities())
	if c.Compile(modules); c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}

// dedupe drops rules that are there twice, as rules are that had two ways to be true.
func dedupe(m *ast.Module) *ast.Module {
	seen := map[string]bool{}
	m.Rules = slices.DeleteFunc(m.Rules, func(r *ast.Rule) bool {
		text := r.String()
		twice := seen[text]
		seen[text] = true
		return twice && r.Else == nil
	})
	return m
}

// isComplete makes sure that nothing of what is left leads back into the whole policy or its data, where OPA would find
// nothing and say nothing (rules with default and else are such).
func isComplete(c *ast.Compiler, body ast.Body, support []*ast.Module) (err error) {
	check := func(r ast.Ref) bool {
		if r[0].Equal(ast.DefaultRootDocument) && (len(r) < 2 || !r[1].Equal(ast.StringTerm(partialNamespace)) || len(c.GetRulesForVirtualDocument(r.GroundPrefix())) == 0) {
			err = errNotSpecial
		}
		return false
	}
	ast.WalkRefs(body, check)
	for _, m := range support {
		for _, r := range m.Rules {
			ast.WalkRefs(r.Body, check)
			ast.WalkRefs(r.Head, check)
		}
	}
	return err
}

// always returns the sets where nothing is left to be worked out.
func always(t *ast.Term) (*sets, error) {
	if !t.IsGround() || strings.Contains(t.String(), "data.") {
		return nil, errNotSpecial
	}
	free := false
	ast.WalkRefs(t, func(ast.Ref) bool { free = true; return true })
	if free {
		return nil, errNotSpecial
	}
	out, err := setsOf(t.Value)
	return &out, err
}
