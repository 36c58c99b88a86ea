package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/exitgate/exitgate"
)

// A subject is whom a grant is for: one class, or one host.
type subject struct {
	kind string // kindClass or kindHost
	name string
}

const (
	kindClass = "class"
	kindHost  = "host"
)

func subjectOf(class exitgate.Class, host string) subject {
	if class != "" {
		return subject{kindClass, string(class)}
	}
	return subject{kindHost, host}
}

// An entry is one grant or exemption with what is worked out of it when it is loaded.
type entry struct {
	subject  subject
	key      string // the destination key under which it is found
	ports    []uint16
	patterns []pattern // of the paths, as sorted in the grant; nil: every path
	until    time.Time // never zero: the end of time
	grant    *exitgate.Grant
	exempt   *exitgate.Exemption // exactly one of grant and exempt is set
	term     *ast.Term           // what Rego reads of it; made with the table's object
}

func (e *entry) id() string {
	if e.grant != nil {
		return e.grant.ID
	}
	return e.exempt.ID
}

// A pattern is one path of a grant, taken apart.
type pattern struct {
	text     string
	segments []string
	end      string
	stars    int
}

// endOfTime is the end of a grant that has none.
var endOfTime = time.Date(lastYear, 12, 31, 23, 59, 59, 0, time.UTC)

// A table holds all grants and exemptions of a revision. It is not changed once it is built.
type table struct {
	grants     map[string]*entry // by id
	exemptions map[string]*entry // by id
	found      map[subject]map[string][]*entry
	bits4      []int // lengths of the IPv4 ranges in use, longest first; 32 is not among them
	bits6      []int // of the IPv6 ranges; 128 is not among them
}

// same returns the entry of a grant that is g to the last field; nil when t has none.
func (t *table) same(g *exitgate.Grant) *entry {
	if t == nil {
		return nil
	}
	if e := t.grants[g.ID]; e != nil && sameGrant(e.grant, g) {
		return e
	}
	return nil
}

// sameGrant reports whether nothing differs.
func sameGrant(a, b *exitgate.Grant) bool {
	return a.ID == b.ID && a.Class == b.Class && a.Host == b.Host && a.To == b.To && a.Scheme == b.Scheme && slices.Equal(a.Ports, b.Ports) &&
		slices.Equal(a.Methods, b.Methods) && slices.Equal(a.Paths, b.Paths) && maps.Equal(a.Headers, b.Headers) && a.MaxRequest == b.MaxRequest &&
		a.MaxResponse == b.MaxResponse && a.EncodedSlash == b.EncodedSlash && a.Lease == b.Lease && a.Audit == b.Audit && a.Reason == b.Reason && a.By == b.By &&
		a.At.Equal(b.At) && a.Until.Equal(b.Until) && a.Source == b.Source
}

// newTable indexes grants and exemptions, which have been checked. Two of one kind with one id are an error. Entries of
// last that have not changed are taken from there.
func newTable(grants []exitgate.Grant, exemptions []exitgate.Exemption, last *table) (*table, error) {
	t := &table{
		grants:     make(map[string]*entry, len(grants)),
		exemptions: make(map[string]*entry, len(exemptions)),
		found:      map[subject]map[string][]*entry{},
	}
	for i := range grants {
		e := last.same(&grants[i])
		if e == nil {
			g := grants[i] // a copy, lest one entry hold the list of its revision for as long as it lives
			e = grantEntry(&g)
		}
		if first := t.grants[e.grant.ID]; first != nil {
			return nil, fmt.Errorf("%s: grant %s: the id is taken by the grant of %s", source(e.grant.Source), e.grant.ID, source(first.grant.Source))
		}
		t.grants[e.grant.ID] = e
		t.add(e)
	}
	for i := range exemptions {
		e := exemptionEntry(&exemptions[i])
		if first := t.exemptions[e.exempt.ID]; first != nil {
			return nil, fmt.Errorf("%s: exemption %s: the id is taken by the exemption of %s", source(e.exempt.Source), e.exempt.ID, source(first.exempt.Source))
		}
		t.exemptions[e.exempt.ID] = e
		t.add(e)
	}
	slices.SortFunc(t.bits4, func(a, b int) int { return b - a })
	slices.SortFunc(t.bits6, func(a, b int) int { return b - a })
	return t, nil
}

