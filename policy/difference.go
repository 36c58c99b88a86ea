package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// A Difference is what a candidate would change of what was recorded.
type Difference struct {
	Base      string           `json:"base"` // revisions
	Candidate string           `json:"candidate"`
	Flows     int64            `json:"flows"`     // that were looked at
	Asked     int64            `json:"asked"`     // of which a policy has a say in
	NotAsked  map[string]int64 `json:"not_asked"` // the others, by why
	Same      int64            `json:"same"`
	Changed   int64            `json:"changed"`
	Counts    map[Kind]int64   `json:"counts"`
	Groups    []Group          `json:"groups"` // the largest first
	More      int64            `json:"more"`   // changed flows of groups that were left out
	Proof     Proof            `json:"proof"`
	Took      time.Duration    `json:"took"` // nanoseconds

	groups map[groupKey]*Group
}

// A Kind says how a flow would change.
type Kind string

// The kinds of change, the gravest first.
const (
	NewlyRefused Kind = "refused" // it was carried, and would be refused
	NewlyAllowed Kind = "allowed" // it was refused, and would be carried
	NewlyUnread  Kind = "unread"  // it was read, and would be carried unread
	NewlyRead    Kind = "read"    // it was carried unread, and would be read
	NewLimits    Kind = "limits"  // it would be carried within other limits
	NewRewrite   Kind = "rewrite" // it would be changed in another way on its way out
	NewAudit     Kind = "audit"   // it would begin, or cease, to be carried in audit mode alone
	NewRule      Kind = "rule"    // the same by another rule or grant
)

var kinds = []Kind{NewlyRefused, NewlyAllowed, NewlyUnread, NewlyRead, NewLimits, NewRewrite, NewAudit, NewRule}

// A Group is flows that would change in one way.
type Group struct {
	Kind   Kind           `json:"kind"`
	Class  exitgate.Class `json:"class"`
	Dest   string         `json:"dest"` // host:port
	Path   string         `json:"path"` // its first two segments; "" without HTTP
	Before Side           `json:"before"`
	After  Side           `json:"after"`

	Count   int64         `json:"count"`
	Sent    int64         `json:"sent"` // bytes that left with them
	Methods []string      `json:"methods"`
	First   time.Time     `json:"first"`
	Last    time.Time     `json:"last"`
	Samples []exitgate.ID `json:"samples"` // flows, the newest first
}

// A Side is what one of the two policies says.
type Side struct {
	Action exitgate.Action `json:"action"`
	Rule   string          `json:"rule"`
	Reason string          `json:"reason,omitempty"` // of one of the flows
	Limits exitgate.Limits `json:"limits"`
	Audit  bool            `json:"audit"`
}

type groupKey struct {
	kind                 Kind
	class                exitgate.Class
	dest, path           string
	before, after        string
	limitsWas, limitsAre exitgate.Limits
}

// Bounds of a difference: what is beyond is counted, and not listed.
const (
	maxGroups  = 10_000
	maxSamples = 5
	maxCases   = 20
)

// A Proof says whether the replay can be believed: each flow was asked under the revision that it was recorded under, and
// should be answered as it was.
type Proof struct {
	Agree   int64            `json:"agree"`
	Differ  int64            `json:"differ"`
	Missing map[string]int64 `json:"missing"` // flows whose revision cannot be asked, by why
	Cases   []Case           `json:"cases"`   // some that differ
}

// A Case is a flow that is answered otherwise than it was.
type Case struct {
	Flow exitgate.ID `json:"flow"`
	Why  string      `json:"why"`
}

func newDifference() *Difference {
	return &Difference{NotAsked: map[string]int64{}, Counts: map[Kind]int64{}, Groups: []Group{}, groups: map[groupKey]*Group{}, Proof: Proof{Missing: map[string]int64{}, Cases: []Case{}}}
}

func (d *Difference) skip(why string) { d.NotAsked[why]++ }

// kindOf says how two answers differ; "" when they do not.
func kindOf(before, after exitgate.Verdict) Kind {
	was, is := before.Action, after.Action
	switch {
	case was != exitgate.Refuse && is == exitgate.Refuse:
		return NewlyRefused
	case was == exitgate.Refuse && is != exitgate.Refuse:
		return NewlyAllowed
	case was == exitgate.Allow && is == exitgate.Splice:
		return NewlyUnread
	case was == exitgate.Splice && is == exitgate.Allow:
		return NewlyRead
	case before.Limits != after.Limits:
		return NewLimits
	case !bytes.Equal(before.Rewrite, after.Rewrite):
		return NewRewrite
	case before.Audit != after.Audit:
		return NewAudit
	case sameRule(before.Rule) != sameRule(after.Rule):
		return NewRule
	}
	return ""
}

// sameRule is a rule without its line, which moves when something else in its file changes.
func sameRule(rule string) string {
	if strings.HasPrefix(rule, "deny:") {
		return rule[:max(strings.LastIndexByte(rule, ':'), len("deny"))]
	}
	return rule
}

