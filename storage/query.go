package storage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/exitgate/exitgate"
)

// A QueryError says where a query cannot be read, and what to write instead.
type QueryError struct {
	Column int // of the first wrong character, in characters, from 1
	Reason string
}

func (e *QueryError) Error() string { return fmt.Sprintf("query, column %d: %s", e.Column, e.Reason) }

// The bounds of a query. More is a mistake or an attack.
const (
	maxQuery = 8 << 10 // bytes
	maxTerms = 100
)

// ParseQuery reads a query. Terms stand side by side and must all hold. A term is field:value, or a bare word,
// which is looked for in the URL and in the destination's host. A "-" before a term negates it. A value with spaces
// stands in double quotes, in which \" and \\ mean " and \.
//
//	host:web-01 class:build          the source, exactly
//	dst:example.com dst:*.example.com  the destination: itself, or everything below it
//	method:GET status:403 status:4xx
//	outcome:refused                  open, allowed, refused, fault, interrupted; verdict: is the same
//	rule:no-grant rev:9f2c           what decided, and the policy's revision
//	kind:tunnel way:proxy
//	id:... conn:...                  one flow; every flow of one connection
//	url:/a/b                         part of the URL, whatever its case
//	since:-2h until:2026-01-02T15:04:05Z
func ParseQuery(query string) (Filter, error) { return ParseQueryAt(query, time.Now()) }

// ParseQueryAt is ParseQuery for a given now, which since: and until: count from.
func ParseQueryAt(query string, now time.Time) (Filter, error) {
	if len(query) > maxQuery {
		return Filter{}, &QueryError{1, fmt.Sprintf("it has %d bytes, more than %d", len(query), maxQuery)}
	}
	p := parser{rest: []rune(query), now: now}
	var f Filter
	for p.skipSpace(); len(p.rest) > 0; p.skipSpace() {
		if len(f.Where) == maxTerms {
			return Filter{}, p.errorf("more than %d terms", maxTerms)
		}
		term, err := p.term()
		if err != nil {
			return Filter{}, err
		}
		f.Where = append(f.Where, term)
	}
	return f, nil
}

type parser struct {
	rest []rune
	at   int // runes read
	now  time.Time
}

func (p *parser) errorf(format string, args ...any) error {
	return &QueryError{p.at + 1, fmt.Sprintf(format, args...)}
}

func (p *parser) advance(n int) { p.at += n; p.rest = p.rest[n:] }

func (p *parser) skipSpace() {
	for len(p.rest) > 0 && unicode.IsSpace(p.rest[0]) {
		p.advance(1)
	}
}

func (p *parser) term() (Term, error) {
	not := p.rest[0] == '-'
	if not {
		p.advance(1)
		if len(p.rest) == 0 || unicode.IsSpace(p.rest[0]) {
			return Term{}, p.errorf("a term must follow the - directly")
		}
	}
	start := *p
	name, ok := p.field()
	if !ok {
		*p = start
		word, err := p.value()
		return Term{Not: not, Column: Word, Op: Contains, Text: word}, err
	}
	fd, known := fieldNamed(name)
	if !known {
		*p = start
		hint := suggest(name, fieldNames())
		if hint == "" {
			hint = "; the fields are " + strings.Join(fieldNames(), ", ")
		}
		return Term{}, p.errorf("there is no field %q%s; a word with a colon in it stands in double quotes", name, hint)
	}
	here := *p
	value, err := p.value()
	if err != nil {
		return Term{}, err
	}
	term, reason := fd.parse(fd.column, value, p.now)
	if reason != "" {
		return Term{}, here.errorf("%s: %s", name, reason)
	}
	term.Not = not
	return term, nil
}

// field reads letters and a colon.
func (p *parser) field() (string, bool) {
	for i, r := range p.rest {
		if r == ':' && i > 0 {
			name := string(p.rest[:i])
			p.advance(i + 1)
			return name, true
		}
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' {
			break
		}
	}
	return "", false
}

func (p *parser) value() (string, error) {
	if len(p.rest) > 0 && p.rest[0] == '"' {
		return p.quoted()
	}
	n := slices.IndexFunc(p.rest, unicode.IsSpace)
	if n < 0 {
		n = len(p.rest)
	}
	if n == 0 {
		return "", p.errorf(`a value must follow the colon directly; "" is the empty one`)
	}
	if i := slices.Index(p.rest[:n], '"'); i >= 0 {
		p.advance(i)
		return "", p.errorf(`a double quote inside a value; put the whole value in quotes and write \"`)
	}
	v := string(p.rest[:n])
	p.advance(n)
	return v, nil
}

func (p *parser) quoted() (string, error) {
	open := *p
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch r := p.rest[i]; {
		case r == '"':
			p.advance(i + 1)
			if len(p.rest) > 0 && !unicode.IsSpace(p.rest[0]) {
				return "", p.errorf("a space must follow the closing quote")
			}
			return b.String(), nil
		case r == '\\' && i+1 < len(p.rest) && (p.rest[i+1] == '"' || p.rest[i+1] == '\\'):
			i++
			b.WriteRune(p.rest[i])
		default:
			b.WriteRune(r)
		}
	}
	return "", open.errorf("this quote is not closed")
}

