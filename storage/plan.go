package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// A Plan is a call of Ledger.Apply that was checked: what the stores do alike.
type Plan struct {
	Edits  []Edit // their values are compact
	change Change
}

// NewPlan checks a call of Apply. The texts of the change become [Printable].
func NewPlan(c Change, edits []Edit) (*Plan, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if len(edits) == 0 || len(edits) > MaxEdits {
		return nil, fmt.Errorf("the change has %d edits: at least 1 and at most %d are made at once", len(edits), MaxEdits)
	}
	p := &Plan{Edits: make([]Edit, len(edits)), change: c}
	if c.At.IsZero() {
		p.change.At = time.Now()
	}
	p.change.At = micro(p.change.At)
	p.change.Who, p.change.Reason = Printable(c.Who, maxShort), Printable(c.Reason, maxURL)
	type name struct{ kind, id string }
	seen := make(map[name]bool, len(edits))
	for i, e := range edits {
		err := e.Check()
		if err == nil && seen[name{e.Kind, e.ID}] {
			err = errors.New("the change names it twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", Printable(e.Kind, 64), Printable(e.ID, 64), err)
		}
		seen[name{e.Kind, e.ID}] = true
		e.Value = compact(e.Value)
		p.Edits[i] = e
	}
	return p, nil
}

// compact returns valid JSON without white space, and nil for nil.
func compact(value json.RawMessage) json.RawMessage {
	if value == nil {
		return nil
	}
	var b bytes.Buffer
	json.Compact(&b, value) // it was checked
	return b.Bytes()
}

// Entry returns the audit entry that edit i writes under number seq when there is the document that the edit names; its
// Version is 0 when there is none. The error is what Apply returns.
func (p *Plan) Entry(i int, seq int64, there Document) (Entry, error) {
	e := p.Edits[i]
	if err := e.holds(there.Version); err != nil {
		return Entry{}, fmt.Errorf("%s %q: %w", e.Kind, e.ID, err)
	}
	entry := Entry{Seq: seq, At: p.change.At, Who: p.change.Who, Action: e.Kind + ActionPut, Object: e.ID,
		Reason: p.change.Reason, Value: e.Value}
	if e.Value == nil {
		entry.Action, entry.Value = e.Kind+ActionRemove, there.Value
	}
	return entry, nil
}

// holds compares what e expects with the version that there is; 0 is none.
func (e Edit) holds(version int64) error {
	switch {
	case e.If == 0 && e.Value == nil && version == 0:
		return ErrNotFound
	case e.If == 0 || e.If == version || e.If == MustNotExist && version == 0:
		return nil
	case e.If == MustNotExist:
		return fmt.Errorf("there is one already, of version %d: %w", version, ErrConflict)
	case version == 0:
		return fmt.Errorf("there is none, and version %d was expected: %w", e.If, ErrConflict)
	}
	return fmt.Errorf("it has version %d, and version %d was expected: %w", version, e.If, ErrConflict)
}