func source(s string) string {
	if s == "" {
		return "the store"
	}
	return s
}

func (t *table) add(e *entry) {
	if t.found[e.subject] == nil {
		t.found[e.subject] = map[string][]*entry{}
	}
	t.found[e.subject][e.key] = append(t.found[e.subject][e.key], e)
	p, err := netip.ParsePrefix(e.key)
	if err != nil {
		return
	}
	bits := &t.bits6
	if p.Addr().Is4() {
		bits = &t.bits4
	}
	if !slices.Contains(*bits, p.Bits()) {
		*bits = append(*bits, p.Bits())
	}
}

func grantEntry(g *exitgate.Grant) *entry {
	e := &entry{subject: subjectOf(g.Class, g.Host), key: g.To, ports: grantPorts(g), until: endOf(g.Until), grant: g}
	for _, p := range g.Paths {
		segments, end := splitPattern(p)
		stars := 0
		for _, s := range segments {
			if s == "*" {
				stars++
			}
		}
		e.patterns = append(e.patterns, pattern{p, segments, end, stars})
	}
	return e
}

func exemptionEntry(x *exitgate.Exemption) *entry {
	e := &entry{subject: subjectOf(x.Class, x.Host), key: x.To, ports: x.Ports, until: endOf(x.Until), exempt: x}
	if len(e.ports) == 0 {
		e.ports = onlyHTTPS
	}
	return e
}

var (
	onlyHTTPS  = []uint16{443}
	onlyHTTP   = []uint16{80}
	bothHTTP   = []uint16{80, 443}
	onlyReads  = []string{"GET", "HEAD"}
	anyMethod  = []string{"*"}
	anyScheme  = []string{"http", "https"}
	schemeHTTP = []string{"http"}
	schemeTLS  = []string{"https"}
)

func grantPorts(g *exitgate.Grant) []uint16 {
	switch {
	case len(g.Ports) > 0:
		return g.Ports
	case g.Scheme == "http":
		return onlyHTTP
	case g.Scheme == "any":
		return bothHTTP
	}
	return onlyHTTPS
}

func grantSchemes(g *exitgate.Grant) []string {
	switch g.Scheme {
	case "http":
		return schemeHTTP
	case "any":
		return anyScheme
	}
	return schemeTLS
}

func grantMethods(g *exitgate.Grant) []string {
	if len(g.Methods) == 0 {
		return onlyReads
	}
	return g.Methods
}

func endOf(until time.Time) time.Time {
	if until.IsZero() {
		return endOfTime
	}
	return until
}

// keysOf returns the destination keys of a host: itself and "*.parent" of each parent, or for an address itself
// and each range in use that holds it, from the most specific to the least.
func (t *table) keysOf(host string) []string {
	d := exitgate.Destination{Host: host}
	a, isIP := d.IP()
	if !isIP {
		return nameKeys(host)
	}
	a = a.Unmap().WithZone("")
	keys, bits := []string{a.String()}, t.bits6
	if a.Is4() {
		bits = t.bits4
	}
	for _, n := range bits {
		if p, err := a.Prefix(n); err == nil {
			keys = append(keys, p.String())
		}
	}
	return keys
}

func nameKeys(host string) []string {
	keys := make([]string, 1, 1+strings.Count(host, "."))
	keys[0] = host
	for rest := host; ; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return keys
		}
		keys = append(keys, "*."+parent)
		rest = parent
	}
}

// candidates returns the entries for the subject at any of the keys, in the order of the keys.
func (t *table) candidates(s subject, keys []string) (out []*entry) {
	byKey := t.found[s]
	if byKey == nil {
		return nil
	}
	for _, k := range keys {
		out = append(out, byKey[k]...)
	}
	return out
}
