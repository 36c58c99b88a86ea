package policy

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/exitgate/exitgate"
)

// A Replay asks what was recorded again, under two policies, and says what the second would change. It asks each flow
// at every stage that it went through: a request inside TLS has to be let through at connect as well.
type Replay struct {
	Base, Candidate *Engine
	// Proof answers by the revision that a flow was recorded under; nil: nothing is proved. An error says why that
	// revision cannot be asked; ErrNoRevision is the usual one.
	Proof func(ctx context.Context, revision string) (*Engine, error)
	// Workers is how many goroutines ask; 0: one for each core.
	Workers int
	// Progress is called now and then, from any goroutine, with how many flows were asked so far; nil: it is not.
	Progress func(flows int64)
}

// A Batch gives some flows. It is called once, by the goroutine that asks them, so that reading them is shared out, too.
type Batch func() ([]*exitgate.Flow, error)

// Run asks all flows, which come in batches of any size. An error of the flows, or the end of ctx, ends it with what is
// known by then, and the error.
func (r *Replay) Run(ctx context.Context, flows iter.Seq2[Batch, error]) (d *Difference, err error) {
	workers := r.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	begin := time.Now()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work, done := make(chan Batch, workers), make(chan *Difference, workers)
	proof := &proof{ask: r.Proof, loaded: map[string]*proven{}}
	var asked atomic.Int64
	for range workers {
		go r.worker(ctx, stop, work, done, proof, &asked)
	}
	for batch, ferr := range flows {
		if err = cmp.Or(ferr, context.Cause(ctx)); err != nil {
			break
		}
		work <- batch
	}
	close(work)
	d = newDifference()
	for range workers {
		d.merge(<-done)
	}
	err = cmp.Or(err, context.Cause(ctx))
	d.Base, d.Candidate, d.Took = r.Base.Revision(), r.Candidate.Revision(), time.Since(begin)
	d.finish()
	return d, err
}

func (r *Replay) worker(ctx context.Context, stop context.CancelCauseFunc, work <-chan Batch, done chan<- *Difference, p *proof, asked *atomic.Int64) {
	d := newDifference()
	for batch := range work { // to its end, so that nobody waits to hand over more
		if ctx.Err() != nil {
			continue
		}
		flows, err := batch()
		if err != nil {
			stop(err)
			continue
		}
		for _, f := range flows {
			if ctx.Err() != nil {
				break
			}
			r.one(ctx, d, p, f)
		}
		if n := asked.Add(int64(len(flows))); r.Progress != nil {
			r.Progress(n)
		}
	}
	done <- d
}

// one asks one flow again. A flow that makes it panic is one that could not be asked.
func (r *Replay) one(ctx context.Context, d *Difference, p *proof, f *exitgate.Flow) {
	defer func() {
		if v := recover(); v != nil {
			d.skip(fmt.Sprintf("asking it panicked: %v\n%s", v, debug.Stack()))
		}
	}()
	d.Flows++
	if why := notAsked(f); why != "" {
		d.skip(why)
		return
	}
	d.Asked++
	if r.Proof != nil {
		p.prove(ctx, d, f)
	}
	before, after := r.Base.again(ctx, f), r.Candidate.again(ctx, f)
	d.note(f, before, after)
}

// notAsked says why no policy has a say in a flow; "" when it has.
func notAsked(f *exitgate.Flow) string {
	switch rule := f.Verdict.Rule; {
	case f.Question.Stage == "" || rule == "" || f.Question.Stage == exitgate.StageRequest && f.Question.HTTP == nil:
		return "the policy was not asked"
	case rule == exitgate.RuleLimit || rule == exitgate.RulePolicy || rule == exitgate.RuleRecord || rule == exitgate.RuleAddress:
		return "" // it had been asked, or would have been
	case strings.HasPrefix(rule, "exitgate:"):
		return "a law of the gateway decided: " + rule
	}
	return ""
}

