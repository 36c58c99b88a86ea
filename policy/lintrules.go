package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// facts are the parts of the question, and of the table of grants, that a value is made of: references without their
// first part that is not constant, as "input.dest.host".
type facts []string

func (f facts) has(prefixes ...string) bool {
	return slices.ContainsFunc(f, func(s string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return s == p || strings.HasPrefix(s, p+".") })
	})
}

func (f facts) with(more facts) facts {
	for _, s := range more {
		if !slices.Contains(f, s) {
			f = append(f, s)
		}
	}
	return f
}

// rules looks at the compiled rules, in which each reference stands in an expression of its own. What is known of a
// rule's value and of a function's arguments grows until it no longer does; only then is anything reported.
func (l *linter) rules() {
	l.guarded = map[string]bool{}
	for l.changed = true; l.changed; {
		l.changed = false
		l.eachRule(false)
	}
	l.eachRule(true)
}

func (l *linter) eachRule(report bool) {
	for _, m := range l.compiler.Modules {
		for _, r := range m.Rules {
			for ; r != nil; r = r.Else {
				w := &walk{linter: l, rule: r, env: map[ast.Var]facts{}, bound: map[ast.Var]bool{}, report: report}
				w.args()
				w.body(r.Body)
				w.value()
			}
		}
	}
}

// A walk looks at one rule.
type walk struct {
	*linter
	rule   *ast.Rule
	env    map[ast.Var]facts // what variables are made of
	bound  map[ast.Var]bool  // variables that have a value by now
	report bool
}

func argumentName(path string, i int) string { return fmt.Sprintf("%s#%d", path, i) }

func (w *walk) args() {
	for i, a := range w.rule.Head.Args {
		if v, ok := a.Value.(ast.Var); ok {
			w.env[v], w.bound[v] = w.facts[argumentName(w.rule.Ref().GroundPrefix().String(), i)], true
		}
	}
}

// learn notes that what is called name is made of f, too.
func (l *linter) learn(name string, f facts) {
	if all := l.facts[name].with(f); len(all) > len(l.facts[name]) {
		l.facts[name], l.changed = all, true
	}
}

func (w *walk) value() {
	for _, t := range []*ast.Term{w.rule.Head.Value, w.rule.Head.Key} {
		if t != nil && !w.report {
			w.learn(w.rule.Ref().GroundPrefix().String(), w.of(t))
		}
	}
}

// of returns what a term is made of.
func (w *walk) of(t *ast.Term) facts {
	switch v := t.Value.(type) {
	case ast.Var:
		return w.env[v]
	case ast.Ref:
		return w.ofRef(v)
	case *ast.Array:
		var f facts
		v.Foreach(func(t *ast.Term) { f = f.with(w.of(t)) })
		return f
	case ast.Set:
		var f facts
		v.Foreach(func(t *ast.Term) { f = f.with(w.of(t)) })
		return f
	}
	return nil
}

func (w *walk) ofRef(r ast.Ref) facts {
	tail := func(from ast.Ref) string {
		if c := constants(from); len(c) > 0 {
			return "." + strings.Join(c, ".")
		}
		return ""
	}
	switch head := r[0].Value.(ast.Var); {
	case head.Equal(ast.InputRootDocument.Value):
		return facts{"input" + tail(r[1:])}
	case head.Equal(ast.DefaultRootDocument.Value):
		if strings.HasPrefix(r.String(), tableRef) {
			return facts{tableRef + "#" + fmt.Sprint(len(r)-len(tablePath))}
		}
		return w.facts[r.GroundPrefix().String()]
	default:
		var f facts
		for _, s := range w.env[head] {
			if depth, ok := tableDepth(s); ok {
				f = append(f, fmt.Sprintf("%s#%d", tableRef, depth+len(r)-1))
			} else {
				f = append(f, s+tail(r[1:]))
			}
		}
		return f
	}
}

const tableRef = ownPackage + ".table"

var tablePath = ast.MustParseRef(tableRef)

// How deep the table is, below data.exitgate.table: grants or exemptions, class or host, its name, the destination, the
// id. From the destination on, what is left is a handful.
const tableBounded = 4

func tableDepth(fact string) (depth int, ok bool) {
	rest, ok := strings.CutPrefix(fact, tableRef+"#")
	if ok {
		fmt.Sscan(rest, &depth)
	}
	return depth, ok
}

