package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/exitgate/exitgate"
)

// A snapshot is one revision, ready to answer. Apart from what it keeps (sites, answers) it is never changed, so
// that one read transaction serves all evaluations.
type snapshot struct {
	revision string
	table    *table
	audit    []exitgate.Class
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction
	query    rego.PreparedEvalQuery
	timeout  time.Duration

	reads   *reads
	keyed   []int // the fields of reads that enter a key, the headers that are named apart
	numbers atomic.Uint64
	sites   *kept[*site]
	kept    *kept[*answer] // nil: answers are not kept

	specialist *specialist // nil: the policy cannot be specialised
}

// wholeQuery asks for all that the policy says.
const wholeQuery = "[" + ownPackage + "." + denials + ", " + ownPackage + ".exemptions, " + ownPackage + ".grants, " + ownPackage + ".rewrite]"

func newSnapshot(ctx context.Context, src *sources, o Options) (*snapshot, error) {
	t, err := newTable(src.grants, src.exemptions, src.last)
	if err != nil {
		return nil, err
	}
	c, err := compile(src.rego)
	if err != nil {
		return nil, err
	}
	s := &snapshot{
		revision: src.revision, table: t, audit: src.audit, compiler: c, timeout: o.Timeout,
		reads: readsOf(c.Modules), sites: newKept[*site](keptSites),
	}
	for i, keyed := range s.reads.keyed {
		if keyed {
			s.keyed = append(s.keyed, i)
		}
	}
	if o.Kept > 0 && !s.reads.keyed[fieldAt] { // an answer that depends on the time itself is never asked for twice
		s.kept = newKept[*answer](o.Kept)
	}
	if err := s.prepare(ctx, src.data); err != nil {
		return nil, err
	}
	s.specialist, err = newSpecialist(ctx, s, o)
	return s, err
}

func valueOf(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }

// storeOf makes the documents below data, and checks that no rule has the name of one.
func (s *snapshot) storeOf(own map[string]any) (storage.Store, error) {
	root := ast.NewObject()
	if own != nil {
		v, err := ast.InterfaceToValue(own)
		if err != nil {
			return nil, fmt.Errorf("read the data file: %w", err)
		}
		root = v.(ast.Object)
	}
	for _, m := range s.compiler.Modules {
		for _, r := range m.Rules {
			if path := r.Ref().GroundPrefix(); hidden(root, path[1:]) {
				return nil, fmt.Errorf("%s:%d:%d: %s is a rule here and a value in the data file", r.Location.File, r.Location.Row, r.Location.Col, path)
			}
		}
	}
	root.Insert(ast.StringTerm("exitgate"), ast.ObjectTerm(item("table", ast.NewTerm(s.table.object()))))
	return inmem.NewFromASTObject(root), nil
}

// hidden reports whether the documents hold a value at path, or one that is no object on the way to it.
func hidden(o ast.Object, path ast.Ref) bool {
	v, err := o.Find(ast.Ref{path[0]})
	for _, p := range path[1:] {
		next, ok := v.(ast.Object)
		if err != nil || !ok {
			return err == nil
		}
		v, err = next.Find(ast.Ref{p})
	}
	return err == nil
}

func (s *snapshot) prepare(ctx context.Context, own map[string]any) (err error) {
	if s.store, err = s.storeOf(own); err != nil {
		return err
	}
	if s.txn, err = s.store.NewTransaction(ctx); err != nil {
		return fmt.Errorf("read the grant table: %w", err)
	}
	s.query, err = rego.New(
		rego.Query(wholeQuery),
		rego.Compiler(s.compiler), rego.Store(s.store), rego.Transaction(s.txn),
		rego.StrictBuiltinErrors(true), // otherwise a deny that cannot be worked out would not deny
		rego.GenerateJSON(valueOf),
	).PrepareForEval(ctx)
	if err != nil {
		return regoError(err)
	}
	return nil
}

// sets is what the policy says.
type sets struct{ denials, exemptions, grants, rewrites ast.Set }

// eval asks the policy. It fails closed: an answer that is not complete is an error.
func (s *snapshot) eval(ctx context.Context, input ast.Value, more ...rego.EvalOption) (out sets, err error) {
	return s.evalQuery(ctx, &s.query, input, more...)
}

func (s *snapshot) evalQuery(ctx context.Context, query *rego.PreparedEvalQuery, input ast.Value, more ...rego.EvalOption) (out sets, err error) {
	stop := topdown.NewCancel()
	timer := time.AfterFunc(s.timeout, stop.Cancel)
	defer timer.Stop()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, stop.Cancel)()
	}
	options := [...]rego.EvalOption{
		rego.EvalParsedInput(input), rego.EvalTransaction(s.txn), rego.EvalMetrics(metrics.NoOp()), rego.EvalExternalCancel(stop),
	}
	rs, err := query.Eval(context.WithoutCancel(ctx), append(options[:], more...)...)
	switch {
	case err == nil:
	case topdown.IsCancel(err) && ctx.Err() != nil:
		return out, fmt.Errorf("ask the policy: %w", context.Cause(ctx))
	case topdown.IsCancel(err):
		return out, fmt.Errorf("ask the policy: it took longer than %s", s.timeout)
	default:
		return out, fmt.Errorf("ask the policy: %w", err)
	}
	if len(rs) != 1 || len(rs[0].Expressions) != 1 {
		return out, errNotAnswered
	}
	v, _ := rs[0].Expressions[0].Value.(ast.Value)
	return setsOf(v)
}

func setsOf(v ast.Value) (out sets, err error) {
	a, _ := v.(*ast.Array)
	if a == nil || a.Len() != 4 {
		return out, errNotAnswered
	}
	for i, set := range [...]*ast.Set{&out.denials, &out.exemptions, &out.grants, &out.rewrites} {
		var ok bool
		if *set, ok = a.Elem(i).Value.(ast.Set); !ok {
			return out, errors.New("the policy's answer is not made of sets")
		}
	}
	return out, nil
}

// texts returns the strings of a set in order; anything else in it is an error.
func texts(set ast.Set) ([]string, error) {
	if set.Len() == 0 {
		return nil, nil
	}
	out := make([]string, 0, set.Len())
	err := set.Iter(func(t *ast.Term) error {
		s, ok := t.Value.(ast.String)
		if !ok {
			return fmt.Errorf("the policy names a grant or exemption %.80s, which is no text", t)
		}
		out = append(out, string(s))
		return nil
	})
	slices.Sort(out)
	return out, err
}