// again answers for a whole flow: the first stage that refuses, or carries unread, decides; else the request.
func (e *Engine) again(ctx context.Context, f *exitgate.Flow) exitgate.Verdict {
	if f.Question.HTTP != nil && f.Question.TLS != nil {
		q := asConnect(f.Question)
		if v, _ := e.Decide(ctx, &q); v.Action != exitgate.Allow {
			return v
		}
	}
	return e.asRecorded(ctx, f)
}

// asRecorded answers as the flow's own verdict was made: it does not ask at connect what was asked in a tunnel.
func (e *Engine) asRecorded(ctx context.Context, f *exitgate.Flow) exitgate.Verdict {
	if f.Question.HTTP == nil {
		q := f.Question
		q.Dest.Addr = exitgate.Destination{}.Addr // it was dialled after the verdict
		v, _ := e.Decide(ctx, &q)
		return v
	}
	q := f.Question
	q.Stage, q.Response, q.Dest.Addr = exitgate.StageRequest, nil, exitgate.Destination{}.Addr
	v, _ := e.Decide(ctx, &q)
	if v.Action != exitgate.Allow || f.Question.Response == nil {
		return v
	}
	q = f.Question
	q.Stage = exitgate.StageResponse
	after, _ := e.Decide(ctx, &q)
	if after.Action == exitgate.Refuse {
		return after
	}
	if after.Audit && !v.Audit {
		v.Audit, v.Reason = true, after.Reason
	}
	return v
}

func asConnect(q exitgate.Question) exitgate.Question {
	q.Stage, q.HTTP, q.Response, q.Dest.Addr = exitgate.StageConnect, nil, nil, exitgate.Destination{}.Addr
	return q
}

// A proof holds engines of revisions that flows were recorded under.
type proof struct {
	ask func(context.Context, string) (*Engine, error)

	mu     sync.Mutex // guards loaded and order
	loaded map[string]*proven
	order  []string
}

// A proven revision is loaded once, by whoever needs it first.
type proven struct {
	once   sync.Once
	engine *Engine
	err    error
}

// maxProven bounds how many revisions are in memory at once. Flows come in the order of time, and so of revisions.
const maxProven = 8

func (p *proof) engine(ctx context.Context, revision string) (*Engine, error) {
	p.mu.Lock()
	e := p.loaded[revision]
	if e == nil {
		if len(p.order) == maxProven {
			delete(p.loaded, p.order[0])
			p.order = p.order[1:]
		}
		e = &proven{}
		p.loaded[revision], p.order = e, append(p.order, revision)
	}
	p.mu.Unlock()
	e.once.Do(func() { e.engine, e.err = p.ask(ctx, revision) })
	return e.engine, e.err
}

// prove asks the revision that a flow was recorded under, and notes where it does not say what is recorded.
func (p *proof) prove(ctx context.Context, d *Difference, f *exitgate.Flow) {
	if strings.HasPrefix(f.Verdict.Rule, "exitgate:") || f.Verdict.Revision == "" {
		return // what is recorded is not the policy's answer
	}
	e, err := p.engine(ctx, f.Verdict.Revision)
	if err != nil {
		d.Proof.missing(f.Verdict.Revision, err)
		return
	}
	v := e.asRecorded(ctx, f)
	if same(v, f.Verdict) {
		d.Proof.Agree++
		return
	}
	if f.Question.HTTP != nil && f.Question.TLS != nil && f.Verdict.Action == exitgate.Refuse {
		q := asConnect(f.Question) // a tunnel that was opened to give its refusal inside
		if c, _ := e.Decide(ctx, &q); same(c, f.Verdict) {
			d.Proof.Agree++
			return
		}
	}
	d.Proof.differ(f, v)
}

// same reports whether an answer is what was recorded. The reason is for people; a rewrite is recorded without secrets.
func same(v, recorded exitgate.Verdict) bool {
	v.Reason, v.Rewrite, recorded.Reason, recorded.Rewrite = "", nil, "", nil
	v.Revision = recorded.Revision
	if v.Action == exitgate.Refuse && recorded.Action == exitgate.Refuse {
		return v.Rule == recorded.Rule
	}
	return reflect.DeepEqual(v, recorded)
}
