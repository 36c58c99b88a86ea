package storage

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// The action of an audit entry is the kind of the document and one of these.
const (
	ActionPut    = ".put"
	ActionRemove = ".remove"
)

// An Entry is one line of the audit trail.
type Entry struct {
	Seq    int64           `json:"seq"` // the number of the change; rises in the order in which changes became visible
	At     time.Time       `json:"at"`  // UTC, microseconds
	Who    string          `json:"who"`
	Action string          `json:"action"` // grant.put, host.remove
	Object string          `json:"object"` // the id of the document
	Reason string          `json:"reason"`
	Value  json.RawMessage `json:"value"` // the document as it was put, or as it was before it was removed
}

// Kind returns the kind of the document that was changed.
func (e Entry) Kind() string {
	kind, _, _ := strings.Cut(e.Action, ".")
	return kind
}

// An AuditFilter says which entries are wanted. Each field that is not zero narrows it.
type AuditFilter struct {
	Kind   string // of the document
	Object string // id of the document
	Who    string
	After  int64 // only entries with a greater Seq
	Before int64 // only entries with a lesser Seq
	Limit  int   // at most so many; 0: DefaultLimit, never more than MaxLimit
}

// An Auditor lists who changed what. Entries are added by Ledger.Apply and by nothing else; no call changes or removes
// one, and the database refuses to.
type Auditor interface {
	// Audit returns the entries that match, newest first: a full page goes on with Before set to the Seq of its last.
	Audit(ctx context.Context, f AuditFilter) ([]Entry, error)
}

// Where returns f as the conditions of an SQL statement, without WHERE, and their arguments. The placeholder of argument
// n (from 1) is what mark returns. A kind that cannot be is an error.
func (f AuditFilter) Where(mark func(n int) string) (string, []any, error) {
	if f.Kind != "" {
		if err := CheckKind(f.Kind); err != nil {
			return "", nil, err
		}
	}
	var all []string
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return mark(len(args))
	}
	before := f.Before
	if before <= 0 {
		before = math.MaxInt64
	}
	all = append(all, `"seq" > `+arg(f.After), `"seq" < `+arg(before))
	if f.Kind != "" {
		all = append(all, `"action" IN (`+arg(f.Kind+ActionPut)+`, `+arg(f.Kind+ActionRemove)+`)`)
	}
	if f.Object != "" {
		all = append(all, `"object" = `+arg(Printable(f.Object, maxShort)))
	}
	if f.Who != "" {
		all = append(all, `"who" = `+arg(Printable(f.Who, maxShort)))
	}
	return strings.Join(all, " AND "), args, nil
}

// Most returns how many entries are wanted at most.
func (f AuditFilter) Most() int {
	if f.Limit <= 0 {
		return DefaultLimit
	}
	return min(f.Limit, MaxLimit)
}
