package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// Options say where a policy is and how long it may think.
type Options struct {
	// Dir is the policy directory: *.rego in any folder below it, grants.yaml, exemptions.yaml, and data.yaml or
	// data.json. "" means that there is none.
	Dir    string
	Logger *slog.Logger // nil: slog.Default()
	// Timeout bounds one evaluation. Over it, the question is refused. 0: 100 ms, which is thousands of times
	// what an evaluation takes, so that a stalled machine does not refuse.
	Timeout time.Duration
	// Kept bounds how many answers are kept. 0: 32,768, which is about 10 MB. Negative: none.
	Kept int
	// Specialise is after how many evaluations at one destination by one class, of one stage, the policy is worked out
	// for these alone, which makes all further ones cheaper. 0: 32. Negative: never.
	Specialise int
	// Revisions keeps what each revision was made of; nil: nothing is kept.
	Revisions *Revisions

	base []file // nil: the base policy that is shipped
}

const (
	defaultTimeout = 100 * time.Millisecond
	defaultKept    = 1 << 15
	keptSites      = 1 << 13
)

// An Engine answers questions by the policy that was loaded last. It is safe for concurrent use.
type Engine struct {
	options Options
	reload  sync.Mutex // held while a revision is made
	current atomic.Pointer[snapshot]
	working sync.Pool // of *work
}

// New loads the base policy, the directory of o and d. An error is one line that says where in which file.
func New(ctx context.Context, o Options, d Data) (*Engine, error) {
	e := &Engine{options: o.complete()}
	if _, err := e.Reload(ctx, d); err != nil {
		return nil, err
	}
	return e, nil
}

func (o Options) complete() Options {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Kept = cmp.Or(o.Kept, defaultKept)
	o.Specialise = cmp.Or(o.Specialise, specialAfter)
	return o
}

// newEngine answers by src alone. It is never reloaded.
func newEngine(ctx context.Context, o Options, src *sources) (*Engine, error) {
	e := &Engine{options: o.complete()}
	s, err := newSnapshot(ctx, src, e.options)
	if err != nil {
		return nil, e.loadError(err)
	}
	e.current.Store(s)
	return e, nil
}

// Reload makes a new revision from the directory, as it is now, and d. Questions are answered by the last revision
// until the new one is complete, and from then on by the new one. With an error, the last revision stays. Changed
// is false where nothing differs.
func (e *Engine) Reload(ctx context.Context, d Data) (changed bool, err error) {
	e.reload.Lock()
	defer e.reload.Unlock()
	defer func() {
		if v := recover(); v != nil {
			changed, err = false, &exitgate.Bug{Step: "load the policy", Err: fmt.Errorf("panic: %v", v), Stack: debug.Stack()}
		}
	}()
	last := e.current.Load()
	var before *table
	if last != nil {
		before = last.table
	}
	src, err := loadAfter(before, e.options.Dir, d, e.options.base)
	if err != nil {
		return false, e.loadError(err)
	}
	if last != nil && last.revision == src.revision {
		return false, nil
	}
	s, err := newSnapshot(ctx, src, e.options)
	if err != nil {
		return false, e.loadError(err)
	}
	for _, err := range src.dropped {
		e.options.Logger.Error("left out of the policy, because it is not valid", "err", err)
	}
	if r := e.options.Revisions; r != nil {
		if err := r.put(src, time.Now()); err != nil {
			e.options.Logger.Error("a revision cannot be asked again later", "err", err)
		}
	}
	e.current.Store(s)
	return true, nil
}

// loadError says which directory it was. Places in err are relative to it.
func (e *Engine) loadError(err error) error {
	if e.options.Dir == "" {
		return fmt.Errorf("load the policy: %w", err)
	}
	return fmt.Errorf("load the policy in %s: %w", filepath.Clean(e.options.Dir), err)
}

// Revision names the policy that answers now: 12 hex digits that differ where any input of it does.
func (e *Engine) Revision() string { return e.current.Load().revision }

// Grants returns all grants that are in force or were, from the directory and the store, ordered by id. Source says
// where each comes from.
func (e *Engine) Grants() []exitgate.Grant {
	s := e.current.Load()
	out := make([]exitgate.Grant, 0, len(s.table.grants))
	for _, g := range s.table.grants {
		out = append(out, *g.grant)
	}
	slices.SortFunc(out, func(a, b exitgate.Grant) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Exemptions returns all exemptions, as Grants does.
func (e *Engine) Exemptions() []exitgate.Exemption {
	s := e.current.Load()
	out := make([]exitgate.Exemption, 0, len(s.table.exemptions))
	for _, x := range s.table.exemptions {
		out = append(out, *x.exempt)
	}
	slices.SortFunc(out, func(a, b exitgate.Exemption) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Decide answers q. With an error the verdict refuses by exitgate.RulePolicy; so it does without one where the
// policy's answer makes no sense. It does not keep or change q.
//
// Where several grants allow, the verdict names, and takes its limits from, one that is not in audit mode before
// one that is; then one for the host before one for its class; then the one with the most specific destination;
// then the one whose path that was met has the most segments, exact before open; then the first by id.
func (e *Engine) Decide(ctx context.Context, q *exitgate.Question) (v exitgate.Verdict, err error) {
	s := e.current.Load()
	defer func() {
		if p := recover(); p != nil {
			err = &exitgate.Bug{Step: "decide", Err: fmt.Errorf("panic: %v", p), Stack: debug.Stack()}
			v = s.failed("it panicked")
		}
	}()
	if v, refused := s.tooDeep(q); refused {
		return v, nil
	}
	w, _ := e.working.Get().(*work)
	if w == nil {
		w = &work{}
	}
	defer e.release(w)
	s.ask(&w.asked, q)
	if s.kept == nil {
		return s.evaluate(ctx, &w.asked)
	}
	w.key = s.appendKey(w.key[:0], &w.asked)
	if found, ok := s.kept.get(w.key); ok {
		return found.verdict(s, &w.asked), nil
	}
	return s.evaluateAndKeep(ctx, &w.asked, string(w.key))
}

// work is what one decision needs for itself, used again so that an answer that is kept costs no allocation.
type work struct {
	asked asked
	key   []byte
}

// maxWork bounds the key that is used again: a question can be as large as headers may be.
const maxWork = 4096

func (e *Engine) release(w *work) {
	w.asked = asked{}
	if cap(w.key) <= maxWork {
		e.working.Put(w)
	}
}

// tooDeep refuses paths that would cost too much to match.
func (s *snapshot) tooDeep(q *exitgate.Question) (v exitgate.Verdict, refused bool) {
	if q.HTTP == nil || len(q.HTTP.Path) <= maxSegments || strings.Count(q.HTTP.Path, "/") <= maxSegments {
		return v, false
	}
	v.Rule, v.Revision = exitgate.RuleMalformed, s.revision
	v.Reason = fmt.Sprintf("the path has more than %d segments", maxSegments)
	return v, true
}

var errNotAnswered = errors.New("the policy evaluated to nothing")
