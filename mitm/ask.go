package mitm

import (
	"context"
	"net/http"

	"github.com/google/martian/v3"
	"github.com/google/martian/v3/fifo"

	"github.com/exitgate/exitgate"
)

// ask puts a question to the policy. An error or a panic of the policy refuses.
func (p *Proxy) ask(ctx context.Context, q *exitgate.Question) exitgate.Verdict {
	var v exitgate.Verdict
	err := safely("policy", func() (err error) { v, err = p.Decider.Decide(ctx, q); return err })
	if err != nil {
		p.log().Error("the policy did not answer; refused", "stage", string(q.Stage), "dest", q.Dest.String(), "err", err)
		return exitgate.Verdict{Rule: exitgate.RulePolicy, Reason: "the policy did not answer: " + err.Error(), Revision: v.Revision}
	}
	return v
}

// refusalOf makes the error that a verdict to refuse is on its way to the client.
func refusalOf(v exitgate.Verdict) *exitgate.Refusal {
	r := &exitgate.Refusal{Verdict: v}
	if v.Rule == exitgate.RulePolicy {
		r.Status = http.StatusServiceUnavailable
	}
	return r
}

// exchangeFor finds the engine's own part of the exchange that a request carries.
func exchangeFor(r *http.Request) (*exchange, error) {
	if c, ok := r.Context().(*exchangeContext); ok {
		return c.x, nil
	}
	if x, ok := r.Context().Value(ownKey{}).(*exchange); ok {
		return x, nil
	}
	return nil, &exitgate.Bug{Step: "pipeline", Err: errNoExchange}
}

type ownKey struct{}

// exchangeContext carries an exchange, for the engine and for modifiers, in one allocation.
type exchangeContext struct {
	context.Context // carries the exitgate.Exchange
	x               *exchange
}

func (c *exchangeContext) Value(key any) any {
	if key == (ownKey{}) {
		return c.x
	}
	return c.Context.Value(key)
}

// Ask returns the step that puts the request to the policy. It stands after the steps that read the request
// into facts and before Begin.
func (p *Proxy) Ask() martian.RequestModifier { return martian.RequestModifierFunc(p.askRequest) }

func (p *Proxy) askRequest(r *http.Request) error {
	x, err := exchangeFor(r)
	if err != nil {
		return err
	}
	if probe, err := p.askProbe(x); probe {
		return err
	}
	q := &x.flow.Question
	if t := x.s.tunnel; t != nil && (t.verdict.Action != exitgate.Allow || t.host != q.Host) {
		// The tunnel was opened to give its refusal inside, or for a host that is another one now. Policy may have
		// changed since.
		c := *q
		c.Stage, c.HTTP = exitgate.StageConnect, nil
		if v := p.ask(r.Context(), &c); v.Action != exitgate.Allow {
			x.flow.Verdict = p.ask(r.Context(), q)
			if x.flow.Verdict.Action == exitgate.Refuse { // it knows the path, so it says more
				return refusalOf(x.flow.Verdict)
			}
			x.flow.Verdict = exitgate.Verdict{Rule: v.Rule, Reason: v.Reason, Revision: v.Revision}
			return refusalOf(x.flow.Verdict)
		}
	}
	x.flow.Verdict = p.ask(r.Context(), q)
	x.asked = true
	if x.flow.Verdict.Action != exitgate.Allow {
		return refusalOf(x.flow.Verdict)
	}
	return nil
}

// Begin returns the step that begins the record of a request that was allowed. Nothing has left before it, and
// the steps behind it only change or watch what is sent.
func (p *Proxy) Begin() martian.RequestModifier {
	return martian.RequestModifierFunc(func(r *http.Request) error {
		x, err := exchangeFor(r)
		if err != nil {
			return err
		}
		return p.begin(r.Context(), x)
	})
}

// AskResponse returns the step that puts the response to the policy, after its facts were read and before a
// byte of it goes to the host.
func (p *Proxy) AskResponse() martian.ResponseModifier {
	return martian.ResponseModifierFunc(func(res *http.Response) error {
		x, err := exchangeFor(res.Request)
		if err != nil {
			return err
		}
		x.flow.Question.Stage = exitgate.StageResponse
		v := p.ask(res.Request.Context(), &x.flow.Question)
		if v.Action == exitgate.Refuse {
			return refusalOf(v)
		}
		if v.Audit && !x.flow.Verdict.Audit {
			x.flow.Verdict.Audit, x.flow.Verdict.Reason = true, v.Reason
		}
		return nil
	})
}

// buildSteps makes one group of each pipeline. Groups are built once: martian's lock is held while modifiers
// run, so that a live change would stall unrelated requests.
func (p *Proxy) buildSteps() {
	in, out := fifo.NewGroup(), fifo.NewGroup()
	for _, m := range p.Request {
		in.AddRequestModifier(m)
	}
	for _, m := range p.Response {
		out.AddResponseModifier(m)
	}
	p.stepsIn, p.stepsOut = in, out
}

func (p *Proxy) checkSteps() error {
	for i, m := range p.Request {
		if m == nil {
			return &exitgate.Bug{Step: "pipeline", Err: errNilStep(i)}
		}
	}
	for i, m := range p.Response {
		if m == nil {
			return &exitgate.Bug{Step: "pipeline", Err: errNilStep(i)}
		}
	}
	return nil
}
