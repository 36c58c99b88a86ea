package storage

import (
	"strings"
	"time"

	"github.com/exitgate/exitgate"
)

// A Filter selects flows: those for which every term holds.
type Filter struct {
	// Limit is how many flows at most; 0 means DefaultLimit, and more than MaxLimit means MaxLimit.
	Limit int
	// Before, if not zero, wants only flows with a lower id: the id of the last flow of one page gets the next.
	Before exitgate.ID
	// Where are the conditions; none: every flow.
	Where []Term
}

// The bounds of Filter.Limit.
const (
	DefaultLimit = 100
	MaxLimit     = 10_000
)

// N returns the limit in force.
func (f Filter) N() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}

// An Op is how a term compares.
type Op uint8

// The operators.
const (
	Equal    Op = iota // the column equals Text
	Suffix             // the column ends in Text; for "*.example.com" Text is ".example.com"
	Contains           // the column contains Text, whatever the case of ASCII letters
	Range              // Lo <= column <= Hi
	From               // column >= Time
	To                 // column < Time
)

// A Term is one condition on one column. The columns that can be asked for are those that [ParseQuery] makes terms
// of, and Word, which stands for url or dest_host.
type Term struct {
	Not    bool
	Column string
	Op     Op
	Text   string    // for Equal, Suffix, Contains
	Lo, Hi int64     // for Range
	Time   time.Time // for From and To; compared in microseconds
}

// Word is the column of a bare word: the URL, or the destination's host where no URL was read.
const Word = "word"

// Match reports whether every term holds for flow. It gives what the databases give for the same terms. Limit and
// Before do not matter to it.
func (f Filter) Match(flow *exitgate.Flow) bool {
	for i := range f.Where {
		if f.Where[i].match(flow) == f.Where[i].Not {
			return false
		}
	}
	return true
}

func (t *Term) match(f *exitgate.Flow) bool {
	switch t.Op {
	case Range:
		v := int64(f.Status)
		return t.Column == "status" && t.Lo <= v && v <= t.Hi
	case From:
		return t.Column == "begin" && !micro(f.Begin).Before(micro(t.Time))
	case To:
		return t.Column == "begin" && micro(f.Begin).Before(micro(t.Time))
	}
	if t.Column == Word {
		return t.matchText(textOf(f, "url"), maxURL) || t.matchText(textOf(f, "dest_host"), maxShort)
	}
	return t.matchText(textOf(f, t.Column), lengthOf(t.Column))
}

func (t *Term) matchText(v string, limit int) bool {
	v = Printable(v, limit)
	switch want := t.text(); t.Op {
	case Suffix:
		return strings.HasSuffix(v, want)
	case Contains:
		return strings.Contains(lower(v), lower(want))
	default:
		return v == want
	}
}

// text is what the column is compared with: written as the column writes it.
func (t *Term) text() string { return Printable(t.Text, lengthOf(t.Column)) }

func lengthOf(column string) int {
	if column == "url" || column == Word {
		return maxURL
	}
	return maxShort
}

// textOf returns the text of a column that can be asked for, as it came.
func textOf(f *exitgate.Flow, column string) string {
	switch column {
	case "id":
		return f.ID.String()
	case "conn":
		return f.Conn.String()
	case "host":
		return f.Question.Host.Name
	case "class":
		return string(f.Question.Host.Class)
	case "dest_host":
		return f.Question.Dest.Host
	case "outcome":
		return string(f.Outcome())
	case "rule":
		return f.Verdict.Rule
	case "kind":
		return string(f.Kind)
	case "way":
		return string(f.Question.Way)
	case "revision":
		return f.Verdict.Revision
	case "method", "url":
		return requestText(f.Question.HTTP, column)
	}
	return ""
}

func requestText(r *exitgate.Request, column string) string {
	switch {
	case r == nil:
		return ""
	case column == "method":
		return r.Method
	}
	return r.URL
}

// lower folds the ASCII letters of s, as both databases do.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// A Dialect is how a database writes what terms need. Bind returns the placeholder of the n-th argument, from 1.
// Suffix and Contains return a condition on a column (quoted) and a placeholder; the argument of Contains is in
// lower case. Time returns the argument that a time column is compared with.
type Dialect struct {
	Bind     func(n int) string
	Suffix   func(column, bind string) string
	Contains func(column, bind string) string
	Time     func(time.Time) any
}

// SQL returns the condition of f (terms and Before, not the limit) and its arguments. Values are always arguments,
// never part of the text; an unknown column holds for no row, as in Match.
func (f Filter) SQL(d Dialect) (where string, args []any) {
	var conds []string
	bind := func(v any) string {
		args = append(args, v)
		return d.Bind(len(args))
	}
	for i := range f.Where {
		cond := f.Where[i].sql(d, bind)
		if f.Where[i].Not {
			cond = "NOT " + cond
		}
		conds = append(conds, cond)
	}
	if !f.Before.IsZero() {
		conds = append(conds, `("id" < `+bind(f.Before.String())+")")
	}
	if len(conds) == 0 {
		return "TRUE", nil
	}
	return strings.Join(conds, " AND "), args
}

func (t *Term) sql(d Dialect, bind func(any) string) string {
	quoted := `"` + t.Column + `"`
	switch t.Op {
	case Range:
		if t.Column != "status" {
			return "(FALSE)"
		}
		return "(" + quoted + " >= " + bind(t.Lo) + " AND " + quoted + " <= " + bind(t.Hi) + ")"
	case From, To:
		if t.Column != "begin" {
			return "(FALSE)"
		}
		return "(" + quoted + map[Op]string{From: " >= ", To: " < "}[t.Op] + bind(d.Time(micro(t.Time))) + ")"
	}
	if t.Column == Word {
		return "(" + t.sqlText(d, `"url"`, bind) + " OR " + t.sqlText(d, `"dest_host"`, bind) + ")"
	}
	if !searchable(t.Column) {
		return "(FALSE)"
	}
	return "(" + t.sqlText(d, quoted, bind) + ")"
}

func (t *Term) sqlText(d Dialect, quoted string, bind func(any) string) string {
	switch t.Op {
	case Suffix:
		return d.Suffix(quoted, bind(t.text()))
	case Contains:
		return d.Contains(quoted, bind(lower(t.text())))
	}
	cond := quoted + " = " + bind(t.text())
	if t.Column == "outcome" && t.Text != string(exitgate.OutcomeAllowed) {
		cond += ` AND "outcome" <> 'allowed'` // says it in the words of the partial index
	}
	return cond
}

// searchable guards the one place where a term's column becomes part of a statement.
func searchable(column string) bool {
	switch column {
	case "id", "conn", "host", "class", "dest_host", "outcome", "rule", "kind", "way", "revision", "method", "url":
		return true
	}
	return false
}