// A field is a name that a query can use. parse returns a reason when the value is not one.
type field struct {
	names  []string
	column string
	parse  func(column, value string, now time.Time) (Term, string)
}

func fields() []field {
	return []field{
		{[]string{"host"}, "host", exactly},
		{[]string{"class"}, "class", exactly},
		{[]string{"dst"}, "dest_host", destination},
		{[]string{"method"}, "method", inCapitals},
		{[]string{"status"}, "status", statusRange},
		{[]string{"outcome", "verdict"}, "outcome", oneOf(outcomes()...)},
		{[]string{"rule"}, "rule", exactly},
		{[]string{"rev"}, "revision", exactly},
		{[]string{"kind"}, "kind", oneOf("request", "tunnel", "connection", "dns")},
		{[]string{"way"}, "way", oneOf("proxy", "tls-proxy", "transparent", "dns")},
		{[]string{"id"}, "id", anID},
		{[]string{"conn"}, "conn", anID},
		{[]string{"url"}, "url", part},
		{[]string{"since"}, "begin", instant(From)},
		{[]string{"until"}, "begin", instant(To)},
	}
}

func outcomes() []string {
	return []string{string(exitgate.OutcomeOpen), string(exitgate.OutcomeAllowed), string(exitgate.OutcomeRefused),
		string(exitgate.OutcomeFault), string(exitgate.OutcomeInterrupted)}
}

func fieldNamed(name string) (field, bool) {
	for _, f := range fields() {
		if slices.Contains(f.names, strings.ToLower(name)) {
			return f, true
		}
	}
	return field{}, false
}

func fieldNames() (names []string) {
	for _, f := range fields() {
		names = append(names, f.names...)
	}
	return names
}

func exactly(column, v string, _ time.Time) (Term, string) {
	return Term{Column: column, Text: v}, ""
}

func part(column, v string, _ time.Time) (Term, string) {
	return Term{Column: column, Op: Contains, Text: v}, ""
}

func inCapitals(column, v string, _ time.Time) (Term, string) {
	return Term{Column: column, Text: strings.ToUpper(v)}, ""
}

func destination(column, v string, _ time.Time) (Term, string) {
	v = strings.TrimSuffix(strings.ToLower(v), ".")
	if suffix, ok := strings.CutPrefix(v, "*"); ok && strings.HasPrefix(suffix, ".") && !strings.Contains(suffix, "*") {
		return Term{Column: column, Op: Suffix, Text: suffix}, ""
	}
	if strings.Contains(v, "*") {
		return Term{}, fmt.Sprintf("%q: a star stands only at the start and before a dot, as in *.example.com", v)
	}
	return Term{Column: column, Text: v}, ""
}

func statusRange(column, v string, _ time.Time) (Term, string) {
	if len(v) == 3 && '1' <= v[0] && v[0] <= '5' && strings.EqualFold(v[1:], "xx") {
		lo := int64(v[0]-'0') * 100
		return Term{Column: column, Op: Range, Lo: lo, Hi: lo + 99}, ""
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n > 999 {
		return Term{}, fmt.Sprintf("%q is neither a status, as 403, nor a class of them, as 4xx", v)
	}
	return Term{Column: column, Op: Range, Lo: int64(n), Hi: int64(n)}, ""
}

func oneOf(values ...string) func(string, string, time.Time) (Term, string) {
	return func(column, v string, _ time.Time) (Term, string) {
		v = strings.ToLower(v)
		if !slices.Contains(values, v) {
			return Term{}, fmt.Sprintf("%q is not one of %s%s", v, strings.Join(values, ", "), suggest(v, values))
		}
		return Term{Column: column, Text: v}, ""
	}
}

func anID(column, v string, _ time.Time) (Term, string) {
	id, err := exitgate.ParseID(v)
	if err != nil {
		return Term{}, err.Error()
	}
	return Term{Column: column, Text: id.String()}, ""
}

func instant(op Op) func(string, string, time.Time) (Term, string) {
	return func(column, v string, now time.Time) (Term, string) {
		if d, err := time.ParseDuration(v); err == nil && d <= 0 {
			return Term{Column: column, Op: op, Time: now.Add(d).UTC()}, ""
		}
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return Term{}, fmt.Sprintf("%q is neither a time before now, as -2h or -90m, nor one as 2026-01-02T15:04:05Z", v)
		}
		return Term{Column: column, Op: op, Time: t.UTC()}, ""
	}
}

// suggest returns " (did you mean X?)" for the nearest of names, if one is near.
func suggest(name string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if d := edits(strings.ToLower(name), n); d < distance && d < len(n) {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// edits is the number of letters to change, add, drop or swap with their neighbour (optimal string alignment).
func edits(a, b string) int {
	if len(a) > 32 {
		return len(a)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