func (w *walk) body(b ast.Body) {
	for _, e := range b {
		w.expr(e)
	}
}

func (w *walk) expr(e *ast.Expr) {
	switch t := e.Terms.(type) {
	case *ast.Every:
		w.every(t)
	case *ast.Term:
		w.look(t, e.Location)
	case []*ast.Term:
		w.call(e, t)
	}
	ast.WalkVars(e, func(v ast.Var) bool { w.bound[v] = true; return false })
}

func (w *walk) every(e *ast.Every) {
	w.look(e.Domain, e.Domain.Location)
	f := w.of(e.Domain)
	w.whole(f, e.Domain.Location)
	if v, ok := e.Value.Value.(ast.Var); ok {
		w.env[v] = f
	}
	w.body(e.Body)
}

// look reports what a term iterates over, and walks the comprehensions in it.
func (w *walk) look(t *ast.Term, at *ast.Location) {
	if t.Location != nil {
		at = t.Location
	}
	ast.WalkTerms(t, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Ref:
			w.iterates(v, at)
			w.contentLength(v, at)
		case *ast.ArrayComprehension:
			w.body(v.Body)
			return true
		case *ast.SetComprehension:
			w.body(v.Body)
			return true
		case *ast.ObjectComprehension:
			w.body(v.Body)
			return true
		}
		return false
	})
}

// iterates reports a reference into the table of grants whose class, host or destination is not known by then.
func (w *walk) iterates(r ast.Ref, at *ast.Location) {
	depth, from := -1, 0
	switch head := r[0].Value.(ast.Var); {
	case strings.HasPrefix(r.String(), tableRef):
		depth, from = 0, len(tablePath)
	default:
		for _, s := range w.env[head] {
			if d, ok := tableDepth(s); ok {
				depth, from = d, 1
			}
		}
	}
	if depth < 0 {
		return
	}
	for i, t := range r[from:] {
		if v, ok := t.Value.(ast.Var); ok && depth+i < tableBounded && !w.bound[v] {
			w.goesThrough(at)
			return
		}
	}
}

func (w *walk) goesThrough(at *ast.Location) {
	if w.report {
		w.add(at, LintIteration, "the rule goes through the table of grants, of which there may be a hundred thousand",
			"look up one class and one destination: data.exitgate.table.grants.class[input.host.class][key] with some key in input.dest.keys before it")
	}
}

// whole reports that a builtin, or every, takes more of the table than one destination.
func (w *walk) whole(f facts, at *ast.Location) {
	for _, s := range f {
		if d, ok := tableDepth(s); ok && d < tableBounded {
			w.goesThrough(at)
			return
		}
	}
}

func (w *walk) call(e *ast.Expr, terms []*ast.Term) {
	name := terms[0].Value.String()
	for _, t := range terms[1:] {
		w.look(t, e.Location)
	}
	if name == ast.Equality.Name {
		w.unify(terms[1], terms[2])
	}
	if e.IsCall() && strings.HasPrefix(name, "data.") {
		for i, t := range terms[1:] {
			if !w.report {
				w.learn(argumentName(name, i), w.of(t))
			}
		}
		w.result(terms, w.facts[name], len(w.compiler.GetRules(terms[0].Value.(ast.Ref))))
		return
	}
	w.compares(e, name, terms[1:])
	if name != ast.Equality.Name {
		for _, t := range terms[1:] {
			w.whole(w.of(t), e.Location)
		}
	}
	if slices.Contains(keeping, name) {
		var f facts
		for _, t := range terms[1 : len(terms)-1] {
			f = f.with(w.of(t))
		}
		w.result(terms, f, 1)
	}
}

// keeping are builtins whose result says what their argument says.
var keeping = []string{"lower", "upper", "trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix", "trim_space", "replace", "concat", "sprintf", "split", "substring", "strings.reverse"}

func (w *walk) result(terms []*ast.Term, f facts, _ int) {
	if v, ok := terms[len(terms)-1].Value.(ast.Var); ok && !w.bound[v] {
		w.env[v] = w.env[v].with(f)
	}
}

func (w *walk) unify(a, b *ast.Term) {
	for _, p := range [][2]*ast.Term{{a, b}, {b, a}} {
		if v, ok := p[0].Value.(ast.Var); ok {
			w.env[v] = w.env[v].with(w.of(p[1]))
		}
	}
}
