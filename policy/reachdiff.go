package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A ReachChange is one grant or exemption that covers more under one policy than all of the other together.
type ReachChange struct {
	Access Access `json:"access"`
	// What says what is more: "GET https://api.example.com:443 below /v2", "until 2027-01-01, was 2026-01-01".
	What []string `json:"what"`
}

// A ReachDifference is how what a class can get at differs between two policies.
type ReachDifference struct {
	Base      string        `json:"base"` // revisions
	Candidate string        `json:"candidate"`
	Widened   []ReachChange `json:"widened"`
	Narrowed  []ReachChange `json:"narrowed"`
	// Rules are those of the policy directories that only one of them has. What they change is seen by asking traffic.
	RulesAdded   []ReachRule `json:"rules_added"`
	RulesRemoved []ReachRule `json:"rules_removed"`
	AuditWas     bool        `json:"audit_was"`
	AuditIs      bool        `json:"audit_is"`
}

// Compare says what other has that r has not, and the reverse.
func (r Reach) Compare(other Reach) ReachDifference {
	return ReachDifference{
		Base: r.Revision, Candidate: other.Revision, AuditWas: r.Audit, AuditIs: other.Audit,
		Widened: beyond(other.Access, r.Access), Narrowed: beyond(r.Access, other.Access),
		RulesAdded: rulesBeyond(other.Rules, r.Rules), RulesRemoved: rulesBeyond(r.Rules, other.Rules),
	}
}

// Changed reports whether anything differs.
func (d ReachDifference) Changed() bool {
	return len(d.Widened)+len(d.Narrowed)+len(d.RulesAdded)+len(d.RulesRemoved) > 0 || d.AuditWas != d.AuditIs
}

func rulesBeyond(these, those []ReachRule) []ReachRule {
	out := []ReachRule{}
	for _, r := range these {
		if !slices.ContainsFunc(those, func(o ReachRule) bool { return o.Set == r.Set && o.Text == r.Text }) {
			out = append(out, r)
		}
	}
	return out
}

// An atom is the smallest part of an entry: one port, scheme, method and path.
type atom struct {
	port           uint16
	scheme, method string
	path           *pattern // nil: every path
}

// beyond lists what is in these and not in those.
func beyond(these, those []Access) []ReachChange {
	out := []ReachChange{}
	for _, a := range these {
		if what := a.beyond(those); len(what) > 0 {
			out = append(out, ReachChange{a, what})
		}
	}
	return out
}

func (a Access) atoms() (out []atom) {
	if a.Kind == "exemption" {
		for _, port := range a.Ports {
			out = append(out, atom{port: port})
		}
		return out
	}
	paths := []*pattern{nil}
	if len(a.entry.patterns) > 0 {
		paths = nil
		for i := range a.entry.patterns {
			paths = append(paths, &a.entry.patterns[i])
		}
	}
	for _, port := range a.Ports {
		for _, scheme := range a.Schemes {
			for _, method := range a.Methods {
				for _, path := range paths {
					out = append(out, atom{port, scheme, method, path})
				}
			}
		}
	}
	return out
}

// beyond says what of a none of those covers; else by how much its bounds are wider than those of the entries that cover
// it.
func (a Access) beyond(those []Access) (what []string) {
	var bounds []string
	for _, t := range a.atoms() {
		var covering []Access
		for _, o := range those {
			if o.covers(a) && slices.ContainsFunc(o.atoms(), func(have atom) bool { return have.covers(t) }) {
				covering = append(covering, o)
			}
		}
		if len(covering) == 0 {
			what = append(what, a.describe(t))
			continue
		}
		bounds = append(bounds, a.boundsBeyond(covering)...)
	}
	slices.Sort(bounds)
	return append(what, slices.Compact(bounds)...)
}

