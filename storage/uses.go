package storage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// A Use says how often something was used, and when last: a grant, a host, a token. It need not be a document: what
// stands in files is used as well.
type Use struct {
	Kind, ID string    // as of a Document
	Last     time.Time // UTC, microseconds
	Count    int64     // never negative
}

// Uses remembers what was used. It is apart from the ledger because it changes all the time, decides nothing by itself
// and is nobody's decision, so that it has no place in the audit trail.
type Uses interface {
	// Used adds to what is known: the later Last and the sum of the Counts, from several gateways at once. Several
	// uses of one thing in a call are added up. All are added or, after an error, none, or perhaps all: to repeat the
	// call may then count twice, and that is all it does.
	Used(ctx context.Context, uses []Use) error
	// Uses returns what is known of a kind, by id.
	Uses(ctx context.Context, kind string) (map[string]Use, error)
}

// MergeUses checks uses and returns each thing once, in the order of kind and id: stores lock rows in that order, so that
// two gateways never wait for each other.
func MergeUses(uses []Use) ([]Use, error) {
	all := slices.Clone(uses)
	slices.SortStableFunc(all, func(a, b Use) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	out := all[:0]
	for _, u := range all {
		if err := CheckName(u.Kind, u.ID); err != nil {
			return nil, fmt.Errorf("use of %s %q: %w", Printable(u.Kind, 64), Printable(u.ID, 64), err)
		}
		if u.Count < 0 {
			return nil, fmt.Errorf("use of %s %q: its count is %d", u.Kind, u.ID, u.Count)
		}
		u.Last = micro(u.Last)
		if n := len(out); n > 0 && out[n-1].Kind == u.Kind && out[n-1].ID == u.ID {
			out[n-1].Last, out[n-1].Count = later(out[n-1].Last, u.Last), out[n-1].Count+u.Count
			continue
		}
		out = append(out, u)
	}
	return out, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