func (d *Difference) note(f *exitgate.Flow, before, after exitgate.Verdict) {
	kind := kindOf(before, after)
	if kind == "" {
		d.Same++
		return
	}
	d.Changed++
	d.Counts[kind]++
	q := &f.Question
	key := groupKey{kind, q.Host.Class, q.Dest.String(), pathPrefix(q.HTTP), before.Rule, after.Rule, before.Limits, after.Limits}
	g := d.groups[key]
	if g == nil {
		if len(d.groups) == maxGroups {
			d.More++
			return
		}
		g = &Group{Kind: kind, Class: key.class, Dest: key.dest, Path: key.path, Before: sideOf(before), After: sideOf(after), First: f.Begin, Last: f.Begin}
		d.groups[key] = g
	}
	g.add(f)
}

func sideOf(v exitgate.Verdict) Side { return Side{v.Action, v.Rule, v.Reason, v.Limits, v.Audit} }

// pathPrefix is what flows are grouped by: the first two segments of the path.
func pathPrefix(r *exitgate.Request) string {
	if r == nil {
		return ""
	}
	segments := strings.SplitN(r.Path, "/", 4)
	if len(segments) < 4 {
		return visible(r.Path, 200)
	}
	return visible(strings.Join(segments[:3], "/"), 200) + "/..."
}

func (g *Group) add(f *exitgate.Flow) {
	g.Count++
	g.Sent += f.Sent.Header + f.Sent.Body
	if h := f.Question.HTTP; h != nil {
		g.Methods = addSorted(g.Methods, visible(h.Method, 20), maxMethods)
	}
	g.seen(f.Begin, f.Begin)
	g.sample(f.ID)
}

func (g *Group) seen(first, last time.Time) {
	if first.Before(g.First) {
		g.First = first
	}
	if last.After(g.Last) {
		g.Last = last
	}
}

// sample keeps the newest.
func (g *Group) sample(ids ...exitgate.ID) {
	for _, id := range ids {
		i, ok := slices.BinarySearchFunc(g.Samples, id, func(have, id exitgate.ID) int { return bytes.Compare(id[:], have[:]) })
		if !ok && i < maxSamples {
			g.Samples = slices.Insert(g.Samples, i, id)
			g.Samples = g.Samples[:min(len(g.Samples), maxSamples)]
		}
	}
}

func addSorted(list []string, s string, most int) []string {
	i, ok := slices.BinarySearch(list, s)
	if ok || len(list) >= most {
		return list
	}
	return slices.Insert(list, i, s)
}

func (d *Difference) merge(o *Difference) {
	d.Flows, d.Asked, d.Same, d.Changed, d.More = d.Flows+o.Flows, d.Asked+o.Asked, d.Same+o.Same, d.Changed+o.Changed, d.More+o.More
	for k, n := range o.NotAsked {
		d.NotAsked[k] += n
	}
	for k, n := range o.Counts {
		d.Counts[k] += n
	}
	for k, g := range o.groups {
		have := d.groups[k]
		if have == nil {
			d.groups[k] = g
			continue
		}
		have.Count, have.Sent = have.Count+g.Count, have.Sent+g.Sent
		for _, m := range g.Methods {
			have.Methods = addSorted(have.Methods, m, maxMethods)
		}
		have.seen(g.First, g.Last)
		have.sample(g.Samples...)
	}
	d.Proof.merge(o.Proof)
}

func (d *Difference) finish() {
	for _, g := range d.groups {
		if g.Methods == nil {
			g.Methods = []string{}
		}
		d.Groups = append(d.Groups, *g)
	}
	slices.SortFunc(d.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.Class, b.Class), cmp.Compare(a.Dest, b.Dest), cmp.Compare(a.Path, b.Path), cmp.Compare(a.After.Rule, b.After.Rule))
	})
}

func (p *Proof) missing(revision string, err error) {
	p.Missing[fmt.Sprintf("revision %s: %v", visible(revision, 20), err)]++
}

func (p *Proof) differ(f *exitgate.Flow, v exitgate.Verdict) {
	if p.Differ++; len(p.Cases) < maxCases {
		p.Cases = append(p.Cases, Case{f.ID, fmt.Sprintf("revision %s says %s by %s, and what is recorded is %s by %s", visible(f.Verdict.Revision, 20), v.Action, v.Rule, f.Verdict.Action, f.Verdict.Rule)})
	}
}

func (p *Proof) merge(o Proof) {
	p.Agree, p.Differ = p.Agree+o.Agree, p.Differ+o.Differ
	for k, n := range o.Missing {
		p.Missing[k] += n
	}
	p.Cases = append(p.Cases, o.Cases...)
	p.Cases = p.Cases[:min(len(p.Cases), maxCases)]
}

// Holds reports whether nothing was found that speaks against the replay.
func (p *Proof) Holds() bool { return p.Differ == 0 && len(p.Missing) == 0 }

// Reasons returns why flows were not asked, in order.
func (d *Difference) Reasons() []string { return slices.Sorted(maps.Keys(d.NotAsked)) }