func (a Access) describe(t atom) string {
	if a.Kind == "exemption" {
		return fmt.Sprintf("unread: %s:%d", a.To, t.port)
	}
	method, path := t.method, "any path"
	if method == "*" {
		method = "any method"
	}
	if t.path != nil {
		path = pathList([]pattern{*t.path})
	}
	s := fmt.Sprintf("%s %s://%s:%d %s", method, t.scheme, a.To, t.port, path)
	for _, name := range slices.Sorted(maps.Keys(a.Headers)) {
		s += fmt.Sprintf(", with header %s like %s", name, a.Headers[name])
	}
	if a.EncodedSlash {
		s += ", %2F included"
	}
	return s
}

// covers says of all but port, scheme, method, path and bounds that o takes what a takes.
func (o Access) covers(a Access) bool {
	if o.Kind != a.Kind || !destinationCovers(o.To, a.To) || a.EncodedSlash && !o.EncodedSlash || a.Raw && !o.Raw {
		return false
	}
	for name, glob := range o.Headers {
		if a.Headers[name] != glob && (glob != "*" || a.Headers[name] == "") {
			return false
		}
	}
	return true
}

func destinationCovers(wide, narrow string) bool {
	if wide == narrow {
		return true
	}
	if parent, ok := strings.CutPrefix(wide, "*."); ok {
		return strings.HasSuffix(narrow, "."+parent) && !strings.HasPrefix(narrow, "*."+parent+".")
	}
	w, err := netip.ParsePrefix(wide)
	if err != nil {
		return false
	}
	if n, err := netip.ParsePrefix(narrow); err == nil {
		return w.Bits() <= n.Bits() && w.Contains(n.Addr())
	}
	n, err := netip.ParseAddr(narrow)
	return err == nil && w.Contains(n)
}

func (t atom) covers(o atom) bool {
	return t.port == o.port && t.scheme == o.scheme && (t.method == o.method || t.method == "*") &&
		(t.path == nil || o.path != nil && t.path.covers(o.path))
}

// covers reports whether p takes every path that o takes.
func (p *pattern) covers(o *pattern) bool {
	if len(p.segments) > len(o.segments) {
		return false
	}
	for i, s := range p.segments {
		if s != o.segments[i] && (s != "*" || o.segments[i] == "") {
			return false
		}
	}
	longer := len(o.segments) > len(p.segments)
	switch p.end {
	case endBelow:
		return longer || o.end == endBelow
	case endExact:
		return !longer && o.end == endExact
	}
	return true
}

// boundsBeyond says which bounds of a are wider than those of each entry that covers it.
func (a Access) boundsBeyond(covering []Access) (out []string) {
	widest := covering[0]
	for _, o := range covering[1:] {
		widest.MaxRequest, widest.MaxResponse = wider(widest.MaxRequest, o.MaxRequest), wider(widest.MaxResponse, o.MaxResponse)
		widest.MaxBytes, widest.Audit = wider(widest.MaxBytes, o.MaxBytes), widest.Audit && o.Audit
		if later(o.Until, widest.Until) {
			widest.Until = o.Until
		}
	}
	if later(a.Until, widest.Until) {
		out = append(out, "until "+dateText(a.Until)+", was "+dateText(widest.Until))
	}
	for _, b := range []struct {
		name    string
		is, was int64
	}{{"max_request", a.MaxRequest, widest.MaxRequest}, {"max_response", a.MaxResponse, widest.MaxResponse}, {"max_bytes", a.MaxBytes, widest.MaxBytes}} {
		if wider(b.is, b.was) != b.was {
			out = append(out, fmt.Sprintf("%s %s, was %s", b.name, bytesOrDefault(b.is), bytesOrDefault(b.was)))
		}
	}
	if !a.Audit && widest.Audit {
		out = append(out, "enforced, was in audit mode")
	}
	return out
}

// wider is the wider of two bounds in bytes. The gateway's default (0) is taken to be the wider, as it is not known here.
func wider(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

func later(a, b time.Time) bool { return !b.IsZero() && (a.IsZero() || a.After(b)) }

func dateText(t time.Time) string {
	if t.IsZero() {
		return "without end"
	}
	return t.Format("2006-01-02 15:04")
}

func bytesOrDefault(n int64) string {
	return cmp.Or(map[bool]string{true: "the default"}[n == 0], strconv.FormatInt(n, 10))
}
