package policy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/exitgate/exitgate"
)

// recorded makes the flow of a question as the engine would: asked at connect inside TLS, as a request, and as its response.
func recorded(t testing.TB, e *Engine, q *exitgate.Question, at time.Time) *exitgate.Flow {
	t.Helper()
	f := &exitgate.Flow{ID: exitgate.NewID(at), Kind: exitgate.KindRequest, Begin: at, Question: *q, Sent: exitgate.Bytes{Body: 10}}
	f.Verdict = e.asRecorded(context.Background(), f)
	if f.Verdict.Action != exitgate.Refuse {
		f.Question.Dest.Addr = mustAddrPort("203.0.113.7:443") // dialled after the verdict
	}
	return f
}

func batches(flows ...[]*exitgate.Flow) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		for _, b := range flows {
			if !yield(func() ([]*exitgate.Flow, error) { return b, nil }, nil) {
				return
			}
		}
	}
}

func mustEngine(t testing.TB, o Options, d Data) *Engine {
	t.Helper()
	o.Timeout = time.Minute
	e, err := New(t.Context(), o, d)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestReplay says of each kind of change which flows it concerns, and proves what was recorded.
func TestReplay(t *testing.T) {
	kept := NewRevisions(filepath.Join(t.TempDir(), "revisions"), RevisionBounds{})
	until := day0.AddDate(1, 0, 0)
	was := mustEngine(t, Options{Revisions: kept}, Data{
		Grants: []exitgate.Grant{
			{ID: "gone", Class: "app", To: "gone.example.com", Reason: "r"},
			{ID: "stays", Class: "app", To: "stays.example.com", Reason: "r"},
			{ID: "limit", Class: "app", To: "limit.example.com", MaxRequest: 1, Reason: "r"},
			{ID: "audit", Class: "app", To: "audit.example.com", Audit: true, Reason: "r"},
			{ID: "old-name", Class: "app", To: "rule.example.com", Reason: "r"},
			{ID: "splice", Class: "app", To: "splice.example.com", Reason: "r"},
			{ID: "resp", Class: "app", To: "resp.example.com", Reason: "r"},
		},
		Exemptions: []exitgate.Exemption{{ID: "read", Class: "app", To: "read.example.com", Until: until, Reason: "r"}},
	})
	dir := t.TempDir()
	write(t, dir, "rule.rego", "package exitgate\n\ndeny contains \"no 404\" if input.response.status == 404\n\nrewrite contains {\"header.Modifier\": {\"name\": \"a\", \"value\": \"b\"}} if input.http.path == \"/rewrite\"\n")
	is := mustEngine(t, Options{Dir: dir, Revisions: kept}, Data{
		Grants: []exitgate.Grant{
			{ID: "stays", Class: "app", To: "stays.example.com", Reason: "r"},
			{ID: "new", Class: "app", To: "new.example.com", Reason: "r"},
			{ID: "limit", Class: "app", To: "limit.example.com", MaxRequest: 2, Reason: "r"},
			{ID: "audit", Class: "app", To: "audit.example.com", Reason: "r"},
			{ID: "new-name", Class: "app", To: "rule.example.com", Reason: "r"},
			{ID: "resp", Class: "app", To: "resp.example.com", Reason: "r"},
			{ID: "read", Class: "app", To: "read.example.com", Reason: "r"},
		},
		Exemptions: []exitgate.Exemption{{ID: "splice", Class: "app", To: "splice.example.com", Until: until, Reason: "r"}},
	})
	var flows []*exitgate.Flow
	for i, s := range []string{
		"GET https://gone.example.com/a/b/c", "GET https://gone.example.com/a/b/d", "GET https://new.example.com/", "GET https://limit.example.com/", "GET https://audit.example.com/",
		"GET https://rule.example.com/", "GET https://splice.example.com/", "GET https://stays.example.com/", "GET https://stays.example.com/rewrite", "connect read.example.com:443", "GET https://resp.example.com/",
	} {
		q := ask(t, s)
		if q.HTTP != nil {
			q.TLS = &exitgate.TLS{SNI: q.Dest.Host}
		}
		if strings.Contains(s, "resp.") {
			q.Stage, q.Response = exitgate.StageResponse, &exitgate.Response{Status: 404}
		}
		flows = append(flows, recorded(t, was, q, day0.Add(time.Duration(i)*time.Second)))
	}
	own := recorded(t, was, ask(t, "GET https://x.example.com/"), day0)
	own.Verdict = exitgate.Verdict{Rule: exitgate.RuleMalformed}
	never := recorded(t, was, ask(t, "GET https://x.example.com/"), day0)
	never.Verdict = exitgate.Verdict{}
	var asked int64
	r := Replay{Base: was, Candidate: is, Proof: func(ctx context.Context, rev string) (*Engine, error) { return kept.Load(ctx, rev, Options{}) }, Workers: 3,
		Progress: func(int64) {}}
	d, err := r.Run(t.Context(), batches(flows[:4], flows[4:], []*exitgate.Flow{own, never}))
	if err != nil {
		t.Fatal(err)
	}
	asked = d.Asked
	want := map[Kind]int64{NewlyRefused: 3, NewlyAllowed: 1, NewLimits: 1, NewAudit: 1, NewRule: 1, NewlyUnread: 1, NewlyRead: 1, NewRewrite: 1}
	if !reflect.DeepEqual(d.Counts, want) || d.Same != 1 || asked != 11 || d.Flows != 13 || len(d.NotAsked) != 2 {
		t.Errorf("%v, want %v; same %d asked %d of %d, not asked %v", d.Counts, want, d.Same, asked, d.Flows, d.NotAsked)
	}
	if !d.Proof.Holds() || d.Proof.Agree != 11 {
		t.Errorf("%+v", d.Proof)
	}
	g := d.Groups[0]
	if g.Kind != NewlyRefused || g.Dest != "gone.example.com:443" || g.Path != "/a/b/..." || g.Count != 2 || g.Sent != 20 || len(g.Samples) != 2 ||
		g.Samples[0] != flows[1].ID || g.Before.Rule != "grant:gone" || g.After.Rule != "no-grant" || g.Class != "app" || g.Methods[0] != "GET" || !g.Last.After(g.First) {
		t.Errorf("%+v", g)
	}
	for _, g := range d.Groups {
		if g.Kind == NewlyRefused && g.Dest == "resp.example.com:443" && g.After.Rule != "deny:rule.rego:3" {
			t.Errorf("%+v", g)
		}
	}
}

// TestReplayProves finds a record that the policy cannot have made, and revisions that are gone.
func TestReplayProves(t *testing.T) {
	e := mustEngine(t, Options{}, Data{Grants: []exitgate.Grant{{ID: "g", Class: "app", To: "a.example.com", Reason: "r"}}})
	good := recorded(t, e, ask(t, "GET https://a.example.com/"), day0)
	forged := recorded(t, e, ask(t, "GET https://b.example.com/"), day0)
	forged.Verdict.Action, forged.Verdict.Rule = exitgate.Allow, "grant:g"
	lost := recorded(t, e, ask(t, "GET https://a.example.com/"), day0)
	lost.Verdict.Revision = "0123456789ab"
	panics := recorded(t, e, ask(t, "GET https://a.example.com/"), day0)
	panics.Question.HTTP, panics.Question.Stage = nil, exitgate.StageRequest
	r := Replay{Base: e, Candidate: e, Proof: func(_ context.Context, rev string) (*Engine, error) {
		if rev != e.Revision() {
			return nil, ErrNoRevision
		}
		return e, nil
	}}
	d, err := r.Run(t.Context(), batches([]*exitgate.Flow{good, forged, lost, panics}))
	if err != nil || d.Proof.Agree != 1 || d.Proof.Differ != 1 || d.Proof.Holds() || d.Proof.Missing["revision 0123456789ab: it is not kept"] != 1 || d.Changed != 0 {
		t.Errorf("%+v %v", d, err)
	}
	if c := d.Proof.Cases[0]; c.Flow != forged.ID || !strings.Contains(c.Why, "says refuse by no-grant, and what is recorded is allow by grant:g") {
		t.Errorf("%+v", c)
	}
}

// TestReplayEnds: an error of the flows, of a batch or of the context ends it, whatever is waiting.
func TestReplayEnds(t *testing.T) {
	e := mustEngine(t, Options{}, Data{})
	cause := errors.New("the store is away")
	for name, flows := range map[string]iter.Seq2[Batch, error]{
		"flows": func(yield func(Batch, error) bool) { yield(nil, cause) },
		"batch": func(yield func(Batch, error) bool) {
			for range 100 {
				if !yield(func() ([]*exitgate.Flow, error) { return nil, cause }, nil) {
					return
				}
			}
		},
	} {
		if _, err := (&Replay{Base: e, Candidate: e}).Run(t.Context(), flows); !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Replay{Base: e, Candidate: e}).Run(ctx, batches(nil, nil)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestReplayAgreesWithItself: whatever was asked, and however, asking it again under the revision it was recorded under
// gives what is recorded, and no difference from itself.
func TestReplayAgreesWithItself(t *testing.T) {
	for i, rule := range readers {
		u := universe{rand.New(rand.NewPCG(uint64(i), 11))}
		dir := t.TempDir()
		write(t, dir, "helper.rego", helper)
		write(t, dir, "rule.rego", "package exitgate\n\nimport data.exitgate_helper\n\nuses := exitgate_helper.path\n\n"+rule)
		e := mustEngine(t, Options{Dir: dir}, Data{Grants: u.grants(25), Exemptions: u.exemptions(4), AuditClasses: []exitgate.Class{"build"}})
		var flows []*exitgate.Flow
		for n := range 60 {
			flows = append(flows, recorded(t, e, u.question(), day0.Add(time.Duration(n)*time.Second)))
		}
		r := Replay{Base: e, Candidate: e, Proof: func(context.Context, string) (*Engine, error) { return e, nil }}
		d, err := r.Run(t.Context(), batches(flows))
		if err != nil || d.Changed != 0 || d.Proof.Differ != 0 {
			t.Errorf("%s: %+v %v", rule, d, err)
		}
	}
}

func TestCandidate(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	write(t, dir, "grants.yaml", "- {id: file, class: app, to: a.example.com, reason: r}\n")
	write(t, other, "grants.yaml", "- {id: other, class: app, to: a.example.com, reason: r}\n")
	e := mustEngine(t, Options{Dir: dir}, Data{Grants: []exitgate.Grant{{ID: "store", Class: "app", To: "b.example.com", Reason: "r"}}, AuditClasses: []exitgate.Class{"x"}})
	c, err := e.Candidate(t.Context(), other, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, g := range c.Grants() {
		ids = append(ids, g.ID)
	}
	if fmt.Sprint(ids) != "[other store]" || fmt.Sprint(c.current.Load().audit) != "[x]" {
		t.Error(ids, c.current.Load().audit)
	}
	same, err := e.Candidate(t.Context(), dir, Options{})
	if err != nil || same.Revision() != e.Revision() {
		t.Errorf("%s and %s are one policy (%v)", same.Revision(), e.Revision(), err)
	}
}

// BenchmarkReplay asks a day of traffic again: 20,000 flows of 1,000 kinds, with the proof.
func BenchmarkReplay(b *testing.B) {
	was := mustEngine(b, Options{Kept: 1 << 20}, Data{Grants: manyGrants(10_000)})
	is := mustEngine(b, Options{Kept: 1 << 20}, Data{Grants: manyGrants(9_000)})
	var flows []*exitgate.Flow
	for i := range 20_000 {
		q := benchQuestion(fmt.Sprintf("/v%d/users/%d/orders", i%4, i))
		q.Host.Class = exitgate.Class(fmt.Sprintf("class%d", i%20))
		q.Dest.Host = fmt.Sprintf("s%d.example.com", i%500)
		flows = append(flows, recorded(b, was, q, day0.Add(time.Duration(i)*time.Second)))
	}
	var all [][]*exitgate.Flow
	for i := 0; i < len(flows); i += 500 {
		all = append(all, flows[i:i+500])
	}
	r := Replay{Base: was, Candidate: is, Proof: func(context.Context, string) (*Engine, error) { return was, nil }}
	for b.Loop() {
		d, err := r.Run(b.Context(), batches(all...))
		if err != nil || d.Proof.Differ != 0 || d.Asked != int64(len(flows)) {
			b.Fatal(d, err)
		}
	}
	b.ReportMetric(float64(len(flows))*float64(b.N)/b.Elapsed().Seconds(), "flows/s")
}
